"""The examples run as they stand, on the tiny model."""

import runpy
import sys
from pathlib import Path

from sae_lens import SAE, StandardSAE, StandardSAEConfig

from sae_lens_contrastive.interventions import INTERVENTIONS
from sae_lens_contrastive.losses import LOSS_TERMS
from sae_lens_contrastive.selectors import SELECTORS

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_loss_term_of_ones_own_trains(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", ["train_with_own_term.py", str(tmp_path / "sae")])
    monkeypatch.chdir(tmp_path)
    try:
        runpy.run_path(str(EXAMPLES / "train_with_own_term.py"), run_name="__main__")
        sae = SAE.load_from_disk(tmp_path / "sae")
    finally:
        LOSS_TERMS.pop("shared_activation", None)
        sys.modules.pop("own_loss_term", None)
    details = sae.cfg.metadata.training_architecture_details
    assert details["loss_terms"] == {"shared_activation": {"coefficient": 1.0}}


def test_a_selector_and_an_intervention_of_ones_own_are_swept(tmp_path, model_cache):
    sae = StandardSAE(StandardSAEConfig(d_in=32, d_sae=64, apply_b_dec_to_input=False))
    sae.cfg.metadata.hook_name = "blocks.19.hook_resid_post"
    sae.save_model(tmp_path / "sae")
    try:
        main = runpy.run_path(str(EXAMPLES / "own_selector.py"))["main"]
        spec = Path(__file__).parents[1] / "evals/world_facts_tiny.yaml"
        result = main(str(spec), str(tmp_path / "sae"), str(tmp_path / "out"))
    finally:
        SELECTORS.pop("mean_difference", None)
        INTERVENTIONS.pop("reverse", None)
    assert {(setting.selector, setting.intervention) for setting in result.frontier} == {("mean_difference", "reverse")}
    strengths = [setting.intervention_options["strength"] for setting in result.frontier]
    assert sorted(set(strengths)) == [1.0, 4.0]
