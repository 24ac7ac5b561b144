import json
from dataclasses import replace

import pytest
import torch
from made_records import native_record
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import Clamp, edit_residual
from sae_lens_contrastive.models import residual_at_hook
from sae_lens_contrastive.unlearning import SaeUnderTest, evaluate_saes
from sae_lens_contrastive.unlearning import evaluate as evaluate_module
from sae_lens_contrastive.unlearning.ensemble import Ensemble

HOOK = "blocks.19.hook_resid_post"


@pytest.fixture
def save(tmp_path):
    def save_sae(sae, name):
        sae.save_model(tmp_path / name)
        return tmp_path / name

    return save_sae


def random_sae(seed, d_sae=6, d_in=4, sae_class=TopKSAE, hook_name=HOOK):
    torch.manual_seed(seed)
    if sae_class is TopKSAE:
        sae = TopKSAE(TopKSAEConfig(d_in=d_in, d_sae=d_sae, k=3, rescale_acts_by_decoder_norm=True))
    else:
        sae = StandardSAE(StandardSAEConfig(d_in=d_in, d_sae=d_sae))
    sae.cfg.metadata.hook_name = hook_name
    with torch.no_grad():
        for weight in sae.parameters():
            weight.copy_(torch.randn_like(weight))
    return sae


def evaluate(spec, tiny, **subjects):
    results = evaluate_saes(spec, {k: SaeUnderTest(variant="v", **v) for k, v in subjects.items()}, None, model=tiny)
    return results if len(results) > 1 else results[0]


def comparable(result):
    return result.model_dump(exclude={"name", "seconds", "provenance", "members"})


def test_dictionaries_follow_one_another_and_share_the_edit():
    first, second = random_sae(0), random_sae(1, d_sae=5, sae_class=StandardSAE)
    ensemble = Ensemble(["a", "b"], [first, second])
    x = torch.randn(7, 4)
    assert ensemble.cfg.d_sae == 11
    torch.testing.assert_close(ensemble.encode(x), torch.cat([first.encode(x), second.encode(x)], dim=1))
    # A rescaling SAE decodes with unit rows.
    unit = first.W_dec[2] / first.W_dec[2].norm()
    torch.testing.assert_close(ensemble.W_dec[2], unit / 2)
    torch.testing.assert_close(ensemble.W_dec[6 + 3], second.W_dec[3] / 2)
    assert ensemble.by_member([8, 0, 5, 6]) == [[0, 5], [2, 0]]


def test_identical_members_edit_as_one_of_them():
    sae = random_sae(0)
    residual = torch.randn(2, 5, 4)
    everywhere = torch.ones(2, 5, dtype=torch.bool)
    alone = edit_residual(sae, residual, [1, 4], Clamp(20.0), everywhere)
    three = Ensemble(["a", "b", "c"], [sae, sae, sae])
    together = edit_residual(three, residual, [1, 4, 7, 10, 13, 16], Clamp(20.0), everywhere)
    assert not torch.equal(alone, residual)
    torch.testing.assert_close(together, alone)


def test_an_ensemble_of_one_is_that_sae(tiny, spec, planted, save):
    folder = save(planted, "one")
    alone, ensemble = evaluate(spec, tiny, alone={"path": folder}, ensemble={"members": (folder,)})
    assert alone.unlearning_score > 0
    assert comparable(ensemble) == comparable(alone)
    assert alone.members == []
    assert [(m.path, m.features) for m in ensemble.members] == [(str(folder), alone.features)]


def test_an_ensemble_of_two_identical_saes_forgets_as_one(tiny, make_spec, planted, save):
    folders = (save(planted, "a"), save(planted, "b"))
    alone = evaluate(make_spec(n_features=[1]), tiny, alone={"path": folders[0]})
    both = evaluate(make_spec(n_features=[2]), tiny, both={"members": folders})
    assert alone.unlearning_score > 0
    assert sorted(both.features) == [0, 8]
    assert [m.features for m in both.members] == [[0], [0]]
    assert both.held_out == alone.held_out
    accuracies = [
        [(s.intervention_options, s.forget_accuracy, s.retain_accuracy) for s in r.frontier] for r in (alone, both)
    ]
    assert accuracies[0] == accuracies[1]


def test_members_that_each_catch_half_forget_more_together(tiny, make_spec, files, planted, save, forget_questions):
    # Half of the forget questions begin with another stem; a second SAE detects that one, by the same decoder row.
    second = "X"
    kept = _known_under(tiny, forget_questions, second)
    halves = [*forget_questions, *kept]
    (files / "forget.jsonl").write_text("\n".join(json.dumps(native_record(question)) for question in halves))
    documents = [{"id": q.id, "domain": q.domain, "entities": [q.entity], "text": f"{q.stems[0]}.."} for q in halves]
    (files / "forget_corpus.jsonl").write_text("\n".join(json.dumps(document) for document in documents))
    other = _detector_of(tiny, planted, second)
    folders = (save(planted, "first"), save(other, "second"))
    spec = make_spec(
        selectors={"firing_rate": {"retain_threshold": 0.01}},
        n_features=[1, 2],
        interventions={"clamp": {"multiplier": 800.0}},
    )
    one, two, both = evaluate(spec, tiny, one={"path": folders[0]}, two={"path": folders[1]}, both={"members": folders})
    assert [m.features for m in both.members] == [[0], [0]]
    assert 0 < one.unlearning_score < both.unlearning_score
    assert 0 < two.unlearning_score < both.unlearning_score


def _known_under(model, questions, stem):
    """The questions put with another stem, their answer the option that the model then finds likeliest."""
    tokens = torch.tensor([[model.tokenizer.bos_token_id, *encode_text(model.tokenizer, stem)]])
    with torch.no_grad():
        logits = model(tokens)[0, -1]
    known = []
    for q in questions:
        best_first = sorted(q.options, key=lambda option: -logits[encode_text(model.tokenizer, option)[0]])
        changes = {"id": f"{q.id}/{stem}", "entity": f"{q.entity}{stem}", "stems": (stem,)}
        known.append(replace(q, **changes, options=tuple(best_first), answer_index=0))
    return known


def _detector_of(model, planted, stem):
    """The planted SAE with its feature 0 firing on another stem."""
    tokenizer = model.tokenizer
    texts = ("Q", "Z", stem, ".", "Q..", "Z..", f"{stem}..")
    rows = torch.cat(
        [
            residual_at_hook(model, HOOK, torch.tensor([[tokenizer.bos_token_id, *encode_text(tokenizer, t)]]))[0, 1:]
            for t in texts
        ]
    )
    sae = StandardSAE(planted.cfg)
    sae.load_state_dict(planted.state_dict())
    for target, detector in ((2, sae), (0, planted)):
        is_stem = torch.isclose(rows, rows[target], atol=1e-4).all(dim=1).float()
        with torch.no_grad():
            detector.W_enc[:, 0] = torch.linalg.lstsq(rows, is_stem[:, None], driver="gelsd").solution[:, 0]
            detector.W_enc[:, 1] = 0
    return sae


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hook_name": "blocks.3.hook_resid_post"},
            "second .*hook_name 'blocks.3.hook_resid_post', .*first .*'blocks.19",
        ),
        ({"d_in": 5}, "second .*has d_in 5, .*first .*has 4"),
        ({"normalize": "layer_norm"}, "second .*normalize_activations 'layer_norm'"),
        ({"nan": True}, "second: W_dec has values that are not finite"),
        ({"gone": True}, "no cfg.json in .*second"),
    ],
)
def test_a_member_that_does_not_fit_is_named(spec, save, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(evaluate_module, "load_model", None)
    normalize, nan, gone = (changes.pop(key, None) for key in ("normalize", "nan", "gone"))
    second = random_sae(1, **changes)
    if normalize:
        second.cfg.normalize_activations = normalize
    if nan:
        with torch.no_grad():
            second.W_dec[0, 0] = float("nan")
    folders = (save(random_sae(0), "first"), tmp_path / "second" if gone else save(second, "second"))
    with pytest.raises(UserError, match=message):
        evaluate_saes(spec, {"both": SaeUnderTest(variant="v", members=folders)}, None)


def test_every_member_counts_in_the_digest(tiny, spec, planted, save):
    folders = (save(planted, "a"), save(planted, "b"))
    first = evaluate(spec, tiny, both={"members": folders})
    with torch.no_grad():
        planted.W_dec[5, 0] += 1
    save(planted, "b")
    second = evaluate(spec, tiny, both={"members": folders})
    assert first.provenance.sae_sha256 != second.provenance.sae_sha256


def test_a_subject_is_an_sae_or_an_ensemble(tmp_path):
    with pytest.raises(ValueError, match="either path, or release and sae_id, or members"):
        SaeUnderTest(variant="v", path=tmp_path, members=(tmp_path,))


@pytest.fixture
def spec_file(spec, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(spec.model_dump(mode="json")))
    return str(path)


def test_the_command_takes_ensembles(tiny, spec_file, planted, save, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_module, "load_model", lambda *_args, **_kwargs: tiny)
    a, b = str(save(planted, "a")), str(save(planted, "b"))
    out = tmp_path / "out"
    assert main(["eval", spec_file, "--sae", a, "--ensemble", "pair", a, b, "--out", str(out)]) == 0
    assert "pair" in capsys.readouterr().out
    rows = json.loads((out / "results.json").read_text())
    assert [(row["name"], [m["path"] for m in row["members"]]) for row in rows] == [("a", []), ("pair", [a, b])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ensemble", "pair"], "--ensemble pair names no SAE. Give a name and then the folders"),
        (["--sae", "a", "--ensemble", "a", "a", "a"], "Two of the SAEs have the same name"),
        (["--ensemble", "pair", "a", "gone"], "no cfg.json in gone"),
        ([], "--ensemble NAME DIR DIR"),
    ],
)
def test_the_command_refuses_what_is_no_ensemble(spec_file, tmp_path, save, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate_module, "load_model", None)
    save(random_sae(0), "a")
    assert main(["eval", spec_file, *arguments, "--out", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
