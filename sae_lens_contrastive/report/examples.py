"""Examples that evaluations saved, found below a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json
from sae_lens_contrastive.report.saved_rows import first_mistake
from sae_lens_contrastive.saved_examples import EXAMPLES_FOLDER, EvaluationExamples

# Below the folder of an evaluation, of a demo and of a study.
_PLACES = tuple(f"{place}{EXAMPLES_FOLDER}/*.json" for place in ("", "eval/", "*/seed*/eval/*/"))


@dataclass(frozen=True)
class FoundExamples:
    """The examples of one SAE."""

    setting: str
    """Setting of the study it belongs to; empty outside a study."""
    examples: EvaluationExamples
    """What was saved."""


def load_examples(folder: Path | str) -> list[FoundExamples]:
    """Read the examples below the folder of an evaluation, a demo or a study; of several seeds, those of the first.

    Raises `UserError` for a file that holds something else.
    """
    folder = Path(folder)
    found: dict[tuple[str, str], FoundExamples] = {}
    for path in sorted(path for place in _PLACES for path in folder.glob(place)):
        parts = path.relative_to(folder).parts
        setting = parts[0] if len(parts) == len(("setting", "seed", "eval", "evaluation", "examples", "name")) else ""
        examples = _examples(path)
        first = found.setdefault((setting, examples.variant), FoundExamples(setting, examples))
        if examples.seed < first.examples.seed:
            found[setting, examples.variant] = FoundExamples(setting, examples)
    return list(found.values())


def _examples(path: Path) -> EvaluationExamples:
    content = read_json(path)
    try:
        return EvaluationExamples.model_validate(content, strict=True)
    except ValidationError as error:
        raise UserError(
            f"{path} does not hold the examples of an evaluation ({first_mistake(error)}). Delete it, or delete the "
            "result beside its folder and evaluate again."
        ) from None
