"""Builders of events, as stores write them."""

from __future__ import annotations

from typing import Any

from mnist_pipeline.pipeline.minio_notification import notification_of


def minio_event(
    bucket: str,
    key: str,
    *,
    version_id: str | None = None,
    event_name: str = "s3:ObjectCreated:Put",
    trace_id: str | None = None,
    size: int = 324,
    etag: str = "5d41402abc4b2a76b9719d911017c592",
    content_type: str = "image/png",
) -> dict[str, Any]:
    """The value of the Kafka record that MinIO (RELEASE.2025-10-15) writes for one object.

    `Key` is plain, the key in the record is query-escaped. An empty object has no `size`, a removed one nothing that
    describes it; `trace_id` is the object's user metadata `Trace-Id`.
    """
    described: dict[str, Any] = {}
    if not event_name.startswith("s3:ObjectRemoved:"):
        trace = {} if trace_id is None else {"X-Amz-Meta-Trace-Id": trace_id}
        described = {
            **({"size": size} if size else {}),
            "eTag": etag,
            "contentType": content_type,
            "userMetadata": {**trace, "content-type": content_type},
        }
    return notification_of(
        bucket,
        key,
        event_name=event_name,
        time="2026-01-01T00:00:00.000Z",
        principal="minioadmin",
        address="127.0.0.1",
        user_agent="MinIO (Linux; x86_64) minio-py/7.2.20",
        response={
            "x-amz-id-2": "470a0afc0f6fdbebb6a8e14ece29122784c0656e19563387135a7c8e02feb163",
            "x-amz-request-id": "18EA44633A2EAFED",
            "x-minio-deployment-id": "4619e4f8-6f8f-41ae-9ebd-c7973a783648",
            "x-minio-origin-endpoint": "http://127.0.0.1:9000",
        },
        described={
            **described,
            **({} if version_id is None else {"versionId": version_id}),
            "sequencer": "18EA44633A4E02D9",
        },
    )
