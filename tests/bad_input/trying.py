"""What a command says to a bad input."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

from folder import BadInput, make_folder

from sae_lens_contrastive.cli import main


def said(case: BadInput, folder: Path) -> tuple[int, str]:
    """Exit code and message of the case's command, run in an empty folder, which must be the working directory."""
    make_folder(folder)
    for path in case.files:
        if (written := case.content(path)) is None:
            (folder / path).unlink()
        else:
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(written)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = main(case.command.split())
    return code, err.getvalue().strip().removeprefix("sae-lens-contrastive: ")
