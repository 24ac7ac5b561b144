"""What a trainer must be given for the terms and trackers of a configuration."""

from __future__ import annotations

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.saes import ContrastiveObjectiveConfig


def check_domains_given(cfg: ContrastiveObjectiveConfig, given: bool) -> None:
    """Raise `ConfigError` if a loss term or a tracker needs domain labels and there are none."""
    if not given and (needing := cfg.needs_domains()):
        raise ConfigError(
            f"{needing[0]} needs to know which tokens are forget and which retain, but no forget and retain corpus is "
            "given. Give both, or drop it."
        )


def check_output_space_given(cfg: ContrastiveObjectiveConfig, given: bool) -> None:
    """Raise `ConfigError` if a loss term runs the model above the hook and there is none."""
    if not given and (needing := cfg.terms_that_need_output_space()):
        raise ConfigError(
            f"loss_terms.{needing[0]} runs the model above the hook. Train with ContrastiveTrainingRunner and a forget "
            "and a retain corpus, or pass output_space to the trainer."
        )
