"""What was measured beside the questions, as a plain text table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sae_lens_contrastive.report.results import setting_of
from sae_lens_contrastive.report.table import Cells, in_columns

_Row = dict[str, Any]


def measures_table(rows: Sequence[_Row]) -> str | None:
    """One line for each SAE: settings that pass, features, and each measure that any of them has; None without any.

    Losses and divergences are in nats per token. `random features` is the mean forget accuracy over draws, with the
    share of draws that forget as much.
    """
    cells = measures_cells(rows)
    return None if cells is None else in_columns([cells.header, *cells.lines])


def measures_cells(rows: Sequence[_Row]) -> Cells | None:
    """The cells of `measures_table`."""
    cells = {name: [cell(row) for row in rows] for name, cell in _CELLS.items()}
    shown = {name: values for name, values in cells.items() if any(values)}
    if not shown:
        return None
    names = [(setting_of(row), row["variant"], str(row["seed"])) for row in rows]
    columns = {"setting": [name[0] for name in names]} if any(name[0] for name in names) else {}
    columns |= {"variant": [name[1] for name in names], "seed": [name[2] for name in names], **shown}
    lines = list(zip(*([value or "-" for value in values] for values in columns.values()), strict=True))
    return Cells(tuple(columns), lines)


def _settings(row: _Row) -> str:
    return f"{row['n_settings_passing']} of {len(row['frontier'])}" if "n_settings_passing" in row else ""


def _random_features(row: _Row) -> str:
    found = _measure(row, "random_baseline")
    return f"{found['mean_forget_accuracy']:.3f} (p = {found['p_value']:.3f})" if found else ""


def _loss(side: str) -> Callable[[_Row], str]:
    def cell(row: _Row) -> str:
        found = _measure(row, "text_effects")
        return f"{found[side]['loss']:.3f} to {found[side]['edited_loss']:.3f}" if found else ""

    return cell


def _divergence(side: str) -> Callable[[_Row], str]:
    def cell(row: _Row) -> str:
        found = _measure(row, "text_effects")
        return f"{found[side]['kl']:.4f}" if found else ""

    return cell


def _paraphrases(row: _Row) -> str:
    found = _measure(row, "paraphrases")
    return f"{found['accuracy']:.3f}" if found else ""


def _recall(side: str) -> Callable[[_Row], str]:
    def cell(row: _Row) -> str:
        found = _measure(row, "recall")
        return f"{found[side]['before']:.3f} to {found[side]['after']:.3f}" if found else ""

    return cell


def _relearned(row: _Row) -> str:
    found = _measure(row, "relearning")
    return f"{found['accuracy'][0]:.3f} to {found['accuracy'][-1]:.3f}" if found else ""


def _measure(row: _Row, name: str) -> Any:
    return (row.get("measures") or {}).get(name)


_CELLS: dict[str, Callable[[_Row], str]] = {
    "settings that pass": _settings,
    "random features": _random_features,
    "loss, retain text": _loss("retain"),
    "loss, forget text": _loss("forget"),
    "KL, retain": _divergence("retain"),
    "KL, forget": _divergence("forget"),
    "paraphrases": _paraphrases,
    "recall, forget": _recall("forget"),
    "recall, retain": _recall("retain"),
    "relearned": _relearned,
}
