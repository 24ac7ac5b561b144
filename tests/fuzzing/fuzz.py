"""Coverage-guided fuzzing of one loader: python tests/fuzzing/fuzz.py TARGET CORPUS... [libFuzzer options]."""

from __future__ import annotations

import sys

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["sae_lens_contrastive", "yaml", "json", "csv", "safetensors"]):
    from targets import TARGETS  # pyright: ignore[reportMissingImports]

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
