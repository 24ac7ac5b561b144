"""Ways in which configurations, corpora, questions and specifications can be wrong."""

from __future__ import annotations

import gzip
from typing import Any

from folder import SPEC, TARGET, BadInput, jsonl, question

from sae_lens_contrastive.config import merge

TRAIN = "train target.yaml v.yaml --out out"
EVAL = "eval spec.yaml --sae sae --out out"


def _target(**changes: Any) -> dict[str, Any]:
    return merge(TARGET, changes)


def _spec(**changes: Any) -> dict[str, Any]:
    return {**SPEC, **changes}


_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [" + f"*a{i - 1}, " * 10 + "]\n" for i in range(1, 10)
)
_Q = [question("a", split="held_out"), question("b")]
_LONG_COLUMN = f"question,choice{'1' * 40},answer\na,b,c\n"

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
    BadInput(
        "configuration", "a list of architectures", TRAIN, {"target.yaml": _target(sae={"architecture": ["topk"]})}
    ),
    BadInput(
        "configuration",
        "a loss term that reserves more features than there are",
        TRAIN,
        {"v.yaml": {"sae": {"loss_terms": {"forget_margin": {"coefficient": 1.0, "n_features": 100_000}}}}},
    ),
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
