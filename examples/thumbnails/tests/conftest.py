"""Which task the fixtures of mnist-pipeline's pytest plugin are about."""

import pytest

from thumbnails import Thumbnails


@pytest.fixture(scope="session")
def pipeline_task() -> type[Thumbnails]:
    """Photographs."""
    return Thumbnails
