"""For tests of transformers, without servers: the two ports in memory, a predictor, and builders of events and images.

    harness = Harness(Digits(), StubPredictor())
    sent = harness.send_object(digit_png(7))
    assert sent.results[0]["data"]["predictions"] == [7]
    assert harness.store.keys("digit-7") == ["1.png"]

The fakes hold plain state, to be looked at and to be changed: what is stored, what was called, what shall fail. They
are as strict as MinIO about versions, preconditions and metadata; the contract tests run over them and over real
servers alike. Importing this module imports neither kserve nor minio nor kafka.
"""

from mnist_pipeline.testing.digits import digit_png
from mnist_pipeline.testing.events import minio_event
from mnist_pipeline.testing.failures import Call, Failures
from mnist_pipeline.testing.harness import Harness, Sent
from mnist_pipeline.testing.predictor import StubPredictor
from mnist_pipeline.testing.publisher import MemoryPublisher
from mnist_pipeline.testing.store import MemoryStore

__all__ = [
    "Call",
    "Failures",
    "Harness",
    "MemoryPublisher",
    "MemoryStore",
    "Sent",
    "StubPredictor",
    "digit_png",
    "minio_event",
]
