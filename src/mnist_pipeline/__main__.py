"""`python -m mnist_pipeline`: the same as the console script."""

import sys

from mnist_pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main())
