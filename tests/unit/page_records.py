"""Records of a site's two topics, as the transformer and MinIO write them, for tests of the live page."""

from __future__ import annotations

import itertools
from typing import Any

import orjson

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.testing import minio_event

SETTINGS = Settings(task=Digits())
ETAG = "5d41402abc4b2a76b9719d911017c592"

_offsets = itertools.count()


def notification(key: str, *, at: int = 2000, sequencer: str = "1", **described: Any) -> Record:
    """A record of the notifications' topic; the upload was at 1000 ms, its record at `at`."""
    event = minio_event("mnist", key, **{"etag": ETAG, **described})
    event["Records"][0]["eventTime"] = "1970-01-01T00:00:01.000Z"
    event["Records"][0]["s3"]["object"]["sequencer"] = sequencer
    return Record(
        topic="mnist",
        partition=0,
        offset=next(_offsets),
        timestamp_ms=at,
        key=f"mnist/{key}".encode(),
        value=orjson.dumps(event),
    )


def result(
    trace_id: str,
    key: str | None = None,
    *,
    at: int = 3000,
    result_id: str = "r-1",
    etag: str = ETAG,
    version_id: str | None = None,
    headers: tuple[tuple[str, bytes], ...] = (),
    rejected: bool = False,
    **data: Any,
) -> Record:
    """A record of the results' topic: of the object `mnist/<key>`, or of an inline request."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": result_id,
        "source": "mnist-pipeline/mnist",
        "type": "io.kserve.mnist.prediction" + (".rejected" if rejected else ""),
        "time": "1970-01-01T00:00:03+00:00",
        "data": data or {"predictions": [7], "scores": [0.98], "destination": f"digit-7/{key}"},
    }
    if key is not None:
        event["subject"] = f"mnist/{key}"
        version = {"versionId": version_id} if version_id else {}
        event["data"]["object"] = {"bucket": "mnist", "key": key, "etag": etag, "lastModified": "…", **version}
    return Record(
        topic="mnist-predictions",
        partition=0,
        offset=next(_offsets),
        timestamp_ms=at,
        key=trace_id.encode(),
        value=orjson.dumps(event),
        headers=headers,
    )
