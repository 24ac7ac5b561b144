"""Write `bench.json`: what this package costs beside SAELens and SAEBench, in time and memory, on this machine.

Both sides of a ratio take turns in one process; ratios are of medians. Targets: all terms but output-space KL within
1.15 of SAELens' step, trackers within 1.05 of a step without, both at SAELens' default batch. Half of that batch is
there as well: what terms cost hardly depends on it, so that their share is larger. Output-space KL runs the model and
is measured with it, in `bench_side_by_side.py`.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from bench_evaluation import smollm2_row
from bench_measure import in_child, machine, peak_rss_mib, versions
from bench_setup import StepShape
from bench_training_step import ratio, terms_table, trackers_table, train_a_schedule

from sae_lens_contrastive.files import write_json


def main() -> None:
    """Measure everything, each part in a process of its own, and write the result."""
    options = _options()
    shapes = {name: StepShape(name, 2304) for name in ("topk", "standard")}
    half, wide = (StepShape("topk", d_sae, batch=2048) for d_sae in (2304, 16_384))
    terms = {name: in_child(terms_table, shape, options.steps) for name, shape in shapes.items()}
    at_half = in_child(partial(terms_table, each=False), half, options.steps)
    trackers = {name: in_child(trackers_table, shape, options.schedules) for name, shape in shapes.items()}
    of_wide = in_child(trackers_table, wide, max(3, options.schedules // 2))
    peaks = {side: round(in_child(_peak, shapes["topk"], side == "ours"), 1) for side in ("ours", "saelens")}
    print(f"\npeak memory: {peaks}", flush=True)
    evaluation = in_child(smollm2_row, options.evaluations)
    result = {
        "machine": machine(),
        "versions": versions(),
        "objective_step_ratio": ratio(terms["topk"], "all terms"),
        "tracker_step_ratio": ratio(trackers["topk"], "all trackers"),
        "eval_ratio": evaluation["ratio"],
        "eval_ratio_with_selection": evaluation["ratio_with_selection"],
        "peak_rss_mib": peaks["ours"],
        "peak_rss_saelens_mib": peaks["saelens"],
        "tables": [*terms.values(), at_half, *trackers.values(), of_wide],
        "evaluation": evaluation,
    }
    write_json(options.out, result)
    print({name: result[name] for name in ("objective_step_ratio", "tracker_step_ratio", "eval_ratio", "peak_rss_mib")})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15, help="timed steps of each row of loss terms")
    parser.add_argument("--schedules", type=int, default=6, help="timed steps of each kind that trackers make")
    parser.add_argument("--evaluations", type=int, default=3, help="evaluations of either side")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    return parser.parse_args()


def _peak(shape: StepShape, ours: bool) -> float:
    """Peak memory of a process that trains, the libraries included, in MiB."""
    train_a_schedule(shape, ours=ours)
    return peak_rss_mib()


if __name__ == "__main__":
    main()
