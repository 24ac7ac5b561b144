"""`python -m sae_lens_contrastive.cli` is the command."""

import sys

from sae_lens_contrastive.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
