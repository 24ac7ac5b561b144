"""Numbers of an edited model that are not numbers: they would be counted as forgotten answers."""

from __future__ import annotations

import math
from collections.abc import Iterable

from sae_lens_contrastive.errors import UserError


def check_finite(values: Iterable[float], what: str) -> None:
    """Raise `UserError` if a value is not finite; `what` says what the values are."""
    if not all(map(math.isfinite, values)):
        raise UserError(
            f"{what}: the model's numbers are not finite. Run it in float32 or bfloat16, or lower the multiplier."
        )
