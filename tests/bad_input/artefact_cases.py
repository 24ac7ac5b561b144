"""Ways in which SAEs, output folders, results, studies, searches, sweeps and forget edits can be wrong."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from folder import FORGET_EDIT, HISTORY, ROW, SAE_CONFIG, SEARCH, STUDY, SWEEP, BadInput, sae_weights
from safetensors.torch import save

EVAL = "eval spec.yaml --sae sae --out out"
REPORT = "report results"
STUDY_RUN = "study study.yaml --out out"
GENERATE = "generate --sae sae --edit forget_edit.json --prompt Hello"
DASHBOARD = "dashboard --sae sae --out out"
SEARCH_RUN = "search search.yaml --out out"
SWEEP_RUN = "sweep sweep.yaml --out out"


class _Run:
    """What an attacker would have run; a loader must not."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("unpickled",)


def _sweep(**changes: Any) -> dict[str, Any]:
    return {"sweep.yaml": {**SWEEP, **changes}}


def _edit(**changes: Any) -> dict[str, Any]:
    return {**FORGET_EDIT, **changes}


def _examples(token: str) -> dict[str, Any]:
    snippet = {"corpus": "forget", "tokens": [token], "activations": [1.0]}
    feature = {"feature": 0, "forget_rate": 0.5, "retain_rate": 0.0, "snippets": [snippet]}
    names = {"variant": "mine", "seed": 0, "forget_domain": "cities", "features_from": "edit"}
    return {**names, "features": [feature], "questions": []}


def _weights(**changes: Any) -> bytes:
    return save({**sae_weights(), **changes})


_WEIGHTS = "sae/sae_weights.safetensors"

SAES = [
    BadInput("SAE", "none given", "eval spec.yaml --out out"),
    BadInput("SAE", "a folder that is not there", "eval spec.yaml --sae gone --out out"),
    BadInput("SAE", "two of one name", "eval spec.yaml --sae sae --sae ./sae --out out"),
    BadInput("SAE", "a release without an id", "eval spec.yaml --release gemma-scope --out out"),
    BadInput("SAE", "an ensemble of nothing", "eval spec.yaml --ensemble both --out out"),
    BadInput("SAE", "an ensemble whose name leaves the folder", "eval spec.yaml --ensemble ../both sae --out out"),
    BadInput("SAE", "no weights", EVAL, {_WEIGHTS: None}),
    BadInput("SAE", "weights cut short", EVAL, {_WEIGHTS: _weights()[:-4]}),
    BadInput("SAE", "weights that are a pickle", EVAL, {_WEIGHTS: pickle.dumps(_Run())}),
    BadInput("SAE", "weights of another shape", EVAL, {_WEIGHTS: _weights(W_enc=torch.ones(32, 9))}),
    BadInput("SAE", "weights that are integers", EVAL, {_WEIGHTS: save(sae_weights(dtype=torch.int8))}),
    BadInput("SAE", "a weight that is no number", EVAL, {_WEIGHTS: _weights(b_enc=torch.full((8,), float("nan")))}),
    BadInput("SAE", "an empty cfg.json", EVAL, {"sae/cfg.json": ""}),
    BadInput("SAE", "a cfg.json that is a list", EVAL, {"sae/cfg.json": "[]"}),
    BadInput("SAE", "a cfg.json nested 100,000 deep", EVAL, {"sae/cfg.json": "[" * 100_000}),
    BadInput(
        "SAE", "no architecture", EVAL, {"sae/cfg.json": {k: v for k, v in SAE_CONFIG.items() if k != "architecture"}}
    ),
    BadInput("SAE", "an unknown architecture", EVAL, {"sae/cfg.json": {**SAE_CONFIG, "architecture": "os.system"}}),
    BadInput("SAE", "a gigantic dictionary", EVAL, {"sae/cfg.json": {**SAE_CONFIG, "d_sae": 10**12}}),
    BadInput("SAE", "a negative dictionary", EVAL, {"sae/cfg.json": {**SAE_CONFIG, "d_sae": -8}}),
    BadInput("SAE", "an unknown number format", EVAL, {"sae/cfg.json": {**SAE_CONFIG, "dtype": "float3"}}),
    BadInput("SAE", "no hook", EVAL, {"sae/cfg.json": {**SAE_CONFIG, "metadata": {}}}),
    BadInput("SAE", "a hook that is no text", EVAL, {"sae/cfg.json": {**SAE_CONFIG, "metadata": {"hook_name": ["x"]}}}),
    BadInput(
        "SAE",
        "more reserved features than features",
        EVAL,
        {"sae/cfg.json": {**SAE_CONFIG, "metadata": {**SAE_CONFIG["metadata"], "n_reserved_features": 10**9}}},
    ),
]
FOLDERS = [
    BadInput("output folder", "none given", "train target.yaml v.yaml"),
    BadInput("output folder", "files of something else in it", "eval spec.yaml --sae sae --out results"),
    BadInput("output folder", "another run in it", EVAL, {"out/run.json": {"kind": "eval", "config": {"spec": {}}}}),
    BadInput("output folder", "a damaged run.json in it", EVAL, {"out/run.json": "{"}),
    BadInput("output folder", "a run.json that is a list", EVAL, {"out/run.json": "[]"}),
    BadInput("output folder", "a file", EVAL, {"out": "text"}),
    BadInput("output folder", "below a file", f"{EVAL}/below", {"out": "text"}),
    BadInput("output folder", "a cache that is a file", f"{EVAL} --cache spec.yaml"),
    BadInput("results", "a folder that is not there", "report gone"),
    BadInput("results", "an empty folder", REPORT, {"results/results.json": None, "results/history.json": None}),
    BadInput("results", "a damaged results.json", REPORT, {"results/results.json": "[{"}),
    BadInput("results", "rows without their keys", REPORT, {"results/results.json": [{"variant": "a"}]}),
    BadInput("results", "an accuracy of 7", REPORT, {"results/results.json": [{**ROW, "unlearning_score": 7}]}),
    BadInput("results", "a number that is text", REPORT, {"results/results.json": [{**ROW, "seed": "zero"}]}),
    BadInput(
        "results",
        "a name that speaks to the terminal",
        REPORT,
        {"results/results.json": [{**ROW, "variant": "\x1b[2J"}]},
    ),
    BadInput(
        "results", "a name of a million characters", REPORT, {"results/results.json": [{**ROW, "variant": "a" * 10**6}]}
    ),
    BadInput("results", "a history without steps", REPORT, {"results/history.json": [{"overall_loss": 1.0}]}),
    BadInput("results", "a history with text in it", REPORT, {"results/history.json": [{**HISTORY[0], "l0": "many"}]}),
    BadInput("results", "records that are none", REPORT, {"results/trackers.json": {"grouping": [{"step": 1}]}}),
    BadInput("results", "examples that are none", REPORT, {"results/examples/a.json": {"features": []}}),
    BadInput("results", "a token of a million characters", REPORT, {"results/examples/a.json": _examples("a" * 10**6)}),
    BadInput("results", "a configuration that is none", REPORT, {"results/run.json": {"kind": "eval"}}),
    BadInput("results", "a damaged summary", REPORT, {"results/summary.json": {"variant": 1, "seed": 0}}),
]
STUDIES = [
    BadInput("study", "a part that it does not have", f"{STUDY_RUN} --only fancy"),
    BadInput("study", "earlier results that are not there", f"{STUDY_RUN} --finished gone.json"),
    BadInput("study", "earlier results that are none", f"{STUDY_RUN} --finished sae/cfg.json"),
    BadInput(
        "study",
        "a setting whose name leaves the folder",
        STUDY_RUN,
        {"study.yaml": {**STUDY, "settings": {"../x": {"variants": ["v.yaml"]}}}},
    ),
    BadInput("study", "a seed twice", STUDY_RUN, {"study.yaml": {**STUDY, "seeds": [0, 0]}}),
    BadInput("study", "no setting", STUDY_RUN, {"study.yaml": {**STUDY, "settings": {}}}),
    BadInput("study", "a variant that is not there", STUDY_RUN, {"v.yaml": None}),
    BadInput(
        "study",
        "an unknown key of a setting",
        STUDY_RUN,
        {"study.yaml": {**STUDY, "settings": {"plain": {"variants": ["v.yaml"], "override": {}}}}},
    ),
    BadInput(
        "search",
        "an unknown key to vary",
        SEARCH_RUN,
        {"search.yaml": {**SEARCH, "space": {"sae.kk": {"choices": [1, 2]}}}},
    ),
    BadInput(
        "search",
        "a range upside down",
        SEARCH_RUN,
        {"search.yaml": {**SEARCH, "space": {"sae.k": {"low": 8, "high": 2, "int": True}}}},
    ),
    BadInput("search", "nothing to vary", SEARCH_RUN, {"search.yaml": {**SEARCH, "space": {}}}),
    BadInput("sweep", "no folder", "sweep sweep.yaml"),
    BadInput("sweep", "an unknown key to vary", SWEEP_RUN, _sweep(grid={"sae.kk": [1, 2]})),
    BadInput("sweep", "a key without values", SWEEP_RUN, _sweep(grid={"sae.k": []})),
    BadInput("sweep", "a value twice", SWEEP_RUN, _sweep(grid={"sae.k": [2, 2]})),
    BadInput("sweep", "a value that no run can have", SWEEP_RUN, _sweep(grid={"sae.k": [2, 65]})),
    BadInput("sweep", "the seed in the grid", SWEEP_RUN, _sweep(grid={"seed": [0, 1]})),
    BadInput("sweep", "a seed twice", SWEEP_RUN, _sweep(seeds=[0, 0])),
    BadInput("sweep", "a grid and a search", SWEEP_RUN, _sweep(search={"space": SEARCH["space"]})),
    BadInput("sweep", "no CPU for a job", SWEEP_RUN, _sweep(resources={"num_cpus": 0})),
    BadInput("sweep", "an evaluation that is not there", SWEEP_RUN, {"spec.yaml": None}),
]
FORGET_EDITS = [
    BadInput("forget edit", "not there", "generate --sae sae --prompt Hello"),
    BadInput("forget edit", "damaged", GENERATE, {"forget_edit.json": "{"}),
    BadInput("forget edit", "a list", GENERATE, {"forget_edit.json": "[]"}),
    BadInput("forget edit", "an unknown key", GENERATE, {"forget_edit.json": _edit(code="print()")}),
    BadInput("forget edit", "a feature that the SAE lacks", GENERATE, {"forget_edit.json": _edit(features=[8])}),
    BadInput("forget edit", "of another SAE", GENERATE, {"forget_edit.json": _edit(directions=[[0.5] * 4])}),
    BadInput("forget edit", "of an SAE of another size", GENERATE, {"forget_edit.json": _edit(d_sae=16)}),
    BadInput("forget edit", "an unknown intervention", GENERATE, {"forget_edit.json": _edit(intervention="clmap")}),
    BadInput("forget edit", "a gate without a threshold", GENERATE, {"forget_edit.json": _edit(intervention="gated")}),
    BadInput("forget edit", "of a later version", GENERATE, {"forget_edit.json": _edit(format_version=2)}),
    BadInput("forget edit", "without a model", GENERATE, {"forget_edit.json": _edit(model="")}),
    BadInput("forget edit", "with an unknown model", f"{GENERATE} --model gemma-3-2c"),
    BadInput("forget edit", "no tokens to say", f"{GENERATE} --max-new-tokens 0"),
]
DASHBOARDS = [
    BadInput("dashboard", "an edit and other features", f"{DASHBOARD} --edit forget_edit.json --features 1"),
    BadInput("dashboard", "a feature that the SAE lacks", f"{DASHBOARD} --features 8"),
    BadInput("dashboard", "a feature twice", f"{DASHBOARD} --features 1 1"),
    BadInput("dashboard", "a device that is not there", f"{DASHBOARD} --features 1 --device cuda:99"),
    BadInput("dashboard", "no training beside the SAE", f"{DASHBOARD} --features 1"),
    BadInput("dashboard", "text that is not there", f"{DASHBOARD} --features 1 --text gone.txt"),
    BadInput("dashboard", "no context's worth of text", f"{DASHBOARD} --features 1 --text general.txt --max-tokens 9"),
    BadInput("dashboard", "an SAE that names no model", f"{DASHBOARD} --features 1 --text general.txt"),
]
