"""The lm-evaluation-harness scores an edited model as the edit says, pads and options apart."""

import json
import sys

import pytest
import torch
import yaml

from sae_lens_contrastive import UserError
from sae_lens_contrastive.cli import main
from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.forget_edit import apply_forget_edit, save_forget_edit
from sae_lens_contrastive.harness import EditedLM, check_tasks, evaluate_tasks

CLAMP = {"model": "tiny-random-gemma-2", "intervention": "clamp", "gate_threshold": None}
QUESTIONS = [
    {"stem": "Abc", "options": ["d", "efgh"], "label": 0},
    {"stem": "A longer stem that is asked", "options": ["x", "yz"], "label": 1},
    {"stem": "Peru", "options": [" is", " are there"], "label": 0},
]


@pytest.fixture
def tasks(tmp_path):
    """A folder with a task of one's own, `stems`."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "stems.jsonl").write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    task = {
        "task": "stems",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "stems.jsonl")}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{stem}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "label",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "stems.yaml").write_text(yaml.safe_dump(task))
    return folder


def requests(lm):
    """The likelihood requests of the questions."""
    pairs = [(question["stem"], option) for question in QUESTIONS for option in question["options"]]
    return [(pair, *lm._encode_pair(*pair)) for pair in pairs]


def by_hand(tiny, sae, edit, context, continuation, n_asked):
    """log p(continuation | context) under the edit, the sequence alone."""
    tokens = torch.tensor([context + continuation])
    with apply_forget_edit(tiny, sae, edit) as applied, torch.no_grad():
        applied.asked_first([n_asked])
        log_p = tiny.original_model(tokens[:, :-1]).logits[0].float().log_softmax(-1)
    places = range(len(context) - 1, tokens.shape[1] - 1)
    return sum(log_p[place, token].item() for place, token in zip(places, continuation, strict=True))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_likelihoods_are_those_of_the_edited_model_in_any_batch(tiny, sae, make_edit, batch_size):
    edit = make_edit(**CLAMP)
    with apply_forget_edit(tiny, sae, edit) as applied:
        lm = EditedLM(tiny, applied, batch_size=batch_size)
        found = lm._loglikelihood_tokens(requests(lm), disable_tqdm=True)
    wanted = [by_hand(tiny, sae, edit, context, options, len(context)) for _, context, options in requests(lm)]
    assert [value for value, _ in found] == pytest.approx(wanted, abs=1e-4)
    plain = EditedLM(tiny, batch_size=batch_size)
    assert [value for value, _ in plain._loglikelihood_tokens(requests(plain))] != pytest.approx(wanted, abs=1e-2)


def test_an_option_does_not_open_a_gate_and_a_text_of_its_own_does(tiny, sae, make_edit):
    stem, option = (encode_text(tiny.tokenizer, text) for text in ("a", "bc"))
    stem = [tiny.tokenizer.bos_token_id, *stem]
    edit = make_edit()
    values = {}
    for text in (("a", "bc"), None):
        with apply_forget_edit(tiny, sae, edit) as applied:
            lm = EditedLM(tiny, applied)
            ((values[text], _),) = lm._loglikelihood_tokens([(text, stem, option)], disable_tqdm=True)
            assert bool(applied.changed.any()) == (text is None)
    plain = EditedLM(tiny)
    ((unedited, _),) = plain._loglikelihood_tokens([(("a", "bc"), stem, option)], disable_tqdm=True)
    assert values["a", "bc"] == pytest.approx(unedited, abs=1e-5)
    assert values[None] == pytest.approx(by_hand(tiny, sae, edit, stem, option, len(stem) + len(option)), abs=1e-4)


def test_a_task_of_ones_own_is_scored(tiny, tasks):
    lm = EditedLM(tiny, batch_size=2)
    found = evaluate_tasks(lm, ["stems"], manager=check_tasks(["stems"], [tasks]))
    values = [value for value, _ in lm._loglikelihood_tokens(requests(lm), disable_tqdm=True)]
    right = [int(values[2 * i] < values[2 * i + 1]) == question["label"] for i, question in enumerate(QUESTIONS)]
    assert found["stems"]["acc"] == pytest.approx(sum(right) / len(right))


def test_the_command_prints_both_and_writes_them(sae, make_edit, tasks, tmp_path, model_cache, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sae.save_model("sae")
    save_forget_edit(make_edit(**CLAMP), tmp_path / "sae")
    command = ["harness", "--sae", "sae", "--tasks", "stems", "--include-path", str(tasks), "--out", "out"]
    assert main(command) == 0
    found = json.loads((tmp_path / "out/harness.json").read_text())
    assert set(found) == {"unedited", "edited"}
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    wanted = ["stems", "acc", *(f"{found[side]['stems']['acc']:.4f}" for side in ("unedited", "edited"))]
    assert wanted in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "no_such_task"], "The harness has no task 'no_such_task'"),
        (["--tasks", "stems", "--include-path", "gone"], "No folder at gone"),
        (["--tasks", "stems", "--limit", "0"], "--limit is 0. Give 1 or more."),
        (["--tasks", "stems", "--batch-size", "0"], "--batch-size is 0. Give 1 or more."),
        (["--tasks", "stems", "--num-fewshot", "-1"], "--num-fewshot is -1. Give 0 or more."),
    ],
)
def test_what_cannot_be_run_is_refused_before_the_model_loads(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["harness", "--sae", "sae", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_without_the_harness_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "sae_lens_contrastive.harness")
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)
    assert main(["harness", "--sae", "sae", "--tasks", "stems"]) == 2
    assert "pip install 'sae-lens-contrastive[lm-eval]'" in capsys.readouterr().err


def test_a_task_that_fails_is_said(tiny, tasks):
    (tasks / "stems.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"The tasks stems could not be run: "):
        evaluate_tasks(EditedLM(tiny), ["stems"], manager=check_tasks(["stems"], [tasks]))
