"""Weights & Biases: whether it can be written to, opening a run, and records as its tables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import wandb
import wandb.errors

from sae_lens_contrastive.errors import UserError, first_line

_HOW_TO_LOG_IN = "Log in with `wandb login`, or set WANDB_MODE=offline and sync later."


def is_online() -> bool:
    """Whether runs go to a server, as `WANDB_MODE` or W&B's own settings say."""
    return (os.environ.get("WANDB_MODE") or wandb.setup().settings.mode) == "online"


def check_wandb() -> None:
    """Raise `UserError` unless runs can be logged: W&B is off or offline, or has a key that its server takes."""
    try:
        if not is_online() or wandb.login(prompt=False):
            return
    except wandb.errors.Error as error:
        raise UserError(f"Logging in to W&B failed: {first_line(error)} {_HOW_TO_LOG_IN}") from error
    raise UserError(f"W&B has no API key. {_HOW_TO_LOG_IN}")


def open_wandb_run(project: str, **how: Any) -> Any:
    """A run beside any others of this process, `how` as `wandb.init` takes it; `UserError` if W&B refuses."""
    try:
        return wandb.init(project=project, reinit="create_new", **how)
    except wandb.errors.Error as error:
        raise UserError(f"W&B refuses a run in project {project!r}: {error}") from error


def record_table(records: Sequence[Mapping[str, Any]]) -> wandb.Table:
    """Records as a table with a column for every key; lists and nested records in it are JSON."""
    columns: list[Any] = list(dict.fromkeys(key for record in records for key in record))
    return wandb.Table(columns=columns, data=[[_cell(record.get(column)) for column in columns] for record in records])


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)
