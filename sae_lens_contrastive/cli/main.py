"""Run the command line, and say what is wrong in a sentence."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext

from sae_lens_contrastive.cli.parser import parser
from sae_lens_contrastive.errors import UserError, shortened
from sae_lens_contrastive.runs import nothing_left_if_refused


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = parser().parse_args(arguments)
    # The host's advice on large tokenised datasets; the texts of a run here are tokenised once and cached.
    warnings.filterwarnings("ignore", message=r"Dataset is not tokenized|The training dataset contains fewer samples")
    try:
        # A report writes beside what it reads and claims nothing.
        with nothing_left_if_refused(options.out) if getattr(options, "out", None) else nullcontext():
            options.run(options)
    except UserError as error:
        print(f"sae-lens-contrastive: {shortened(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nsae-lens-contrastive: interrupted. Run the same command again to go on.", file=sys.stderr)
        return 130
    return 0
