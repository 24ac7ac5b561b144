"""The command `sae-lens-contrastive`."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from sae_lens_contrastive.errors import UserError, shortened
from sae_lens_contrastive.runs import claim_folder, nothing_left_if_refused

_DESCRIPTION = "Train sparse autoencoders for knowledge unlearning, and measure what a model forgets and what it keeps."
_EXAMPLES = """\
examples:
  sae-lens-contrastive demo --out runs/demo
      everything on the embedded model: train a baseline and a contrastive SAE, evaluate both, draw the figures
  sae-lens-contrastive train configs/targets/smollm2.yaml configs/variants/contrastive.yaml --set seed=1 --out runs/mine
      a run is a target (model, hook, corpora) and a variant (loss terms); each variant gets its folder under --out
  sae-lens-contrastive eval evals/world_facts_smollm2.yaml --sae runs/mine/contrastive/sae --out runs/mine-eval
      clamp the forget features of an SAE and score multiple-choice questions
  sae-lens-contrastive search configs/search/smollm2.yaml --out runs/search
      train many SAEs; NSGA-II looks for those that forget most, keep most and reconstruct best
  sae-lens-contrastive study evals/study_smollm2.yaml --out runs/study
      several variants under several settings and seeds, trained side by side, evaluated on the same questions
  sae-lens-contrastive report runs/demo
      table and figures from what is saved; runs no model

exit codes: 0 done, 2 something in the input must change (the message says what), 130 interrupted (run again to go on)
"""
_RAW = argparse.RawDescriptionHelpFormatter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    # The host's advice on large tokenised datasets; the texts of a run here are tokenised once and cached.
    warnings.filterwarnings("ignore", message=r"Dataset is not tokenized|The training dataset contains fewer samples")
    try:
        # A report writes beside what it reads and claims nothing.
        with nothing_left_if_refused(options.out) if getattr(options, "out", None) else nullcontext():
            options.run(options)
    except UserError as error:
        print(f"sae-lens-contrastive: {shortened(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nsae-lens-contrastive: interrupted. Run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sae-lens-contrastive", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=_RAW
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_train(commands)
    _add_eval(commands)
    _add_study(commands)
    _add_search(commands)
    _add_report(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="train and evaluate two SAEs on the embedded model",
        description="Train a baseline and a contrastive SAE on SmolLM2-135M-Instruct, make it forget countries, and "
        "show what it forgot and kept. Needs no network and no GPU. Run again, it goes on where it stopped.",
    )
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the results (default: runs/demo)")
    demo.set_defaults(run=_demo)


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from sae_lens_contrastive.training.run_config import RunConfig, TrainingOptions

    train = commands.add_parser(
        "train",
        help="train variants on a target",
        description="Train one SAE for each variant. Target, variant and --set are merged in this order.",
        epilog="\n\n".join(("keys of a run:", _fields(RunConfig), "keys of training:", _fields(TrainingOptions))),
        formatter_class=_RAW,
    )
    train.add_argument("target", metavar="TARGET.yaml", help="model, hook, corpora, SAE and optimiser")
    train.add_argument("variants", metavar="VARIANT.yaml", nargs="+", help="what this variant changes: loss terms, ...")
    train.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change a key, such as seed=1")
    train.add_argument("--out", type=Path, help="folder for the runs, one folder a variant")
    train.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be trained, its memory and its time, and train nothing; needs no device and no --out",
    )
    train.set_defaults(run=_train)


def _add_eval(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from sae_lens_contrastive.unlearning import EvalSpec

    evaluate = commands.add_parser(
        "eval",
        help="measure what SAEs make a model forget and keep",
        description="Select forget features on text, edit them, choose the setting on one half of the questions and "
        "report the other half. Give any number of SAEs. Run again, it goes on where it stopped.",
        epilog="\n\n".join(("keys of a specification:", _fields(EvalSpec))),
        formatter_class=_RAW,
    )
    evaluate.add_argument("spec", metavar="SPEC.yaml", help="questions, corpora and settings")
    evaluate.add_argument("--sae", metavar="DIR", type=Path, action="append", default=[], help="folder of a saved SAE")
    evaluate.add_argument("--release", metavar="R", action="append", default=[], help="SAELens release, with --sae-id")
    evaluate.add_argument("--sae-id", metavar="I", action="append", default=[], help="SAE within the release before it")
    evaluate.add_argument(
        "--ensemble",
        metavar=("NAME", "DIR"),
        nargs="+",
        action="append",
        default=[],
        help="saved SAEs of one hook that act together, under a name of their own",
    )
    evaluate.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change a key of the spec")
    evaluate.add_argument("--out", type=Path, help="folder for the results; run again, it goes on where it stopped")
    evaluate.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        help="folder for what needs no SAE, such as the unedited answers; evaluations that are given it share them",
    )
    evaluate.add_argument(
        "--dry-run", action="store_true", help="print what would be put and read, in what memory; needs no SAE"
    )
    evaluate.set_defaults(run=_eval)


def _add_study(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from sae_lens_contrastive.study import StudySetting, StudySpec

    study = commands.add_parser(
        "study",
        help="train and evaluate variants under several settings and seeds",
        description="Train every variant of every setting with every seed, evaluate all SAEs on the same questions, "
        "write one table and the figures. Run again, it goes on where it stopped.",
        epilog="\n\n".join(("keys of a study:", _fields(StudySpec), "keys of a setting:", _fields(StudySetting))),
        formatter_class=_RAW,
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
    study.add_argument("--out", type=Path, required=True, help="folder for the runs, the results and the figures")
    study.set_defaults(run=_study)


def _add_search(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from sae_lens_contrastive.search import Dimension, SearchSpec

    search = commands.add_parser(
        "search",
        help="search training settings for what forgets most, keeps most and reconstructs best",
        description="Train one SAE a trial and sweep it on the select questions; the held-out ones are never put. "
        "Needs the extra 'search'. Run again, it goes on where it stopped.",
        epilog="\n\n".join(
            ("keys of a search:", _fields(SearchSpec), "keys of an entry of space:", _fields(Dimension))
        ),
        formatter_class=_RAW,
    )
    search.add_argument("search", metavar="SEARCH.yaml", help="run, evaluation and what is varied")
    search.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change a key of the search")
    search.add_argument("--out", type=Path, required=True, help="folder for the trials, pareto.json and its figure")
    search.set_defaults(run=_search)


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = commands.add_parser(
        "report", help="table and figures from saved results", description="Draw what is saved below a folder."
    )
    report.add_argument("folder", metavar="DIR", type=Path, help="the --out folder of any other command")
    report.set_defaults(run=_report)


def _fields(config_class: type) -> str:
    lines = []
    for name, field in config_class.model_fields.items():
        default = "" if field.is_required() else f" (default: {field.get_default(call_default_factory=True)!r})"
        lines.append(f"  {name}{default}\n      {' '.join((field.description or '').split())}")
    return "\n".join(lines)


def _demo(options: argparse.Namespace) -> None:
    from sae_lens_contrastive.demo import run_demo

    run_demo(options.out)


def _train(options: argparse.Namespace) -> None:
    from sae_lens_contrastive.config import parse_overrides
    from sae_lens_contrastive.training import load_summary, resolve_runs, train_runs
    from sae_lens_contrastive.training.plan import plan_runs

    overrides = parse_overrides(options.set)
    if options.dry_run:
        print(plan_runs(resolve_runs(options.target, options.variants, overrides, any_device=True)))
        return
    if options.out is None:
        raise UserError("Give a folder for the runs with --out, or see the plan with --dry-run.")
    runs = resolve_runs(options.target, options.variants, overrides)
    for folder in train_runs(runs, options.out):
        summary = load_summary(folder)
        print(
            f"{folder / 'sae'}: explained variance {summary['explained_variance']:.3f}, l0 {summary['l0']:.1f}, "
            f"{summary['dead_features']} dead features, {summary['train_seconds']:.0f} s"
        )


def _eval(options: argparse.Namespace) -> None:
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


def _study(options: argparse.Namespace) -> None:
    from sae_lens_contrastive.config import parse_overrides
    from sae_lens_contrastive.study import run_study

    run_study(options.study, options.out, parse_overrides(options.set), options.only)


def _search(options: argparse.Namespace) -> None:
    from sae_lens_contrastive.config import parse_overrides
    from sae_lens_contrastive.report.pareto import front_table
    from sae_lens_contrastive.search import resolve_search, run_search

    run_search(resolve_search(options.search, parse_overrides(options.set)), options.out)
    print("\nThe front, on the select questions; `eval` on trials/NUMBER/sae says what the held-out ones show.\n")
    print(front_table(options.out))


def _report(options: argparse.Namespace) -> None:
    from sae_lens_contrastive.report import load_results, measures_table, results_table, write_figures
    from sae_lens_contrastive.report.pareto import PARETO_FILE, front_table, write_pareto_front

    if (options.folder / PARETO_FILE).is_file():
        print(front_table(options.folder))
        print(write_pareto_front(options.folder))
        return
    results = load_results(options.folder)
    if results.rows:
        print(results_table(results.rows))
        if (measures := measures_table(results.rows)) is not None:
            print(f"\n{measures}")
    for figure in write_figures(results, options.folder):
        print(figure)


def _sae_name(path: Path) -> str:
    """Name of an SAE folder; the folder `sae` of a training run takes the name of the run."""
    path = path.resolve()
    return path.parent.name if path.name == "sae" else path.name


if __name__ == "__main__":
    sys.exit(main())
