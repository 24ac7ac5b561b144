import itertools
import re

import plotly.graph_objects as go
import pytest
from made_results import examples, history, row, run
from read_page import Page

from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.report import SavedResults, load_results, write_page

ALL = [
    *("results", "measures", "frontier", "scores", "losses", "thresholds", "correlations", "clusters", "importance"),
    *("stability", "curriculum", "relearning", "features", "questions", "provenance"),
]
PROVENANCE = {"sae_sha256": "5ae" * 9, "model_sha256": "30d" * 9, "spec_sha256": "", "versions": {"torch": "2.13.0"}}


def page_of(folder):
    return Page(write_page(load_results(folder), folder))


@pytest.fixture
def whole_study(study_folder):
    """A study with everything that a page can show."""
    for setting, variant, seed in (("wide", "run0", 1), ("wide", "run5", 0), ("narrow", "run5", 1)):
        place = study_folder / setting / f"seed{seed}" / "eval" / "plain" / "examples"
        write_json(place / f"{variant}.json", examples(variant, seed))
    config = {"wide/seed0": {"runs": [{"variant": "run0", "lr": 0.001}]}, "narrow/seed0": {"runs": []}}
    write_json(study_folder / "run.json", {"kind": "study", "config": config})
    return study_folder


def test_a_study_has_every_section_under_its_heading(whole_study):
    page = page_of(whole_study)
    assert page.sections == ALL
    assert [attributes.get("id") for tag, attributes in page.elements if tag == "main"] == ["content"]
    linked = [attributes["href"][1:] for tag, attributes in page.elements if tag == "a"]
    assert linked == ["content", *ALL]
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    assert "Forgetting countries" in page.words
    assert "seed 0, 1 feature of the chosen edit" in page.text
    assert "Seeds 0, 1." in page.words
    assert "lr: 0.001" in page.text


def test_the_tables_hold_what_is_printed(run_folder):
    rows = [row("baseline", 0.0, 0.0, cause="no_features"), row("contrastive", 0.8125, 0.94, provenance=PROVENANCE)]
    write_json(run_folder / "results.json", rows)
    page = page_of(run_folder)
    assert "0.812" in page.words
    assert "0.295 (0.195 to 0.375)" in page.words
    assert "no_features" in page.words
    assert "2 of 4" in page.words
    assert [attributes["scope"] for tag, attributes in page.elements if tag == "th"].count("row") == 2 + 2 + 1 + 1
    assert [word for word in page.words if word in ("2.13.0", "5ae" * 9, "30d" * 9)] == ["2.13.0", "5ae" * 9, "30d" * 9]


def test_several_seeds_have_an_interval(study_folder):
    page = page_of(study_folder)
    assert "0.550 ± 0.635" in page.words
    assert "±: half of the 95 % interval of the mean over the seeds (Student's t)." in page.words


def test_a_point_of_the_frontier_says_what_the_setting_is(run_folder):
    page = page_of(run_folder)
    points = next(trace for plot in page.plots for trace in plot["data"] if "retain" in trace["hovertemplate"])
    assert (
        points["customdata"][1]
        == "firing_rate, retain_threshold 0.001<br>n_features 20<br>clamp, multiplier 50<br>seed 0"
        "<br>and 1 more at this point"
    )
    assert (points["x"][1], points["y"][1]) == (1.0, 1.0)
    assert "baseline: 4 settings, retain accuracy 0.990 to 1.000 and forget accuracy 1.000 to 1.000" in page.words


def test_plotly_knows_all_that_a_plot_says(whole_study):
    page = page_of(whole_study)
    assert len(page.plots) == sum(tag == "figure" for tag, _ in page.elements) > 20
    for plot in page.plots:
        go.Figure(plot["data"], plot["layout"])
        assert plot["height"] >= 100


def test_every_plot_has_words(whole_study):
    page = page_of(whole_study)
    described = [attributes["aria-describedby"] for tag, attributes in page.elements if "data-plot" in attributes]
    ids = [attributes.get("id") for _, attributes in page.elements]
    assert len(described) == len(page.plots)
    assert all(ids.count(each) == 1 for each in described)
    assert "run0: 8.1 at 5, 0.975 at 100" in page.words
    assert "run5, forgetting (held-out questions): 0.55 (-0.09 to 1.19)" in page.words


def test_features_and_answers_are_shown(run_folder):
    write_json(run_folder / "eval/examples/contrastive.json", examples("contrastive"))
    page = page_of(run_folder)
    assert page.sections[-3:] == ["features", "questions", "provenance"]
    assert "Feature 517" in page.words
    assert "25.00 % of forget tokens," in page.words
    assert "1.25 % of retain tokens." in page.words
    shades = [attributes["class"] for tag, attributes in page.elements if tag == "mark"]
    assert shades == ["s2", "s8"]
    widths = [attributes["width"] for tag, attributes in page.elements if attributes.get("class") == "part"]
    assert widths == ["15.0", "0.8", "7.5", "45.0", "52.5", "15.0"]
    assert [word for word in page.words if word in ("0.12", "0.88", "0.75", "0.25")] == ["0.12", "0.75", "0.88", "0.25"]


def test_what_is_missing_is_left_out(tmp_path):
    only_rows = SavedResults([row("a", 0.0, 0.0, cause="unknown_questions", frontier=[])])
    page = Page(write_page(only_rows, tmp_path))
    assert page.sections == ["results", "measures", "scores", "provenance"]
    page = Page(write_page(SavedResults(runs=[run("plain")]), tmp_path))
    assert page.sections == ["losses", "provenance"]
    assert page.words[0] == f"Training in {tmp_path.name}"
    without_questions = examples("a", features_from="rates", questions=False)
    write_json(tmp_path / "examples/a.json", without_questions)
    page = Page(write_page(only_rows, tmp_path))
    assert "features" in page.sections
    assert "questions" not in page.sections
    assert "by firing rates; no edit was chosen" in page.text


def test_numbers_that_are_not_finite_are_gaps(tmp_path):
    records = history(3)
    records[1]["overall_loss"] = float("nan")
    page = Page(write_page(SavedResults(runs=[run("a", records=records)]), tmp_path))
    assert page.plots[0]["data"][0]["y"][1] is None


def test_the_page_asks_for_nothing(whole_study):
    path = write_page(load_results(whole_study), whole_study)
    page = Page(path)
    assert [tag for tag, _ in page.elements if tag in ("link", "img", "iframe", "object", "base", "form")] == []
    assert all("src" not in attributes for _, attributes in page.elements)
    policy = next(a["content"] for tag, a in page.elements if "Content-Security-Policy" in a.values())
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.split(";")[1]
    assert path.stat().st_size < 6_000_000
