"""`python -m sae_lens_contrastive` is the command, and so is `torchrun -m sae_lens_contrastive`."""

import sys

from sae_lens_contrastive.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
