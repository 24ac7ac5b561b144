"""An edited model on the tasks of EleutherAI's lm-evaluation-harness (extra `lm-eval`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from sae_lens_contrastive.errors import UserError, first_line
from sae_lens_contrastive.forget_edit import AppliedEdit
from sae_lens_contrastive.models import HookedBridge
from sae_lens_contrastive.report.table import in_columns

try:
    # As objects of any type: what the harness exports is decorated by functions without types.
    HFLM: Any = import_module("lm_eval.models.huggingface").HFLM
    TaskManager: Any = import_module("lm_eval.tasks").TaskManager
    simple_evaluate: Any = import_module("lm_eval").simple_evaluate
except ImportError as error:
    raise UserError(
        "The lm-evaluation-harness is not installed. Install it with pip install 'sae-lens-contrastive[lm-eval]'."
    ) from error

_Request = tuple[Any, list[int], list[int]]


class EditedLM(HFLM):
    """A model of the harness, its edit in place or not: `applied` decides.

    In a request for the likelihood of a continuation, the context is what the model is asked, and the continuation has
    no say in a gate, as in the evaluation. A text whose own likelihood is asked for is asked as a whole.
    """

    def __init__(self, model: HookedBridge, applied: AppliedEdit | None = None, *, batch_size: int = 1) -> None:
        super().__init__(
            pretrained=model.original_model,
            tokenizer=model.tokenizer,
            batch_size=batch_size,
            max_length=int(model.cfg.n_ctx),
        )
        self.applied = applied
        self._n_asked: dict[tuple[int, ...], int] = {}

    def _loglikelihood_tokens(
        self, requests: list[_Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        self._n_asked = {}
        for text, context, continuation in requests:
            put = (context + continuation)[-(self.max_length + 1) : -1]
            # Only a text whose own likelihood is asked for comes without a text of its own.
            self._n_asked[tuple(put)] = len(put) if text is None else len(put) + 1 - len(continuation)
        return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)

    def _model_call(self, inps: Int[Tensor, "batch pos"], *args: Any, **kwargs: Any) -> Float[Tensor, "batch pos v"]:
        if self.applied is not None:
            self.applied.asked_first([self._asked_of(row) for row in inps.tolist()])
        return super()._model_call(inps, *args, **kwargs)

    def _asked_of(self, row: list[int]) -> int:
        """How many tokens of a row the model is asked; the harness pads rows on the right, with zeros."""
        shortest = len(row)
        while shortest > 0 and row[shortest - 1] == 0:
            shortest -= 1
        rows = (tuple(row[:end]) for end in range(shortest, len(row) + 1))
        return next(self._n_asked[put] for put in rows if put in self._n_asked)


def check_tasks(tasks: Sequence[str], folders: Sequence[Path] = ()) -> Any:
    """The harness's tasks, with those of one's own in `folders`; `UserError` unless all of `tasks` are among them."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"No folder at {folder}. Give one with YAML files of tasks to --include-path.")
    manager = TaskManager(include_path=[str(folder) for folder in folders] or None)
    for task in tasks:
        if not manager.match_tasks([task]):
            raise UserError(
                f"The harness has no task {task!r}. `lm-eval ls tasks` lists them; tasks of your own are found with "
                "--include-path."
            )
    return manager


def evaluate_tasks(
    lm: EditedLM, tasks: Sequence[str], *, manager: Any, limit: int | None = None, n_shots: int | None = None
) -> dict[str, dict[str, float]]:
    """Metrics of each task by the harness's own names, without their filter where that is `none`.

    `limit` takes the first so many documents of each task, None all; `n_shots` examples come before each, None for the
    task's own number. Raises `UserError` for tasks that fail to load or to run.
    """
    try:
        found = simple_evaluate(
            lm, tasks=list(tasks), num_fewshot=n_shots, limit=limit, task_manager=manager, log_samples=False
        )
    # Tasks read datasets of the hub, in ways of their own.
    except Exception as error:
        raise UserError(f"The tasks {', '.join(tasks)} could not be run: {first_line(error)}") from error
    return {task: _numbers(metrics) for task, metrics in found["results"].items()}


def side_by_side_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Metrics of every task without the edit and with it."""
    lines = [("task", "metric", "unedited", "edited")]
    for task, metrics in found["unedited"].items():
        lines += [(task, name, f"{value:.4f}", f"{found['edited'][task][name]:.4f}") for name, value in metrics.items()]
    return in_columns(lines)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        name.removesuffix(",none"): float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and name != "sample_len"
    }
