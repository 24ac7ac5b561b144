"""Write docs/bad_input.md: try every bad input and note what is said."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bad_input"))

from cases import CASES  # pyright: ignore[reportMissingImports]
from document import DOCUMENT, page  # pyright: ignore[reportMissingImports]
from folder import BadInput  # pyright: ignore[reportMissingImports]
from tqdm import tqdm
from trying import said  # pyright: ignore[reportMissingImports]

from sae_lens_contrastive.files import write_bytes_atomic


def main() -> None:
    """Try every case in a folder of its own."""
    messages = [(case, _said(case)) for case in tqdm(CASES, unit="input")]
    print(write_bytes_atomic(DOCUMENT, page(messages).encode()))


def _said(case: BadInput) -> str:
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder) / "mine"
        mine.mkdir()
        os.chdir(mine)
        try:
            code, message = said(case, mine)
        finally:
            os.chdir(DOCUMENT.parent)
    if code != 2:
        raise SystemExit(f"{case.kind}, {case.wrong}: exit code {code}.")
    return message


if __name__ == "__main__":
    main()
