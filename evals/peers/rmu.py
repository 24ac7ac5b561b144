"""Representation misdirection (RMU), the usual unlearning by fine-tuning, on the texts, questions and gate of SAEs.

Li et al. 2024, "The WMDP Benchmark", section 4: the residual stream x at one layer is steered on forget text and held
on retain text,
L = mean over forget tokens of |x - c u|^2 / d + retain_weight * mean over retain tokens of |x - x_model|^2 / d,
with u a fixed random unit vector whose entries are all positive, as in the paper's code. c is `steering` times the mean
norm of x on forget text. Only the down projections of the last three MLPs up to the layer learn, by AdamW.
Position 0 is left out: its norm is of another size.

Every combination of each of the grids in a file is trained; the one to report is chosen on the `select` questions, as
the settings of an SAE are, and then put the held-out ones. A second result, `rmu-ungated`, is of the combination that
forgets most on `select` whatever it does to retain questions: what a method costs is compared at equal forgetting.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from sklearn.model_selection import ParameterGrid
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.config import StrictModel, load_yaml, parse_config
from sae_lens_contrastive.data.sources import corpus_dataset, corpus_digest
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.kept_tensors import kept_tensors
from sae_lens_contrastive.models import load_model, residual_at_hook
from sae_lens_contrastive.models.residual import blocks_replaced
from sae_lens_contrastive.report import results_table
from sae_lens_contrastive.report.results import RESULTS_FILE
from sae_lens_contrastive.runs import claim_folder
from sae_lens_contrastive.training.run_config import RunConfig, resolve_run
from sae_lens_contrastive.unlearning import EvalSpec, check_spec
from sae_lens_contrastive.unlearning.corpus import Contexts, packed_contexts
from sae_lens_contrastive.unlearning.measures import WeightEdit
from sae_lens_contrastive.unlearning.shared import UNEDITED_FOLDER, HookData
from sae_lens_contrastive.unlearning.spec import EvalInputs
from sae_lens_contrastive.unlearning.weight_edits import WeightCandidate, answer_with_weights, evaluate_weights
from sae_lens_contrastive.versions import package_versions

ROOT = Path(__file__).resolve().parent.parent.parent
GRID = ROOT / "evals/peers/rmu.yaml"
CANDIDATES_FOLDER = "candidates"
SECONDS = "train_seconds"
N_LAYERS = 3
"""MLPs that learn, the layer's own the last."""


Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Values = Annotated[list[float], Field(min_length=1)]


class Rmu(StrictModel):
    """Hyperparameters."""

    steering: Positive
    """c in units of the mean norm of the residual stream on forget text."""
    retain_weight: Positive
    """Weight of the retain side."""
    lr: Positive
    """Learning rate of AdamW."""
    n_steps: Count
    """Steps, each on other sequences."""
    n_sequences: Count
    """Sequences of either side in a step."""


class RmuGrids(StrictModel):
    """What is tried."""

    grids: list[dict[str, Values]] = Field(min_length=1)
    """Values of each hyperparameter, of which every combination is trained; one grid after another."""


def read_grids(file: Path) -> list[Rmu]:
    """Every combination of each grid in a file; `UserError` if one makes no training."""
    grids = parse_config(RmuGrids, load_yaml(file), source=str(file)).grids
    return [parse_config(Rmu, each, source=f"{file}, grids") for each in ParameterGrid(grids)]


class RmuTrainer:
    """A model with sequences of both sides, their residual stream below what learns computed once."""

    def __init__(self, model: Any, layer: int, forget: Contexts, retain: Contexts) -> None:
        self.model = model
        self.layer = layer
        self.first = layer - N_LAYERS + 1
        self.forget, self.retain = self._side(forget, "forget"), self._side(retain, "retain")

    def check(self, options: Rmu) -> None:
        """`UserError` if a step takes more sequences than a side has."""
        most = min(len(side.tokens) for side in (self.forget, self.retain))
        if options.n_sequences > most:
            raise UserError(f"n_sequences is {options.n_sequences}; the shorter side has {most} sequences.")

    def train(self, options: Rmu, seed: int) -> WeightEdit:
        """Weights after training with options that `check` lets pass; the model's own are put back."""
        named = {name: p for name, p in self.model.named_parameters() if self._learns(name)}
        before = {name: weight.detach().clone() for name, weight in named.items()}
        generator = torch.Generator().manual_seed(seed)
        direction = torch.nn.functional.normalize(torch.rand(self.model.cfg.d_model, generator=generator), dim=0)
        target = options.steering * self._mean_norm() * direction.to(self.model.cfg.device)
        optimizer = torch.optim.AdamW(named.values(), lr=options.lr)
        sides = (self._batches(side, options, generator) for side in (self.forget, self.retain))
        batches = itertools.islice(zip(*sides, strict=True), options.n_steps)
        try:
            for weight in named.values():
                weight.requires_grad_(True)
            for forget, retain in tqdm(batches, total=options.n_steps, desc="RMU", unit="step"):
                steered = (self._residual(forget.tokens, forget.below) - target).square().mean()
                held = (self._residual(retain.tokens, retain.below) - retain.residual).square().mean()
                optimizer.zero_grad()
                (steered + options.retain_weight * held).backward()
                optimizer.step()
            return WeightEdit({name: weight.detach().clone() for name, weight in named.items()})
        finally:
            for name, weight in named.items():
                weight.requires_grad_(False)
                weight.data = before[name]
                weight.grad = None

    def _learns(self, name: str) -> bool:
        match = re.search(r"layers\.(\d+)\..*mlp.*down_proj.*weight$", name)
        return match is not None and self.first <= int(match[1]) <= self.layer

    def _side(self, contexts: Contexts, name: str) -> _Side:
        tokens = torch.tensor(contexts.tokens, device=self.model.cfg.device)
        hook_name = f"blocks.{self.first - 1}.hook_resid_post"
        read: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for chunk in tqdm(tokens.split(16), desc=f"RMU, {name} text", unit="batch"):
                below = residual_at_hook(self.model, hook_name, chunk)
                read.append((below, self._residual(chunk, below)))
        return _Side(tokens, *map(torch.cat, zip(*read, strict=True)))

    def _mean_norm(self) -> float:
        return self.forget.residual.norm(dim=-1).mean().item()

    def _residual(
        self, tokens: Int[Tensor, "batch pos"], below: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos_after_first d_model"]:
        hook_name = f"blocks.{self.layer}.hook_resid_post"
        seen: list[Tensor] = []

        def see(residual: Tensor, hook: Any) -> None:  # noqa: ARG001 - the host passes hook by name
            seen.append(residual)

        # Not run_with_cache: that detaches what it keeps.
        with blocks_replaced(self.model.blocks[: self.first], below):
            self.model.run_with_hooks(tokens, fwd_hooks=[(hook_name, see)], stop_at_layer=self.layer + 1)
        return seen[0][:, 1:]

    def _batches(self, side: _Side, options: Rmu, generator: torch.Generator) -> Iterator[_Side]:
        while True:
            order = torch.randperm(len(side.tokens), generator=generator)
            for rows in order.split(options.n_sequences):
                if len(rows) == options.n_sequences:
                    yield _Side(side.tokens[rows], side.below[rows], side.residual[rows])


@dataclass(frozen=True)
class _Side:
    tokens: Tensor
    below: Tensor
    """Residual stream below the first block that learns."""
    residual: Tensor
    """The unedited model's residual stream at the layer, position 0 left out."""


def main() -> None:
    """Train every combination with every seed, evaluate all, save the results; what is done is kept."""
    options = _options()
    if len(set(options.seeds)) < len(options.seeds):
        raise UserError(f"--seeds {options.seeds}: a seed that is there twice would count twice. Give distinct seeds.")
    spec = parse_config(EvalSpec, load_yaml(options.spec), source=str(options.spec))
    baseline = ROOT / "configs/variants/baseline.yaml"
    runs = [resolve_run(options.target, baseline, {"seed": seed}) for seed in options.seeds]
    layer = options.layer if options.layer is not None else int(runs[0].hook_name.split(".")[1])
    if layer < N_LAYERS:
        raise UserError(f"--layer is {layer}; RMU trains {N_LAYERS} layers up to it, so it must be {N_LAYERS} or more.")
    grid = read_grids(options.grid)
    inputs = check_spec(spec)
    claim_folder(options.out, "rmu", _config(spec, inputs, runs[0], layer, grid))
    model = load_model(spec.model, device=spec.device, dtype=spec.dtype)
    data = HookData(model, f"blocks.{layer}.hook_resid_post", spec, inputs, options.out / UNEDITED_FOLDER)
    rows = [row for run in runs for row in _rows(options.out / f"seed{run.seed}", run, layer, grid, data)]
    write_json(options.out / RESULTS_FILE, rows)
    print(results_table(rows))


def _config(spec: EvalSpec, inputs: EvalInputs, run: RunConfig, layer: int, grid: list[Rmu]) -> dict[str, Any]:
    """What results depend on beside the seed."""
    corpora = run.corpora
    return {
        "spec": spec.model_dump(mode="json"),
        "inputs_sha256": inputs.digest,
        "corpora": corpora.model_dump(mode="json"),
        "corpora_sha256": {each: corpus_digest(each) for each in (*corpora.forget, *corpora.retain, *corpora.general)},
        "left_out_sha256": hashlib.sha256(repr(run.left_out_entities()).encode()).hexdigest(),
        "training": run.training.model_dump(include={"context_size", "cache_tokens"}),
        "layer": layer,
        "grid": [each.model_dump() for each in grid],
        "versions": package_versions(),
    }


def _rows(out: Path, run: RunConfig, layer: int, grid: list[Rmu], data: HookData) -> list[dict[str, Any]]:
    """The results of one seed with the training time of the chosen weights, unless they are there already."""
    if (out / RESULTS_FILE).is_file():
        # Left by a process that was killed between the results and the end.
        shutil.rmtree(out / CANDIDATES_FOLDER, ignore_errors=True)
        return read_json(out / RESULTS_FILE)
    trainer = RmuTrainer(data.model, layer, *(_contexts(run, data.model, side) for side in ("forget", "retain")))
    for each in grid:
        trainer.check(each)
    seconds: list[float] = []

    def candidates() -> Iterator[WeightCandidate]:
        for i, each in enumerate(grid):
            weights, took = _trained(trainer, each, run.seed, out / CANDIDATES_FOLDER / f"{i}.safetensors")
            seconds.append(took)
            yield WeightCandidate({"layer": layer, **each.model_dump()}, weights)

    tried = answer_with_weights("rmu", candidates(), data)
    rows: list[dict[str, Any]] = []
    for name, gate in {"rmu": data.spec.retain_gate, "rmu-ungated": 0.0}.items():
        result = evaluate_weights(name, tried, data, out, seed=run.seed, retain_gate=gate)
        chosen = None if result.setting is None else seconds[result.frontier.index(result.setting)]
        rows.append({**result.model_dump(mode="json"), "train_seconds": chosen})
    write_json(out / RESULTS_FILE, rows)
    shutil.rmtree(out / CANDIDATES_FOLDER, ignore_errors=True)
    return rows


def _trained(trainer: RmuTrainer, options: Rmu, seed: int, file: Path) -> tuple[WeightEdit, float]:
    """Weights after training and the seconds it took, kept until the seed is done: one that is stopped goes on."""

    def make() -> dict[str, Tensor]:
        started = time.perf_counter()
        weights = trainer.train(options, seed).weights
        return {**weights, SECONDS: torch.tensor(time.perf_counter() - started)}

    kept = kept_tensors(file, f"{seed}/{options.model_dump_json()}", make)
    seconds = kept.pop(SECONDS).item()
    return WeightEdit({name: weight.to(trainer.model.cfg.device) for name, weight in kept.items()}), round(seconds, 1)


def _contexts(run: RunConfig, model: Any, side: str) -> Contexts:
    """The same texts that an SAE trains on: forget text without held-out entities; retain and general text."""
    corpora = run.corpora
    left_out = run.left_out_entities() if side == "forget" else []
    sources = corpora.forget if side == "forget" else (*corpora.retain, *corpora.general)
    texts = corpus_dataset(sources, left_out, run.seed)["text"]
    return packed_contexts(model.tokenizer, texts, run.training.context_size, run.training.cache_tokens)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=ROOT / "configs/targets/smollm2.yaml")
    parser.add_argument("--spec", type=Path, default=ROOT / "evals/world_facts_smollm2.yaml")
    parser.add_argument("--grid", type=Path, default=GRID, help="hyperparameters to try (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--layer", type=int, help="layer that is steered; by default the target's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"rmu: {error}")
    except KeyboardInterrupt:
        sys.exit("rmu: stopped. The same command goes on with what is done.")
