"""Check that documents cite what exists: paths, make targets and subcommands; and that files keep the house rules."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "**/DATA_CARD.md")
MAX_LINES = 300

_LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
_CODE = re.compile(r"```.*?\n(.*?)```|`([^`\n]+)`", re.DOTALL)
_PATH = re.compile(r"(?<![\w./-])(?:[\w.-]+/)+[\w.-]*|(?<![\w./-])[\w-]+\.(?:md|py|toml|yaml|yml|json|txt)(?![\w/])")
_MAKE = re.compile(r"\bmake ([a-z][\w-]*)")
_COMMAND = re.compile(r"\bsae-lens-contrastive ([a-z][\w-]*)")
_MACHINE_PATH = re.compile(r"(?<![\w.$~/-])/(?:work|root|farm)/")
# What a run writes, or what a reader supplies.
_NOT_IN_THE_REPOSITORY = re.compile(r"^(?:runs/|https?:|mailto:|world_facts/)|[*<>{}$]|\.\.\.|^NAME|/NAME")


def main(root: Path = ROOT) -> int:
    """Print every problem; return 1 if there is one."""
    tracked = [root / name for name in _git(root, "ls-files").splitlines() if (root / name).is_file()]
    problems = [*document_problems(root, tracked), *file_problems(root, tracked)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def document_problems(root: Path, tracked: list[Path]) -> Iterator[str]:
    """Citations of things that do not exist."""
    targets = set(re.findall(r"^([a-z][\w-]*):", (root / "Makefile").read_text(), re.MULTILINE))
    command_line = "".join(path.read_text() for path in (root / "sae_lens_contrastive/cli").glob("*.py"))
    commands = set(re.findall(r'add_parser\(\s*"([a-z]+)"', command_line))
    top = {path.relative_to(root).parts[0] for path in tracked}
    names = {path.name for path in tracked}
    for document in sorted({path for pattern in DOCUMENTS for path in root.glob(pattern)} & set(tracked)):
        text = document.read_text(encoding="utf-8")
        where = document.relative_to(root)
        code = "\n".join(block or span for block, span in _CODE.findall(text))
        for link in _LINK.findall(text):
            if not _NOT_IN_THE_REPOSITORY.search(link) and not (document.parent / link).exists():
                yield f"{where}: the link {link} leads nowhere"
        for path in dict.fromkeys(_PATH.findall(code)):
            if not _exists(path, root, document.parent, top, names):
                yield f"{where}: {path} does not exist"
        for name in dict.fromkeys(_MAKE.findall(code)):
            if name not in targets:
                yield f"{where}: the Makefile has no target {name}"
        for name in dict.fromkeys(_COMMAND.findall(code)):
            if name not in commands:
                yield f"{where}: the command line has no {name}"


def file_problems(root: Path, tracked: list[Path]) -> Iterator[str]:
    """Python files that are too long, and paths of somebody's machine."""
    for path in tracked:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        where = path.relative_to(root)
        if path.suffix == ".py" and len(lines) > MAX_LINES:
            yield f"{where}: {len(lines)} lines, more than {MAX_LINES}"
        for number, line in enumerate(lines, start=1):
            if _MACHINE_PATH.search(line):
                yield f"{where}:{number}: names a path of one machine"


def _exists(path: str, root: Path, folder: Path, top: set[str], names: set[str]) -> bool:
    if _NOT_IN_THE_REPOSITORY.search(path):
        return True
    first = path.split("/")[0]
    if "/" not in path:
        # A bare file name may stand for a file of this repository anywhere; others are outputs or examples.
        return path in names or Path(path).suffix not in (".md", ".py", ".toml") or (folder / path).exists()
    # A slash alone makes no path: `on/off` and `google/gemma-2-2b` name nothing here.
    return first not in top or (root / path).exists() or (folder / path).exists()


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
