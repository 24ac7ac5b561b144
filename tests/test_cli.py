import pytest

from sae_lens_contrastive.cli import commands, main
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import write_json


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
        ("demo", ["--out", "default: runs/demo", "no network and no GPU"]),
        ("train", ["TARGET.yaml", "VARIANT.yaml", "--set KEY=VALUE", "keys of training:", "lr (default: 0.0003)"]),
        ("eval", ["SPEC.yaml", "--sae DIR", "--release", "--sae-id", "retain_gate (default: 0.99)"]),
        ("report", ["DIR", "--out folder"]),
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


def test_a_report_names_its_figures_and_its_page(tmp_path, capsys):
    records = [{"step": step, "overall_loss": 1 / step} for step in (1, 2, 3)]
    write_json(tmp_path / "a" / "history.json", records)
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'training_losses.png'}\n{tmp_path / 'report.html'}\n"
