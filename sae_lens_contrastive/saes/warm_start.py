"""A trained SAE, a SAELens release or a folder, as the beginning of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from sae_lens.saes.sae import TrainingSAE

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.saes.architectures import TRAINING_ARCHITECTURES
from sae_lens_contrastive.saes.config import ContrastiveObjectiveConfig
from sae_lens_contrastive.saes.stock import check_folder, load_folder, load_release

STARTING_ARCHITECTURES = ("standard", "topk", "jumprelu")


class WarmStart(StrictModel):
    """The SAE whose weights a training begins with."""

    path: Path | None = None
    """Folder of an inference SAE: `save_inference_model` of a training SAE wrote it, or `save_model` of a stock one."""
    release: str | None = None
    """Release name or Hugging Face repository, as `SAE.from_pretrained` takes it."""
    sae_id: str | None = None
    """Id within the release."""

    @model_validator(mode="after")
    def _has_one_place(self) -> WarmStart:
        given = {name for name in ("path", "release", "sae_id") if getattr(self, name) is not None}
        if given not in ({"path"}, {"release", "sae_id"}):
            listed = ", ".join(sorted(given)) or "none of them"
            raise ConfigError(f"warm_start has {listed}. Give either path, or release and sae_id.")
        return self

    def check(self) -> None:
        """Raise `UserError` if the folder holds no SAE; a release is only known when the hub is asked."""
        if self.path is not None:
            check_folder("warm_start", self.path)

    def load(self, device: str) -> Any:
        """The SAE; `UserError` if it is missing or unreadable, or the hub cannot be reached."""
        if self.path is not None:
            return load_folder("warm_start", self.path, device)
        assert self.release is not None
        assert self.sae_id is not None
        return load_release("warm_start", self.release, self.sae_id, device)


@torch.no_grad()
def warm_started_sae(cfg: ContrastiveObjectiveConfig, start: WarmStart) -> TrainingSAE[Any]:
    """A training SAE that computes what the given one does, where the activation function allows it.

    Encoder, decoder, biases and (for jumprelu) thresholds are taken over; `apply_b_dec_to_input` follows the source.
    With the same activation function the start is exact; with another one (say a jumprelu SAE trained on as topk)
    pre-activations and decoder are exact. The weights are in the units of the model's activations.

    Raises `UserError` if the SAE cannot be loaded, has another size, or an architecture or normalisation of its own.
    """
    source = start.load(cfg.device)
    _check_fits(source, cfg)
    cfg.apply_b_dec_to_input = source.cfg.apply_b_dec_to_input
    sae_class = next(ours for ours, config in TRAINING_ARCHITECTURES.values() if config is type(cfg))
    sae: Any = sae_class(cfg)
    weights = {name: tensor.float() for name, tensor in source.state_dict().items()}
    ours, theirs = (getattr(c, "rescale_acts_by_decoder_norm", False) for c in (cfg, source.cfg))
    if ours != theirs:
        # Such an SAE multiplies pre-activations by the norms of the decoder rows and decodes with unit rows: with the
        # norms in the encoder and unit rows both kinds compute the same.
        _move_norms_into_encoder(weights)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"):
        if name in weights and name in dict(sae.named_parameters()):
            getattr(sae, name).copy_(weights[name])
    return sae


def _move_norms_into_encoder(weights: dict[str, torch.Tensor]) -> None:
    """z_i <- z_i * norm_i, d_i <- d_i / norm_i."""
    norms = weights["W_dec"].norm(dim=1)
    weights["W_enc"] = weights["W_enc"] * norms
    weights["b_enc"] = weights["b_enc"] * norms
    weights["W_dec"] = weights["W_dec"] / norms[:, None]
    if "threshold" in weights:
        weights["threshold"] = weights["threshold"] * norms


def _check_fits(source: Any, cfg: ContrastiveObjectiveConfig) -> None:
    architecture = source.cfg.architecture()
    if architecture not in STARTING_ARCHITECTURES:
        raise UserError(
            f"warm_start: the SAE has architecture {architecture!r}. Training can start from one of: "
            f"{', '.join(STARTING_ARCHITECTURES)}."
        )
    for name in ("d_in", "d_sae"):
        wanted, found = getattr(cfg, name), getattr(source.cfg, name)
        if wanted != found:
            raise UserError(f"warm_start: the SAE has {name} {found}, the run has {wanted}. Set sae.{name}: {found}.")
    if source.cfg.normalize_activations != "none":
        raise UserError(
            f"warm_start: the SAE has normalize_activations {source.cfg.normalize_activations!r}; only 'none' "
            "can be trained on. Fold the factor into its weights: sae.fold_activation_norm_scaling_factor(factor)."
        )
    if cfg.normalize_activations not in ("none", "expected_average_only_in"):
        raise UserError(
            f"warm_start: the weights are in the units of the model's activations, the run has normalize_activations "
            f"{cfg.normalize_activations!r}. Choose one of: none, expected_average_only_in."
        )
