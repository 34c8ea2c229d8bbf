"""`python -m thumbnails COMMAND`: serve, setup, submit, demo and all the others, for photographs."""

from mnist_pipeline import main
from thumbnails import Thumbnails


def run() -> int:
    """The same as the console script `thumbnails`."""
    return main(Thumbnails)


if __name__ == "__main__":
    raise SystemExit(run())
