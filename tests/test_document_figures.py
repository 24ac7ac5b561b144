"""The documents' figure: the same drawing from the same results, and a check that sees other ones."""

import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import document_figures

    monkeypatch.setattr(document_figures, "FIGURE", tmp_path / "countries.svg")
    monkeypatch.setattr(document_figures, "RECIPE", tmp_path / "recipe.json")
    (tmp_path / "recipe.json").write_bytes(Path(SCRIPTS.parent, "evals/results/recipe.json").read_bytes())
    yield document_figures
    del sys.modules["document_figures"], sys.modules["recipe_tables"]


def run(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["document_figures.py", *arguments])
    return script.main()


def test_the_same_results_are_drawn_to_the_same_bytes(script, monkeypatch):
    assert run(script, monkeypatch) == 0
    first = script.FIGURE.read_bytes()
    assert run(script, monkeypatch) == 0
    assert script.FIGURE.read_bytes() == first


def test_a_figure_of_other_results_or_none_is_named(script, monkeypatch, capsys):
    assert run(script, monkeypatch, "--check") == 1
    run(script, monkeypatch)
    assert run(script, monkeypatch, "--check") == 0
    rows = json.loads(script.RECIPE.read_text())
    rows[0]["held_out"]["forgetting"] = 0.5
    script.RECIPE.write_text(json.dumps(rows))
    assert run(script, monkeypatch, "--check") == 1
    assert "countries.svg is missing or was drawn from other results" in capsys.readouterr().err


def test_every_method_has_a_bar_as_long_as_its_mean_forgetting(script):
    found = script.methods(json.loads(script.RECIPE.read_text()))
    named = {name: found[name] for name in ("run 5", "baseline, gated")}
    forgetting, near, relearning = script.draw(named).axes
    means = [sum(row["held_out"]["forgetting"] for row in rows) / len(rows) for rows in named.values()]
    assert [bar.get_width() for bar in forgetting.patches] == pytest.approx(means)
    assert [label.get_text() for label in forgetting.get_yticklabels()] == list(named)
    assert len(near.patches) == 2
    # The baseline's edit was not fine-tuned.
    assert [text.get_text() for text in relearning.get_legend().get_texts()] == ["run 5"]


def test_an_interval_ends_where_the_quantity_does(script):
    curve = {"steps": [0, 1], "accuracy": [0.3, 0.4]}
    rows = [
        {"held_out": {"forgetting": value, "chance": 0.25}, "near_accuracy": 1.0, "measures": {"relearning": curve}}
        for value in (0.1, 0.9)
    ]
    forgetting = script.draw({"run 5": rows}).axes[0]
    assert list(forgetting.lines[0].get_xdata()) == [0.0, 1.0]
