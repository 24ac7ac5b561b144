"""Which packages compute results."""

from __future__ import annotations

from importlib.metadata import version

_PACKAGES = ("sae-lens-contrastive", "sae-lens", "transformer-lens", "transformers", "torch")


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that compute a result."""
    return {package: version(package) for package in _PACKAGES}
