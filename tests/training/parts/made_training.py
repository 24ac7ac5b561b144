"""The steps of a trainer around training parts, on a stock SAE."""

from __future__ import annotations

import torch
from sae_lens.saes.sae import TrainStepInput

from sae_lens_contrastive.features.surgery import feature_parameters, zero_gradient
from sae_lens_contrastive.training.parts.base import FeatureState, StepView


class Loop:
    """Adam, clipped gradients as the host's, gradients for the parts that want them, masks, counts since firing."""

    def __init__(self, sae, parts, domains=None, lr=1e-2, dead_window=20, seed=0, output_space=None):
        self.sae, self.parts, self.domains = sae, parts, domains
        self.dead_window, self.seed, self.output_space = dead_window, seed, output_space
        self.optimizer = torch.optim.Adam(sae.parameters(), lr=lr)
        self.scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer, 1.0)
        self.features = FeatureState(*(torch.zeros(sae.cfg.d_sae, dtype=torch.bool) for _ in range(2)))
        self.passes_since_fired = torch.zeros(sae.cfg.d_sae)
        self.n_steps = 0

    def step(self, x):
        dead = (self.passes_since_fired > self.dead_window) & ~self.features.pruned
        coefficients = {name: value.value for name, value in self.sae.get_coefficients().items()}
        output = self.sae.training_forward_pass(TrainStepInput(x, coefficients, dead, self.n_steps, False))
        if any(part.wants_gradients(self.n_steps) for part in self.parts):
            output.feature_acts.retain_grad()
        output.loss.backward()
        for parameter, axis in feature_parameters(self.sae).values():
            zero_gradient(parameter, axis, self.features.pruned)
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.passes_since_fired += 1
        self.passes_since_fired[(output.feature_acts > 0).any(dim=0)] = 0
        for part in self.parts:
            part.after_step(self.view(self.n_steps, output))
        self.n_steps += 1
        return output

    def view(self, step, output=None):
        """What parts see after a step."""
        dead = (self.passes_since_fired > self.dead_window) & ~self.features.pruned
        return StepView(
            step, self.sae, self.optimizer, output, self.domains,
            self.passes_since_fired, dead, self.features, self.seed, self.output_space,
        )  # fmt: skip

    def state(self):
        """What a checkpoint holds of all this, copied."""
        return {
            "sae": clone(self.sae.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "features": clone(self.features.state_dict()),
            "passes": self.passes_since_fired.clone(),
            "n_steps": self.n_steps,
            "parts": [clone(part.state_dict()) for part in self.parts],
        }

    def load(self, state):
        self.sae.load_state_dict(state["sae"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.features.load_state_dict(state["features"])
        self.passes_since_fired, self.n_steps = state["passes"], state["n_steps"]
        for part, its_state in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(its_state)


def clone(tensors):
    return {name: tensor.clone() for name, tensor in tensors.items()}
