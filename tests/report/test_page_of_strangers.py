"""Whatever saved JSON says, nothing of it becomes markup, code or a character that is not seen."""

import re

import pytest
from made_results import CURRICULUM, examples, grouping, history, row
from read_page import Page

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.report import load_results, write_page
from sae_lens_contrastive.report.page.text import plotly_json, visible

MARKUP = [
    "</script><script>planted = 1</script>",
    "<img src=x onerror='planted = 1'>",
    '" onclick="planted = 1" x="',
    "<a href='javascript:planted = 1'>look</a>",
    "<b>bold</b><br>&lt;i&gt;",
    "{{ 7 * 7 }}{% for x in y %}",
    "%{customdata} $\\alpha$",
    "<!--<script>",
]
UNSEEN = "a\x1b[2J\x00\x85\u202eb\u2066\u200f\u2028"


def hostile_folder(folder, text, *, unseen=""):
    """A study in which every text is `text`; where they may be, unseen characters follow."""
    chosen = {
        **{"selector": text, "selector_options": {text: text}, "n_features": 1, "n_surviving": 1, "n_selected": 1},
        **{"intervention": text, "intervention_options": {text: text}},
        **{"forget_accuracy": 0.5, "retain_accuracy": 1.0},
    }
    hashes = dict.fromkeys(("sae_sha256", "model_sha256", "spec_sha256"), text)
    facts = {"study_setting": text, "forget_domain": text, "setting": chosen, "frontier": [chosen]}
    facts["provenance"] = {**hashes, "versions": {text: text}}
    rows = [row(text, 0.0, 0.0, seed=seed, cause=text, **facts) for seed in (0, 1)]
    write_json(folder / "results.json", rows)
    train = folder / "train" / "run"
    write_json(train / "history.json", [{**record, f"{text}_loss": 1.0 + record["step"]} for record in history(3)])
    write_json(train / "summary.json", {"variant": text, "seed": 0})
    stages = [{**record, "stage": text + unseen} for record in CURRICULUM]
    write_json(train / "trackers.json", {"curriculum": stages, "grouping": grouping()})
    saved = examples(text + unseen, token=text[:40] + unseen)
    saved["questions"][0] |= {"stem": text + unseen, "options": [text + unseen, text], "domain": text + unseen}
    write_json(folder / "eval/examples/one.json", saved)
    config = {text + unseen: text + unseen, "list": [text + unseen, {"nested": text + unseen}]}
    write_json(folder / "run.json", {"kind": text, "config": config})
    return folder


@pytest.mark.parametrize("text", MARKUP)
def test_markup_stays_text(tmp_path, text):
    folder = hostile_folder(tmp_path, text)
    page = Page(write_page(load_results(folder), folder))
    assert [tag for tag, _ in page.elements].count("script") == 3
    assert {"img", "b", "i", "br"}.isdisjoint(tag for tag, _ in page.elements)
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "a" or attributes["href"].startswith("#")
    assert page.words.count(" ".join(text.split())) >= 8
    # Plotly takes <, > and & in text for markup; the only ones it gets are line breaks of our own.
    for string in page.strings():
        rest = string.replace("<br>", "").replace("<extra></extra>", "").replace("<b>%{fullData.name}</b>", "")
        assert "<" not in rest
        assert not re.search(r"&(?!amp;|lt;|gt;)", rest)
    assert text in page.elements_text("pre") or text.replace("'", "''") in page.elements_text("pre")


def test_no_text_is_a_template_of_plotly(tmp_path):
    folder = hostile_folder(tmp_path, "%{x}")
    page = Page(write_page(load_results(folder), folder))
    templates = {trace[key] for plot in page.plots for trace in plot["data"] for key in trace if "template" in key}
    assert not [
        template
        for template in templates
        if re.sub(r"%\{(fullData\.name|customdata|[xy](:\.\dg|:\.\df)?)\}", "", template).count("%")
    ]


def test_characters_that_are_not_seen_are_signs(tmp_path):
    folder = hostile_folder(tmp_path, "plain", unseen=UNSEEN)
    html = write_page(load_results(folder), folder).read_text(encoding="utf-8")
    page = html[: html.index('<script type="application/json"')]
    data = html[html.index('<script type="application/json"') :].split("</script>")[0]
    for character in set(UNSEEN) - set("ab[2J"):
        assert character not in page + data
    assert "a�[2J���b" in page


def test_text_is_visible():
    assert visible("two\nlines\tand 東京 é 🙂") == "two↵lines⇥and 東京 é 🙂"
    assert visible("\x00\x9f\u202e\ufeff") == "����"
    assert visible(7) == 7


def test_json_holds_no_tag():
    assert plotly_json({"a<": "</script>&", "hovertemplate": "%{x}<br>"}) == (
        '{"a\\u003c":"\\u0026lt;/script\\u0026gt;\\u0026amp;","hovertemplate":"%{x}\\u003cbr\\u003e"}'
    )
    assert plotly_json([1.23456789, float("inf"), True, None, "a\nb"]) == '[1.2346,null,true,null,"a\\u003cbr\\u003eb"]'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": 3}, r"examples of an evaluation \(features: .*\)\. Delete it"),
        ({"seed": "0"}, r"\(seed: Input should be a valid integer\)"),
        ({"html": "<b>"}, r"\(html: Extra inputs are not permitted\)"),
        ({"variant": "a" * 10_000}, r"\(variant: String should have at most 200 characters\)"),
        ({"features": examples("a")["features"] * 9}, r"\(features: List should have at most 8 items"),
    ],
)
def test_examples_that_are_none_are_refused(run_folder, change, message):
    write_json(run_folder / "eval/examples/a.json", {**examples("a"), **change})
    with pytest.raises(UserError, match=message):
        write_page(load_results(run_folder), run_folder)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("questions", {"before": [1.5, 0.0]}),
        ("questions", {"after": [1.0]}),
        ("questions", {"answer_index": 2}),
        ("features", {"forget_rate": float("nan")}),
        ("features", {"snippets": [{"corpus": "forget", "tokens": ["a"], "activations": []}]}),
        ("features", {"snippets": [{"corpus": "web", "tokens": ["a"], "activations": [1.0]}]}),
    ],
)
def test_numbers_of_examples_that_cannot_be_are_refused(run_folder, part, change):
    saved = examples("a")
    saved[part][0] |= change
    write_json(run_folder / "eval/examples/a.json", saved)
    with pytest.raises(UserError, match="does not hold the examples"):
        write_page(load_results(run_folder), run_folder)


@pytest.mark.parametrize("content", [[], {"kind": 3, "config": {}}, {"kind": "eval"}])
def test_a_configuration_that_no_run_wrote_is_refused(run_folder, content):
    write_json(run_folder / "run.json", content)
    with pytest.raises(UserError, match=r"run\.json is not what a run wrote"):
        write_page(load_results(run_folder), run_folder)
