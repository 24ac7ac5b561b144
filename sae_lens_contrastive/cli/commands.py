"""What each command does; libraries are imported by the command that needs them, so that help is there at once.

A command prints for readers, and returns what `--json` shows in its place.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sae_lens_contrastive.cli.edits import sae_name, trained_seed
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, usable_folder
from sae_lens_contrastive.runs import RESULTS_FILE, claim_folder

if TYPE_CHECKING:
    from sae_lens_contrastive.training.plan import Plan

_YEAR_SECONDS = 365 * 24 * 3600


def demo(options: argparse.Namespace) -> Any:
    """Everything on the embedded model."""
    from sae_lens_contrastive.demo import plan_demo, run_demo

    if options.dry_run:
        return _told(plan_demo())
    return run_demo(options.out)


def train(options: argparse.Namespace) -> Any:
    """Train variants on a target."""
    from sae_lens_contrastive.config import parse_overrides
    from sae_lens_contrastive.distributed import joined, launched_rank
    from sae_lens_contrastive.training import load_summary, resolve_runs, train_runs
    from sae_lens_contrastive.training.plan import plan_runs

    overrides = parse_overrides(options.set)
    if options.dry_run:
        if launched_rank() > 0:
            return None
        return _told(plan_runs(resolve_runs(options.target, options.variants, overrides, any_device=True)))
    if options.out is None:
        raise UserError("Give a folder for the runs with --out, or see the plan with --dry-run.")
    # NaN is within no bounds.
    if not 0 < options.rank_timeout <= _YEAR_SECONDS:
        raise UserError(f"--rank-timeout is {options.rank_timeout:g}. Give more than 0 seconds, a year at most.")
    runs = resolve_runs(options.target, options.variants, overrides)
    with joined(runs[0].device, options.rank_timeout):
        folders = train_runs(runs, options.out)
    if launched_rank() > 0:
        return None
    summaries = {folder: load_summary(folder) for folder in folders}
    for folder, summary in summaries.items():
        print(
            f"{folder / 'sae'}: explained variance {summary['explained_variance']:.3f}, l0 {summary['l0']:.1f}, "
            f"{summary['dead_features']} dead features, {summary['train_seconds']:.0f} s"
        )
    return [{"folder": folder, **summary} for folder, summary in summaries.items()]


def evaluate(options: argparse.Namespace) -> Any:
    """Score SAEs."""
    from sae_lens_contrastive.config import load_yaml, merge, parse_config, parse_overrides
    from sae_lens_contrastive.report import measures_table, results_table
    from sae_lens_contrastive.unlearning import EvalSpec, SaeUnderTest, check_spec, evaluate_saes
    from sae_lens_contrastive.unlearning.plan import plan_evaluation

    values = merge(load_yaml(options.spec), parse_overrides(options.set))
    spec = parse_config(EvalSpec, values, source=options.spec)
    if options.dry_run:
        return _told(plan_evaluation(spec, check_spec(spec, any_device=True)))
    if options.out is None:
        raise UserError("Give a folder for the results with --out, or see the plan with --dry-run.")
    if len(options.release) != len(options.sae_id):
        raise UserError(f"{len(options.release)} --release and {len(options.sae_id)} --sae-id: give them in pairs.")
    for name, *folders in options.ensemble:
        if not folders:
            raise UserError(
                f"--ensemble {name} names no SAE. Give a name and then the folders: --ensemble NAME DIR DIR."
            )
    if not options.sae and not options.release and not options.ensemble:
        raise UserError("Give at least one SAE: --sae DIR, --release R --sae-id I, or --ensemble NAME DIR DIR.")
    given = [(sae_name(path), {"seed": trained_seed(path), "path": path}) for path in options.sae]
    # Ids repeat between releases.
    given += [
        (f"{release}_{sae_id}".replace("/", "_"), {"release": release, "sae_id": sae_id})
        for release, sae_id in zip(options.release, options.sae_id, strict=True)
    ]
    given += [(name, {"members": tuple(map(Path, dirs))}) for name, *dirs in options.ensemble]
    saes = {name: SaeUnderTest(variant=name, **where) for name, where in given}
    if len(saes) < len(given):
        raise UserError("Two of the SAEs have the same name. Evaluate them into different folders.")
    claim_folder(options.out, "eval", {"spec": spec.model_dump(mode="json")})
    results = evaluate_saes(spec, saes, options.out, cache=options.cache)
    rows = [result.model_dump(mode="json") for result in results]
    print(f"{results_table(rows)}\n\n{measures_table(rows)}")
    return rows


def study(options: argparse.Namespace) -> Any:
    """Train and evaluate the variants of a study."""
    from sae_lens_contrastive.config import parse_overrides
    from sae_lens_contrastive.study import plan_study, run_study

    overrides = parse_overrides(options.set)
    if options.dry_run:
        return _told(plan_study(options.study, overrides, options.only, options.finished, options.out))
    if options.out is None:
        raise UserError("Give a folder for the study with --out, or see the plan with --dry-run.")
    return run_study(options.study, options.out, overrides, options.only, options.finished)


def search(options: argparse.Namespace) -> Any:
    """Look for good tradeoffs."""
    from sae_lens_contrastive.config import parse_overrides
    from sae_lens_contrastive.report.pareto import front_table
    from sae_lens_contrastive.search import plan_search, resolve_search, run_search

    search = resolve_search(options.search, parse_overrides(options.set), any_device=options.dry_run)
    if options.dry_run:
        return _told(plan_search(search))
    if options.out is None:
        raise UserError("Give a folder for the trials with --out, or see the plan with --dry-run.")
    records = run_search(search, options.out)
    print("\nThe front, on the select questions; `eval` on trials/NUMBER/sae says what the held-out ones show.\n")
    print(front_table(options.out))
    return [record.model_dump(mode="json") for record in records]


def sweep(options: argparse.Namespace) -> Any:
    """Train and evaluate many runs, on a cluster or here."""
    from sae_lens_contrastive.config import parse_overrides
    from sae_lens_contrastive.sweep import plan_sweep, resolve_sweep, run_sweep

    # The machine where a sweep is started need not be one of those that do its jobs.
    elsewhere = options.dry_run or options.ray_address is not None
    sweep = resolve_sweep(options.sweep, parse_overrides(options.set), any_device=elsewhere)
    if options.dry_run:
        return _told(plan_sweep(sweep))
    if options.out is None:
        raise UserError("Give a folder for the jobs with --out, or see the plan with --dry-run.")
    jobs = run_sweep(sweep, options.out, options.ray_address)
    _reported(options.out)
    if failed := sum(job["error"] is not None for job in jobs):
        print(f"{failed} of {len(jobs)} jobs failed for good; pareto.json and their log.txt say why.")
    return jobs


def push(options: argparse.Namespace) -> Any:
    """Publish SAEs."""
    from sae_lens_contrastive.hub import check_repo_id, gather, write_repository
    from sae_lens_contrastive.hub import push as upload

    check_repo_id(options.repo)
    if not options.sae:
        raise UserError("Give at least one SAE: --sae DIR.")
    if options.dry_run != (options.out is not None):
        raise UserError("Give a folder with --out for a --dry-run, and only for that.")
    saes = {sae_name(path): path for path in options.sae}
    if len(saes) < len(options.sae):
        raise UserError("Two of the SAEs have the same name. Push them to different repositories.")
    publications = gather(saes, options.eval)
    with TemporaryDirectory() as temporary:
        folder = write_repository(publications, options.repo, options.out or Path(temporary))
        if options.dry_run:
            print(f"{folder}: not uploaded")
            return {"folder": folder, "uploaded": None}
        address = upload(folder, options.repo, private=options.private)
        print(address)
        return {"folder": None, "uploaded": address}


def report(options: argparse.Namespace) -> Any:
    """Tables, figures and a page from what is saved."""
    from sae_lens_contrastive.report import load_results
    from sae_lens_contrastive.report.pareto import PARETO_FILE

    # One that is not there is said by what reads it, and not made.
    if options.folder.is_dir():
        usable_folder(options.folder, "DIR")
    if options.wandb_project is None:
        if options.wandb_entity is not None:
            raise UserError("Give --wandb-project with --wandb-entity.")
        return _reported(options.folder)
    from sae_lens_contrastive.wandb_session import check_wandb

    check_wandb()
    if (options.folder / PARETO_FILE).is_file() and not (options.folder / RESULTS_FILE).is_file():
        raise UserError("A search is not logged to W&B. Evaluate SAEs of its front, and log their evaluation.")
    from sae_lens_contrastive.report.wandb_report import log_report

    found = _reported(options.folder)
    names = {"project": options.wandb_project, "entity": options.wandb_entity}
    results = load_results(options.folder)
    print(f"W&B: {log_report(results, options.folder, found['page'], found['figures'], **names)}")
    return found


def _reported(folder: Path) -> dict[str, Any]:
    """Rows, figures and page of a folder; the rows of a search are its trials."""
    from sae_lens_contrastive.report import load_results, measures_table, results_table, write_figures, write_page
    from sae_lens_contrastive.report.pareto import PARETO_FILE, front_table, write_pareto_front

    figures = []
    if (folder / PARETO_FILE).is_file():
        print(front_table(folder))
        figures = [figure for figure in [write_pareto_front(folder)] if figure is not None]
        # A search measures no more than that; the trials of a sweep are evaluated as well.
        if not (folder / RESULTS_FILE).is_file():
            print(*figures)
            return {"rows": read_json(folder / PARETO_FILE)["trials"], "figures": figures, "page": None}
        print()
    results = load_results(folder)
    # First: what is damaged is said before anything else is written.
    page = write_page(results, folder)
    if results.rows:
        print(results_table(results.rows))
        if (measures := measures_table(results.rows)) is not None:
            print(f"\n{measures}")
    figures += write_figures(results, folder)
    print(*figures, page, sep="\n")
    return {"rows": results.rows, "figures": figures, "page": page}


def _told(plan: Plan) -> dict[str, Any]:
    print(plan.text)
    return asdict(plan)
