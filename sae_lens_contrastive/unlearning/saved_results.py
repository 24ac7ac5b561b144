"""What evaluations leave in a folder: results, in SAEBench's format too, and the edits that they chose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.forget_edit import ForgetEdit, save_forget_edit
from sae_lens_contrastive.forget_edit.edit import directions
from sae_lens_contrastive.interventions import FittedGated
from sae_lens_contrastive.runs import RESULTS_FILE
from sae_lens_contrastive.unlearning.output import Provenance, UnlearningResult
from sae_lens_contrastive.unlearning.saebench_output import saebench_output
from sae_lens_contrastive.unlearning.shared import HookData
from sae_lens_contrastive.unlearning.spec import EvalSpec
from sae_lens_contrastive.unlearning.subject import SaeFacts, SaeUnderTest
from sae_lens_contrastive.unlearning.sweep import SweptSetting

SAEBENCH_FOLDER = "saebench"
FORGET_EDITS_FOLDER = "forget_edits"


def save_chosen_edit(out: Path, name: str, sae: Any, chosen: SweptSetting | None, data: HookData) -> None:
    """Write the edit that was chosen, or take an earlier one of this name away: there may be none, or one that no file
    can describe because retain text has fitted it."""
    file = out / FORGET_EDITS_FOLDER / f"{name}.json"
    if chosen is not None and chosen.edit.features and _is_known_without_text(chosen):
        save_forget_edit(_forget_edit(sae, chosen, data), file)
    else:
        file.unlink(missing_ok=True)


def gate_threshold(chosen: SweptSetting) -> float | None:
    """Threshold of the gate that was chosen; None for an intervention without one."""
    intervention = chosen.edit.intervention
    return intervention.threshold if isinstance(intervention, FittedGated) else None


def save_result(out: Path, result: UnlearningResult, spec: EvalSpec, subject: SaeUnderTest, facts: SaeFacts) -> None:
    """Write one result, in SAEBench's format first."""
    published = saebench_output(result, spec, subject, facts.config)
    write_json(out / SAEBENCH_FOLDER / f"{result.name}_eval_results.json", published)
    # Last: a saved result is one with everything beside it.
    write_json(out / f"{result.name}.json", result.model_dump())


def save_results(out: Path, results: Sequence[UnlearningResult]) -> None:
    """Write `results.json`, in which those of other SAEs stay if model and specification are the same."""
    rows = {result.name: result.model_dump() for result in results}
    try:
        earlier = [UnlearningResult.model_validate(row) for row in read_json(out / RESULTS_FILE)]
    except (UserError, ValidationError, TypeError):
        earlier = []
    kept = {each.name: each.model_dump() for each in earlier if _asked(each) == _asked(results[0])}
    write_json(out / RESULTS_FILE, list((kept | rows).values()))


def _asked(result: UnlearningResult) -> tuple[str, str]:
    return result.provenance.spec_sha256, result.provenance.model_sha256


def saved_result(out: Path, name: str, subject: SaeUnderTest, provenance: Provenance) -> UnlearningResult | None:
    """A saved result, unless it is absent, unreadable or of something else."""
    try:
        saved = UnlearningResult.model_validate(read_json(out / f"{name}.json"))
    except (UserError, ValidationError):
        return None
    same = saved.provenance == provenance and (saved.variant, saved.seed) == (subject.variant, subject.seed)
    return saved if same else None


def _forget_edit(sae: Any, chosen: SweptSetting, data: HookData) -> ForgetEdit:
    features = list(chosen.edit.features)
    return ForgetEdit(
        model=data.spec.model,
        forget_domain=data.spec.forget_domain,
        hook_name=data.hook_name,
        d_sae=int(sae.cfg.d_sae),
        features=features,
        directions=directions(sae, features),
        intervention=chosen.setting.intervention.name,
        intervention_options=dict(chosen.setting.intervention.options),
        gate_threshold=gate_threshold(chosen),
        edit_special_tokens=data.spec.edit_special_tokens,
    )


def _is_known_without_text(chosen: SweptSetting) -> bool:
    """Whether a file can say what the chosen intervention does; of one that retain text has fitted, a gate alone."""
    intervention = chosen.edit.intervention
    return isinstance(intervention, FittedGated) or not intervention.needs_retain_text
