"""SAEBench's unlearning evaluation, run by its own functions on models and questions that it does not know.

Patched is only what SAEBench hard-codes: datasets and corpora (read from here instead of the hub), the names of models
that it accepts with their chat format and answer strings, and, for a TransformerBridge, the class that it asks for.
Selection, clamp hook, question metrics and score are SAEBench's. A cloze prompt, which SAEBench lacks, replaces how a
prompt is written and its answer read; the model still runs whole, with SAEBench's hook in place.
"""

from __future__ import annotations

import inspect
import io
import random
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from jaxtyping import Float
from saebench_peer_cases import FORGET, Grid, SideResult, Task
from torch import Tensor
from transformer_lens import HookedTransformer

from sae_lens_contrastive.data.batching import bos_tokens, encode_text
from sae_lens_contrastive.errors import UserError

KNOWN_MODEL = "gemma-2-2b-it"
"""Name under which SAEBench accepts a model: it then writes its Gemma prompt and reads "A" and " A"."""
LETTERS_ALONE_MODEL = "Mistral-7B-v0.1"
"""Name under which SAEBench reads the letters without a space only."""
_SAE = "sae_under_test"
_ALL_CONTEXTS = 1_000_000
"""Above the number of texts and of contexts, so that SAEBench, which shuffles them, uses all."""


class SaeBench(NamedTuple):
    """The modules of SAEBench that take part."""

    main: ModuleType
    evaluation: ModuleType
    metrics: ModuleType
    feature_activation: ModuleType
    eval_config: ModuleType
    general_utils: ModuleType


def import_saebench() -> SaeBench:
    """SAEBench's modules; `UserError` if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It uses what pydantic and TransformerLens have deprecated.
            from sae_bench.evals.unlearning import eval_config, main
            from sae_bench.evals.unlearning.utils import eval as evaluation
            from sae_bench.evals.unlearning.utils import feature_activation, metrics
            from sae_bench.sae_bench_utils import general_utils
    except ImportError as error:
        raise UserError(
            f"SAEBench cannot be imported: {error}. Install it beside newer packages than it pins: "
            "pip install tabulate && pip install --no-deps sae-bench==0.6.0"
        ) from error
    return SaeBench(main, evaluation, metrics, feature_activation, eval_config, general_utils)


def known_questions(model: Any, task: Task, folder: Path, batch_size: int) -> dict[str, list[int]]:
    """Questions that the model answers right as published, by set, by SAEBench's own reading of the answers.

    SAEBench itself asks for all 24 orders of the options; a small model that answers by letter at chance knows
    nothing then, and there would be nothing to compare.
    """
    with patched(model, task) as bench:
        return {
            name: np.flatnonzero(
                bench.metrics.calculate_MCQ_metrics(model, batch_size, str(folder), name, verbose=False)["is_correct"]
            ).tolist()
            for name in task.questions
        }


def run_saebench(model: Any, sae: Any, task: Task, grid: Grid, folder: Path, batch_size: int) -> SideResult:
    """SAEBench's evaluation of one SAE on questions that the model knows, into an empty folder.

    `batch_size` is that of its questions, twice that of its contexts.
    """
    artifacts = str(folder)
    with patched(model, task) as bench:
        _standardise(bench, sae)
        config = bench.eval_config.UnlearningEvalConfig(
            dataset_names=list(task.questions),
            retain_thresholds=list(grid.retain_thresholds),
            n_features_list=list(grid.n_features),
            multipliers=list(grid.multipliers),
            dataset_size=_ALL_CONTEXTS,
            seq_len=task.subject.context_size,
            model_name=KNOWN_MODEL,
            llm_batch_size=batch_size // 2,
        )
        for name, questions in task.questions.items():
            _write_question_ids(folder, name, range(len(questions)))
        with _recorded(bench) as record:
            random.seed(task.seed)
            started = time.perf_counter()
            bench.feature_activation.save_feature_sparsity(
                model, sae, artifacts, _SAE, config.dataset_size, config.seq_len, config.llm_batch_size
            )
            selected = time.perf_counter()
            rates = bench.feature_activation.load_sparsity_data(artifacts, _SAE)
            bench.evaluation.run_metrics_calculation(model, sae, None, *rates, artifacts, _SAE, config, True)
            ended = time.perf_counter()
        score = bench.main.get_unlearning_scores(bench.main.get_metrics_df(folder / _SAE / "results/metrics"))
    return SideResult(
        features=record.features,
        answers=dict(zip(grid.settings, record.answers, strict=True)),
        score=float(score),
        seconds_selection=selected - started,
        seconds_questions=ended - selected,
    )


@contextmanager
def patched(model: Any, task: Task) -> Iterator[SaeBench]:
    """SAEBench made to accept the model and the task; everything is undone at the end."""
    bench = import_saebench()
    metrics = bench.metrics
    records = {name: _records(task, name) for name in task.questions}
    with ExitStack() as stack:

        def put(owner: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(owner, name, value))

        put(metrics, "load_dataset_with_retries", lambda _path, name, split: records[name])  # noqa: ARG005
        put(metrics, "load_dataset_from_name", lambda name: records[name])
        texts = (list(task.forget_texts), list(task.retain_texts))
        put(bench.feature_activation, "get_forget_retain_data", lambda *_names: texts)
        put(model.cfg, "model_name", KNOWN_MODEL)
        if not task.subject.chat:
            put(metrics, "GEMMA_INST_FORMAT", f"{model.tokenizer.bos_token}{{prompt}}\n")
        if len(task.subject.letter_forms) == 1:
            put(metrics, "get_output_probs_abcd", _reading_letters_alone(metrics.get_output_probs_abcd))
        if task.prompt == "cloze":
            put(metrics, "convert_wmdp_data_to_prompt", cloze_prompt)
            put(metrics, "get_output_probs_abcd", cloze_scores)
        if not isinstance(model, HookedTransformer):
            # One function chooses its reading by the class, another is type-checked at every call.
            put(metrics, "HookedTransformer", (HookedTransformer, type(model)))
            sparsity = inspect.unwrap(bench.feature_activation.get_feature_activation_sparsity)
            put(bench.feature_activation, "get_feature_activation_sparsity", sparsity)
        stack.enter_context(torch.no_grad())
        stack.enter_context(redirect_stdout(io.StringIO()))
        yield bench


class ClozePrompt(NamedTuple):
    """A stem and its possible endings, in the place of SAEBench's prompt text."""

    stem: str
    options: tuple[str, ...]


def cloze_prompt(
    question: str, choices: Sequence[str], permute_choices: Sequence[int] | None = None, **_format: Any
) -> ClozePrompt:
    """Stand in for SAEBench's `convert_wmdp_data_to_prompt`."""
    order = range(len(choices)) if permute_choices is None else permute_choices
    return ClozePrompt(question, tuple(choices[i] for i in order))


def cloze_scores(
    model: Any, prompts: Sequence[ClozePrompt], batch_size: int = 2, n_batches: int = 100, verbose: bool = True
) -> Float[Tensor, "n_prompts 4"]:
    """Stand in for SAEBench's `get_output_probs_abcd`: log-probability of each option after the stem.

    As in SAEBench the whole model runs on right-padded batches, in the order of the questions, and unembeds every
    position. `verbose` is there for its caller.
    """
    del verbose
    tokenizer = model.tokenizer
    scores: list[Tensor] = []
    for start in range(0, n_batches * batch_size, batch_size):
        spots: list[tuple[int, int, int]] = []
        sequences: list[list[int]] = []
        for prompt in prompts[start : start + batch_size]:
            stem = [*bos_tokens(tokenizer), *encode_text(tokenizer, prompt.stem)]
            for option in prompt.options:
                ending = encode_text(tokenizer, f" {option}")
                spots += [(len(sequences), len(stem) - 1 + i, token) for i, token in enumerate(ending)]
                sequences.append([*stem, *ending[:-1]])
        tokens = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(sequence) for sequence in sequences], batch_first=True, padding_value=tokenizer.pad_token_id
        )
        logits = model(tokens.to(model.cfg.device), return_type="logits")
        rows, positions, targets = torch.tensor(spots, device=logits.device).T
        log_probs = logits[rows, positions].log_softmax(dim=-1)[torch.arange(len(targets)), targets]
        summed = torch.zeros(len(sequences), device=logits.device, dtype=log_probs.dtype)
        scores.append(summed.index_add(0, rows, log_probs).view(-1, 4))
    return torch.vstack(scores)


def _reading_letters_alone(original: Any) -> Any:
    def read(model: Any, *args: Any, **kwargs: Any) -> Any:
        with mock.patch.object(model.cfg, "model_name", LETTERS_ALONE_MODEL):
            return original(model, *args, **kwargs)

    return read


def _records(task: Task, name: str) -> list[dict[str, Any]]:
    return [
        {"question": q.stems[0], "choices": list(q.options), "answer": q.answer_index} for q in task.questions[name]
    ]


def _standardise(bench: SaeBench, sae: Any) -> None:
    """Let SAEBench copy the hook to where it looks for it; it insists on a model's name beside."""
    sae.cfg.metadata.model_name = KNOWN_MODEL
    bench.general_utils._standardize_sae_cfg(sae.cfg)


@dataclass
class _Record:
    features: dict[float, list[int]]
    answers: list[dict[str, list[bool]]]


@contextmanager
def _recorded(bench: SaeBench) -> Iterator[_Record]:
    """What SAEBench selects and what its metrics are, as they pass by; it saves them under names that can clash."""
    record = _Record({}, [])
    calculate = bench.evaluation.calculate_metrics_list

    def recording(*args: Any, **kwargs: Any) -> Any:
        sweep = inspect.signature(calculate).bind(*args, **kwargs).arguments["sweep"]
        result = calculate(*args, **kwargs)
        widest = max(sweep["features_to_ablate"], key=len)
        record.features[kwargs["retain_threshold"]] = [int(feature) for feature in widest]
        for metrics in result[1:]:  # The first is the unedited model.
            right = {name: (metrics[name]["is_correct"] > 0).tolist() for name in metrics if name != "ablate_params"}
            record.answers.append(right)
        return result

    with mock.patch.object(bench.evaluation, "calculate_metrics_list", recording):
        yield record


def _write_question_ids(folder: Path, name: str, ids: Sequence[int]) -> None:
    """The files from which SAEBench reads which questions count; it makes them itself if one is missing."""
    full_name = name if name == FORGET else f"mmlu-{name.replace('_', '-')}"
    for split in ("train", "test", "all"):
        for kind in ("correct", "correct-iff-question", "correct-no-tricks"):
            path = folder / f"data/question_ids/{split}/{full_name}_{kind}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{i}\n" for i in ids))
