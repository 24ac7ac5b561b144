"""The part that warns, once each, of trainings that go wrong without failing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.distributed import is_first
from sae_lens_contrastive.losses import FORGET, RETAIN
from sae_lens_contrastive.training.parts.base import StepView, TrainingPart

logger = logging.getLogger(__name__)

_EVERY_N_STEPS = 10
_DEAD_SHARE = 0.9
_DOMINANCE = 100.0
_LOOKS_IN_A_ROW = 5
_PROBED_TOKENS = 1024
_LEAST_AUC = 0.6


class WarningsPart(TrainingPart):
    """Looks every 10 steps for a dead dictionary, a term that drowns the others and domains that are one.

    Warned of: more than 0.9 of the features dead; a term whose loss, times its coefficient, is more than 100 times the
    sum of all other losses at five looks in a row; forget tokens that a linear probe cannot tell from retain tokens
    (area under the ROC curve below 0.6 on tokens that it was not fitted on). Each is warned of once in a run, also if
    it is resumed, and recorded.
    """

    name: ClassVar[str] = "warnings"

    def __init__(self, terms: Sequence[str]) -> None:
        super().__init__()
        self.losses = [f"{term}_loss" for term in terms]
        self.in_a_row = dict.fromkeys(self.losses, 0)
        self.forget: list[Tensor] = []
        self.retain: list[Tensor] = []

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """Looks in a row at which each term drowned the others, and the tokens of the probe so far."""
        state = {f"in_a_row_{name}": torch.tensor(count) for name, count in self.in_a_row.items()}
        gathered = {"forget": self.forget, "retain": self.retain}
        return state | {name: torch.cat(tokens) for name, tokens in gathered.items() if tokens}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on counting and gathering; from a checkpoint that holds neither, begin anew."""
        self.in_a_row = {name: int(state.get(f"in_a_row_{name}", 0)) for name in self.in_a_row}
        self.forget, self.retain = ([state[name].cpu()] if name in state else [] for name in ("forget", "retain"))

    @override
    def after_step(self, view: StepView) -> None:
        """Look, if it is time."""
        if view.domains is not None and not self._told("probe"):
            self._gather(view, view.domains)
        if view.step % _EVERY_N_STEPS:
            return
        self._look_at_losses(view)
        self._look_at_features(view)

    def _look_at_features(self, view: StepView) -> None:
        share = float(view.dead.float().mean())
        if share > _DEAD_SHARE:
            self._warn(
                view.step,
                "dead",
                f"{share:.0%} of the features have not fired for so long that they count as dead. Lower the sparsity "
                "penalty or the learning rate, or raise k.",
            )

    def _look_at_losses(self, view: StepView) -> None:
        values = {name: abs(float(loss.detach())) for name, loss in view.output.losses.items()}
        for name in self.losses:
            others = sum(value for other, value in values.items() if other != name)
            drowns = values.get(name, 0.0) > _DOMINANCE * others
            self.in_a_row[name] = self.in_a_row[name] + 1 if drowns else 0
            if self.in_a_row[name] == _LOOKS_IN_A_ROW:
                self._warn(
                    view.step,
                    name,
                    f"{name} is {values[name]:.3g}, more than {_DOMINANCE:.0f} times all other losses together "
                    f"({others:.3g}): the SAE learns little else. Lower its coefficient.",
                )

    def _gather(self, view: StepView, domains: Tensor) -> None:
        inputs = view.whole(view.output.sae_in.detach()).float().cpu()
        for domain, kept in ((FORGET, self.forget), (RETAIN, self.retain)):
            missing = 2 * _PROBED_TOKENS - sum(map(len, kept))
            kept.append(inputs[(domains == domain).cpu()][:missing])
        if min(sum(map(len, kept)) for kept in (self.forget, self.retain)) < 2 * _PROBED_TOKENS:
            return
        forget, retain = (torch.cat(kept) for kept in (self.forget, self.retain))
        self.forget, self.retain = [], []
        auc = probe_auc(forget, retain)
        self.records.append({"step": view.step, "about": "probe", "auc": auc})
        if auc < _LEAST_AUC:
            self._warn(
                view.step,
                "domains",
                f"A linear probe tells forget from retain tokens with an area under the ROC curve of {auc:.2f} (0.5 is "
                "guessing): to the model these corpora are one. Check that they are what they should be, and the hook.",
            )

    def _told(self, about: str) -> bool:
        return any(record["about"] == about for record in self.records)

    def _warn(self, step: int, about: str, message: str) -> None:
        if not self._told(about):
            self.records.append({"step": step, "about": about, "message": message})
            if is_first():
                logger.warning("Step %d: %s", step, message)


def probe_auc(forget: Float[Tensor, "n d_in"], retain: Float[Tensor, "m d_in"]) -> float:
    """Area under the ROC curve of a logistic probe, fitted on every other token and tested on the rest."""
    inputs = torch.cat([forget, retain]).numpy()
    is_forget = (torch.arange(len(inputs)) < len(forget)).numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    probe.fit(inputs[::2], is_forget[::2])
    return float(roc_auc_score(is_forget[1::2], probe.decision_function(inputs[1::2])))
