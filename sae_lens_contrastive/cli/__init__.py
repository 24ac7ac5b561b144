"""The command `sae-lens-contrastive`."""

from sae_lens_contrastive.cli.main import main as main
