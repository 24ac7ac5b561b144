"""Output folders: each belongs to one resolved configuration, so nothing is overwritten and everything resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sae_lens_contrastive.errors import BusyFolderError, UserError
from sae_lens_contrastive.files import made_once, read_json, usable_folder, write_json

RUN_FILE = "run.json"
RESULTS_FILE = "results.json"
LOCK_FILE = ".lock"

_held: dict[Path, FileLock] = {}
"""Locks of the folders that this process works in; the system lets go of them when it ends, however it ends."""
_claimed: set[Path] = set()
"""Run files that this process wrote."""


def claim_folder(folder: Path | str, kind: str, config: Mapping[str, Any], *, alone: bool = True) -> Path:
    """Make `folder` the home of one run, or come back to it.

    The resolved configuration is written to `run.json`. Raises `UserError`, and changes nothing, if the folder holds a
    run with another configuration or files of something else, cannot be written to, or if another process works in it;
    where several may, `alone` is false.
    """
    folder, run_file = Path(folder), Path(folder) / RUN_FILE
    wanted = {"kind": kind, "config": dict(config)}
    if not run_file.is_file():
        if folder.is_dir() and any(not _is_of_a_claim(path) for path in folder.iterdir()):
            raise UserError(f"{folder} is not empty and holds no {RUN_FILE}. Give a new or empty folder with --out.")
        usable_folder(folder, "--out")
        with made_once(run_file):
            if not run_file.is_file():
                write_json(run_file, wanted)
                _claimed.add(run_file.resolve())
    present = read_json(run_file)
    if not isinstance(present, dict) or not isinstance(present.get("config"), dict):
        raise UserError(f"{run_file} is not what a run wrote. Give another folder with --out.")
    if present != wanted:
        raise UserError(
            f"{folder} holds another run ({_difference(present, wanted)}). Give another folder with --out, "
            "or delete this one."
        )
    usable_folder(folder, "--out")
    if alone:
        hold_folder(folder)
    return folder


def hold_folder(folder: Path) -> None:
    """Keep other processes out of a folder for as long as this one lives; `BusyFolderError` if one is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    if place in _held:
        return
    lock = FileLock(place / LOCK_FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise BusyFolderError(
            f"Another process is at work in {folder}. Wait until it has ended, or give another folder with --out."
        ) from None
    _held[place] = lock


def let_go_below(folder: Path) -> None:
    """Let other processes into the folders that this one holds at or below `folder`."""
    top = folder.resolve()
    for place in [place for place in _held if place.is_relative_to(top)]:
        _held.pop(place).release()


@contextmanager
def nothing_left_if_refused(out: Path | str) -> Iterator[None]:
    """Take back the folders that were claimed below `out` in this block, and hold nothing yet, if it ends in a
    `UserError` or an error of the system: some mistakes show only once the model is loaded."""
    out = Path(out)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    claimed_before = set(_claimed)
    try:
        yield
    except (UserError, OSError):
        # The deepest first: a folder is empty once those within it are gone.
        for claim in sorted(_claimed - claimed_before, key=lambda path: -len(path.parts)):
            folder = claim.parent
            if all(_is_of_a_claim(path) for path in folder.iterdir()):
                _claimed.discard(claim)
                _let_go(folder)
                top = out.resolve()
                _remove_while_empty([each for each in claim.parents if each.is_relative_to(top) and each != top])
        _remove_while_empty(made)
        raise


def _is_of_a_claim(path: Path) -> bool:
    """Whether a file is a claim, one of its locks, or what a process left that was killed while it claimed."""
    return path.name in (RUN_FILE, LOCK_FILE) or path.match(f".{RUN_FILE}.*")


def _let_go(folder: Path) -> None:
    """Take a claim back."""
    if (lock := _held.pop(folder.resolve(), None)) is not None:
        lock.release()
    for path in list(folder.iterdir()):
        path.unlink(missing_ok=True)


def _remove_while_empty(folders: list[Path]) -> None:
    for folder in folders:
        if not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


def _difference(present: Any, wanted: Any, path: str = "") -> str:
    if isinstance(present, dict) and isinstance(wanted, dict):
        for key in sorted({*present, *wanted}):
            if present.get(key) != wanted.get(key):
                return _difference(present.get(key), wanted.get(key), f"{path}.{key}" if path else str(key))
    return f"{path} is {present!r} there and {wanted!r} here"
