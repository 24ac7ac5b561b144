"""Results as a plain text table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sae_lens_contrastive.report.results import SavedResults, setting_of
from sae_lens_contrastive.report.seeds import Spread, causes_of_zero

_Row = dict[str, Any]
_Cell = Callable[[list[_Row]], str]


def results_table(rows: Sequence[_Row]) -> str:
    """Scores on the select questions, then what the held-out questions say, then the SAE if the rows describe it.

    One line for each SAE; with several seeds, one line for each variant of each setting: the mean over its seeds
    and half of its 95 % interval.
    """
    cells = results_cells(rows)
    return "\n".join([in_columns([cells.header, *cells.lines]), *([cells.note] if cells.note else [])])


@dataclass(frozen=True)
class Cells:
    """A table."""

    header: tuple[str, ...]
    """Name of each column."""
    lines: list[tuple[str, ...]]
    """Cells, line by line."""
    note: str = ""
    """What is said below it."""


def results_cells(rows: Sequence[_Row]) -> Cells:
    """The cells of `results_table`."""
    results = SavedResults(rows)
    saes = [seeds for setting in results.settings for seeds in results.rows_of(setting).values()]
    several = len(saes) < len(rows)
    columns = _columns(rows, several)
    lines = [tuple(cell(seeds) for cell in columns.values()) for seeds in saes]
    note = "±: half of the 95 % interval of the mean over the seeds (Student's t)." if several else ""
    return Cells(tuple(columns), lines, note)


def in_columns(lines: Sequence[tuple[str, ...]]) -> str:
    """Cells below each other, the first line as the header."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def _columns(rows: Sequence[_Row], several: bool) -> dict[str, _Cell]:
    """What fills each column for the rows of one variant, one for each seed."""
    columns: dict[str, _Cell] = {}
    if any(setting_of(row) for row in rows):
        columns["setting"] = lambda seeds: setting_of(seeds[0]) or "-"
    columns["variant"] = lambda seeds: seeds[0]["variant"]
    if several:
        columns["seeds"] = lambda seeds: str(len(seeds))
    else:
        columns["seed"] = lambda seeds: str(seeds[0]["seed"])
    columns["score"] = lambda seeds: _spread(seeds, "unlearning_score").text()
    columns["forgetting"] = lambda seeds: _held_out(seeds, "forgetting").text()
    columns["forget accuracy" if several else "forget accuracy (95 % interval)"] = _forget_accuracy(several)
    columns["retain"] = lambda seeds: _held_out(seeds, "retain_accuracy").text()
    if any(row.get("explained_variance") is not None for row in rows):
        columns["explained variance"] = lambda seeds: _mean(seeds, "explained_variance", "{:.3f}")
    if any(row.get("l0") is not None for row in rows):
        columns["l0"] = lambda seeds: _mean(seeds, "l0", "{:.1f}")
    columns["cause of zero"] = lambda seeds: causes_of_zero(row["cause_of_zero"] for row in seeds) or "-"
    return columns


def _forget_accuracy(several: bool) -> _Cell:
    def cell(seeds: list[_Row]) -> str:
        text = _held_out(seeds, "forget_accuracy").text()
        if not several:
            low, high = seeds[0]["held_out"]["ci95"]
            text += f" ({low:.3f} to {high:.3f})"
        below = sum(bool(row.get("below_chance")) for row in seeds)
        counted = f" ({below} of {len(seeds)} seeds)" if below < len(seeds) else ""
        return text + (f" below chance{counted}" if below else "")

    return cell


def _spread(seeds: list[_Row], key: str) -> Spread:
    return Spread(tuple(row[key] for row in seeds))


def _held_out(seeds: list[_Row], key: str) -> Spread:
    return _spread([row["held_out"] for row in seeds], key)


def _mean(seeds: list[_Row], key: str, number: str) -> str:
    known = [row for row in seeds if row.get(key) is not None]
    return number.format(_spread(known, key).mean) if known else "-"
