"""Loaders that read what strangers made: any bytes end in a value or in a `UserError`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sae_lens.saes.standard_sae import StandardSAEConfig
from safetensors.torch import save

from sae_lens_contrastive.config import load_yaml, merge, parse_config, parse_overrides
from sae_lens_contrastive.data.corpora import load_corpus
from sae_lens_contrastive.data.questions import load_questions
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.forget_edit import load_forget_edit
from sae_lens_contrastive.report import load_results, measures_table, results_table
from sae_lens_contrastive.report.examples import load_examples
from sae_lens_contrastive.report.provenance import load_configurations
from sae_lens_contrastive.study import StudySpec
from sae_lens_contrastive.training import RunConfig
from sae_lens_contrastive.unlearning import EvalSpec, SaeUnderTest
from sae_lens_contrastive.unlearning.subject import check_sae

SEEDS = Path(__file__).parent / "seeds"
"""Inputs that the fuzzer begins with, and those that once broke a loader, by target."""


@contextmanager
def _file(name: str, content: bytes) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


def configuration(content: bytes) -> None:
    """A file with every kind of configuration."""
    with _file("a.yaml", content) as path, suppress(UserError):
        values = merge({"description": ""}, load_yaml(path))
        for kind in (RunConfig, EvalSpec, StudySpec):
            with suppress(UserError):
                parse_config(kind, values, source="a.yaml")


def overrides(content: bytes) -> None:
    """Arguments of --set, one a line."""
    with suppress(UserError, UnicodeDecodeError):
        parse_config(EvalSpec, parse_overrides(content.decode().splitlines()), source="--set")


def questions(content: bytes) -> None:
    """A question file, as records and as CSV."""
    for name in ("a.jsonl", "a.csv"):
        with _file(name, content) as path, suppress(UserError):
            load_questions(path)


def corpus(content: bytes) -> None:
    """A corpus, as records, zipped records and text."""
    for name in ("a.jsonl", "a.jsonl.gz", "a.txt"):
        with _file(name, content) as path, suppress(UserError):
            load_corpus(path)


def results(content: bytes) -> None:
    """Saved results, of which tables are made."""
    for name in ("results.json", "history.json"):
        with _file(name, content) as path, suppress(UserError):
            rows = load_results(path.parent).rows
            if rows:
                results_table(rows)
                measures_table(rows)


def page(content: bytes) -> None:
    """What a page shows beside results: examples and configurations."""
    for name, load in (("examples/a.json", load_examples), ("run.json", load_configurations)):
        with TemporaryDirectory() as folder, suppress(UserError):
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            load(folder)


def forget_edit(content: bytes) -> None:
    """A forget edit."""
    with _file("forget_edit.json", content) as path, suppress(UserError):
        load_forget_edit(path)


def sae_config(content: bytes) -> None:
    """The cfg.json of an SAE with good weights."""
    shapes = {"W_enc": (4, 2), "b_enc": (2,), "W_dec": (2, 4), "b_dec": (4,)}
    _sae(content, save({name: torch.ones(shape) for name, shape in shapes.items()}))


def sae_weights(content: bytes) -> None:
    """The weights of an SAE with a good cfg.json."""
    config = StandardSAEConfig(d_in=4, d_sae=2).to_dict()
    config["metadata"] = {**config["metadata"], "hook_name": "blocks.0.hook_resid_post"}
    _sae(json.dumps(config).encode(), content)


def _sae(config: bytes, weights: bytes) -> None:
    with _file("cfg.json", config) as path, suppress(UserError):
        (path.parent / "sae_weights.safetensors").write_bytes(weights)
        check_sae("a", SaeUnderTest(variant="a", path=path.parent), "cpu")


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (configuration, overrides, questions, corpus, results, page, forget_edit, sae_config, sae_weights)
}
