"""The RMU peer on the tiny model: what it is asked to do, and that the model is left as it was."""

import json
import sys
from pathlib import Path

import pytest
import torch

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import residual_at_hook
from sae_lens_contrastive.unlearning.corpus import packed_contexts

LAYER = 5
ROOT = Path(__file__).parents[2]
FILES = ["--target", ROOT / "configs/targets/tiny.yaml", "--spec", ROOT / "evals/world_facts_tiny.yaml"]


@pytest.fixture(scope="module")
def rmu():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "evals/peers"))
        import rmu

        yield rmu
    del sys.modules["rmu"], sys.modules["rmu_training"]


@pytest.fixture
def sides(tiny):
    texts = {"forget": "The capital of France is Paris. ", "retain": "the young of a cow, 17 + 4, a red bus; "}
    return {side: packed_contexts(tiny.tokenizer, [text * 20], 32, 320) for side, text in texts.items()}


def residual(model, contexts):
    return residual_at_hook(model, f"blocks.{LAYER}.hook_resid_post", torch.tensor(contexts.tokens))[:, 1:]


def test_forget_text_is_steered_retain_text_is_held_and_the_model_is_left_alone(rmu, tiny, sides):
    before = {name: weight.detach().clone() for name, weight in tiny.named_parameters()}
    own = {side: residual(tiny, contexts) for side, contexts in sides.items()}
    trainer = rmu.RmuTrainer(tiny, LAYER, [sides["forget"]], [sides["retain"]])
    options = rmu.Rmu(steering=2.0, retain_weight=20.0, lr=3e-3, n_steps=60, n_sequences=4)
    edit = trainer.train(options, seed=0)
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.named_parameters())
    assert not any(weight.requires_grad for weight in tiny.parameters())
    learned = {name for name, weight in edit.weights.items() if not torch.equal(weight, before[name])}
    assert sorted(int(name.split(".")[2]) for name in learned) == [LAYER - 2, LAYER - 1, LAYER]
    assert all("down_proj" in name for name in edit.weights)
    with edit.in_place(tiny):
        moved = {side: residual(tiny, contexts) for side, contexts in sides.items()}
    direction = torch.nn.functional.normalize(torch.rand(32, generator=torch.Generator().manual_seed(0)), dim=0)
    target = 2 * own["forget"].norm(dim=-1).mean() * direction
    distance = {when: (x["forget"] - target).square().mean() for when, x in (("before", own), ("after", moved))}
    assert distance["after"] < 0.9 * distance["before"]
    changed = {side: (moved[side] - own[side]).square().mean() for side in own}
    assert changed["retain"] < 0.5 * changed["forget"]


def test_the_seed_decides(rmu, tiny, sides):
    trainer = rmu.RmuTrainer(tiny, LAYER, [sides["forget"]], [sides["retain"]])
    options = rmu.Rmu(steering=2.0, retain_weight=20.0, lr=3e-3, n_steps=2, n_sequences=4)
    first, again, other = (trainer.train(options, seed=seed).weights for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_sources_of_text_take_turns_whatever_their_size(rmu, tiny, monkeypatch):
    numbers = [" ".join(map(str, range(first, first + 1000))) for first in (0, 10_000)]
    sources = [packed_contexts(tiny.tokenizer, [text], 32, 32 * n) for text, n in zip(numbers, (3, 30), strict=True)]
    trainer = rmu.RmuTrainer(tiny, LAYER, sources[:1], sources)
    options = rmu.Rmu(steering=2.0, retain_weight=20.0, lr=3e-3, n_steps=15, n_sequences=2)
    seen: list[list[int]] = []
    residual = type(trainer)._residual

    def watched(self, tokens, below):
        seen.extend(tokens.tolist())
        return residual(self, tokens, below)

    monkeypatch.setattr(type(trainer), "_residual", watched)
    trainer.train(options, seed=0)
    counted = [sum(row in contexts.tokens for row in seen) for contexts in sources]
    # Two sequences a step of either side: the forget side has the small source alone.
    assert counted == [30 + 15, 15]
    assert len({tuple(row) for row in seen if row in sources[1].tokens}) == 15


def test_a_model_whose_mlps_are_named_otherwise_is_refused(rmu, tiny, sides, monkeypatch):
    monkeypatch.setattr(tiny, "named_parameters", lambda: [("transformer.h.5.mlp.c_proj.weight", None)])
    with pytest.raises(UserError, match=r"no weight called layers\.5 \.\.\. mlp \.\.\. down_proj"):
        rmu.RmuTrainer(tiny, LAYER, [sides["forget"]], [sides["retain"]])


def test_a_step_cannot_take_more_sequences_than_there_are(rmu, tiny, sides):
    trainer = rmu.RmuTrainer(tiny, LAYER, [sides["forget"]], [sides["retain"]])
    options = rmu.Rmu(steering=2.0, retain_weight=20.0, lr=3e-3, n_steps=1, n_sequences=99)
    with pytest.raises(UserError, match=r"n_sequences is 99; the shorter side has \d+ sequences"):
        trainer.check(options)


def made_grid(folder, **changed):
    grid = {"steering": [2], "retain_weight": [50], "lr": [1e-3], "n_steps": [1], "n_sequences": [4]}
    file = folder / "grid.yaml"
    file.write_text(json.dumps({"grids": [{**grid, **changed}]}))
    return file


def test_every_combination_of_each_grid_is_tried(rmu, tmp_path):
    values = {"retain_weight": [50, 100], "lr": [1e-3], "n_steps": [160, 320], "n_sequences": [4]}
    grids = [{"steering": [2], **values}, {"steering": [10], **values, "n_steps": [8]}]
    file = tmp_path / "grid.yaml"
    file.write_text(json.dumps({"grids": grids}))
    tried = rmu.read_grids(file)
    assert {(each.steering, each.retain_weight, each.n_steps) for each in tried} == {
        *((2, weight, steps) for weight in (50, 100) for steps in (160, 320)),
        *((10, weight, 8) for weight in (50, 100)),
    }
    assert len(tried) == 6


@pytest.mark.parametrize(
    ("changed", "seeds", "said"),
    [
        ({"n_steps": [0]}, ["0"], r"grid\.yaml, grids: n_steps: Input should be greater than 0, got 0"),
        ({"steering": [2, -1]}, ["0"], r"steering: Input should be greater than 0, got -1"),
        ({"retain_weight": ["nan"]}, ["0"], "retain_weight.0: Input should be a finite number"),
        ({"lr": []}, ["0"], "grids.0.lr: List should have at least 1 item"),
        ({"sequences": [4]}, ["0"], "Did you mean 'n_sequences'"),
        ({}, ["0", "0"], "would count twice"),
    ],
)
def test_figures_that_make_no_training_are_refused(rmu, tmp_path, monkeypatch, changed, seeds, said):
    given = [*FILES, "--grid", made_grid(tmp_path, **changed), "--out", tmp_path / "out", "--seeds", *seeds]
    monkeypatch.setattr(sys, "argv", ["rmu", *map(str, given)])
    with pytest.raises(UserError, match=said):
        rmu.main()
    assert not (tmp_path / "out").exists()


def test_seeds_that_are_done_are_kept(rmu, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    given = [*FILES, "--grid", made_grid(tmp_path), "--out", out, "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", ["rmu", *map(str, given)])
    rmu.main()
    first = out / "seed0/results.json"
    written = first.stat().st_mtime_ns
    # As a process leaves them that is killed between the results and the end.
    left = out / "seed0/candidates"
    left.mkdir()
    (left / "0.safetensors").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", [*sys.argv, "1"])
    rmu.main()
    assert first.stat().st_mtime_ns == written
    assert not left.exists()
    rows = json.loads((out / "results.json").read_text())
    assert [(row["variant"], row["seed"]) for row in rows] == [
        ("rmu", 0),
        ("rmu-ungated", 0),
        ("rmu", 1),
        ("rmu-ungated", 1),
    ]
    assert rows[:2] == json.loads(first.read_text())
    assert {row["retain_gate"] for row in rows if row["variant"] == "rmu-ungated"} == {0}
    assert "rmu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "made", "differing"),
    [
        ("rmu.corpus_digest", lambda _source: "other", "corpora_sha256"),
        ("rmu.RunConfig.left_out_entities", lambda _run: ["other"], "left_out_sha256"),
        ("rmu.package_versions", dict, "versions"),
    ],
)
def test_what_was_made_of_other_data_is_not_gone_on_with(rmu, tmp_path, monkeypatch, target, made, differing):
    given = [*FILES, "--grid", made_grid(tmp_path), "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["rmu", *map(str, given)])

    def stop(*_args, **_kwargs):
        raise RuntimeError("stopped")

    monkeypatch.setattr(rmu, "load_model", stop)
    with pytest.raises(RuntimeError, match="stopped"):
        rmu.main()
    monkeypatch.setattr(target, made)
    with pytest.raises(UserError, match=rf"out holds another run \(config\.{differing}"):
        rmu.main()


def test_a_seed_that_is_stopped_goes_on_with_the_weights_it_has(rmu, tmp_path, monkeypatch):
    grid = made_grid(tmp_path, retain_weight=[50, 100])
    trained: list[float] = []
    train = rmu.RmuTrainer.train

    def run(out, stop_at=None):
        def watched(self, options, seed):
            trained.append(options.retain_weight)
            if options.retain_weight == stop_at:
                raise KeyboardInterrupt
            return train(self, options, seed)

        monkeypatch.setattr(rmu.RmuTrainer, "train", watched)
        given = [*FILES, "--grid", grid, "--out", out]
        monkeypatch.setattr(sys, "argv", ["rmu", *map(str, given)])
        rmu.main()
        rows = json.loads((out / "results.json").read_text())
        return [{k: v for k, v in row.items() if k not in ("seconds", "train_seconds")} for row in rows]

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop_at=100)
    resumed = run(tmp_path / "stopped")
    assert trained == [50, 100, 100]
    assert resumed == run(tmp_path / "whole")
    assert not list((tmp_path / "stopped").rglob("candidate*"))


def test_a_seed_that_is_stopped_between_its_evaluations_keeps_the_first(rmu, tmp_path, monkeypatch):
    given = [*FILES, "--grid", made_grid(tmp_path), "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["rmu", *map(str, given)])
    evaluate, evaluated = rmu.evaluate_weights, []

    def watched(name, *args, **kwargs):
        evaluated.append(name)
        if evaluated == ["rmu", "rmu-ungated"]:
            raise KeyboardInterrupt
        return evaluate(name, *args, **kwargs)

    monkeypatch.setattr(rmu, "evaluate_weights", watched)
    with pytest.raises(KeyboardInterrupt):
        rmu.main()
    first = json.loads((tmp_path / "out/seed0/rmu.json").read_text())
    rmu.main()
    assert evaluated == ["rmu", "rmu-ungated", "rmu-ungated"]
    rows = json.loads((tmp_path / "out/results.json").read_text())
    assert rows[0] | first == rows[0]
    assert rows[0]["train_seconds"] is not None
    assert rows[1]["retain_gate"] == 0


def test_a_damaged_result_is_refused_before_anything_is_trained(rmu, tmp_path, monkeypatch):
    given = [*FILES, "--grid", made_grid(tmp_path), "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["rmu", *map(str, given)])
    rmu.main()
    (tmp_path / "out/seed0/results.json").unlink()
    damaged = tmp_path / "out/seed0/rmu-ungated.json"
    damaged.write_text('{"name": "rmu-ungated"}')
    monkeypatch.setattr(rmu, "RmuTrainer", lambda *_args: pytest.fail("training began"))
    with pytest.raises(UserError, match=r"rmu-ungated\.json"):
        rmu.main()
