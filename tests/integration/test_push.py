"""SAEs with their forget edits go to the hub and come back; the hub is a folder here."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from folder_hub import folder_in_place_of_the_hub
from huggingface_hub import ModelCard

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.forget_edit import load_forget_edit
from sae_lens_contrastive.hub import download, upload

REPO = "someone/forgets-rivers"
PUSH = ["push", "--sae", "trained/plain/sae", "--eval", "out", "--repo", REPO]
DRY_RUN = [*PUSH, "--dry-run", "--out", "repository"]
GENERATE = ["generate", "--release", REPO, "--sae-id", "plain", "--max-new-tokens", "4", "--json", "--prompt", "Peru"]
FILES = {
    "README.md",
    "plain/cfg.json",
    "plain/config.yaml",
    "plain/forget_edit.json",
    "plain/runner_cfg.json",
    "plain/sae_weights.safetensors",
    "plain/sparsity.safetensors",
    "plain/unlearning_eval_results.json",
}


@pytest.fixture
def hub(evaluated, monkeypatch):
    return folder_in_place_of_the_hub(evaluated / "hub", monkeypatch)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_pushed_is_loaded_by_stock_saelens_and_forgets(evaluated, hub, capsys):
    assert main([*PUSH, "--private"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"hub/{REPO}"
    assert hub.private is True
    assert files(hub.root / REPO) == FILES
    local = ["generate", "--sae", "trained/plain/sae", "--edit", "out/forget_edits/plain.json", *GENERATE[5:]]
    said = []
    for command in (local, GENERATE):
        assert main(command) == 0
        said.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert said[0] == said[1]


def test_a_dry_run_writes_the_folder_and_uploads_nothing(evaluated, hub, capsys):
    assert main(DRY_RUN) == 0
    assert "repository: not uploaded" in capsys.readouterr().out
    assert not hub.root.exists()
    folder = evaluated / "repository"
    assert files(folder) == FILES
    assert load_forget_edit(folder / "plain") == load_forget_edit(evaluated / "out/forget_edits/plain.json")
    assert yaml.safe_load((folder / "plain/config.yaml").read_text())["variant"] == "plain"
    published = json.loads((folder / "plain/unlearning_eval_results.json").read_text())
    (result,) = json.loads((evaluated / "out/results.json").read_text())
    assert published["eval_result_unstructured"]["result"] == result

    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "saelens"
    assert card.data.base_model is None  # the tiny model is on no hub
    low, high = result["held_out"]["ci95"]
    accuracy = f"{result['held_out']['forget_accuracy']:.3f} ({low:.3f} to {high:.3f})"
    assert f"| plain | countries | {result['held_out']['forgetting']:.3f} | {accuracy}" in card.text
    assert f'sae = SAE.from_pretrained("{REPO}", "plain")' in card.text
    assert f'edit = download_forget_edit("{REPO}", "plain")' in card.text
    assert "variant: plain" in card.text


def test_a_card_that_is_there_is_kept_and_that_is_said(evaluated, hub, capsys):
    assert main(PUSH) == 0
    assert "is kept" not in capsys.readouterr().out
    card = hub.root / REPO / "README.md"
    card.write_text("mine")
    assert main(PUSH) == 0
    assert card.read_text() == "mine"
    said = f"README.md of {REPO} is kept as it is; push with --dry-run --out DIR writes the new one to DIR."
    assert said in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("private_by_default", [False, True])
def test_without_private_a_new_repository_is_as_its_owner_has_it(evaluated, hub, private_by_default):
    hub.private_by_default = private_by_default
    assert main(PUSH) == 0
    assert hub.private is private_by_default


def test_what_is_to_be_private_is_not_uploaded_to_a_public_repository(evaluated, hub, capsys):
    (hub.root / REPO).mkdir(parents=True)
    hub.private = False
    assert main([*PUSH, "--private"]) == 2
    said = capsys.readouterr().err
    assert f"{REPO} is there and public; --private makes only a new repository private. Nothing was uploaded." in said
    assert files(hub.root) == set()
    hub.private = True
    assert main([*PUSH, "--private"]) == 0
    assert files(hub.root / REPO) == FILES


def test_a_config_beside_an_sae_that_is_not_of_its_training_stays_at_home(evaluated):
    (evaluated / "trained/plain/config.yaml").write_text("api_token: secret\n")
    assert main(DRY_RUN) == 0
    assert files(evaluated / "repository") == FILES - {"plain/config.yaml"}
    assert "secret" not in (evaluated / "repository/README.md").read_text()


def test_what_a_later_push_of_an_sae_lacks_is_gone_from_the_hub(evaluated, hub):
    assert main(PUSH) == 0
    of_another = hub.root / REPO / "other/forget_edit.json"
    of_another.parent.mkdir()
    of_another.write_text("{}")
    assert main(DRY_RUN) == 0
    gone = {f"plain/{name}" for name in ("config.yaml", "forget_edit.json", "sparsity.safetensors")}
    for name in gone:
        (evaluated / "repository" / name).unlink()
    upload.push(evaluated / "repository", REPO)
    assert files(hub.root / REPO) == FILES - gone | {"other/forget_edit.json"}


def test_an_sae_without_a_passing_setting_has_no_edit_and_a_zero_with_its_cause(evaluated, hub):
    gate = ["--set", "interventions={clamp: {multiplier: 100000}}", "--set", "retain_gate=1.0"]
    measures = ["--set", "measures.random_baseline=null", "--set", "measures.text_effects=null"]
    assert main(["eval", "tiny.yaml", "--sae", "trained/plain/sae", "--out", "strict", *gate, *measures]) == 0
    (result,) = json.loads((evaluated / "strict/results.json").read_text())
    assert result["cause_of_zero"] == "retain_gate"
    assert main(["push", "--sae", "trained/plain/sae", "--eval", "strict", "--repo", REPO]) == 0
    assert files(hub.root / REPO) == FILES - {"plain/forget_edit.json"}
    card = (hub.root / REPO / "README.md").read_text()
    assert "| `retain_gate` |" in card
    assert "download_forget_edit" not in card


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (DRY_RUN[:-2], "Give a folder with --out for a --dry-run"),
        ([*PUSH, "--out", "repository"], "and only for that"),
        ([*DRY_RUN[:-1], "trained"], "trained is not empty. Give a new or empty folder with --out"),
        (["push", *PUSH[3:], *DRY_RUN[-3:]], "Give at least one SAE"),
        ([*DRY_RUN, "--repo", "forgets"], "names no owner. Give it as OWNER/NAME"),
        ([*DRY_RUN, "--repo", "a/b c"], "'a/b c' cannot name a repository"),
        ([*DRY_RUN, "--sae", "trained/term/sae"], "holds no evaluation of 'term'. Evaluated there: plain"),
        ([*DRY_RUN, "--eval", "trained"], "holds no evaluation of 'plain'"),
        ([*DRY_RUN, "--sae", "./trained/plain/sae"], "Two of the SAEs have the same name"),
        ([*DRY_RUN, "--sae", "gone"], "no cfg.json in gone"),
        (PUSH, "no token for the Hugging Face hub. Run `hf auth login`"),
        ([*GENERATE, "--sae", "trained/plain/sae"], "Give one SAE"),
        ([*GENERATE[:3], *GENERATE[5:]], "Give one SAE"),
    ],
)
def test_what_cannot_be_pushed_is_refused_in_one_line(evaluated, monkeypatch, capsys, command, message):
    monkeypatch.setattr(upload, "get_token", lambda: None)
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert message in said[0]
    assert not (evaluated / "repository").exists()


def test_another_sae_than_the_evaluated_is_refused(evaluated, capsys):
    shutil.copy("trained/term/sae/sae_weights.safetensors", "trained/plain/sae/sae_weights.safetensors")
    assert main(DRY_RUN) == 2
    assert "is not the one that out evaluated as 'plain'" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "content"), [("out/plain.json", "{}"), ("out/saebench/plain_eval_results.json", "1")])
def test_a_damaged_evaluation_is_refused(evaluated, capsys, name, content):
    Path(name).write_text(content)
    assert main(DRY_RUN) == 2
    assert f"{name} is not" in capsys.readouterr().err


def test_what_the_hub_refuses_is_said(evaluated, hub, monkeypatch, capsys):
    def refuse(*_args, **_kwargs):
        raise OSError("403: no right to write")

    monkeypatch.setattr(hub, "create_repo", refuse)
    assert main(PUSH) == 2
    assert f"{REPO} could not be uploaded to: 403: no right to write." in capsys.readouterr().err
    monkeypatch.setattr(download, "hf_hub_download", refuse)
    assert main(GENERATE) == 2
    assert "No forget edit of 'plain' could be had from 'someone/forgets-rivers'" in capsys.readouterr().err
