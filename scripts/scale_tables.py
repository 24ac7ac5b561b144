"""Tables of the benchmarks: what a step costs, Gemma-2-2B's shape, and what more GPUs would give."""

from collections.abc import Callable
from typing import Any

H100_FLOPS = 989e12
"""Dense bfloat16 FLOP/s of an H100 (SXM), from its data sheet."""
ASSUMED_SHARE = 0.35
"""Share of that which a run is assumed to reach at most, as in `sae_lens_contrastive/training/device_facts.py`."""
MACHINE_GPUS, INSIDE, BETWEEN = 8, 450e9, 50e9
"""GPUs of one machine; bytes/s of a GPU to the others inside (NVLink) and to other machines (400 Gbit/s)."""
FEW_STEPS, HEAVY_SHARE, LONG_HOURS = 2500, 0.25, 7 * 24


def summary(content: dict[str, Any]) -> list[str]:
    """The four figures of a benchmark."""
    rows = {
        "a step with all loss terms but output-space KL, beside SAELens' own": ("objective_step_ratio", "{:.2f} x"),
        "a step with all trackers, beside one without": ("tracker_step_ratio", "{:.2f} x"),
        "SAEBench's own evaluation, beside ours": ("eval_ratio", "{:.1f} x"),
        "the same with the selection of features": ("eval_ratio_with_selection", "{:.1f} x"),
        "memory of a process that trains with all terms and trackers": ("peak_rss_mib", "{:,.0f} MiB"),
        "memory of one that trains SAELens' own": ("peak_rss_saelens_mib", "{:,.0f} MiB"),
    }
    shown = [f"| {what} | {how.format(content[key])} |" for what, (key, how) in rows.items()]
    return ["| what | measured |", "|---|---|", *shown]


def steps(content: dict[str, Any]) -> list[str]:
    """Every row of the tables of steps."""
    lines = ["| what | architecture | d_sae | batch | row | beside its base |", "|---|---|---|---|---|---|"]
    for table in content["tables"]:
        shown = {name: f"{row['ratio']:.2f} x" for name, row in table["rows"].items()}
        shown |= {name: f"adds {100 * share:.1f} %" for name, share in table.get("parts", {}).items()}
        what = f"| {table['title']} | {table['architecture']} | {table['d_sae']} | {table['batch']}"
        lines += [f"{what} | {name} | {text} |" for name, text in shown.items()]
    return lines


def data_parallel(content: dict[str, Any]) -> list[str]:
    """A step of one process, and of two ranks that share its batch."""
    lines = ["| loss terms | one process | two ranks | speed-up | in processor time |", "|---|---|---|---|---|"]
    for name, row in content["rows"].items():
        one, two = (1000 * row[f"seconds_{ranks}"] for ranks in ("one_rank", "two_ranks"))
        speed_up, processor = row["speed_up"], row["processor_speed_up"]
        lines.append(f"| {name} | {one:.0f} ms | {two:.0f} ms | {speed_up:.2f} x | {processor:.2f} x |")
    return lines


def shape(content: dict[str, Any]) -> list[str]:
    """What one run at Gemma-2-2B's shape measured."""
    generation, rates = content["generation"], content["pipeline"]["tokens_per_second"]
    rows = {
        "activations at the hook": f"{generation['tokens_per_second']:,.0f} tokens/s, "
        f"{generation['share_of_matrix_peak']:.0%} of the matrix units' peak",
        "with SAELens' training, in turn and prefetched": " and ".join(f"{rate:,.0f}" for rate in rates.values())
        + " tokens/s",
        "evaluation": f"SAEBench's takes {content['evaluation']['ratio']:.1f} x ours",
    }
    for row in content["training"]:
        terms, trackers = (row[name]["rows"] for name in ("terms", "trackers"))
        theirs, ours = row["peak_mib"]["saelens"], row["peak_mib"]["ours"]
        rows[f"step at d_sae {row['d_sae']:,}"] = (
            f"SAELens {1000 * terms['SAELens']['seconds']:.1f} ms, all terms {terms['all terms']['ratio']:.2f} x, "
            f"all trackers {trackers['all trackers']['ratio']:.2f} x"
        )
        rows[f"memory at d_sae {row['d_sae']:,}"] = (
            f"SAELens {theirs:,.0f} MiB, with all terms and trackers {ours:,.0f} MiB"
        )
    return ["| what | measured |", "|---|---|", *(f"| {what} | {text} |" for what, text in rows.items())]


def roofline(content: dict[str, Any]) -> list[str]:
    """What bounds each part, as the benchmark says it."""
    return [f"- {line}" for line in content["roofline"]]


def scaling(content: dict[str, Any]) -> list[str]:
    """What 1, 8 and 64 GPUs would give for three sizes of a training, and what breaks first."""
    lines = ["| tokens | GPUs | tokens/s | time | steps | breaks first |", "|---|---|---|---|---|---|"]
    batch = content["gemma_2_2b"]["batch"]
    alone = batch * _seconds_per_token(content)
    for tokens in (100e6, 1e9, 10e9):
        for n_gpus in (1, MACHINE_GPUS, 64):
            averaging = _averaging_seconds(content["gemma_2_2b"]["sae_parameters"], n_gpus)
            rate = n_gpus * batch / (alone + averaging)
            n_steps, hours = tokens / (n_gpus * batch), tokens / rate / 3600
            first = _breaks_first(n_steps, averaging / (alone + averaging), hours)
            lines.append(
                f"| {tokens / 1e6:,.0f}M | {n_gpus} | {rate:,.0f} | {_time(hours)} | {n_steps:,.0f} | {first} |"
            )
    return lines


def _seconds_per_token(content: dict[str, Any]) -> float:
    """Of one GPU that runs the model and trains the widest SAE with all terms and trackers."""
    widest, generation = content["training"][-1], content["generation"]
    ratio = widest["terms"]["rows"]["all terms"]["ratio"] * widest["trackers"]["rows"]["all trackers"]["ratio"]
    if not content["machine"].startswith("CPU"):
        step = widest["terms"]["rows"]["SAELens"]["seconds"] * ratio / content["gemma_2_2b"]["batch"]
        return 1 / generation["tokens_per_second"] + step
    shares = (generation["share_of_matrix_peak"], widest["bound"]["share_of_matrix_peak"])
    of_model, of_step = (min(share, ASSUMED_SHARE) * H100_FLOPS for share in shares)
    work = content["gemma_2_2b"]
    return work["generation_flops_per_token"] / of_model + ratio * work["step_flops_per_token"] / of_step


def _averaging_seconds(n_parameters: int, n_gpus: int) -> float:
    """A ring of float32 gradients, not hidden behind the backward pass."""
    rate = INSIDE if n_gpus <= MACHINE_GPUS else BETWEEN
    return 2 * (n_gpus - 1) / n_gpus * 4 * n_parameters / rate


def _breaks_first(n_steps: float, averaging_share: float, hours: float) -> str:
    if n_steps < FEW_STEPS:
        return f"too few steps: under {FEW_STEPS:,}, the window in which a feature must fire"
    if averaging_share > HEAVY_SHARE:
        return f"averaging gradients between machines, {averaging_share:.0%} of a step"
    return "time" if hours > LONG_HOURS else "-"


def _time(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


VIEWS: dict[str, Callable[[Any], list[str]]] = {
    "steps": steps,
    "shape": shape,
    "roofline": roofline,
    "scaling": scaling,
}
"""Views of the results by the names that markers use."""
