"""One local stack for the tests that only use it; those that need another start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mnist_pipeline.local.stack import Stack

SETTINGS = {
    "REQUEST_TRACE_KEY": "test-trace-id",
    "INFERENCE_SERVICE_NAME": "test-transformer",
    "POD_NAMESPACE": "kserve-test",
    "MAX_BODY_BYTES": "1000000",
    "EVENT_TIMEOUT_SECONDS": "20",
}


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with Stack(settings=SETTINGS) as stack:
        yield stack
