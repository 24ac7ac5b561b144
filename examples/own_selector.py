"""A selector and an intervention of one's own, and an evaluation with them."""

import sys
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, Int64
from torch import Tensor

from sae_lens_contrastive.config import load_yaml, parse_config
from sae_lens_contrastive.interventions import Intervention, TokenTable, register_intervention
from sae_lens_contrastive.selectors import Evidence, Selector, ranked, register_selector
from sae_lens_contrastive.unlearning import EvalSpec, SaeUnderTest, UnlearningResult, evaluate_saes


@register_selector("mean_difference")
@dataclass(frozen=True)
class MeanDifference(Selector):
    """Keep features that fire on forget text, sort by E[z_i(forget)] - E[z_i(retain)]."""

    def __call__(self, evidence: Evidence, /) -> Int64[Tensor, " n_surviving"]:
        """Return the features that survive, best first."""
        return ranked(evidence.forget.mean - evidence.retain.mean, evidence.forget.n_fired > 0)


@register_intervention("reverse")
@dataclass(frozen=True)
class Reverse(Intervention):
    """Turn a feature around: z_i <- -strength * z_i."""

    strength: float = 1.0
    """Factor."""

    def __call__(
        self, acts: Float[Tensor, "n_tokens n_selected"], _tokens: TokenTable, /
    ) -> Float[Tensor, "n_tokens n_selected"]:
        """Return the activations to write."""
        return -self.strength * acts


def main(spec_file: str, sae: str, out: str) -> UnlearningResult:
    """Evaluate an SAE under the specification's questions and the settings below."""
    own = {"selectors": {"mean_difference": {}}, "interventions": {"reverse": {"strength": [1.0, 4.0]}}}
    spec = parse_config(EvalSpec, {**load_yaml(spec_file), **own}, source=spec_file)
    (result,) = evaluate_saes(spec, {"own": SaeUnderTest(variant="own", path=Path(sae))}, Path(out))
    return result


if __name__ == "__main__":
    print(main(*sys.argv[1:]).held_out)
