"""Dashboards of features: what they say is what the SAE does on the text."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.dashboard import export_dashboards, read_text
from sae_lens_contrastive.dashboard.adapters import vocabulary_texts
from sae_lens_contrastive.data.corpora import load_corpus
from sae_lens_contrastive.data.sources import corpus_file
from sae_lens_contrastive.errors import UserError

HOOK = "blocks.19.hook_resid_post"
FEATURES = [5, 3, 40]
NEVER_FIRES = 40
SHAPE = {"d_in": 32, "d_sae": 64}
SAES = {
    "topk": lambda: TopKSAE(TopKSAEConfig(**SHAPE, k=8)),
    "topk rescaled": lambda: TopKSAE(TopKSAEConfig(**SHAPE, k=8, rescale_acts_by_decoder_norm=True)),
    "standard": lambda: StandardSAE(StandardSAEConfig(**SHAPE, apply_b_dec_to_input=False)),
    "jumprelu": lambda: JumpReLUSAE(JumpReLUSAEConfig(**SHAPE, apply_b_dec_to_input=True)),
}
TEXTS = {"forget": ["world_facts/countries"], "general": ["world_facts/general"]}


def random_sae(kind="topk"):
    generator = torch.Generator().manual_seed(0)
    sae = SAES[kind]()
    with torch.no_grad():
        for name, weight in sae.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator).abs() if name == "threshold" else weight)
            if name.startswith("W_"):
                weight.copy_(torch.randn(weight.shape, generator=generator))
        sae.b_enc[NEVER_FIRES] = -1e6
    sae.cfg.metadata.hook_name = HOOK
    return sae


@pytest.fixture(scope="module")
def text(tiny):
    return read_text(tiny, HOOK, TEXTS, max_tokens=3000)


@pytest.fixture(scope="module")
def direct(tiny, text):
    """Activations as SAELens computes them from the model's own cache; 0 where nothing counts."""

    def acts(sae):
        _, cache = tiny.run_with_cache(text.tokens, names_filter=[HOOK])
        with torch.no_grad():
            found = sae.encode(cache[HOOK])
        special = torch.isin(text.tokens, torch.tensor(tiny.tokenizer.all_special_ids))
        found[special] = 0
        found[:, 0] = 0
        return found

    return acts


def test_the_text_is_packed_in_equal_parts_and_begins_with_bos(tiny, text):
    assert text.n_contexts_of == {"forget": 11, "general": 11}
    assert text.tokens.shape == (22, 128)
    assert set(text.tokens[:, 0].tolist()) == {tiny.tokenizer.bos_token_id}
    first = tiny.tokenizer.decode(text.tokens[0, 1:]).split("<bos>")[0]
    assert len(first) > 20
    assert any(document.text.startswith(first) for document in load_corpus(corpus_file("world_facts/countries")))


@pytest.mark.parametrize("kind", SAES)
def test_neuronpedia_gets_the_activations_of_the_sae(kind, tiny, text, direct, tmp_path):
    sae = random_sae(kind)
    export_dashboards(tiny, sae, FEATURES, text, tmp_path, name="mine")
    batch = json.loads((tmp_path / "neuronpedia/batch-0.json").read_text())
    assert (batch["model_id"], batch["layer"], batch["sae_set"]) == ("tiny-random-gemma-2", 19, "mine")
    assert [feature["feature_index"] for feature in batch["features"]] == FEATURES
    acts = direct(sae)
    # SAEDashboard leaves the first token of a context out.
    texts = vocabulary_texts(tiny.tokenizer, tiny.cfg.d_vocab)
    row_of = {tuple(texts[token] for token in row[1:].tolist()): place for place, row in enumerate(text.tokens)}
    for feature in batch["features"]:
        own = acts[:, :, feature["feature_index"]]
        assert feature["frac_nonzero"] == pytest.approx(float((own > 0).float().mean()), abs=1e-5)
        for shown in feature["activations"]:
            place = row_of[tuple(shown["tokens"])]
            assert shown["values"] == pytest.approx(own[place, 1:].tolist(), abs=6e-4)
        highest = max(max(shown["values"]) for shown in feature["activations"])
        assert highest == pytest.approx(float(own.max()), abs=6e-4)
        assert (highest > 0) == (feature["feature_index"] != NEVER_FIRES)


def test_a_page_for_each_feature_and_an_index_of_them(tiny, text, direct, tmp_path, read_page):
    sae = random_sae()
    index = export_dashboards(tiny, sae, FEATURES, text, tmp_path, name="mine")
    acts = direct(sae)
    for feature in FEATURES:
        page = read_page(tmp_path / f"feature_{feature}.html")
        (shown,) = page.shown
        assert shown == str(feature)
        groups = page.shown[shown]["tokenData"].values()
        (top,) = (group["data"] for group in groups if "TOP ACTIVATIONS" in group["title"])
        bold = [token for sequence in top for token in sequence if token.get("isBold")]
        strongest = acts[:, 6:-5, feature].flatten().topk(20).values
        assert [token.get("featAct", 0.0) for token in bold] == pytest.approx(strongest.tolist(), abs=6e-4)
    written = index.read_text()
    assert re.findall(r'href="(feature_\d+\.html)"', written) == [f"feature_{feature}.html" for feature in FEATURES]
    cells = re.findall(r"<td>([\d.]+)( %)?</td>", written)
    counted = text.counted[:11].sum()
    assert cells[0][0] == f"{100 * float((acts[:11, :, 5] > 0).sum() / counted):.3f}"
    assert cells[2][0] == f"{float(acts[:, :, 5].max()):.3f}"
    assert "forget: world_facts/countries" in written


def test_an_sae_keeps_its_weights_once_norms_are_folded(tiny, text, tmp_path):
    sae = random_sae("jumprelu")
    sae.fold_W_dec_norm()
    before = {name: weight.clone() for name, weight in sae.state_dict().items()}
    export_dashboards(tiny, sae, [3], text, tmp_path, name="mine")
    assert all(torch.allclose(weight, before[name]) for name, weight in sae.state_dict().items())


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ([64], r"The SAE has no feature 64. Its features are 0 to 63."),
        ([], r"The features are \[\]. Give one or more, each once."),
        ([3, 3], r"The features are \[3, 3\]."),
    ],
)
def test_features_that_cannot_be_shown_are_named(features, said, tiny, text, tmp_path):
    with pytest.raises(UserError, match=said):
        export_dashboards(tiny, random_sae(), features, text, tmp_path / "out", name="mine")
    assert not (tmp_path / "out").exists()


def test_too_little_text_is_said(tiny, tmp_path):
    (tmp_path / "short.txt").write_text("Nothing much.")
    with pytest.raises(UserError, match=r"The given text fills no context of 128 tokens\."):
        read_text(tiny, HOOK, {"given": [str(tmp_path / "short.txt")]}, max_tokens=1000)


def test_without_an_edit_the_sae_names_the_model(tiny, tmp_path, monkeypatch, model_cache, capsys):
    monkeypatch.chdir(tmp_path)
    sae = random_sae()
    sae.save_model("sae")
    shown = ["dashboard", "--sae", "sae", "--features", "3", "--text", "world_facts/general", "--max-tokens", "256"]
    assert main([*shown, "--out", "out"]) == 2
    assert "The SAE names no model. Give one with --model." in capsys.readouterr().err
    assert not Path("out").exists()
    assert main([*shown, "--out", "out", "--model", "tiny-random-gemma-2"]) == 0
    assert capsys.readouterr().out == "out/index.html\n"
    assert sorted(path.name for path in Path("out").iterdir()) == ["feature_3.html", "index.html", "neuronpedia"]


def test_without_sae_dashboard_its_installation_is_named(monkeypatch, capsys, tmp_path):
    for name in [name for name in sys.modules if name.startswith("sae_lens_contrastive.dashboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sae_dashboard.sae_vis_runner", None)
    assert main(["dashboard", "--sae", "sae", "--out", str(tmp_path / "out")]) == 2
    said = "pip install 'sae-lens-contrastive[dashboard]' && pip install --no-deps sae-dashboard==0.8.0"
    assert said in capsys.readouterr().err
