"""Run the trackers of a training once, at a size from the command line, and print what memory they take.

    python trackers_at_size.py METHOD D_SAE D_IN BATCH

Their memory is what the process holds at its peak beyond activations, gradients and decoder, which are the host's.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from sae_lens_contrastive.feature_stats import ImportanceOptions, StabilityOptions
from sae_lens_contrastive.features.grouping import GroupingOptions
from sae_lens_contrastive.training.parts.base import FeatureState, StepView
from sae_lens_contrastive.training.parts.grouping import GroupingPart
from sae_lens_contrastive.training.parts.importance import ImportancePart
from sae_lens_contrastive.training.parts.stability import StabilityPart

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
N_STEPS = 10
FAMILY, N_FAMILIES_ACTIVE = 8, 8


def main(method: str, d_sae: int, d_in: int, batch: int) -> None:
    torch.manual_seed(0)
    W_dec = torch.randn(d_sae, d_in)
    acts = activations(batch, d_sae)
    acts.grad = torch.ones(1).expand(batch, d_sae).clone()
    parts = [
        GroupingPart(GroupingOptions(every_n_steps=N_STEPS, method=method), d_sae),
        ImportancePart(ImportanceOptions(0.35, 0.5, 0.15, every_n_steps=N_STEPS), d_sae),
        StabilityPart(StabilityOptions(every_n_steps=N_STEPS)),
    ]
    features = FeatureState(torch.zeros(d_sae, dtype=torch.bool), torch.zeros(d_sae, dtype=torch.bool))
    domains = torch.arange(batch) % 3
    before = held("VmRSS")
    CLEAR.write_text("5")  # The peak is counted from here.
    peaks: dict[str, float] = {}
    # Twice, so that groups, clusters and directions have something to be compared with.
    for step in range(2 * N_STEPS):
        view = StepView(
            step=step,
            sae=SimpleNamespace(W_dec=W_dec),
            optimizer=None,
            output=SimpleNamespace(feature_acts=acts),
            domains=domains,
            passes_since_fired=torch.zeros(d_sae),
            dead=features.pruned,
            features=features,
            seed=0,
        )
        for part in parts:
            CLEAR.write_text("5")
            part.after_step(view)
            peaks[part.name] = max(peaks.get(part.name, 0.0), held("VmHWM") - before)
    assert features.groups is not None
    print(json.dumps({"mib": peaks, "n_groups": len(features.groups.groups)}))


def activations(batch: int, d_sae: int) -> torch.Tensor:
    """64 features active on a token: 8 families of 8 each, some families far more often than others."""
    weights = 1 / torch.arange(1, d_sae // FAMILY + 1).double() ** 0.5
    families = torch.multinomial(weights.expand(batch, -1).float(), N_FAMILIES_ACTIVE)
    active = (families[:, :, None] * FAMILY + torch.arange(FAMILY)).flatten(1)
    return torch.zeros(batch, d_sae).scatter_(1, active, torch.rand(active.shape) + 0.5)


def held(what: str) -> float:
    """Memory that the process holds, or has held at most, in MiB."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
