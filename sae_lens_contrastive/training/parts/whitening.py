"""The part that trains the encoder of reserved features in white coordinates."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.features.whitening import WhiteEncoder, WhiteningOptions, whitening_of
from sae_lens_contrastive.losses.output_space import OutputSpace
from sae_lens_contrastive.losses.soft_firing import firing_level
from sae_lens_contrastive.training.parts.base import StepView, TrainingPart

_MAX_TOKENS = 50_000
_TINY = 1e-8
_ENCODER = {"W_enc": 1, "b_enc": 0}
"""Encoder parameters, each with the axis of the feature."""


class WhiteningPart(TrainingPart):
    """Takes the encoder gradients of the reserved features from the host's optimiser and steps in white coordinates.

    They come from terms on sequences and sentences alone: what the batch would have the features reconstruct, its few
    huge tokens above all, is kept from them. Dimensions of the residual stream differ in size by orders of magnitude,
    and Adam moves every weight by about the learning rate: along the largest, single steps throw a half-space about.
    White are the retain sentences and sequences of the output space. The features begin anew at the first step.

    The host's gradient clipping does not see these gradients, b_dec moves no boundary, and decoder rows of the features
    are kept at norm 1: where activations are rescaled by the norm, a growing row would make its feature fire more.
    """

    name: ClassVar[str] = "whitening"

    def __init__(self, options: WhiteningOptions, n_steps: int) -> None:
        super().__init__()
        self.options = options
        self.n_steps = n_steps
        self.encoder: WhiteEncoder | None = None
        self.saved: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}

    def watch(self, sae: Any, n_reserved: int) -> None:
        """Keep the gradients of the first features of every backward pass, and leave zeros to the host."""

        def divert(name: str, axis: int, parameter: Tensor) -> None:
            assert parameter.grad is not None
            own = parameter.grad.narrow(axis, 0, n_reserved)
            self.gradients[name] = own.clone()
            own.zero_()

        for name, axis in _ENCODER.items():
            parameter = sae.get_parameter(name)
            parameter.register_post_accumulate_grad_hook(
                lambda parameter, name=name, axis=axis: divert(name, axis, parameter)
            )

    @override
    def after_step(self, view: StepView) -> None:
        """Step in white coordinates, and write the encoder."""
        n_reserved = int(view.features.reserved.sum())
        if self.encoder is None:
            self.encoder = self._begin(view, n_reserved)
        if view.step > 0:
            group = view.optimizer.param_groups[0]
            lr_factor = group["lr"] / group["initial_lr"] * (1 - view.step / self.n_steps)
            self.encoder.step(self.gradients["W_enc"], self.gradients["b_enc"], lr_factor)
        columns, biases = self.encoder.columns()
        sae: Any = view.sae
        with torch.no_grad():
            if sae.cfg.apply_b_dec_to_input:
                biases = biases + sae.b_dec @ columns
            sae.W_enc[:, :n_reserved] = columns
            sae.b_enc[:n_reserved] = biases
            rows = sae.W_dec[:n_reserved]
            rows /= rows.norm(dim=1, keepdim=True).clamp(min=_TINY)

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """The encoder in white coordinates and its optimiser."""
        return self.saved if self.encoder is None else self.encoder.state_dict()

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Keep the state until the first step, when the whitening is made anew."""
        self.saved, self.encoder = state, None

    def _begin(self, view: StepView, n_reserved: int) -> WhiteEncoder:
        assert view.output_space is not None
        whitening = whitening_of(_inputs(view.output_space).to(view.sae.W_enc), self.options.shrinkage)
        level = float(firing_level(view.output.feature_acts.detach(), view.output.hidden_pre.detach()).median())
        generator = torch.Generator().manual_seed(view.seed)
        encoder = WhiteEncoder(whitening, n_reserved, level, self.options, generator)
        if self.saved:
            encoder.load_state_dict(self.saved)
        return encoder


def _inputs(space: OutputSpace) -> Float[Tensor, "n d_in"]:
    """Retain tokens, evenly spaced, as the SAE sees them."""
    texts = [space.retain] if space.sentences is None else [space.retain, space.sentences.retain]
    parts = []
    for text in texts:
        tokens = text.residual[text.editable]
        parts.append(tokens[:: len(tokens) // (_MAX_TOKENS // len(texts)) + 1].float())
    return torch.cat(parts) * space.activation_scale
