"""Results as a plain text table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_HEADER = ("variant", "seed", "score", "forgetting", "forget accuracy (95 % interval)", "retain", "cause of zero")


def results_table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each SAE: the score on the select questions, then what the held-out questions say."""
    lines: list[tuple[str, ...]] = [_HEADER]
    for row in rows:
        held_out = row["held_out"]
        low, high = held_out["ci95"]
        lines.append(
            (
                row["variant"],
                str(row["seed"]),
                f"{row['unlearning_score']:.3f}",
                f"{held_out['forgetting']:.3f}",
                f"{held_out['forget_accuracy']:.3f} ({low:.3f} to {high:.3f})"
                + (" below chance" if row.get("below_chance") else ""),
                f"{held_out['retain_accuracy']:.3f}",
                row["cause_of_zero"] or "-",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])
