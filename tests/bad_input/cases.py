"""Every input that a user gives, and ways in which it can be wrong; docs/bad_input.md shows what is said."""

from __future__ import annotations

import gzip
import pickle
from typing import Any

import torch
from folder import (
    FORGET_EDIT,
    HISTORY,
    ROW,
    SAE_CONFIG,
    SEARCH,
    SPEC,
    STUDY,
    TARGET,
    BadInput,
    jsonl,
    question,
    sae_weights,
)
from safetensors.torch import save

from sae_lens_contrastive.config import merge

TRAIN = "train target.yaml v.yaml --out out"
EVAL = "eval spec.yaml --sae sae --out out"
REPORT = "report results"
STUDY_RUN = "study study.yaml --out out"
GENERATE = "generate --sae sae --edit forget_edit.json --prompt Hello"
SEARCH_RUN = "search search.yaml --out out"


class _Run:
    """What an attacker would have run; a loader must not."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("unpickled",)


def _target(**changes: Any) -> dict[str, Any]:
    return merge(TARGET, changes)


def _spec(**changes: Any) -> dict[str, Any]:
    return {**SPEC, **changes}


def _edit(**changes: Any) -> dict[str, Any]:
    return {**FORGET_EDIT, **changes}


def _weights(**changes: Any) -> bytes:
    return save({**sae_weights(), **changes})


_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [" + f"*a{i - 1}, " * 10 + "]\n" for i in range(1, 10)
)
_Q = [question("a", split="held_out"), question("b")]
_LONG_COLUMN = f"question,choice{'1' * 40},answer\na,b,c\n"
_WEIGHTS = "sae/sae_weights.safetensors"

CONFIGURATIONS = [
    BadInput("configuration", "not there", "train gone.yaml v.yaml --out out"),
    BadInput("configuration", "a folder", "train sae v.yaml --out out"),
    BadInput("configuration", "empty", TRAIN, {"target.yaml": ""}),
    BadInput("configuration", "cut short", TRAIN, {"target.yaml": "corpora: [general"}),
    BadInput("configuration", "not UTF-8", TRAIN, {"target.yaml": b"model: \xff\xfe"}),
    BadInput("configuration", "a list", TRAIN, {"target.yaml": "- model\n"}),
    BadInput(
        "configuration", "a tag that runs code", TRAIN, {"v.yaml": "description: !!python/object/apply:os.getcwd []\n"}
    ),
    BadInput("configuration", "a date that is none", TRAIN, {"v.yaml": "description: 2026-99-99\n"}),
    BadInput("configuration", "aliases that unfold to ten billion values", TRAIN, {"v.yaml": _BOMB}),
    BadInput("configuration", "nested 2,000 deep", TRAIN, {"v.yaml": "[" * 2000}),
    BadInput("configuration", "a value that holds itself", TRAIN, {"v.yaml": "a: &a [*a]\n"}),
    BadInput("configuration", "an unknown key", TRAIN, {"target.yaml": _target(training={"learning_rate": 1e-3})}),
    BadInput(
        "configuration", "a missing key", TRAIN, {"target.yaml": {k: v for k, v in TARGET.items() if k != "model"}}
    ),
    BadInput("configuration", "a key that is a number", TRAIN, {"v.yaml": "1: 2\n"}),
    BadInput("configuration", "text for a number", TRAIN, {"target.yaml": _target(training={"lr": "fast"})}),
    BadInput("configuration", "a negative size", TRAIN, {"target.yaml": _target(training={"training_tokens": -1})}),
    BadInput("configuration", "an infinite number", TRAIN, {"target.yaml": _target(training={"lr": float("inf")})}),
    BadInput(
        "configuration", "an unknown architecture", TRAIN, {"target.yaml": _target(sae={"architecture": "topkk"})}
    ),
    BadInput("configuration", "an unknown loss term", TRAIN, {"v.yaml": {"sae": {"loss_terms": {"contrast": {}}}}}),
    BadInput("configuration", "a negative dictionary", TRAIN, {"target.yaml": _target(sae={"d_sae": -8})}),
    BadInput("configuration", "a variant name that leaves the folder", TRAIN, {"v.yaml": {"variant": "../../home"}}),
    BadInput("configuration", "an unknown model", TRAIN, {"target.yaml": _target(model="gemma-3-2c")}),
    BadInput("configuration", "a device that is not there", TRAIN, {"target.yaml": _target(device="tpu")}),
    BadInput("--set", "no value", f"{TRAIN} --set training.lr"),
    BadInput("--set", "no key", f"{TRAIN} --set =1"),
    BadInput("--set", "a value that is no YAML", f"{TRAIN} --set training.lr=["),
    BadInput("--set", "an unknown key", f"{TRAIN} --set training.rl=1"),
]
CORPORA = [
    BadInput("corpus", "not there", TRAIN, {"general.txt": None}),
    BadInput("corpus", "empty", TRAIN, {"general.txt": "\n\n"}),
    BadInput("corpus", "not UTF-8", TRAIN, {"general.txt": b"caf\xe9"}),
    BadInput("corpus", "a record without text", TRAIN, {"forget_corpus.jsonl": jsonl({"body": "Some text."})}),
    BadInput("corpus", "text that is a list", TRAIN, {"forget_corpus.jsonl": jsonl({"text": ["Some text."]})}),
    BadInput(
        "corpus", "entities that are text", TRAIN, {"forget_corpus.jsonl": jsonl({"text": "Text.", "entities": "a"})}
    ),
    BadInput("corpus", "a line that is no JSON", TRAIN, {"forget_corpus.jsonl": "{'text': 'Some text.'}\n"}),
    BadInput("corpus", "half a surrogate pair", TRAIN, {"forget_corpus.jsonl": '{"text": "\\ud83d"}\n'}),
    BadInput(
        "corpus",
        "a .gz file cut short",
        TRAIN,
        {
            "target.yaml": _target(corpora={"general": ["cut.jsonl.gz"]}),
            "cut.jsonl.gz": gzip.compress(jsonl({"text": "Some text."}).encode(), mtime=0)[:20],
        },
    ),
    BadInput(
        "corpus",
        "an unknown embedded one",
        TRAIN,
        {"target.yaml": _target(corpora={"general": ["world_facts/genral"]})},
    ),
    BadInput(
        "corpus",
        "a path out of the embedded ones",
        TRAIN,
        {"target.yaml": _target(corpora={"general": ["world_facts/../x"]})},
    ),
    BadInput("corpus", "a hub source without a name", TRAIN, {"target.yaml": _target(corpora={"general": ["hub:"]})}),
    BadInput(
        "corpus",
        "only text on held-out entities",
        TRAIN,
        {"forget_corpus.jsonl": jsonl({"text": "Text.", "entities": ["FORGET0"]})},
    ),
]
QUESTIONS = [
    BadInput("questions", "not there", EVAL, {"forget.jsonl": None}),
    BadInput("questions", "empty", EVAL, {"forget.jsonl": ""}),
    BadInput("questions", "a line that is no JSON", EVAL, {"forget.jsonl": "{}\n{,}\n"}),
    BadInput("questions", "a line that is no object", EVAL, {"forget.jsonl": "[1]\n"}),
    BadInput("questions", "nested 100,000 deep", EVAL, {"forget.jsonl": "[" * 100_000}),
    BadInput("questions", "a number of 5,000 digits", EVAL, {"forget.jsonl": '{"id": ' + "9" * 5000 + "}\n"}),
    BadInput("questions", "half a surrogate pair", EVAL, {"forget.jsonl": '{"id": "\\udc00"}\n'}),
    BadInput("questions", "an unknown field", EVAL, {"forget.jsonl": jsonl({**_Q[0], "hint": "x"})}),
    BadInput("questions", "a missing field", EVAL, {"forget.jsonl": jsonl({"id": "a"})}),
    BadInput("questions", "an empty stem", EVAL, {"forget.jsonl": jsonl(question("a", stems=[" "]))}),
    BadInput("questions", "an unknown split", EVAL, {"forget.jsonl": jsonl(question("a", split="test"))}),
    BadInput("questions", "an answer among the distractors", EVAL, {"forget.jsonl": jsonl(question("a", answer="b"))}),
    BadInput("questions", "an id that is there twice", EVAL, {"forget.jsonl": jsonl(_Q[0], _Q[0])}),
    BadInput(
        "questions", "the same question on both sides", EVAL, {"forget.jsonl": jsonl(*_Q), "retain.jsonl": jsonl(*_Q)}
    ),
    BadInput(
        "questions",
        "a published record without an answer",
        EVAL,
        {"forget.jsonl": jsonl({"question": "?", "choices": ["a", "b"]})},
    ),
    BadInput(
        "questions",
        "an answer beyond the choices",
        EVAL,
        {"forget.jsonl": jsonl({"question": "?", "choices": ["a", "b"], "answer": 2})},
    ),
    BadInput(
        "questions",
        "a CSV file without the columns",
        EVAL,
        {"spec.yaml": _spec(forget_questions=["q.csv"]), "q.csv": "question,choice0,answer\na,b,c\n"},
    ),
    BadInput(
        "questions",
        "a CSV column with a number of 40 digits",
        EVAL,
        {"spec.yaml": _spec(forget_questions=["q.csv"]), "q.csv": f"question,choice{'1' * 40},answer\na,b,c\n"},
    ),
    BadInput(
        "questions",
        "a CSV row with too many cells",
        EVAL,
        {"spec.yaml": _spec(forget_questions=["q.csv"]), "q.csv": "question,choice0,choice1,answer\na,b,c,0,9\n"},
    ),
    BadInput("questions", "a hub source without a name", EVAL, {"spec.yaml": _spec(forget_questions=["hub:#x"])}),
]
SPECIFICATIONS = [
    BadInput("specification", "an unknown selector", EVAL, {"spec.yaml": _spec(selectors={"firing": {}})}),
    BadInput("specification", "an unknown intervention", EVAL, {"spec.yaml": _spec(interventions={"clam": {}})}),
    BadInput(
        "specification",
        "a multiplier below zero",
        EVAL,
        {"spec.yaml": _spec(interventions={"clamp": {"multiplier": -1}})},
    ),
    BadInput("specification", "a gate above 1", EVAL, {"spec.yaml": _spec(retain_gate=1.5)}),
    BadInput(
        "specification", "a template without the stem", EVAL, {"spec.yaml": _spec(prompt={"template": "Answer:"})}
    ),
    BadInput("specification", "a number of features twice", EVAL, {"spec.yaml": _spec(n_features=[1, 1])}),
    BadInput(
        "specification", "a gigantic number of features", EVAL, {"spec.yaml": _spec(n_features=[10**12], measures={})}
    ),
]
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
    BadInput("results", "a damaged summary", REPORT, {"results/summary.json": {"variant": 1, "seed": 0}}),
]
STUDIES = [
    BadInput("study", "a part that it does not have", f"{STUDY_RUN} --only fancy"),
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
CASES = [*CONFIGURATIONS, *CORPORA, *QUESTIONS, *SPECIFICATIONS, *SAES, *FOLDERS, *STUDIES, *FORGET_EDITS]

ONCE = {
    ("configuration", "a date that is none"): "a traceback",
    ("configuration", "nested 2,000 deep"): "a traceback",
    ("corpus", "half a surrogate pair"): "a traceback",
    ("questions", "nested 100,000 deep"): "a traceback",
    ("questions", "a number of 5,000 digits"): "a traceback",
    ("SAE", "weights that are integers"): "accepted",
    ("SAE", "more reserved features than features"): "accepted",
    ("output folder", "below a file"): "a traceback",
    ("output folder", "a cache that is a file"): "accepted",
    ("results", "an accuracy of 7"): "accepted",
    ("results", "a number that is text"): "accepted",
    ("results", "a name that speaks to the terminal"): "accepted",
    ("results", "a name of a million characters"): "no end",
    ("results", "a history with text in it"): "accepted",
    ("study", "a setting whose name leaves the folder"): "accepted",
}
"""What these inputs came to when they were first tried."""
