"""Gemma-2-2B's shape with random weights: what training and evaluation take, and what bounds each.

Nothing is downloaded. On CUDA at the real size, in bfloat16; with `--reduced` everything the same at a fraction of it,
which proves the script on a CPU in a minute. What torch.compile gives is measured; where it fails the row says why.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bench_evaluation import evaluation_row
from bench_measure import device_peak_mib, machine, take_turns, versions
from bench_setup import StepShape, host_trainer
from bench_training_step import terms_table, trackers_table, train_a_schedule
from datasets import Dataset
from roofline import Peak, bound, device_peak, generation_work, step_work
from sae_lens.constants import DTYPE_MAP
from sae_lens.training.activations_store import ActivationsStore
from saebench_peer_cases import SUBJECTS
from saebench_peer_models import random_gemma_2

from sae_lens_contrastive.data.streams import PrefetchedStream, ResumableStream, StreamedActivations
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.models import ModelShape, model_shape
from sae_lens_contrastive.models.shape import shape_of
from sae_lens_contrastive.training.costs import model_flops_per_token, n_sae_parameters, sae_flops_per_token

PREFETCH = 2


@dataclass(frozen=True)
class Scale:
    """Sizes of a run."""

    name: str
    layer: int
    d_sae: tuple[int, ...]
    batch: int
    k: int
    context_size: int
    n_prompts: int
    """Contexts of a forward pass of the model."""
    n_buffer: int
    """Contexts that are mixed with each other."""
    repeats: int
    n_questions: int
    sizes: dict[str, int] = field(default_factory=dict)
    """Where the model's configuration differs from Gemma-2-2B's."""


FULL = Scale("gemma-2-2b", 19, (16_384, 65_536), 4096, 64, 1024, 16, 128, 15, 12)
REDUCED = Scale(
    "a fraction of gemma-2-2b",
    4,
    (1024, 4096),
    512,
    16,
    128,
    4,
    16,
    5,
    2,
    {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 49_152,
        "max_position_embeddings": 2048,
    },
)
PROVEN_ON_CPU = "Proven on a CPU at a reduced shape; no figure of a GPU is in this file."


def main() -> None:
    """Measure everything and write the result."""
    options = _options()
    scale = REDUCED if options.reduced else FULL
    device, dtype = options.device, options.dtype
    peak = device_peak(device, DTYPE_MAP[dtype])
    model = random_gemma_2(device, dtype, **scale.sizes)
    hf_model: Any = model.original_model
    shape = shape_of(hf_model.config)
    result = {
        "note": PROVEN_ON_CPU if device == "cpu" else "Random weights: times and memory only.",
        "scale": asdict(scale),
        "dtype": dtype,
        "machine": machine(device),
        "versions": versions(),
        "peak": asdict(peak),
        "n_parameters": shape.n_parameters,
        "gemma_2_2b": _real_work(),
        "generation": _generation(model, shape, scale, device, dtype, peak, compiled=not options.reduced),
        "pipeline": _pipeline(model, shape, scale, device, dtype),
        "evaluation": _evaluation(model, scale),
    }
    del model
    result["training"] = [_training(scale, shape, d_sae, options, peak) for d_sae in scale.d_sae]
    result["roofline"] = _note(result)
    print("\n" + "\n".join(result["roofline"]))
    write_json(options.out, result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reduced", action="store_true", help="a fraction of the real size, in a minute on a CPU")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device is here; --device cpu --dtype float32 --reduced proves the script without one")
    return options


def _real_work() -> dict[str, Any]:
    """What a token costs at the real size, for plans from figures of any size."""
    shape, d_sae = model_shape("google/gemma-2-2b"), FULL.d_sae[-1]
    return {
        "d_sae": d_sae,
        "batch": FULL.batch,
        "generation_flops_per_token": model_flops_per_token(shape, FULL.layer + 1, FULL.context_size),
        "step_flops_per_token": sae_flops_per_token(shape.d_model, d_sae),
        "sae_parameters": n_sae_parameters(shape.d_model, d_sae, "topk"),
    }


def _generation(
    model: Any, shape: ModelShape, scale: Scale, device: str, dtype: str, peak: Peak, *, compiled: bool
) -> dict[str, Any]:
    """Activations at the hook by SAELens' own store, as it is and with its compiled model."""
    store = _store(model, shape, scale, device)
    tokens = store.get_batch_tokens()
    sides: dict[str, Callable[[], object]] = {"as it is": lambda: store.get_activations(tokens)}
    failed = None
    plain = model.run_with_cache
    if compiled:
        fast = torch.compile(plain)

        def compiled_side() -> object:
            model.run_with_cache = fast
            try:
                return store.get_activations(tokens)
            finally:
                model.run_with_cache = plain

        failed = _tried(compiled_side, device)
        if failed is None:
            sides["compiled"] = compiled_side
    take_turns(sides, 2, device)
    seconds = {name: median(times) for name, times in take_turns(sides, scale.repeats, device).items()}
    n_tokens = tokens.numel()
    fastest = min(seconds, key=seconds.__getitem__)
    work = generation_work(shape, scale.layer + 1, n_tokens, scale.context_size, dtype)
    return {
        "tokens": n_tokens,
        "seconds_of_sides": {name: round(value, 6) for name, value in seconds.items()},
        "compile_failed": failed,
        "fastest": fastest,
        "tokens_per_second": round(n_tokens / seconds[fastest], 1),
        "peak_mib": device_peak_mib(sides[fastest], device),
        **bound(work, seconds[fastest], peak),
    }


def _pipeline(model: Any, shape: ModelShape, scale: Scale, device: str, dtype: str) -> dict[str, Any]:
    """Tokens a second of the whole training of SAELens' SAE, with the host's prefetching and without."""
    sae = _step_shape(scale, shape, scale.d_sae[0], device, dtype)
    streams: dict[str, ResumableStream[torch.Tensor]] = {
        "one after the other": _stream(model, shape, scale, device),
        "prefetched": PrefetchedStream(_stream(model, shape, scale, device), PREFETCH),
    }
    rates = {}
    # Whole buffers, so that what fills them counts.
    n_steps = max(2, scale.n_buffer * scale.context_size // scale.batch)
    for name, stream in streams.items():
        trainer = host_trainer(sae)

        def steps(trainer: Any = trainer, stream: Any = stream, n: int = n_steps) -> None:
            for _ in range(n):
                trainer.step(next(stream).float())
                trainer.n_training_steps += 1

        steps(n=1)
        (seconds,) = take_turns({name: steps}, 1, device)[name]
        rates[name] = round(n_steps * scale.batch / seconds, 1)
        stream.close()
    return {"d_sae": scale.d_sae[0], "tokens_per_second": rates}


def _training(scale: Scale, shape: ModelShape, d_sae: int, options: argparse.Namespace, peak: Peak) -> dict[str, Any]:
    """SAELens' step beside ours with all terms, plain and compiled, with trackers; and the memory of either."""
    plain = _step_shape(scale, shape, d_sae, options.device, options.dtype)
    rows: dict[str, Any] = {"d_sae": d_sae, "terms": terms_table(plain, scale.repeats, each=False)}
    rows["compile_failed"] = None
    if not options.reduced:
        try:
            rows["terms_compiled"] = terms_table(replace(plain, compiled=True), scale.repeats, each=False)
        except Exception as error:
            rows["compile_failed"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    rows["trackers"] = trackers_table(plain, max(3, scale.repeats // 3))
    rows["peak_mib"] = {
        side: device_peak_mib(lambda ours=side == "ours": train_a_schedule(plain, ours=ours), options.device)
        for side in ("saelens", "ours")
    }
    seconds = rows["terms"]["rows"]["SAELens"]["seconds"]
    return rows | {"bound": bound(step_work(plain.d_in, d_sae, plain.batch), seconds, peak)}


def _evaluation(model: Any, scale: Scale) -> dict[str, Any]:
    """Both evaluations on the random model, on questions that it answers right by chance."""
    hook = f"blocks.{scale.layer}.hook_resid_post"
    subject = replace(SUBJECTS["random-gemma-2-2b"], hook_name=hook, corpus_tokens=scale.n_questions * 1000)
    asked = {"max_asked": 12 * scale.n_questions, "max_known": scale.n_questions}
    return evaluation_row(subject, model, **asked, repeats=2, d_sae=scale.d_sae[0])


def _note(result: dict[str, Any]) -> list[str]:
    """What bounds each part, in words."""
    peak = {name: value for name, value in result["peak"].items() if name != "source"}
    flops, rate, measured, copied = peak.values()
    lines = [
        f"Peak: {flops / 1e12:.3g} TFLOP/s and {rate / 1e9:.4g} GB/s, {result['peak']['source']}; one matrix product "
        f"reached {measured / 1e12:.3g}, one copy {copied / 1e9:.4g}."
    ]
    parts = {"Activations": result["generation"]}
    parts |= {f"A step at d_sae {row['d_sae']:,}": row["bound"] for row in result["training"]}
    for name, part in parts.items():
        lines.append(
            f"{name}: {part['flops'] / 1e12:.3g} TFLOP and {part['bytes'] / 1e9:.3g} GB, bound by {part['bound_by']}; "
            f"{part['share_of_bound']:.0%} of that bound, {part['share_of_matrix_peak']:.0%} of the matrix units' peak."
        )
    lines.append("Trackers: bound by the host's CPU, which forms groups from sparse rows; a step copies a few rows.")
    lines.append("Evaluation: bound by the blocks above the hook, run for the prompts that an edit reaches.")
    return lines


def _store(model: Any, shape: ModelShape, scale: Scale, device: str) -> ActivationsStore:
    generator = torch.Generator().manual_seed(0)
    n_texts = 2 * scale.n_buffer
    tokens = torch.randint(10, 40_000, (n_texts, scale.context_size), generator=generator)
    return ActivationsStore(
        model,
        Dataset.from_dict({"tokens": tokens.tolist()}).with_format("torch"),
        streaming=False,
        hook_name=f"blocks.{scale.layer}.hook_resid_post",
        hook_head_index=None,
        context_size=scale.context_size,
        d_in=shape.d_model,
        n_batches_in_buffer=scale.n_buffer,
        total_training_tokens=n_texts,
        store_batch_size_prompts=scale.n_prompts,
        train_batch_size_tokens=scale.batch,
        prepend_bos=False,
        normalize_activations="none",
        device=torch.device(device),
        dtype="float32",
    )


def _stream(model: Any, shape: ModelShape, scale: Scale, device: str) -> StreamedActivations:
    return StreamedActivations(_store(model, shape, scale, device), scale.batch, seed=0)


def _step_shape(scale: Scale, shape: ModelShape, d_sae: int, device: str, dtype: str) -> StepShape:
    return StepShape(
        "topk", d_sae, d_in=shape.d_model, batch=scale.batch, k=scale.k, device=device, bfloat16=dtype == "bfloat16"
    )


def _tried(run: Callable[[], object], device: str) -> str | None:
    """What a first call came to: None, or the error in a line."""
    try:
        take_turns({"": run}, 1, device)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None


if __name__ == "__main__":
    main()
