import errno
import json
from pathlib import Path

import pytest

from sae_lens_contrastive.cli import commands, main
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import write_json

ROOT = Path(__file__).parents[1]


def _help(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--help"])
    assert done.value.code == 0
    return capsys.readouterr().out


def test_the_help_has_examples_and_exit_codes(capsys):
    text = _help(capsys)
    for part in ("demo", "train", "eval", "report", "examples:", "--out runs/demo", "exit codes: 0 done, 2 "):
        assert part in text


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("demo", ["--out", "default: runs/demo", "no network and no GPU", "a baseline and the recipe, run5"]),
        ("train", ["TARGET.yaml", "VARIANT.yaml", "--set KEY=VALUE", "keys of training:", "lr (default: 0.0003)"]),
        ("eval", ["SPEC.yaml", "--sae DIR", "--release", "--sae-id", "retain_gate (default: 0.99)"]),
        ("search", ["--set 'space={sae.k: {choices: [4, 8]}}'"]),
        ("sweep", ["--set 'grid={sae.k: [4, 8]}'"]),
        ("report", ["DIR", "--out folder of demo, train, eval, study, search or sweep"]),
    ],
)
def test_every_command_explains_itself(capsys, command, parts):
    text = " ".join(_help(capsys, command).split())
    assert [part for part in parts if part not in text] == []


def test_every_key_of_a_configuration_is_explained(capsys):
    for command in ("train", "eval"):
        lines = _help(capsys, command).splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("keys of"))
        keys = [i for i, line in enumerate(lines) if i > start and line.startswith("  ") and line[2:3].strip()]
        assert len(keys) > 12
        assert [lines[i] for i in keys if not lines[i + 1].strip()] == []


@pytest.mark.parametrize("arguments", [[], ["tarin"], ["train"], ["eval"], ["report"], ["demo", "--fast"]])
def test_a_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 2
    assert capsys.readouterr().err.startswith("usage: sae-lens-contrastive")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("lr is 0."), 2, "sae-lens-contrastive: lr is 0."),
        (KeyboardInterrupt(), 130, "Run the same command again"),
    ],
)
def test_errors_become_exit_codes(monkeypatch, capsys, tmp_path, error, code, message):
    def fail(_options):
        raise error

    monkeypatch.setattr(commands, "report", fail)
    assert main(["report", str(tmp_path)]) == code
    assert message in capsys.readouterr().err


def test_a_defect_is_not_dressed_up_as_a_mistake_of_the_user(monkeypatch, tmp_path):
    def fail(_options):
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "report", fail)
    with pytest.raises(ZeroDivisionError):
        main(["report", str(tmp_path)])


def test_a_path_that_cannot_be_used_is_a_mistake_of_the_user(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    name = "x" * 300
    for arguments in (["train", name, "v.yaml", "--out", "out"], ["report", name], ["demo", "--out", name]):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said == f"sae-lens-contrastive: {name}: File name too long. Give a path that can be used.\n"
    assert list(tmp_path.iterdir()) == []

    def fail(_options):
        raise PermissionError(errno.EACCES, "Permission denied", "locked/target.yaml")

    monkeypatch.setattr(commands, "train", fail)
    assert main(["train", "locked/target.yaml", "v.yaml"]) == 2
    assert "locked/target.yaml: Permission denied. Give a path" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error", "a"), PermissionError(errno.EPERM, "Operation not permitted")]
)
def test_an_error_of_the_system_that_names_no_such_path_stays_what_it_is(monkeypatch, tmp_path, error):
    def fail(_options):
        raise error

    monkeypatch.setattr(commands, "report", fail)
    with pytest.raises(OSError, match=error.strerror):
        main(["report", str(tmp_path)])


def test_a_report_names_its_figures_and_its_page(tmp_path, capsys):
    records = [{"step": step, "overall_loss": 1 / step} for step in (1, 2, 3)]
    write_json(tmp_path / "a" / "history.json", records)
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'training_losses.png'}\n{tmp_path / 'report.html'}\n"


def test_a_report_into_a_folder_that_takes_nothing_is_refused_at_once(tmp_path, monkeypatch, capsys):
    def refuse(**_how):
        raise PermissionError(13, "Permission denied")

    write_json(tmp_path / "a" / "history.json", [{"step": step, "overall_loss": 1 / step} for step in (1, 2, 3)])
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(["report", str(tmp_path)]) == 2
    said = f"Nothing can be written to {tmp_path} (Permission denied). Give another folder with DIR."
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_json_is_the_only_output(tmp_path, capsys):
    write_json(tmp_path / "a" / "history.json", [{"step": step, "overall_loss": 1 / step} for step in (1, 2, 3)])
    assert main(["report", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    figure, page = (str(tmp_path / name) for name in ("training_losses.png", "report.html"))
    assert json.loads(printed.out) == {"rows": [], "figures": [figure], "page": page}
    assert printed.err == f"{figure}\n{page}\n"


def test_json_has_null_for_what_is_no_number(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(commands, "report", lambda *_: {"rows": [float("nan"), float("inf"), 1.5], "page": tmp_path})
    assert main(["report", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": [None, None, 1.5], "page": str(tmp_path)}


def test_with_json_a_mistake_leaves_the_output_empty(tmp_path, capsys):
    assert main(["report", str(tmp_path / "nowhere"), "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "No folder at" in printed.err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["demo"], ["run5", "baseline", "evaluation:", "likelihood style"]),
        (
            ["train", "configs/targets/tiny.yaml", "configs/variants/run5.yaml"],
            ["output_kl", "with the model", "memory", "fits"],
        ),
        (
            ["study", "evals/study_tiny.yaml", "--only", "sparse_and_wide"],
            ["sparse_and_wide/seed0: run0, run5; ", "sparse_and_wide/seed1", "2 evaluations", "all 2 parts: "],
        ),
        (["sweep", "configs/sweeps/smollm2.yaml"], ["8 jobs of 2 CPUs", "once for all jobs", "every evaluation:"]),
        (["search", "configs/search/smollm2.yaml"], ["40 trials that vary sae.k, ", "contrastive: with the model"]),
    ],
    ids=["demo", "train", "study", "sweep", "search"],
)
def test_a_dry_run_tells_memory_and_time_and_does_nothing(arguments, parts, capsys, tmp_path, monkeypatch):
    arguments = [str(ROOT / each) if each.endswith(".yaml") else each for each in arguments]
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--dry-run", "--json"]) == 0
    printed = capsys.readouterr()
    plan = json.loads(printed.out)
    assert printed.err == f"{plan['text']}\n"
    assert [part for part in parts if part not in plan["text"]] == []
    assert plan["seconds"] > 0
    assert plan["peak_bytes"] > 0
    assert plan["fits"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["study", "search", "sweep"])
def test_a_folder_or_a_dry_run_is_asked_for(command, capsys):
    files = {
        "study": "evals/study_tiny.yaml",
        "search": "configs/search/smollm2.yaml",
        "sweep": "configs/sweeps/smollm2.yaml",
    }
    assert main([command, str(ROOT / files[command])]) == 2
    assert "with --out, or see the plan with --dry-run." in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_shells_complete_commands_and_options(shell, capsys):
    with pytest.raises(SystemExit) as done:
        main(["--print-completion", shell])
    assert done.value.code == 0
    script = capsys.readouterr().out
    for part in ("demo", "study", "--dry-run", "--only"):
        assert part.removeprefix("--") in script
