"""Files that appear whole or not at all, and checked reading."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from sae_lens_contrastive.errors import UserError

_LONGEST_LINE = 2**26
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_SPACE_SAID = re.compile(r"os error (28|122|27)\b|PytorchStreamWriter failed|file write failed")


@contextmanager
def disk_that_may_be_full(path: Path | str) -> Iterator[None]:
    """Writing to `path`; `UserError` says so if there is no room, in place of what the library at work raises."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        is_full = getattr(error, "errno", None) in _NO_SPACE or _NO_SPACE_SAID.search(str(error))
        if not is_full or isinstance(error, UserError):
            raise
        raise UserError(
            f"There is no room to write {path}. Free some space and run the same command again: what was finished is "
            "kept, and a training goes on from its last checkpoint."
        ) from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary neighbour to write to, which is then flushed to disk and renamed over `path`.

    Raises `UserError` if there is no room for it.
    """
    with disk_that_may_be_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            flush_to_disk(temporary)
            # mkstemp makes the file private to the owner; a result is as readable as any other new file.
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_bytes_atomic(path: Path | str, content: bytes) -> Path:
    """Write `content` to a temporary neighbour, flush it to disk and rename it over `path`.

    Raises `UserError` if there is no room for it.
    """
    path = Path(path)
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
    return path


def usable_folder(folder: Path, option: str) -> Path:
    """Make a folder if it is not there.

    Raises `UserError`, which names the option that gave it, if it is a file or cannot be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Give a folder with {option}.")
    try:
        with disk_that_may_be_full(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise UserError(
            f"Nothing can be written to {folder} ({error.strerror}). Give another folder with {option}."
        ) from None
    return folder


@contextmanager
def made_once(path: Path) -> Iterator[None]:
    """Let one process at a time make a file that several need; those who waited, and were told so, find it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        print(f"Another process makes {path}; waiting for it.", file=sys.stderr)
        held = lock.acquire()
    with held:
        # What processes that were killed at it left behind.
        for partial in path.parent.glob(f".{path.name}.*"):
            if partial.suffix != ".lock":
                partial.unlink(missing_ok=True)
        yield


def replace_folder(partial: Path, final: Path) -> Path:
    """Flush a finished folder to disk and rename it to `final`; a folder that has the name goes."""
    for path in partial.rglob("*"):
        if path.is_file():
            flush_to_disk(path)
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    flush_to_disk(final.parent)
    shutil.rmtree(old, ignore_errors=True)
    return final


def flush_to_disk(path: Path) -> None:
    """Have the system write a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """SHA-256 of what a file holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_sha256(path: Path) -> str:
    """SHA-256 of a file that is only read here: computed once, until its size or its time of change is another.

    Raises `UserError` if it cannot be read.
    """
    try:
        state = path.stat()
        return _sha256_of_state(path.resolve(), state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


@lru_cache
def _sha256_of_state(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - they tell one state from another
    return file_sha256(path)


def write_json(path: Path | str, value: Any) -> Path:
    """Write strict, indented JSON atomically; numbers that are not finite become null."""
    return write_bytes_atomic(path, (strict_json(value, indent=2) + "\n").encode())


def strict_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that any reader takes: numbers that are not finite become null, paths their text."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False, default=_path_text)


def read_json(path: Path | str) -> Any:
    """Read a JSON file; `UserError` if it is missing, empty or not JSON."""
    path = Path(path)
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"No file at {path}. Give the path of an existing JSON file.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable JSON file: {error}. Delete it or write it anew.") from None


def read_jsonl(path: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, record) of a `.jsonl` or `.jsonl.gz` file; `UserError` names the file and the line."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"No file at {path}. Give the path of a .jsonl or .jsonl.gz file.")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            # A few bytes of gzip can hold a line that fills the memory.
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), ""), start=1):
                if len(line) > _LONGEST_LINE:
                    raise UserError(f"{path}, line {number}: longer than {_LONGEST_LINE} characters. Split it.")
                if not line.strip():
                    continue
                yield number, _record(line, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = _parsed(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({getattr(error, 'msg', error)}). Each line holds one object.") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(record).__name__}.")
    return record


def _parsed(text: str) -> Any:
    """A JSON value; `ValueError` for whatever is wrong with the text."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds one half of a surrogate pair, which is no character") from None
    return value


def _path_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} {value!r} cannot be written as JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
