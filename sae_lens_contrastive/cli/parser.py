"""Commands, arguments and their help."""

from __future__ import annotations

import argparse
from pathlib import Path

import shtab

from sae_lens_contrastive.cli import commands, edit_commands
from sae_lens_contrastive.cli.edits import add_edit
from sae_lens_contrastive.cli.key_help import RAW, fields
from sae_lens_contrastive.cli.many_runs import add_search, add_study, add_sweep
from sae_lens_contrastive.distributed import WAIT_SECONDS

_DESCRIPTION = "Train sparse autoencoders for knowledge unlearning, and measure what a model forgets and what it keeps."
_EXAMPLES = """\
examples:
  sae-lens-contrastive demo --out runs/demo
      everything on the embedded model: train a baseline and the recipe, run5, evaluate both, draw the figures
  sae-lens-contrastive train configs/targets/smollm2.yaml configs/variants/contrastive.yaml --set seed=1 --out runs/mine
      a run is a target (model, hook, corpora) and a variant (loss terms); each variant gets its folder under --out
  torchrun --nproc-per-node 2 -m sae_lens_contrastive train configs/targets/smollm2.yaml configs/variants/run0.yaml \\
      --out runs/two-ranks
      the same by several processes that divide every batch among them
  sae-lens-contrastive eval evals/world_facts_smollm2.yaml --sae runs/mine/contrastive/sae --out runs/mine-eval
      clamp the forget features of an SAE and score multiple-choice questions
  sae-lens-contrastive search configs/search/smollm2.yaml --out runs/search
      train many SAEs; NSGA-II looks for those that forget most, keep most and reconstruct best
  sae-lens-contrastive sweep configs/sweeps/smollm2.yaml --ray-address auto --out runs/sweep
      train and evaluate every combination of a grid, or the trials of a search, on a Ray cluster or in this process
  sae-lens-contrastive study evals/study_smollm2.yaml --out runs/study
      several variants under several settings and seeds, trained side by side, evaluated on the same questions
  sae-lens-contrastive generate --sae runs/mine/contrastive/sae --edit runs/mine-eval/forget_edits/contrastive.json \\
      --prompt "The capital of France is" --prompt "The chemical symbol for gold is"
      what the model says with the edit and without
  sae-lens-contrastive push --sae runs/mine/contrastive/sae --eval runs/mine-eval --repo me/forgets-countries \\
      --dry-run --out runs/repository
      a folder for the Hugging Face hub, with a model card; without --dry-run it is uploaded
  sae-lens-contrastive report runs/demo
      table, figures and one page, report.html, from what is saved; runs no model

completion of commands and options in bash, for this user:
  sae-lens-contrastive --print-completion bash > ~/.local/share/bash-completion/completions/sae-lens-contrastive

exit codes: 0 done, 2 something in the input must change (the message says what), 3 another rank was lost (run again to
go on), 130 interrupted (run again to go on)
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="sae-lens-contrastive", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=RAW
    )
    shtab.add_argument_to(parser, "--print-completion", help="print the completion script of a shell, and exit")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(subparsers)
    _add_train(subparsers)
    _add_eval(subparsers)
    add_study(subparsers)
    add_search(subparsers)
    add_sweep(subparsers)
    _add_generate(subparsers)
    _add_harness(subparsers)
    _add_dashboard(subparsers)
    _add_push(subparsers)
    _add_report(subparsers)
    for command in subparsers.choices.values():
        command.add_argument("--json", action="store_true", help="print the result as one JSON document, for machines")
        _complete_files(command)
    return parser


def _complete_files(command: argparse.ArgumentParser) -> None:
    """Have shells complete file names where a file or a folder is asked for."""
    for action in command._actions:
        if action.type is Path or str(action.metavar).endswith((".yaml", "FILE", "DIR")):
            action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue] - what shtab reads


def _add_demo(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = subparsers.add_parser(
        "demo",
        help="train and evaluate two SAEs on the embedded model",
        description="Train a baseline and the recipe, run5, on SmolLM2-135M-Instruct, make it forget countries, and "
        "show what it forgot and kept. Needs no network and no GPU. Run again, it goes on where it stopped.",
    )
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the results (default: runs/demo)")
    demo.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    demo.set_defaults(run=commands.demo)


def _add_train(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from sae_lens_contrastive.training.run_config import RunConfig, TrainingOptions

    train = subparsers.add_parser(
        "train",
        help="train variants on a target",
        description="Train one SAE for each variant. Target, variant and --set are merged in this order.",
        epilog="\n\n".join(("keys of a run:", fields(RunConfig), "keys of training:", fields(TrainingOptions))),
        formatter_class=RAW,
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
    train.add_argument(
        "--rank-timeout",
        metavar="SECONDS",
        type=float,
        default=WAIT_SECONDS,
        help="how long ranks of torchrun wait for one that does not come before the training stops (default: 600)",
    )
    train.set_defaults(run=commands.train, over_ranks=True)


def _add_eval(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from sae_lens_contrastive.unlearning import EvalSpec

    evaluate = subparsers.add_parser(
        "eval",
        help="measure what SAEs make a model forget and keep",
        description="Select forget features on text, edit them, choose the setting on one half of the questions and "
        "report the other half. Give any number of SAEs. Run again, it goes on where it stopped.",
        epilog="\n\n".join(("keys of a specification:", fields(EvalSpec))),
        formatter_class=RAW,
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
    evaluate.set_defaults(run=commands.evaluate)


def _add_generate(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    generate = subparsers.add_parser(
        "generate",
        help="let a model speak with a forget edit and without, side by side",
        description="Continue prompts greedily, once as the model is and once with the edit that an evaluation chose.",
    )
    add_edit(generate)
    generate.add_argument("--prompt", metavar="TEXT", action="append", required=True, help="any number of times")
    generate.add_argument("--chat", action="store_true", help="put each prompt as a user's turn")
    generate.add_argument("--max-new-tokens", metavar="N", type=int, default=40, help="default: 40")
    generate.set_defaults(run=edit_commands.generate)


def _add_harness(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    harness = subparsers.add_parser(
        "harness",
        help="run tasks of the lm-evaluation-harness with a forget edit and without",
        description="Any task of EleutherAI's lm-evaluation-harness on the model as it is and with the edit that an "
        "evaluation chose. Needs the extra 'lm-eval'.",
    )
    add_edit(harness)
    harness.add_argument("--tasks", metavar="TASK", nargs="+", required=True, help="names of the harness")
    harness.add_argument("--include-path", metavar="DIR", type=Path, action="append", default=[], help="tasks of yours")
    harness.add_argument("--limit", metavar="N", type=int, help="the first N documents of each task (default: all)")
    harness.add_argument("--num-fewshot", metavar="N", type=int, help="examples before each (default: the task's own)")
    harness.add_argument("--batch-size", metavar="N", type=int, default=8, help="default: 8")
    harness.add_argument("--out", type=Path, help="folder for harness.json, all metrics of both")
    harness.set_defaults(run=edit_commands.harness)


def _add_dashboard(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    dashboard = subparsers.add_parser(
        "dashboard",
        help="show the features of a forget edit as SAEDashboard and Neuronpedia do",
        description="Write a page of SAEDashboard for each feature of a forget edit, an index of them, and all of them "
        "in Neuronpedia's format. Needs the extra 'dashboard' and sae-dashboard, installed without its dependencies.",
    )
    add_edit(dashboard)
    dashboard.add_argument("--features", metavar="N", type=int, nargs="+", help="these, in place of an edit's")
    dashboard.add_argument(
        "--text",
        metavar="SOURCE",
        action="append",
        default=[],
        help="text to read, named as in a target (default: the forget and the general text of the SAE's training)",
    )
    dashboard.add_argument(
        "--max-tokens", metavar="N", type=int, default=65_536, help="tokens to read (default: 65536)"
    )
    dashboard.add_argument("--out", type=Path, required=True, help="folder for index.html, the pages and neuronpedia/")
    dashboard.set_defaults(run=edit_commands.dashboard)


def _add_push(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    push = subparsers.add_parser(
        "push",
        help="publish SAEs with their forget edits on the Hugging Face hub",
        description="Upload SAEs in SAELens' format with a model card, and beside each its forget edit, its evaluation "
        "and the configuration it was trained with. The configuration and the evaluation name their files as they "
        "were given.",
    )
    push.add_argument("--sae", metavar="DIR", type=Path, action="append", default=[], help="folder of a saved SAE")
    push.add_argument("--eval", metavar="DIR", type=Path, required=True, help="the --out folder of their evaluation")
    push.add_argument("--repo", metavar="OWNER/NAME", required=True, help="repository; it is created if need be")
    push.add_argument(
        "--private", action="store_true", help="make a new repository private; one that is there must be so"
    )
    push.add_argument(
        "--dry-run", action="store_true", help="write what would be uploaded to --out, and upload nothing"
    )
    push.add_argument("--out", type=Path, help="new folder for --dry-run")
    push.set_defaults(run=commands.push)


def _add_report(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = subparsers.add_parser(
        "report",
        help="table, figures and a page from saved results",
        description="Print the tables of a folder's results.json, draw the figures of it and of every training below "
        "the folder, and write report.html: all of it on one page that needs no network.",
    )
    report.add_argument(
        "folder", metavar="DIR", type=Path, help="the --out folder of demo, train, eval, study, search or sweep"
    )
    report.add_argument("--wandb-project", metavar="NAME", help="log table, figures, page and files to W&B as well")
    report.add_argument("--wandb-entity", metavar="NAME", help="user or team of the project (default: your own)")
    report.set_defaults(run=commands.report)
