"""What is published of each SAE: its folder, what an evaluation says of it, and how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sae_lens_contrastive.config import load_yaml, parse_config
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.files import read_json
from sae_lens_contrastive.forget_edit import ForgetEdit, load_forget_edit
from sae_lens_contrastive.training import RunConfig
from sae_lens_contrastive.training.train import CONFIG_FILE
from sae_lens_contrastive.unlearning import SaeUnderTest, UnlearningResult
from sae_lens_contrastive.unlearning.saved_results import FORGET_EDITS_FOLDER, SAEBENCH_FOLDER
from sae_lens_contrastive.unlearning.subject import SaeFacts, check_sae


@dataclass(frozen=True)
class Publication:
    """One SAE with its evaluation."""

    folder: Path
    """Folder of the SAE, in SAELens' format."""
    facts: SaeFacts
    """Its hook, sizes and configuration."""
    result: UnlearningResult
    """What the evaluation found."""
    edit: ForgetEdit | None
    """What the evaluation chose; None where no setting passed the gate."""
    saebench: Mapping[str, Any]
    """The result in SAEBench's format."""
    training: Mapping[str, Any] | None
    """The resolved configuration it was trained with; None if its run folder is not around it."""


def gather(saes: Mapping[str, Path], evaluation: Path) -> dict[str, Publication]:
    """Everything to publish of SAEs, by the name under which `evaluation`, an output folder of `eval`, has them.

    Raises `UserError` for a folder that holds no loadable SAE, an SAE that was not evaluated there or is not the one
    that was, and files of the evaluation that are missing or damaged.
    """
    return {name: _gathered(name, folder, evaluation) for name, folder in saes.items()}


def _gathered(name: str, folder: Path, evaluation: Path) -> Publication:
    facts = check_sae(name, SaeUnderTest(variant=name, path=folder), "cpu")
    result = _result(name, evaluation)
    if result.provenance.sae_sha256 != facts.sha256:
        raise UserError(
            f"The SAE in {folder} is not the one that {evaluation} evaluated as {name!r}: its weights or configuration "
            "differ. Evaluate it, or give the folder of the one that was."
        )
    chosen = evaluation / FORGET_EDITS_FOLDER / f"{name}.json"
    saebench_file = evaluation / SAEBENCH_FOLDER / f"{name}_eval_results.json"
    saebench = read_json(saebench_file)
    if not isinstance(saebench, dict):
        raise UserError(f"{saebench_file} is not what an evaluation wrote. Run the evaluation again.")
    return Publication(
        folder=folder,
        facts=facts,
        result=result,
        edit=load_forget_edit(chosen) if result.features else None,
        saebench=saebench,
        training=_training(folder.resolve().parent / CONFIG_FILE),
    )


def _result(name: str, evaluation: Path) -> UnlearningResult:
    path = evaluation / f"{name}.json"
    if not path.is_file():
        there = sorted(each.stem for each in evaluation.glob("*.json") if each.stem not in ("results", "run"))
        raise UserError(
            f"{evaluation} holds no evaluation of {name!r}. Evaluated there: {', '.join(there) or 'nothing'}. Give the "
            "--out folder of `eval` with --eval."
        )
    try:
        return UnlearningResult.model_validate(read_json(path))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{path} is not the result of an evaluation ({where}). Run the evaluation again.") from None


def _training(path: Path) -> dict[str, Any] | None:
    """The configuration of a run; None for any other file of that name, which is not ours to publish."""
    if not path.is_file():
        return None
    try:
        values = load_yaml(path)
        parse_config(RunConfig, values, source=str(path))
    except ConfigError:
        return None
    return values
