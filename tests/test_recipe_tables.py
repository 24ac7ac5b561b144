"""The recipe's tables: what a mean is of where some seeds have no edit to measure."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import recipe_tables

    yield recipe_tables
    del sys.modules["recipe_tables"]


@pytest.fixture
def rows():
    return json.loads((ROOT / "evals/results/recipe.json").read_text())


def retain_kl(tables, rows):
    header, _, *lines = ([cell.strip() for cell in line.split("|")] for line in tables.headline(rows))
    (run5,) = (line for line in lines if line[1] == "run 5")
    return run5[header.index("retain text, KL (nats)")]


def set_retain_kl(rows, values):
    run5 = [row for row in rows if (row["study_setting"], row["variant"]) == ("countries", "run5")]
    for row, value in zip(run5, values, strict=True):
        if value is None:
            row["measures"]["text_effects"] = None
        else:
            row["measures"]["text_effects"]["retain"]["kl"] = value


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        # Half of the interval of two values 0.2 apart: 12.706 * 0.1414 / sqrt(2).
        ([0.5, 0.7, None, None, None], "0.600 ± 1.271 (2 seeds)"),
        ([0.5] * 5, "0.500 ± 0.000"),
        ([None] * 5, "-"),
    ],
)
def test_a_mean_says_of_how_many_seeds_it_is_where_it_is_not_of_all(tables, rows, values, cell):
    set_retain_kl(rows, values)
    assert retain_kl(tables, rows) == cell
