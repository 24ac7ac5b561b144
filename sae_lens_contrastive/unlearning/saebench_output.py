"""A result in the format of SAEBench's unlearning evaluation, for tools that read its files."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from sae_lens_contrastive.unlearning.output import UnlearningResult
from sae_lens_contrastive.unlearning.settings import interventions_of, selectors_of
from sae_lens_contrastive.unlearning.spec import EvalSpec
from sae_lens_contrastive.unlearning.subject import SaeUnderTest

_SAEBENCH_CLAMP = "clamp_feature_activation"
_CUSTOM_SAE = "custom_sae"


def saebench_output(
    result: UnlearningResult, spec: EvalSpec, subject: SaeUnderTest, sae_config: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The result as a dict of SAEBench's published unlearning schema; everything that the schema has no place for is
    under `eval_result_unstructured`, the whole result and specification.

    `sae_config` is the SAE's own, `sae.cfg.to_dict()`. An SAE from a folder has the id `custom_sae` and its name as
    release, as SAEBench calls SAEs that it is given as objects. Karvonen et al. 2025, "SAEBench".
    """
    return {
        "eval_type_id": "unlearning",
        "eval_config": _config(spec),
        "eval_id": str(uuid.uuid4()),
        "datetime_epoch_millis": int(time.time() * 1000),
        "eval_result_metrics": {"unlearning": {"unlearning_score": result.unlearning_score}},
        "eval_result_details": [],
        "sae_bench_commit_hash": f"none: sae-lens-contrastive {version('sae-lens-contrastive')}",
        "sae_lens_id": _CUSTOM_SAE if subject.sae_id is None else subject.sae_id,
        "sae_lens_release_id": result.name if subject.release is None else subject.release,
        "sae_lens_version": version("sae-lens"),
        "sae_cfg_dict": sae_config,
        "eval_result_unstructured": {"spec": spec.model_dump(mode="json"), "result": result.model_dump(mode="json")},
    }


def _config(spec: EvalSpec) -> dict[str, Any]:
    """The specification in SAEBench's words, as far as it has them.

    Its multipliers are whole numbers: others are only in the unstructured part, as are selectors and options that
    SAEBench does not know.
    """
    # As built, not as given: an option that is left out has its default.
    selectors, choices = selectors_of(spec.selectors), interventions_of(spec.interventions)
    multipliers = _distinct(choice.built.multiplier for choice in choices if choice.name == "clamp")
    interventions = list(dict.fromkeys(spec.interventions))
    return {
        "random_seed": spec.seed,
        "dataset_names": [*spec.forget_questions, *spec.retain_questions],
        "intervention_method": _SAEBENCH_CLAMP if interventions == ["clamp"] else ", ".join(interventions),
        "retain_thresholds": _distinct(
            choice.built.retain_threshold for choice in selectors if hasattr(choice.built, "retain_threshold")
        ),
        "n_features_list": list(spec.n_features),
        "multipliers": [int(value) for value in multipliers if value == int(value)],
        "dataset_size": max(1, spec.max_corpus_tokens // spec.context_size),
        "seq_len": spec.context_size,
        "n_batch_loss_added": 0,
        "target_metric": "correct",
        "save_metrics": True,
        "model_name": spec.model,
        "llm_batch_size": max(1, spec.batch_tokens // spec.context_size),
        "llm_dtype": spec.dtype,
    }


def _distinct(values: Iterable[float]) -> list[float]:
    """Distinct numbers in order of first appearance."""
    return list(dict.fromkeys(float(value) for value in values))
