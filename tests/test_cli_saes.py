"""What the commands take an SAE for: its name, its seed, the device that it is loaded to."""

import pytest

from sae_lens_contrastive import unlearning
from sae_lens_contrastive.cli import main
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import write_json


@pytest.fixture
def eval_command(tmp_path, monkeypatch):
    """`eval` of given SAEs, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(
        "{model: tiny-random-gemma-2, forget_domain: countries, forget_questions: [world_facts/countries], "
        "retain_questions: [world_facts/plurals], forget_corpora: [world_facts/countries], "
        "retain_corpora: [world_facts/general]}"
    )
    return lambda *saes: main(["eval", "spec.yaml", *saes, "--out", "out"])


@pytest.fixture
def evaluated(eval_command, monkeypatch):
    """What `eval` would evaluate."""
    found = {}

    def take(_spec, saes, *_others, **_how):
        found.update(saes)
        raise UserError("Enough is known.")

    def evaluate(*saes):
        assert eval_command(*saes) == 2
        return found

    monkeypatch.setattr(unlearning, "evaluate_saes", take)
    return evaluate


def test_an_sae_of_a_run_has_the_seed_that_it_was_trained_with(evaluated):
    write_json("runs/contrastive/summary.json", {"variant": "contrastive", "seed": 3, "l0": 9.0})
    (sae,) = evaluated("--sae", "runs/contrastive/sae").values()
    assert (sae.variant, sae.seed) == ("contrastive", 3)


@pytest.mark.parametrize("summary", [None, {"seed": "one"}, [], {"total": 5}])
def test_an_sae_beside_which_no_run_of_ours_is_has_seed_0(evaluated, summary):
    if summary is not None:
        write_json("theirs/summary.json", summary)
    (sae,) = evaluated("--sae", "theirs/sae").values()
    assert (sae.variant, sae.seed) == ("theirs", 0)


def test_saes_of_two_releases_are_two_variants_even_under_one_id(evaluated):
    saes = evaluated("--release", "one", "--sae-id", "a/b", "--release", "me/two", "--sae-id", "a/b")
    assert {name: sae.variant for name, sae in saes.items()} == {"one_a_b": "one_a_b", "me_two_a_b": "me_two_a_b"}
    assert [(sae.release, sae.sae_id) for sae in saes.values()] == [("one", "a/b"), ("me/two", "a/b")]


def test_an_sae_whose_path_cannot_be_used_leaves_no_folder(eval_command, tmp_path, capsys):
    name = "x" * 300
    assert eval_command("--sae", name) == 2
    assert f"{name}/cfg.json: File name too long. Give a path that can be used." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


@pytest.mark.parametrize("place", [["--sae", "gone"], ["--release", "gone", "--sae-id", "x"]])
@pytest.mark.parametrize("command", [["generate", "--prompt", "Hello"], ["dashboard", "--features", "1", "--out", "d"]])
@pytest.mark.parametrize(
    ("device", "said"),
    [("gpu", "Unknown device 'gpu'. "), ("cuda:99", "Device 'cuda:99' is not available on this machine. Use ")],
)
def test_a_device_that_is_not_there_is_no_fault_of_the_sae(command, place, device, said, capsys):
    assert main([*command, *place, "--device", device]) == 2
    assert capsys.readouterr().err.startswith(f"sae-lens-contrastive: {said}")
