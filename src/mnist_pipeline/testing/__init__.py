"""For tests of transformers, without servers: the two ports in memory, a predictor, and builders of events and images.

    store = MemoryStore("mnist", versioned={"mnist"}, create_buckets=True)
    version = store.upload("mnist", "a/7.png", digit_png(7))
    event = minio_event("mnist", "a/7.png", version_id=version.version_id)

The fakes hold plain state, to be looked at and to be changed: what is stored, what was called, what shall fail. They
are as strict as MinIO about versions, preconditions and metadata; the contract tests run over them and over real
servers alike. Importing this module imports neither kserve nor minio nor kafka.
"""

from mnist_pipeline.testing.digits import digit_png
from mnist_pipeline.testing.events import minio_event
from mnist_pipeline.testing.failures import Call, Failures
from mnist_pipeline.testing.predictor import StubPredictor
from mnist_pipeline.testing.publisher import MemoryPublisher
from mnist_pipeline.testing.store import MemoryStore

__all__ = ["Call", "Failures", "MemoryPublisher", "MemoryStore", "StubPredictor", "digit_png", "minio_event"]
