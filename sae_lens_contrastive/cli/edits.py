"""An SAE with its forget edit, and the model that it is put on: the arguments that name them, and what they name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json

if TYPE_CHECKING:
    from sae_lens_contrastive.forget_edit import ForgetEdit
    from sae_lens_contrastive.models import HookedBridge


def add_edit(command: argparse.ArgumentParser) -> None:
    """Which SAE, which edit of it, and which model it is put on."""
    command.add_argument("--sae", metavar="DIR", type=Path, help="folder of a saved SAE")
    command.add_argument("--release", metavar="R", help="hub repository of an SAE, with --sae-id, in place of --sae")
    command.add_argument("--sae-id", metavar="I", help="SAE within the repository")
    command.add_argument(
        "--edit",
        metavar="FILE",
        type=Path,
        help="forget edit, which an evaluation writes as forget_edits/NAME.json; by default forget_edit.json beside "
        "the SAE",
    )
    command.add_argument("--model", metavar="NAME", help="another model than the one it was chosen on")
    command.add_argument("--device", default="cpu", help="default: cpu")
    command.add_argument("--dtype", default="float32", help="default: float32")


def sae_and_edit(options: argparse.Namespace) -> tuple[Any, ForgetEdit]:
    """An SAE and the edit beside it, unless another is given; both from a folder or from the hub."""
    from sae_lens_contrastive.forget_edit import load_forget_edit
    from sae_lens_contrastive.hub import download_forget_edit

    _check_one_sae(options)
    if options.sae is not None:
        sae, edit = one_sae(options), load_forget_edit(options.edit or options.sae)
    else:
        # The edit first: it is small, the SAE is not.
        names = options.release, options.sae_id
        edit = download_forget_edit(*names) if options.edit is None else load_forget_edit(options.edit)
        sae = one_sae(options)
    edit.check_sae(sae)
    return sae, edit


def one_sae(options: argparse.Namespace) -> Any:
    """The SAE, from a folder or from the hub."""
    from sae_lens_contrastive.saes.stock import load_folder, load_release

    _check_one_sae(options)
    if options.sae is not None:
        return load_folder("--sae", options.sae, options.device)
    return load_release("--release", options.release, options.sae_id, options.device)


def model_of(name: str | None, options: argparse.Namespace, named: str = "edit") -> HookedBridge:
    """The model given with --model, else the one that the edit or the SAE names."""
    from sae_lens_contrastive.models import load_model

    if not (name := options.model or name):
        raise UserError(f"The {named} names no model. Give one with --model.")
    return load_model(name, device=options.device, dtype=options.dtype)


def _check_one_sae(options: argparse.Namespace) -> None:
    from sae_lens_contrastive.models import check_device

    n_names = (options.release is not None) + (options.sae_id is not None)
    if n_names != (2 if options.sae is None else 0):
        raise UserError("Give one SAE: --sae DIR, or --release R --sae-id I.")
    # An SAE that is loaded to a device that is not there looks damaged.
    check_device(options.device)


def sae_name(path: Path) -> str:
    """Name of an SAE folder; the folder `sae` of a training run takes the name of the run."""
    path = path.resolve()
    return path.parent.name if path.name == "sae" else path.name


def trained_seed(path: Path) -> int:
    """Seed of the training run that an SAE folder is part of; 0 for any other, whose seed is not known."""
    from sae_lens_contrastive.report.results import SUMMARY_FILE
    from sae_lens_contrastive.report.saved_rows import checked_summary

    summary = path.resolve().parent / SUMMARY_FILE
    try:
        return checked_summary(read_json(summary), summary)["seed"]
    except UserError:
        return 0
