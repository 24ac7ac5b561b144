"""Compare the unlearning evaluation with SAEBench's own code: same answers, same score, how much faster.

Both sides get the same loaded model, SAE, corpora and questions (those that the model answers right as published), and
go through SAEBench's 16 settings. They take turns; seconds are medians. SAEBench runs by its own functions, patched
where it hard-codes names (see saebench_peer.py); ours by this package's. A row says for every setting and question
whether the two agree, and counts the answers that some setting turned wrong: agreement about nothing shows nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from bench_measure import machine, versions
from saebench_peer import import_saebench, known_questions, run_saebench
from saebench_peer_cases import (
    ARCHITECTURES,
    FORGET,
    SUBJECTS,
    Grid,
    Setting,
    SideResult,
    Subject,
    Task,
    made_sae,
    make_task,
    trained_sae,
)
from saebench_peer_models import load_subject

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.saes.stock import load_folder
from sae_lens_contrastive.selectors import Evidence
from sae_lens_contrastive.unlearning import EvalSpec
from sae_lens_contrastive.unlearning.answer_store import AnswerStore
from sae_lens_contrastive.unlearning.score import unlearning_score
from sae_lens_contrastive.unlearning.shared import HookData
from sae_lens_contrastive.unlearning.spec import EvalInputs
from sae_lens_contrastive.unlearning.sweep import sweep


class _TimedData(HookData):
    """Shared data that notes how long selection takes: reading the corpora and encoding them."""

    seconds_selection = 0.0

    def evidence(self, sae: Any, *, gradients: bool) -> Evidence:
        started = time.perf_counter()
        try:
            return super().evidence(sae, gradients=gradients)
        finally:
            self.seconds_selection += time.perf_counter() - started


def ours(model: Any, sae: Any, task: Task, grid: Grid, batch_tokens: int) -> SideResult:
    """This package's sweep of one SAE over the task's questions, as an evaluation runs it."""
    spec = _spec(task, grid, batch_tokens)
    retain_sets = [name for name in task.questions if name != FORGET]
    inputs = EvalInputs(
        forget_questions={"select": list(task.questions[FORGET])},
        retain_questions={"select": [question for name in retain_sets for question in task.questions[name]]},
        near_questions=[],
        forget_texts=task.forget_texts_as_read,
        retain_texts=list(task.retain_texts),
        digest="",
        questions_digest="",
    )
    started = time.perf_counter()
    data = _TimedData(model, task.subject.hook_name, spec, inputs)
    store = AnswerStore(None, {})
    swept = sweep(sae, data, store, title="parity")
    seconds = time.perf_counter() - started
    answers: dict[Setting, dict[str, list[bool]]] = {}
    features: dict[float, list[int]] = {}
    for setting, each in zip(grid.settings, swept, strict=True):
        right = store.get(each.edit) or data.unedited_answers()
        answers[setting] = _by_set(task, data, right)
        features[setting.retain_threshold] = max(
            features.get(setting.retain_threshold, []), list(each.edit.features), key=len
        )
    return SideResult(
        features=features,
        answers=answers,
        score=unlearning_score([each.result for each in swept], spec.retain_gate),
        seconds_selection=data.seconds_selection,
        seconds_questions=seconds - data.seconds_selection,
    )


def _spec(task: Task, grid: Grid, batch_tokens: int) -> EvalSpec:
    """SAEBench's settings in this package's words; the questions and texts themselves are given beside it."""
    given = ["given"]
    return EvalSpec(
        model=task.subject.name,
        forget_domain=FORGET,
        forget_questions=given,
        retain_questions=given,
        forget_corpora=given,
        retain_corpora=given,
        prompt=task.prompt_spec,
        context_size=task.subject.context_size,
        # Above what there is: SAEBench reads all of it, and so do we.
        max_corpus_tokens=4 * task.subject.corpus_tokens,
        corpus_reading="packed",
        selectors={"firing_rate": {"retain_threshold": list(grid.retain_thresholds)}},
        n_features=list(grid.n_features),
        interventions={"clamp": {"multiplier": [float(value) for value in grid.multipliers]}},
        edit_special_tokens=True,
        min_known_questions=1,
        batch_tokens=batch_tokens,
    )


def _by_set(task: Task, data: HookData, right: Mapping[str, Any]) -> dict[str, list[bool]]:
    """Answers by set of questions; one that this package does not find known counts as wrong."""
    by_id = {
        question.id: answer
        for name, evaluator in data.evaluators.items()
        for question, answer in zip(evaluator.known, right[name].tolist(), strict=True)
    }
    return {name: [by_id.get(q.id, False) for q in questions] for name, questions in task.questions.items()}


def compare(
    model: Any, saes: tuple[Any, Any], task: Task, grid: Grid, *, repeats: int, batch_size: int, batch_tokens: int
) -> dict[str, Any]:
    """One row: both sides on one SAE, loaded twice because SAEBench writes into its configuration."""
    mine: list[SideResult] = []
    theirs: list[SideResult] = []
    for _ in range(repeats):
        mine.append(ours(model, saes[0], task, grid, batch_tokens))
        with tempfile.TemporaryDirectory() as folder:
            theirs.append(run_saebench(model, saes[1], task, grid, Path(folder), batch_size))
    seconds = {
        f"seconds_{part}{side}": statistics.median(getattr(result, f"seconds_{name}") for result in results)
        for side, results in (("ours", mine), ("saebench", theirs))
        for part, name in (("", "questions"), ("selection_", "selection"))
    }
    first, peer = mine[0], theirs[0]
    agreeing, total, turned = _agreement(first, peer)
    return {
        "settings": len(grid.settings),
        "questions": {name: len(questions) for name, questions in task.questions.items()},
        "answers_equal": agreeing == total,
        "answers_compared": total,
        "answers_agreeing": agreeing,
        "answers_turned_wrong": turned,
        "features_equal": first.features == peer.features,
        "features_selected": {str(threshold): len(chosen) for threshold, chosen in peer.features.items()},
        "score_ours": first.score,
        "score_saebench": peer.score,
        "score_equal": first.score == peer.score,
        **{name: round(value, 3) for name, value in seconds.items()},
        "ratio": round(seconds["seconds_saebench"] / seconds["seconds_ours"], 2),
        "ratio_with_selection": round(
            (seconds["seconds_saebench"] + seconds["seconds_selection_saebench"])
            / (seconds["seconds_ours"] + seconds["seconds_selection_ours"]),
            2,
        ),
        "seconds_of_repeats": {
            "ours": [round(result.seconds_questions, 3) for result in mine],
            "saebench": [round(result.seconds_questions, 3) for result in theirs],
        },
        **({"breakdown_ours": first.details} if first.details else {}),
    }


def _agreement(mine: SideResult, theirs: SideResult) -> tuple[int, int, int]:
    """Answers that agree, all answers, and those that SAEBench finds wrong at some setting."""
    pairs = [
        (right, peer)
        for setting, by_set in theirs.answers.items()
        for name, peers in by_set.items()
        for right, peer in zip(mine.answers[setting][name], peers, strict=True)
    ]
    return sum(right == peer for right, peer in pairs), len(pairs), sum(not peer for _, peer in pairs)


def main() -> None:
    """Measure every row asked for; each is written at once, beside the rows of other cases that the file has."""
    options = _options()
    import_saebench()
    grid = Grid()
    for name, on in product(options.models, options.model_class):
        subject = SUBJECTS[name]
        model = load_subject(subject, on, device=options.device, dtype=options.dtype)
        for prompt in options.prompts:
            task = _known_task(model, subject, prompt, options)
            for architecture, saes in _saes(model, subject, task, options):
                case = {"model": name, "model_class": on, "dtype": options.dtype, "sae": architecture, "prompt": prompt}
                sizes = {"batch_size": options.batch_size, "batch_tokens": options.batch_tokens}
                row = case | {"machine": machine(options.device)}
                row |= compare(model, saes, task, grid, repeats=options.repeats, **sizes)
                print(_line(row), flush=True)
                _write(options.out, case, row)


def _write(out: Path, case: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """Put a row into the file in place of an earlier one of the same case."""
    rows = read_json(out)["rows"] if out.exists() else []
    others = [other for other in rows if any(other[name] != value for name, value in case.items())]
    write_json(out, {"versions": versions(), "rows": [*others, row]})


def _known_task(model: Any, subject: Subject, prompt: Any, options: argparse.Namespace) -> Task:
    """The task with what the model knows of each set; `UserError` if it knows no forget or no retain question."""
    task = make_task(subject, model.tokenizer, prompt, options.mmlu, max_asked=options.max_asked)
    with tempfile.TemporaryDirectory() as folder:
        known = known_questions(model, task, Path(folder), options.batch_size)
    print(f"{subject.name}, {prompt}: knows " + ", ".join(f"{name} {len(ids)}" for name, ids in known.items()))
    kept = {name: ids for name, ids in known.items() if ids}
    for side, is_there in (("forget", FORGET in kept), ("retain", bool(kept.keys() - {FORGET}))):
        if not is_there:
            raise UserError(
                f"{subject.name} knows none of the {side} questions of --prompts {prompt}. Put more of them with "
                "--max-asked, or choose other --models or --prompts."
            )
    return task.only(kept, options.max_known)


def _saes(
    model: Any, subject: Subject, task: Task, options: argparse.Namespace
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The SAE of every architecture, loaded twice."""
    for architecture in options.architectures:
        if subject.target and options.steps:
            # Trained on the bridge that training loads itself.
            folder = trained_sae(subject, architecture, options.steps, options.work, None)
            yield architecture, tuple(load_folder(architecture, folder, options.device) for _ in range(2))
        else:
            texts = task.retain_texts
            d_sae = 16_384 if model.cfg.d_model == 2304 else 4 * model.cfg.d_model
            made = [made_sae(architecture, model, subject.hook_name, texts, d_sae) for _ in range(2)]
            yield architecture, (made[0], made[1])


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['model']} {row['model_class']} {row['sae']} {row['prompt']}: answers equal {row['answers_equal']} "
        f"({row['answers_turned_wrong']} of {row['answers_compared']} turned wrong), score {row['score_ours']:.6f} and "
        f"{row['score_saebench']:.6f}, {row['seconds_ours']} s and {row['seconds_saebench']} s: {row['ratio']} x"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    parser.add_argument("--work", type=Path, required=True, help="folder for trained SAEs, used again if there")
    parser.add_argument("--mmlu", type=Path, help="folder of MMLU's <domain>_test.csv; without it no prompt by letter")
    parser.add_argument(
        "--models", nargs="+", choices=SUBJECTS, default=["smollm2-135m-instruct", "tiny-random-gemma-2"]
    )
    parser.add_argument("--model-class", nargs="+", choices=("bridge", "hooked_transformer"), default=["bridge"])
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--prompts", nargs="+", choices=("cloze", "letter"))
    parser.add_argument("--steps", type=int, default=150, help="training steps of an SAE; 0 makes one without training")
    parser.add_argument("--max-asked", type=int, default=120, help="questions of a set put to find known ones")
    parser.add_argument("--max-known", type=int, default=12, help="known questions of a set that are compared")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8, help="SAEBench's batch of questions; 8 is its own")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="our batch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    options.prompts = options.prompts or (["cloze", "letter"] if options.mmlu else ["cloze"])
    if "letter" in options.prompts and options.mmlu is None:
        parser.error("--prompts letter needs --mmlu")
    return options


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"saebench_parity: {error}")
