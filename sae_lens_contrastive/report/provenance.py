"""What results depend on: configurations, package versions, seeds, hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json
from sae_lens_contrastive.report.results import setting_of
from sae_lens_contrastive.report.saved_rows import checked_run
from sae_lens_contrastive.report.table import Cells
from sae_lens_contrastive.runs import RUN_FILE

_MAX_CONFIGURATIONS = 200
_MAX_CHARACTERS = 20_000


@dataclass(frozen=True)
class Configuration:
    """A resolved configuration."""

    name: str
    """What it is of."""
    lines: list[str]
    """As YAML, line by line; what is too long to read is cut off."""


def load_configurations(folder: Path | str) -> list[Configuration]:
    """What the `run.json` of a folder says, or those of the runs right below it; each part of a study by itself.

    Raises `UserError` for a file that no run wrote.
    """
    folder = Path(folder)
    own = folder / RUN_FILE
    paths = [own] if own.is_file() else sorted(folder.glob(f"*/{RUN_FILE}"))
    found = []
    for path in paths:
        run = checked_run(read_json(path), path)
        config: Mapping[str, Any] = run["config"]
        if run["kind"] == "study":
            found += [_configuration(part, values, path) for part, values in config.items()]
        else:
            found.append(_configuration(run["kind"] if path == own else path.parent.name, config, path))
    return found[:_MAX_CONFIGURATIONS]


def hash_cells(rows: Sequence[dict[str, Any]]) -> Cells | None:
    """SHA-256 of SAE, model and specification, for each row that has them; None without any."""
    known = [row for row in rows if row.get("provenance")]
    if not known:
        return None
    names = ("sae_sha256", "model_sha256", "spec_sha256")
    settings = ("setting",) if any(setting_of(row) for row in known) else ()
    header = (*settings, "variant", "seed", "SAE", "model", "specification, questions and texts")
    lines = [
        (
            *(setting_of(row) or "-" for _ in settings),
            row["variant"],
            str(row["seed"]),
            *(row["provenance"][name] or "-" for name in names),
        )
        for row in known
    ]
    return Cells(header, lines)


def version_cells(rows: Sequence[dict[str, Any]]) -> Cells | None:
    """Versions of the packages that computed the rows; several of one where rows differ."""
    versions: dict[str, dict[str, None]] = {}
    for row in rows:
        for package, version in ((row.get("provenance") or {}).get("versions") or {}).items():
            versions.setdefault(package, {})[version] = None
    lines = [(package, ", ".join(found)) for package, found in versions.items()]
    return Cells(("package", "version"), lines) if lines else None


def _configuration(name: str, config: Any, path: Path) -> Configuration:
    try:
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100)
    except RecursionError:
        raise UserError(f"{path} is not what a run wrote (nested too deeply). Run it again.") from None
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[:_MAX_CHARACTERS]}\n[...]"
    return Configuration(name, text.split("\n"))
