"""What comes from results stands on a card as plain text."""

import pytest
import yaml

from sae_lens_contrastive.hub.card import model_card, plain
from sae_lens_contrastive.hub.publication import Publication
from sae_lens_contrastive.unlearning.output import HeldOut, Provenance, UnlearningResult
from sae_lens_contrastive.unlearning.subject import SaeFacts

HOSTILE = "<script>alert(1)</script> | ``` [x](javascript:y)\n# heading"


def publication(*, domain="rivers", model="google/gemma-2-2b", training=None, near=0.75):
    held_out = HeldOut(forget_accuracy=0.2, chance=0.25, forgetting=1.0, retain_accuracy=0.9975, ci95=(0.15, 0.31))
    provenance = Provenance(
        sae_sha256="a" * 64, model_sha256="b" * 64, spec_sha256="c" * 64, versions={"torch": "2.13"}
    )
    result = UnlearningResult.model_construct(
        forget_domain=domain,
        unlearning_score=0.8,
        held_out=held_out,
        cause_of_zero=None,
        below_chance=True,
        near_accuracy=near,
        features=[3, 1],
        seed=4,
        provenance=provenance,
    )
    config = {"architecture": "jumprelu", "metadata": {"model_name": model}}
    facts = SaeFacts("blocks.19.hook_resid_post", 2304, 16384, "a" * 64, config)
    return Publication(folder=None, facts=facts, result=result, edit=None, saebench={}, training=training)


def metadata_and_text(card):
    _, metadata, text = card.split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_a_card_says_what_was_found():
    metadata, text = metadata_and_text(model_card({"one": publication(), "two": publication(near=None)}, "me/repo"))
    assert metadata["library_name"] == "saelens"
    assert metadata["base_model"] == ["google/gemma-2-2b"]
    row = "| one | rivers | 1.000 | 0.200 (0.150 to 0.310), below chance | 0.250 | 0.998 | 0.750 | 0.800 | - |"
    assert row in text.splitlines()
    assert row.replace("one", "two").replace("0.750", "-") in text.splitlines()
    assert "| one | google/gemma-2-2b | blocks.19.hook\\_resid\\_post | jumprelu | 2304 | 16384 | 2 | - |" in text
    assert "| one | 4 | aaaaaaaaaaaaaaaa | bbbbbbbbbbbbbbbb | torch 2.13 |" in text


def test_what_was_given_as_text_is_neither_markup_nor_another_cell():
    card = model_card({"one": publication(domain=HOSTILE, training={"description": HOSTILE})}, "me/repo")
    _, text = metadata_and_text(card)
    shown, training = text.split("## Training")
    assert "<script>" not in shown
    assert "\n# heading" not in shown
    (row,) = [line for line in shown.splitlines() if line.startswith("| one | &lt;script&gt;")]
    assert row.replace("\\|", "").count("|") == 10
    # Four backticks: the three of the description do not end the block.
    assert training.count("````") == 2


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "./local/folder", "/home/me", "a/b/c"])
def test_a_model_that_is_on_no_hub_is_no_base_model(model):
    metadata, _ = metadata_and_text(model_card({"one": publication(model=model)}, "me/repo"))
    assert "base_model" not in metadata


def test_a_model_in_a_local_folder_is_no_base_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    card = model_card({"one": publication(model="checkpoints/llama-ft")}, "me/repo")
    assert metadata_and_text(card)[0]["base_model"] == ["checkpoints/llama-ft"]
    (tmp_path / "checkpoints/llama-ft").mkdir(parents=True)
    card = model_card({"one": publication(model="checkpoints/llama-ft")}, "me/repo")
    assert "base_model" not in metadata_and_text(card)[0]


def test_plain_text_is_on_one_line():
    assert plain("a\n b|c_d*`") == "a b\\|c\\_d\\*\\`"
