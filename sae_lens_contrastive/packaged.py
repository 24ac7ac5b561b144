"""Configurations that come with the package, in a checkout and in an installed wheel."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sae_lens_contrastive.errors import UserError


def packaged_file(name: str) -> Path:
    """Path of a shipped configuration such as `configs/targets/smollm2.yaml`; `UserError` if there is none."""
    package = Path(str(files("sae_lens_contrastive")))
    for root in (package / "packaged", package.parent):
        if (root / name).is_file():
            return root / name
    raise UserError(f"The package was installed without {name}. Install it again from a complete source.")
