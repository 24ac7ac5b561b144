"""What each command does; libraries are imported by the command that needs them, so that help is there at once."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import usable_folder, write_json
from sae_lens_contrastive.runs import claim_folder

if TYPE_CHECKING:
    from sae_lens_contrastive.forget_edit import ForgetEdit
    from sae_lens_contrastive.models import HookedBridge


def demo(options: argparse.Namespace) -> None:
    """Everything on the embedded model."""
    from sae_lens_contrastive.demo import run_demo

    run_demo(options.out)


def train(options: argparse.Namespace) -> None:
    """Train variants on a target."""
    from sae_lens_contrastive.config import parse_overrides
    from sae_lens_contrastive.distributed import joined, launched_rank
    from sae_lens_contrastive.training import load_summary, resolve_runs, train_runs
    from sae_lens_contrastive.training.plan import plan_runs

    overrides = parse_overrides(options.set)
    if options.dry_run:
        if launched_rank() == 0:
            print(plan_runs(resolve_runs(options.target, options.variants, overrides, any_device=True)))
        return
    if options.out is None:
        raise UserError("Give a folder for the runs with --out, or see the plan with --dry-run.")
    if options.rank_timeout <= 0:
        raise UserError(f"--rank-timeout is {options.rank_timeout:g}. Give more than 0 seconds.")
    runs = resolve_runs(options.target, options.variants, overrides)
    with joined(runs[0].device, options.rank_timeout):
        folders = train_runs(runs, options.out)
    if launched_rank() > 0:
        return
    for folder in folders:
        summary = load_summary(folder)
        print(
            f"{folder / 'sae'}: explained variance {summary['explained_variance']:.3f}, l0 {summary['l0']:.1f}, "
            f"{summary['dead_features']} dead features, {summary['train_seconds']:.0f} s"
        )


def evaluate(options: argparse.Namespace) -> None:
    """Score SAEs."""
    from sae_lens_contrastive.config import load_yaml, merge, parse_config, parse_overrides
    from sae_lens_contrastive.report import measures_table, results_table
    from sae_lens_contrastive.unlearning import EvalSpec, SaeUnderTest, check_spec, evaluate_saes
    from sae_lens_contrastive.unlearning.plan import plan_evaluation

    values = merge(load_yaml(options.spec), parse_overrides(options.set))
    spec = parse_config(EvalSpec, values, source=options.spec)
    if options.dry_run:
        print(plan_evaluation(spec, check_spec(spec, any_device=True)))
        return
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
    saes = {
        **{_sae_name(path): SaeUnderTest(variant=_sae_name(path), path=path) for path in options.sae},
        **{
            f"{release}_{sae_id}".replace("/", "_"): SaeUnderTest(variant=sae_id, release=release, sae_id=sae_id)
            for release, sae_id in zip(options.release, options.sae_id, strict=True)
        },
        **{name: SaeUnderTest(variant=name, members=tuple(map(Path, dirs))) for name, *dirs in options.ensemble},
    }
    if len(saes) < len(options.sae) + len(options.release) + len(options.ensemble):
        raise UserError("Two of the SAEs have the same name. Evaluate them into different folders.")
    claim_folder(options.out, "eval", {"spec": spec.model_dump(mode="json")})
    results = evaluate_saes(spec, saes, options.out, cache=options.cache)
    rows = [result.model_dump(mode="json") for result in results]
    print(f"{results_table(rows)}\n\n{measures_table(rows)}")


def study(options: argparse.Namespace) -> None:
    """Train and evaluate the variants of a study."""
    from sae_lens_contrastive.config import parse_overrides
    from sae_lens_contrastive.study import run_study

    run_study(options.study, options.out, parse_overrides(options.set), options.only, options.finished)


def search(options: argparse.Namespace) -> None:
    """Look for good tradeoffs."""
    from sae_lens_contrastive.config import parse_overrides
    from sae_lens_contrastive.report.pareto import front_table
    from sae_lens_contrastive.search import resolve_search, run_search

    run_search(resolve_search(options.search, parse_overrides(options.set)), options.out)
    print("\nThe front, on the select questions; `eval` on trials/NUMBER/sae says what the held-out ones show.\n")
    print(front_table(options.out))


def generate(options: argparse.Namespace) -> None:
    """Let a model speak with a forget edit and without."""
    from sae_lens_contrastive.forget_edit import side_by_side

    if options.max_new_tokens < 1:
        raise UserError(f"--max-new-tokens is {options.max_new_tokens}. Give 1 or more.")
    sae, edit = _sae_and_edit(options)
    model = _model_of(edit, options)
    said = side_by_side(model, sae, edit, options.prompt, max_new_tokens=options.max_new_tokens, chat=options.chat)
    for each in said:
        if options.json:
            print(json.dumps(asdict(each), ensure_ascii=False), flush=True)
        else:
            edited = each.edited if each.changed else "the same: no token was changed"
            print(f"> {each.prompt}\nunedited: {each.unedited.strip()}\nedited:   {edited.strip()}\n", flush=True)


def harness(options: argparse.Namespace) -> None:
    """Run tasks of the lm-evaluation-harness."""
    from sae_lens_contrastive.forget_edit import apply_forget_edit
    from sae_lens_contrastive.harness import EditedLM, check_tasks, evaluate_tasks, side_by_side_table

    for name, least in (("limit", 1), ("num_fewshot", 0), ("batch_size", 1)):
        if (value := getattr(options, name)) is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} is {value}. Give {least} or more.")
    manager = check_tasks(options.tasks, options.include_path)
    if options.out is not None:
        usable_folder(options.out, "--out")
    sae, edit = _sae_and_edit(options)
    model = _model_of(edit, options)
    how = {"manager": manager, "limit": options.limit, "n_shots": options.num_fewshot}
    found = {"unedited": evaluate_tasks(EditedLM(model, batch_size=options.batch_size), options.tasks, **how)}
    with apply_forget_edit(model, sae, edit) as applied:
        lm = EditedLM(model, applied, batch_size=options.batch_size)
        found["edited"] = evaluate_tasks(lm, options.tasks, **how)
    if options.out is not None:
        write_json(options.out / "harness.json", found)
    print(side_by_side_table(found))


def push(options: argparse.Namespace) -> None:
    """Publish SAEs."""
    from sae_lens_contrastive.hub import check_repo_id, gather, write_repository
    from sae_lens_contrastive.hub import push as upload

    check_repo_id(options.repo)
    if not options.sae:
        raise UserError("Give at least one SAE: --sae DIR.")
    if options.dry_run != (options.out is not None):
        raise UserError("Give a folder with --out for a --dry-run, and only for that.")
    saes = {_sae_name(path): path for path in options.sae}
    if len(saes) < len(options.sae):
        raise UserError("Two of the SAEs have the same name. Push them to different repositories.")
    publications = gather(saes, options.eval)
    with TemporaryDirectory() as temporary:
        folder = write_repository(publications, options.repo, options.out or Path(temporary))
        print(f"{folder}: not uploaded" if options.dry_run else upload(folder, options.repo, private=options.private))


def report(options: argparse.Namespace) -> None:
    """Tables, figures and a page from what is saved."""
    from sae_lens_contrastive.report import load_results, measures_table, results_table, write_figures, write_page
    from sae_lens_contrastive.report.pareto import PARETO_FILE, front_table, write_pareto_front

    if options.wandb_project is not None:
        from sae_lens_contrastive.wandb_session import check_wandb

        check_wandb()
    if (options.folder / PARETO_FILE).is_file():
        if options.wandb_project is not None:
            raise UserError("A search is not logged to W&B. Evaluate SAEs of its front, and log their evaluation.")
        print(front_table(options.folder))
        print(write_pareto_front(options.folder))
        return
    results = load_results(options.folder)
    # First: what is damaged is said before anything else is written.
    page = write_page(results, options.folder)
    if results.rows:
        print(results_table(results.rows))
        if (measures := measures_table(results.rows)) is not None:
            print(f"\n{measures}")
    figures = write_figures(results, options.folder)
    print(*figures, page, sep="\n")
    if options.wandb_project is not None:
        from sae_lens_contrastive.report.wandb_report import log_report

        names = {"project": options.wandb_project, "entity": options.wandb_entity}
        print(f"W&B: {log_report(results, options.folder, page, figures, **names)}")


def _sae_and_edit(options: argparse.Namespace) -> tuple[Any, ForgetEdit]:
    """An SAE and the edit beside it, unless another is given; both from a folder or from the hub."""
    from sae_lens_contrastive.forget_edit import load_forget_edit
    from sae_lens_contrastive.hub import download_forget_edit
    from sae_lens_contrastive.saes.stock import load_folder, load_release

    n_names = (options.release is not None) + (options.sae_id is not None)
    if n_names != (2 if options.sae is None else 0):
        raise UserError("Give one SAE: --sae DIR, or --release R --sae-id I.")
    if options.sae is not None:
        sae, edit = load_folder("--sae", options.sae, options.device), load_forget_edit(options.edit or options.sae)
    else:
        names = options.release, options.sae_id
        edit = download_forget_edit(*names) if options.edit is None else load_forget_edit(options.edit)
        sae = load_release("--release", *names, options.device)
    edit.check_sae(sae)
    return sae, edit


def _model_of(edit: ForgetEdit, options: argparse.Namespace) -> HookedBridge:
    from sae_lens_contrastive.models import load_model

    if not (name := options.model or edit.model):
        raise UserError("The edit names no model. Give one with --model.")
    return load_model(name, device=options.device, dtype=options.dtype)


def _sae_name(path: Path) -> str:
    """Name of an SAE folder; the folder `sae` of a training run takes the name of the run."""
    path = path.resolve()
    return path.parent.name if path.name == "sae" else path.name
