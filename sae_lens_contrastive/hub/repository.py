"""A folder as it is uploaded: a model card, and for each SAE its files, its forget edit and its evaluation."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml
from sae_lens.constants import RUNNER_CFG_FILENAME, SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME, SPARSITY_FILENAME

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import disk_that_may_be_full, usable_folder, write_bytes_atomic, write_json
from sae_lens_contrastive.forget_edit import FORGET_EDIT_FILE, save_forget_edit
from sae_lens_contrastive.hub.card import model_card
from sae_lens_contrastive.hub.publication import Publication
from sae_lens_contrastive.training.train import CONFIG_FILE

CARD_FILE = "README.md"
EVALUATION_FILE = "unlearning_eval_results.json"
SAE_FILES = (SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME, SPARSITY_FILENAME, RUNNER_CFG_FILENAME)
"""What SAELens' uploader takes of an SAE's folder."""
OTHER_FILES = (FORGET_EDIT_FILE, EVALUATION_FILE, CONFIG_FILE)
"""What it leaves: our own files of an SAE."""


def write_repository(publications: Mapping[str, Publication], repo_id: str, out: Path) -> Path:
    """Write the folder that `repo_id` is to hold into `out`, which must be new or empty, and return it.

    `<name>/` holds an SAE in SAELens' format, `forget_edit.json`, the evaluation in SAEBench's format and the
    configuration of its training. Raises `UserError` if `out` holds anything or cannot be written to.
    """
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty. Give a new or empty folder with --out.")
    usable_folder(out, "--out")
    for name, publication in publications.items():
        folder = out / name
        folder.mkdir(parents=True)
        for file in SAE_FILES:
            if (publication.folder / file).is_file():
                with disk_that_may_be_full(folder / file):
                    shutil.copyfile(publication.folder / file, folder / file)
        if publication.edit is not None:
            save_forget_edit(publication.edit, folder)
        write_json(folder / EVALUATION_FILE, publication.saebench)
        if publication.training is not None:
            text = yaml.safe_dump(dict(publication.training), sort_keys=False, allow_unicode=True)
            write_bytes_atomic(folder / CONFIG_FILE, text.encode())
    write_bytes_atomic(out / CARD_FILE, model_card(publications, repo_id).encode())
    return out
