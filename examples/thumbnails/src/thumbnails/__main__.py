"""`python -m thumbnails`: every command of mnist-pipeline, for photographs."""

from mnist_pipeline import main
from thumbnails import Thumbnails

if __name__ == "__main__":  # workers import this file again
    raise SystemExit(main(Thumbnails))
