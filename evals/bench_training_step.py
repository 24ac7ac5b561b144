"""One training step: SAELens' own trainer beside this package's, with each loss term, with all of them, with trackers.

Rows take turns step by step and their medians are compared. Trackers act every 5, 50 or 100 steps: each kind of step
of a schedule is timed by itself, and a schedule is the sum of its steps.
"""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

import torch
from bench_measure import rows_beside, seconds_of, take_turns
from bench_setup import GROUPING_STEPS, TERMS, TRACKERS, StepShape, batches, host_trainer, our_trainer, sentence_space

from sae_lens_contrastive.training import ContrastiveSAETrainer

SCHEDULE = 100
_COUNTED, _MEASURED, _GROUPED, _OTHER = "counts firing", "measures importance", "forms groups", "others"
_PLACES = {_OTHER: 0, _COUNTED: 4, _MEASURED: 49, _GROUPED: 99}
"""A step of each kind, by its place in the schedule of `TRACKERS`."""


def terms_table(shape: StepShape, repeats: int, terms: tuple[str, ...] = TERMS, *, each: bool = True) -> dict[str, Any]:
    """SAELens' step beside ours without terms, with each of some terms if asked for, and with all of them."""
    space = sentence_space(shape.d_in, shape.device)
    objectives: dict[str, tuple[str, ...]] = {"no terms": ()}
    objectives |= {name: (name,) for name in terms if each} | {"all terms": terms}
    trainers: dict[str, Any] = {"SAELens": host_trainer(shape)}
    trainers |= {label: our_trainer(shape, chosen, space) for label, chosen in objectives.items()}
    data = batches(shape)
    take_turns(_steps(trainers, data), GROUPING_STEPS, shape.device)
    for trainer in trainers.values():
        # Groups have been formed, and stay: their cost is the trackers' table.
        if isinstance(trainer, ContrastiveSAETrainer):
            trainer.parts = []
    rows = rows_beside(take_turns(_steps(trainers, data), repeats, shape.device), "SAELens")
    return _table("loss terms", shape, rows)


def trackers_table(shape: StepShape, repeats: int) -> dict[str, Any]:
    """Ours with all trackers beside ours without and SAELens' own, over one schedule, and how their time divides."""
    ours = our_trainer(shape, **TRACKERS)
    trainers: dict[str, Any] = {"SAELens": host_trainer(shape), "no trackers": our_trainer(shape), "all trackers": ours}
    data = batches(shape)
    take_turns(_steps(trainers, data), 3, shape.device)
    spent = {part.name: _timed(part, shape.device) for part in ours.parts}
    of_schedule = Counter(_kind(place) for place in range(SCHEDULE))
    seconds: dict[str, float] = dict.fromkeys(trainers, 0.0)
    in_parts: dict[str, float] = dict.fromkeys(spent, 0.0)
    for kind, place in _PLACES.items():
        for record in spent.values():
            record.clear()
        times: dict[str, list[float]] = {name: [] for name in trainers}
        # Most steps are of the plain kind, and its scatter would be most of the ratio's.
        for number in range(repeats * (3 if kind == _OTHER else 1)):
            if kind == _GROUPED:
                _fill_window(ours, data)
            for trainer in trainers.values():
                trainer.n_training_steps = place
            for name, found in take_turns(_steps(trainers, data[number % len(data) :]), 1, shape.device).items():
                times[name] += found
        share = of_schedule[kind] / SCHEDULE
        for name, found in times.items():
            seconds[name] += share * statistics.median(found)
        for name, record in spent.items():
            in_parts[name] += share * statistics.median(record)
    table = _table("trackers", shape, rows_beside({name: [mean] for name, mean in seconds.items()}, "no trackers"))
    table["parts"] = {name: round(mean / seconds["no trackers"], 5) for name, mean in in_parts.items()}
    return table


def ratio(table: dict[str, Any], row: str) -> float:
    """Ratio of a row of a table to its base."""
    return table["rows"][row]["ratio"]


def train_a_schedule(shape: StepShape, *, ours: bool) -> None:
    """The steps of a schedule that differ, for their memory: SAELens' own, or ours with all terms and trackers."""
    trainer: Any = host_trainer(shape)
    if ours:
        trainer = our_trainer(shape, TERMS, sentence_space(shape.d_in, shape.device), **TRACKERS)
    data = batches(shape, 2)
    for place in _PLACES.values():
        if ours and place == _PLACES[_GROUPED]:
            _fill_window(trainer, data)
        trainer.n_training_steps = place
        trainer.step(data[0])
    # Once more, now that there are groups.
    trainer.step(data[1])


def _kind(place: int) -> str:
    if (place + 1) % 100 == 0:
        return _GROUPED
    if (place + 1) % 50 == 0:
        return _MEASURED
    return _COUNTED if (place + 1) % 5 == 0 else _OTHER


def _steps(trainers: dict[str, Any], data: list[Any]) -> dict[str, Any]:
    """A function for each trainer that takes its next step, as `fit()` does."""

    def stepping(trainer: Any) -> Any:
        def step() -> None:
            trainer.step(data[trainer.n_training_steps % len(data)])
            trainer.n_training_steps += 1

        return step

    return {name: stepping(trainer) for name, trainer in trainers.items()}


def _fill_window(trainer: ContrastiveSAETrainer, data: list[Any]) -> None:
    """Give the window of correlations what the steps of a schedule before the last would have given it."""
    (grouping,) = (part for part in trainer.parts if part.name == "grouping")
    window: Any = grouping.window  # pyright: ignore[reportAttributeAccessIssue] - the part with this name has one
    window.reset()
    missing = 4096 * (SCHEDULE - 1) // SCHEDULE
    for number in range(SCHEDULE):
        with torch.no_grad():
            acts = trainer.sae.encode(data[number % len(data)])
        n_tokens = min(missing, len(acts))
        window.update(acts, n_tokens)
        missing -= n_tokens
        if missing == 0:
            return


def _timed(part: Any, device: str) -> list[float]:
    """Seconds of every call of a part, from here on."""
    times: list[float] = []
    after_step = part.after_step
    part.after_step = lambda view: times.append(seconds_of(lambda: after_step(view), device))
    return times


def _table(title: str, shape: StepShape, rows: dict[str, Any]) -> dict[str, Any]:
    sizes = {"d_in": shape.d_in, "d_sae": shape.d_sae, "batch": shape.batch}
    numbers = {"bfloat16": shape.bfloat16, "compiled": shape.compiled}
    print(f"\n{title}, {shape.architecture}, {sizes}")
    for name, row in rows.items():
        print(f"  {name:24} {1000 * row['seconds']:9.1f} ms  {row['ratio']:6.3f} x", flush=True)
    return {"title": title, "architecture": shape.architecture, **sizes, **numbers, "rows": rows}
