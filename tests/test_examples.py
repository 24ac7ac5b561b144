"""The examples run as they stand, on the tiny model."""

import runpy
import sys
from pathlib import Path

from sae_lens import SAE

from sae_lens_contrastive.losses import LOSS_TERMS

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
