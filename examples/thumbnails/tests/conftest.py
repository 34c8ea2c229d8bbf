"""The fixtures are those of mnist-pipeline's pytest plugin; only the task is ours."""

import pytest

from thumbnails import Thumbnails


@pytest.fixture(scope="session")
def pipeline_task() -> Thumbnails:
    """What `harness` and the others are about."""
    return Thumbnails()
