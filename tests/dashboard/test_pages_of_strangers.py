"""Tokens that would be markup: in a page they are text."""

import json
import shutil

import pytest
import torch
from sae_lens import TopKSAE, TopKSAEConfig

from sae_lens_contrastive.dashboard import export_dashboards, read_text
from sae_lens_contrastive.dashboard.adapters import vocabulary_texts
from sae_lens_contrastive.dashboard.pages import harmless
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import TINY_GEMMA_2, load_model
from sae_lens_contrastive.models.embedded import byte_tokenizer, embedded_model_folder

HOOK = "blocks.19.hook_resid_post"
MARKUP = "</script><img src=x onerror=planted=1>"


@pytest.fixture
def hostile_model(tmp_path, model_cache):
    """The tiny model with a tokenizer in which a byte that no text here has is a token of markup."""
    folder = shutil.copytree(embedded_model_folder(TINY_GEMMA_2), tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    token = vocabulary[MARKUP] = vocabulary.pop("Ń")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokenizer["added_tokens"].append({"id": token, "content": MARKUP, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return load_model(str(folder))


@pytest.fixture
def written(hostile_model, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(f"Some text and {MARKUP} in it, a & b < c. " * 20)
    torch.manual_seed(0)
    sae = TopKSAE(TopKSAEConfig(d_in=32, d_sae=64, k=32))
    text = read_text(hostile_model, HOOK, {MARKUP: [str(corpus)]}, max_tokens=512)
    export_dashboards(hostile_model, sae, [0, 1], text, tmp_path / "out", name=MARKUP)
    return tmp_path / "out"


def test_a_token_of_markup_stays_text(written, read_page):
    page = read_page(written / "feature_0.html")
    assert page.elements.count("script") == 3
    assert "img" not in page.elements
    assert "${tok}" not in page.text
    groups = page.shown["0"]["tokenData"].values()
    tokens = {token["tok"] for group in groups for sequence in group["data"] for token in sequence}
    assert {MARKUP, "&", "<"} <= tokens
    assert page.text.count(MARKUP) == 0


def test_neuronpedia_gets_the_text_itself(written):
    batch = json.loads((written / "neuronpedia/batch-0.json").read_text())
    assert MARKUP in {token for shown in batch["features"][0]["activations"] for token in shown["tokens"]}


def test_the_index_escapes_names(written):
    index = (written / "index.html").read_text()
    assert "<img" not in index
    assert "&lt;img src=x" in index


def test_pages_of_another_version_are_refused():
    with pytest.raises(UserError, match=r"Install sae-dashboard==0\.8\.0\."):
        harmless("<script>\n    return data;\n</script>")


def test_a_token_has_the_text_that_it_adds_and_a_piece_of_a_character_its_name():
    tokenizer = byte_tokenizer()
    texts = vocabulary_texts(tokenizer, len(tokenizer) + 2)
    ids = tokenizer.convert_tokens_to_ids(["Ġ", "b", "Ã"])
    assert [texts[token] for token in ids] == [" ", "b", "Ã"]
    assert texts[-2:] == ["<261>", "<262>"]
    assert texts[:3] == ["<pad>", "<eos>", "<bos>"]
