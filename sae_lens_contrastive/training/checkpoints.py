"""Checkpoints that are whole: folders that appear at once, with the SHA-256 of every file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import disk_that_may_be_full, file_sha256, read_json, replace_folder, write_json

CHECKSUMS_FILE = "checksums.json"
RUNS_FILE = "runs.json"
"""What says in a checkpoint of which runs it is: their hashes by variant."""
N_KEPT = 2
"""Checkpoints that are kept: the newest, and the one before it in case the newest is damaged."""

_PARTIAL = "partial"


@contextmanager
def new_checkpoint(folder: Path, name: str, n_kept: int | None = N_KEPT) -> Iterator[Path]:
    """A folder to write a checkpoint into, which becomes `folder/name` when everything is written.

    Checkpoints before the last `n_kept` go. Raises `UserError` if there is no room. What was written of one that fails
    is removed: the last good state stays, and nothing else.
    """
    partial = folder / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with disk_that_may_be_full(folder / name):
            partial.mkdir(parents=True)
            yield partial
            seal(partial)
            replace_folder(partial, folder / name)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in checkpoints(folder)[:-n_kept] if n_kept else []:
        shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first; their names are the tokens seen."""
    found = [path for path in folder.glob("*") if path.is_dir() and path.name.isdigit()]
    return sorted(found, key=_n_tokens)


def newest_whole(folders: Iterable[Path], runs: Mapping[str, str]) -> Path | None:
    """The newest checkpoint in any of the folders that is as it was written and holds runs of these hashes.

    One that is damaged is named on stderr and passed over.
    """
    of_runs = [checkpoint for folder in folders for checkpoint in checkpoints(folder) if _holds(checkpoint, runs)]
    for checkpoint in sorted(of_runs, key=_n_tokens, reverse=True):
        if (wrong := damage(checkpoint)) is None:
            return checkpoint
        print(f"The checkpoint {checkpoint} is damaged: {wrong}. It is not used.", file=sys.stderr)
    return None


def remove_newer(folder: Path, than: Path | None) -> None:
    """Remove checkpoints of which none is used: those that have seen more tokens than `than`; all if that is None."""
    for checkpoint in checkpoints(folder):
        if than is None or _n_tokens(checkpoint) > _n_tokens(than):
            shutil.rmtree(checkpoint)


def seal(folder: Path) -> None:
    """Write the SHA-256 of every file below a folder beside them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(folder / CHECKSUMS_FILE, {path.relative_to(folder).as_posix(): file_sha256(path) for path in files})


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder; None if every file is as it was written."""
    try:
        digests = read_json(folder / CHECKSUMS_FILE)
    except UserError:
        return f"it has no readable {CHECKSUMS_FILE}"
    if not isinstance(digests, dict) or not digests:
        return f"its {CHECKSUMS_FILE} names no files"
    for name, digest in digests.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if file_sha256(folder / name) != digest:
            return f"{name} is not what was written"
    return None


def _holds(checkpoint: Path, runs: Mapping[str, str]) -> bool:
    try:
        held = read_json(checkpoint / RUNS_FILE)
    except UserError:
        return False
    return isinstance(held, dict) and runs.items() <= held.items()


def _n_tokens(checkpoint: Path) -> int:
    return int(checkpoint.name)
