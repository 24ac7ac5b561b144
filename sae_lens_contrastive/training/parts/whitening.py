"""The part that trains reserved features, their encoder in white coordinates."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.features.whitening import Gradients, WhiteFeatures, WhiteningOptions, whitening_of
from sae_lens_contrastive.losses.output_space import OutputSpace
from sae_lens_contrastive.losses.soft_firing import firing_level, own_thresholds
from sae_lens_contrastive.training.parts.base import StepView, TrainingPart

_MAX_TOKENS = 50_000
_FOLLOWED = 0.05
_PARAMETERS = {"W_enc": 1, "b_enc": 0, "W_dec": 0}
"""Parameters that features have a share in, each with the axis of the feature."""


class WhiteningPart(TrainingPart):
    """Takes the gradients of the reserved features from the host's optimiser and steps with one of its own.

    The encoder learns in white coordinates. Dimensions of the residual stream differ in size by orders of magnitude,
    and Adam moves every weight by about the learning rate: along the largest, single steps throw a half-space about.
    White are the retain sentences and sequences of the output space. The features begin anew at the first step.

    The encoder's gradients come from terms on sequences and sentences alone: what the batch would have the features
    reconstruct, its few huge tokens above all, is kept from them. The host's gradient clipping does not see what is
    taken, b_dec moves no boundary, and decoder rows are kept at norm 1: where activations are rescaled by the norm, a
    growing row would make its feature fire more.
    """

    name: ClassVar[str] = "whitening"

    def __init__(self, options: WhiteningOptions, n_steps: int) -> None:
        super().__init__()
        self.options = options
        self.n_steps = n_steps
        self.learned: WhiteFeatures | None = None
        self.saved: dict[str, Tensor] = {}
        self.shift: Tensor | None = None
        """What the SAE takes off its input before the encoder."""

    def watch(self, sae: Any, n_reserved: int) -> None:
        """Keep the gradients of the first features of every backward pass, and leave zeros to the host."""

        def divert(name: str, axis: int, parameter: Tensor) -> None:
            assert parameter.grad is not None
            own = parameter.grad.narrow(axis, 0, n_reserved)
            self.gradients[name] = own.clone()
            own.zero_()
            if name == "W_enc" and sae.cfg.apply_b_dec_to_input:
                # As it is in this forward pass; the host's step moves it.
                self.shift = sae.b_dec.detach().clone()

        for name, axis in _PARAMETERS.items():
            parameter = sae.get_parameter(name)
            parameter.register_post_accumulate_grad_hook(
                lambda parameter, name=name, axis=axis: divert(name, axis, parameter)
            )

    @override
    def after_step(self, view: StepView) -> None:
        """Step, and write the features."""
        n_reserved = int(view.features.reserved.sum())
        if self.learned is None:
            self.learned = self._begin(view, n_reserved)
        _follow(self.learned.level, view)
        if view.step > 0:
            group = view.optimizer.param_groups[0]
            schedule = group["lr"] / group["initial_lr"]
            columns, biases, rows = (self.gradients[name] for name in _PARAMETERS)
            if self.shift is not None:
                columns = columns + torch.outer(self.shift, biases)
            gradients = Gradients(columns, biases, rows)
            self.learned.step(gradients, schedule * min(1.0, 2 * (1 - view.step / self.n_steps)), schedule)
        columns, biases = self.learned.columns()
        sae: Any = view.sae
        with torch.no_grad():
            if sae.cfg.apply_b_dec_to_input:
                biases = biases + sae.b_dec @ columns
            sae.W_enc[:, :n_reserved] = columns
            sae.b_enc[:n_reserved] = biases
            sae.W_dec[:n_reserved] = self.learned.rows

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """The features in white coordinates and their optimiser."""
        return self.saved if self.learned is None else self.learned.state_dict()

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Keep the state until the first step, when the whitening is made anew."""
        self.saved, self.learned = state, None

    def _begin(self, view: StepView, n_reserved: int) -> WhiteFeatures:
        assert view.output_space is not None
        sae: Any = view.sae
        whitening = whitening_of(_inputs(view.output_space).to(sae.W_enc), self.options.shrinkage)
        level = _level(view).expand(n_reserved) if own_thresholds(sae) is None else torch.zeros(n_reserved)
        generator = torch.Generator().manual_seed(view.seed)
        learned = WhiteFeatures(whitening, sae.W_dec[:n_reserved], level, self.options, generator)
        if self.saved:
            learned.load_state_dict(self.saved)
        return learned


def _follow(level: Float[Tensor, " n"], view: StepView) -> None:
    """Move the level to where features fire now, slowly where every batch says something else."""
    thresholds = own_thresholds(view.sae)
    if thresholds is None:
        level += _FOLLOWED * (_level(view) - level)
    else:
        level.copy_(thresholds[: len(level)].detach())


def _level(view: StepView) -> Float[Tensor, ""]:
    own = firing_level(view.output.feature_acts.detach(), view.output.hidden_pre.detach())
    return view.whole(own).median()


def _inputs(space: OutputSpace) -> Float[Tensor, "n d_in"]:
    """Retain tokens, evenly spaced, as the SAE sees them."""
    texts = [space.retain] if space.sentences is None else [space.retain, space.sentences.retain]
    parts = []
    for text in texts:
        tokens = text.residual[text.editable]
        parts.append(tokens[:: len(tokens) // (_MAX_TOKENS // len(texts)) + 1].float())
    return torch.cat(parts) * space.activation_scale
