"""Arguments of the commands that train and evaluate many runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from sae_lens_contrastive.cli import commands
from sae_lens_contrastive.cli.key_help import RAW, fields


def add_study(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Variants under several settings and seeds."""
    from sae_lens_contrastive.study_spec import StudySetting, StudySpec

    study = subparsers.add_parser(
        "study",
        help="train and evaluate variants under several settings and seeds",
        description="Train every variant of every setting with every seed, evaluate all SAEs on the same questions, "
        "write one table and the figures. Run again, it goes on where it stopped.",
        epilog="\n\n".join(("keys of a study:", fields(StudySpec), "keys of a setting:", fields(StudySetting))),
        formatter_class=RAW,
    )
    study.add_argument("study", metavar="STUDY.yaml", help="target, evaluation, seeds and settings")
    study.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="change a key, such as seeds=[0]"
    )
    study.add_argument(
        "--only",
        metavar="PART",
        nargs="+",
        default=[],
        help="settings, or settings with a seed (NAME/seed0), to run now",
    )
    study.add_argument(
        "--finished",
        metavar="FILE",
        type=Path,
        help="results.json of an earlier run; parts for which nothing has changed since are taken from it",
    )
    study.add_argument("--out", type=Path, help="folder for the runs, the results and the figures")
    study.add_argument(
        "--dry-run",
        action="store_true",
        help="print the parts, which of them are finished, memory and time of training the others, and run none; "
        "needs no device and no --out",
    )
    study.set_defaults(run=commands.study)


def add_search(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Settings that forget most, keep most and reconstruct best."""
    from sae_lens_contrastive.search import Dimension, SearchSpec

    search = subparsers.add_parser(
        "search",
        help="search training settings for what forgets most, keeps most and reconstructs best",
        description="Train one SAE a trial and sweep it on the select questions; the held-out ones are never put. "
        "Needs the extra 'search'. Run again, it goes on where it stopped.",
        epilog="\n\n".join(("keys of a search:", fields(SearchSpec), "keys of an entry of space:", fields(Dimension))),
        formatter_class=RAW,
    )
    search.add_argument("search", metavar="SEARCH.yaml", help="run, evaluation and what is varied")
    search.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a key of the search; keys of space have dots of their own: "
        "--set 'space={sae.k: {choices: [4, 8]}}'",
    )
    search.add_argument("--out", type=Path, help="folder for the trials, pareto.json and its figure")
    search.add_argument(
        "--dry-run",
        action="store_true",
        help="print a trial, with its memory and the time of all, and train none; needs no device and no --out",
    )
    search.set_defaults(run=commands.search)


def add_sweep(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Many runs, on a cluster or in this process."""
    from sae_lens_contrastive.sweep import Resources, SweepSpec, SweptSearch

    parts = {"a sweep": SweepSpec, "its search": SweptSearch, "its resources": Resources}
    sweep = subparsers.add_parser(
        "sweep",
        help="train and evaluate many runs, on a Ray cluster or in this process",
        description="One job for every combination of a grid, or for every trial of a search, with every seed: it "
        "trains an SAE and evaluates it. Jobs share the activations of a target. Run again, with Ray or without, it "
        "goes on with the jobs that are left.",
        epilog="\n\n".join(f"keys of {name}:\n\n{fields(each)}" for name, each in parts.items()),
        formatter_class=RAW,
    )
    sweep.add_argument("sweep", metavar="SWEEP.yaml", help="runs, evaluation, what is varied, and what a job takes")
    sweep.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a key of the sweep; keys of grid and search.space have dots of their own: "
        "--set 'grid={sae.k: [4, 8]}'",
    )
    sweep.add_argument("--out", type=Path, help="folder for the jobs and the results; on a cluster, on shared storage")
    sweep.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="do the jobs on this Ray cluster: auto, or HOST:PORT; needs the extra 'ray' (default: in this process)",
    )
    sweep.add_argument(
        "--dry-run",
        action="store_true",
        help="print the jobs, their memory and their time; needs no device and no --out",
    )
    sweep.set_defaults(run=commands.sweep)
