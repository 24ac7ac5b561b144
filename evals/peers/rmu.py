"""Representation misdirection (RMU), the usual unlearning by fine-tuning, on the texts, questions and gate of SAEs.

Li et al. 2024, "The WMDP Benchmark", section 4: the residual stream x at one layer is steered on forget text and held
on retain text,
L = mean over forget tokens of |x - c u|^2 / d + retain_weight * mean over retain tokens of |x - x_model|^2 / d,
with u a fixed random unit vector whose entries are all positive, as in the paper's code. c is `steering` times the mean
norm of x on forget text. Only the down projections of the last three MLPs up to the layer learn, by AdamW.
Position 0 is left out: its norm is of another size. Sources of text take turns, sequence by sequence.

Every combination of each of the grids in a file is trained; the one to report is chosen on the `select` questions, as
the settings of an SAE are, and then put the held-out ones. A second result, `rmu-ungated`, is of the combination that
forgets most on `select` whatever it does to retain questions: what a method costs is compared at equal forgetting.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
from pydantic import Field
from rmu_training import N_LAYERS, Rmu, RmuTrainer
from sklearn.model_selection import ParameterGrid
from torch import Tensor

from sae_lens_contrastive.config import StrictModel, load_yaml, parse_config
from sae_lens_contrastive.data.sources import corpus_digest, load_corpus_sources
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.kept_tensors import kept_tensors
from sae_lens_contrastive.models import load_model
from sae_lens_contrastive.models.digest import model_content
from sae_lens_contrastive.report import results_table
from sae_lens_contrastive.runs import RESULTS_FILE, claim_folder, nothing_left_if_refused
from sae_lens_contrastive.training.run_config import RunConfig, resolve_run
from sae_lens_contrastive.unlearning import EvalSpec, check_spec
from sae_lens_contrastive.unlearning.corpus import Contexts, packed_contexts
from sae_lens_contrastive.unlearning.measures import WeightEdit
from sae_lens_contrastive.unlearning.output import UnlearningResult
from sae_lens_contrastive.unlearning.shared import UNEDITED_FOLDER, HookData
from sae_lens_contrastive.unlearning.spec import CHARACTERS_PER_TOKEN, EvalInputs
from sae_lens_contrastive.unlearning.weight_edits import WeightCandidate, answer_with_weights, evaluate_weights
from sae_lens_contrastive.versions import package_versions

ROOT = Path(__file__).resolve().parent.parent.parent
GRID = ROOT / "evals/peers/rmu.yaml"
CANDIDATES_FOLDER = "candidates"
SECONDS = "train_seconds"

Values = Annotated[list[float], Field(min_length=1)]


class RmuGrids(StrictModel):
    """What is tried."""

    grids: list[dict[str, Values]] = Field(min_length=1)
    """Values of each hyperparameter, of which every combination is trained; one grid after another."""


def read_grids(file: Path) -> list[Rmu]:
    """Every combination of each grid in a file; `UserError` if one makes no training."""
    grids = parse_config(RmuGrids, load_yaml(file), source=str(file)).grids
    return [parse_config(Rmu, each, source=f"{file}, grids") for each in ParameterGrid(grids)]


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
    with nothing_left_if_refused(options.out):
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
        "model_sha256": model_content(spec.model),
        "corpora": corpora.model_dump(mode="json"),
        "corpora_sha256": {each: corpus_digest(each) for each in (*corpora.forget, *corpora.retain, *corpora.general)},
        "left_out_sha256": hashlib.sha256(repr(run.left_out_entities()).encode()).hexdigest(),
        "context_size": run.training.context_size,
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
    gates = {"rmu": data.spec.retain_gate, "rmu-ungated": 0.0}
    kept = {name: _evaluated(out / f"{name}.json") for name in gates}
    texts = (_contexts(run, data.model, grid, side) for side in ("forget", "retain"))
    trainer = RmuTrainer(data.model, layer, *texts)
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
    for name, gate in gates.items():
        result = kept[name] or evaluate_weights(name, tried, data, out, seed=run.seed, retain_gate=gate)
        chosen = None if result.setting is None else seconds[result.frontier.index(result.setting)]
        rows.append({**result.model_dump(mode="json"), "train_seconds": chosen})
    write_json(out / RESULTS_FILE, rows)
    shutil.rmtree(out / CANDIDATES_FOLDER, ignore_errors=True)
    return rows


def _evaluated(saved: Path) -> UnlearningResult | None:
    return parse_config(UnlearningResult, read_json(saved), source=str(saved)) if saved.is_file() else None


def _trained(trainer: RmuTrainer, options: Rmu, seed: int, file: Path) -> tuple[WeightEdit, float]:
    """Weights after training and the seconds it took, kept until the seed is done: one that is stopped goes on."""

    def make() -> dict[str, Tensor]:
        started = time.perf_counter()
        weights = trainer.train(options, seed).weights
        return {**weights, SECONDS: torch.tensor(time.perf_counter() - started)}

    kept = kept_tensors(file, f"{seed}/{options.model_dump_json()}", make)
    seconds = kept.pop(SECONDS).item()
    return WeightEdit({name: weight.to(trainer.model.cfg.device) for name, weight in kept.items()}), round(seconds, 1)


def _contexts(run: RunConfig, model: Any, grid: list[Rmu], side: str) -> list[Contexts]:
    """The texts that an SAE trains on, by source: forget text without held-out entities; retain and general text.

    Of each source as many contexts, its text in an order drawn by the seed, as the longest training takes of it.
    """
    corpora = run.corpora
    left_out = run.left_out_entities() if side == "forget" else []
    sources = corpora.forget if side == "forget" else tuple(dict.fromkeys((*corpora.retain, *corpora.general)))
    n_contexts = math.ceil(max(each.n_steps * each.n_sequences for each in grid) / len(sources))
    max_tokens = n_contexts * run.training.context_size
    read: list[Contexts] = []
    for source in sources:
        texts = [
            document.text for document in load_corpus_sources([source], left_out, CHARACTERS_PER_TOKEN * max_tokens)
        ]
        Random(f"{run.seed}/{source}").shuffle(texts)
        read.append(packed_contexts(model.tokenizer, texts, run.training.context_size, max_tokens))
    return read


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
