"""Several SAEs of one hook acting together, as one SAE whose dictionary is all of theirs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import check_editable, decoder_rows


@dataclass(frozen=True)
class EnsembleConfig:
    """What is read of an SAE's configuration, for an ensemble."""

    d_in: int
    """Width of the activations."""
    d_sae: int
    """Features of all members together."""
    metadata: SAEMetadata
    """Holds the hook name."""
    normalize_activations: str = "none"
    """Members read activations as they are."""
    reshape_activations: str = "none"
    """Members read the residual stream."""

    def architecture(self) -> str:
        """Name of the kind of SAE."""
        return "ensemble"


class Ensemble:
    """SAEs of one hook as one SAE: their dictionaries one after another.

    encode(x) = [encode_1(x), ..., encode_m(x)] and W_dec = [R_1, ..., R_m] / m, where R_j holds the effective decoder
    rows of member j. Feature i of member j has index i + d_sae of the members before it. Divided by m, the same
    features taken from m identical members edit as those of one; n_features counts the features of all members, so
    that takes m times as many.

    Raises `UserError`, naming the member, for one that cannot be edited or that has another hook or d_in than the
    first.
    """

    def __init__(self, names: Sequence[str], members: Sequence[Any]) -> None:
        for name, member in zip(names, members, strict=True):
            check_editable(member, f"Member {name}")
            _check_agrees(name, member, names[0], members[0])
        self.members = list(members)
        """The SAEs."""
        first = members[0].cfg
        self.sizes = [int(member.cfg.d_sae) for member in members]
        """Features of each member."""
        self.cfg = EnsembleConfig(
            d_in=first.d_in, d_sae=sum(self.sizes), metadata=SAEMetadata(hook_name=first.metadata.hook_name)
        )
        rows = [decoder_rows(member, range(size)) for member, size in zip(members, self.sizes, strict=True)]
        self.W_dec: Float[Tensor, "d_sae d_in"] = torch.cat(rows) / len(members)
        """Effective decoder rows in float32, divided by the number of members."""

    def encode(self, x: Float[Tensor, "n_tokens d_in"]) -> Float[Tensor, "n_tokens d_sae"]:
        """Activations of every member, in the order of the members."""
        return torch.cat([member.encode(x.to(member.W_dec.dtype)).to(x.dtype) for member in self.members], dim=-1)

    def by_member(self, features: Sequence[int]) -> list[list[int]]:
        """Split indices into the ensemble into the members' own, each list in the given order."""
        ends = list(accumulate(self.sizes))
        own: list[list[int]] = [[] for _ in self.sizes]
        for feature in features:
            member = bisect_right(ends, feature)
            own[member].append(feature - ends[member] + self.sizes[member])
        return own


def _check_agrees(name: str, member: Any, first_name: str, first: Any) -> None:
    for key, value, wanted in (
        ("hook_name", member.cfg.metadata.hook_name, first.cfg.metadata.hook_name),
        ("d_in", member.cfg.d_in, first.cfg.d_in),
    ):
        if value != wanted:
            raise UserError(
                f"Member {name} has {key} {value!r}, {first_name} has {wanted!r}. "
                "The members of an ensemble read one hook; evaluate SAEs of different hooks on their own."
            )
