"""Run the command line, and say what is wrong in a sentence."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout

from sae_lens_contrastive.cli.parser import parser
from sae_lens_contrastive.distributed import launched_rank, launched_ranks
from sae_lens_contrastive.errors import LostRankError, UserError, shortened
from sae_lens_contrastive.files import strict_json
from sae_lens_contrastive.runs import nothing_left_if_refused

_USELESS_PATH = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = parser().parse_args(arguments)
    # The host's advice on large tokenised datasets; the texts of a run here are tokenised once and cached.
    warnings.filterwarnings("ignore", message=r"Dataset is not tokenized|The training dataset contains fewer samples")
    # What is meant for readers is told on the error stream then, so that the output is one JSON document.
    told = redirect_stdout(sys.stderr) if options.json else nullcontext()
    says = "sae-lens-contrastive" + (f", rank {launched_rank()}" if launched_rank() else "")
    try:
        if launched_ranks() > 1 and not getattr(options, "over_ranks", False):
            raise UserError(f"torchrun has started {launched_ranks()} ranks, which only `train` can use. Start one.")
        # A report writes beside what it reads and claims nothing.
        with told, nothing_left_if_refused(options.out) if getattr(options, "out", None) else nullcontext():
            found = options.run(options)
    except LostRankError as error:
        # In the midst of a training its bar has not ended the line.
        print(f"\n{says}: {error}", file=sys.stderr)
        return 3
    except UserError as error:
        print(f"{says}: {shortened(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        # Paths come from anywhere, and whatever asks for one may meet these.
        if error.filename is None or error.errno not in _USELESS_PATH:
            raise
        said = f"{error.filename}: {error.strerror}. Give a path that can be used."
        print(f"{says}: {shortened(said)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{says}: interrupted. Run the same command again to go on.", file=sys.stderr)
        return 130
    if options.json and launched_rank() == 0:
        print(strict_json(found))
    return 0
