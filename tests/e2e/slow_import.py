"""A transformer whose workers take long to import, as on a busy machine: `python -m e2e.slow_import`."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time

from mnist_pipeline import main

# A spawned worker runs this module's top level before it unpickles the model.
if multiprocessing.parent_process() is not None:
    time.sleep(float(os.environ["IMPORT_SECONDS"]))

if __name__ == "__main__":
    raise SystemExit(main(argv=["serve", *sys.argv[1:]]))
