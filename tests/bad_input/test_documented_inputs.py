"""Every row of docs/bad_input.md is what a command says, before any model is loaded."""

import pytest
from cases import CASES
from document import DOCUMENT, row
from folder import BadInput
from trying import said

from sae_lens_contrastive.models.embedded import CACHE_VARIABLE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory; a model that is loaded or built would fail there in its own words."""
    (tmp_path / "no_models").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "no_models"))
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.wrong}")
def test_the_message_is_the_documented_one_and_nothing_is_left(case, folder, capsys):
    code, message = said(case, folder)
    assert code == 2
    assert row(case, message) in DOCUMENT.read_text(encoding="utf-8").splitlines()
    assert "Traceback" not in message
    assert (folder / "out").exists() == any(path.startswith("out") for path in case.files)
    assert "unpickled" not in capsys.readouterr().out


def test_the_document_has_no_row_without_a_test():
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    kinds = {case.kind for case in CASES}
    assert len(rows) == len(CASES) + len(kinds)  # a header each


def test_a_folder_without_anything_wrong_is_accepted_by_a_report(folder):
    assert said(BadInput("results", "nothing", "report results"), folder)[0] == 0
