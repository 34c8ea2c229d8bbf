"""A notification as MinIO writes it to Kafka: the record's value, of which `notifications` reads what matters to us."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Any


def notification_of(
    bucket: str,
    key: str,
    *,
    time: str,
    described: Mapping[str, Any],
    user_agent: str,
    event_name: str = "s3:ObjectCreated:Put",
    principal: str = "",
    address: str = "",
    response: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The notification of one object. `Key` is plain, the key in the record is query-escaped.

    Args:
        bucket: where it is.
        key: its name.
        time: when it happened, ISO 8601.
        described: what is told of the object beside its key: size, eTag, versionId, sequencer.
        user_agent: of the client that did it.
        event_name: what happened.
        principal: who did it.
        address: from where.
        response: what the client was answered.
    """
    return {
        "EventName": event_name,
        "Key": f"{bucket}/{key}",
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "minio:s3",
                "awsRegion": "",
                "eventTime": time,
                "eventName": event_name,
                "userIdentity": {"principalId": principal},
                "requestParameters": {"principalId": principal, "region": "", "sourceIPAddress": address},
                "responseElements": dict(response or {}),
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "Config",
                    "bucket": {
                        "name": bucket,
                        "ownerIdentity": {"principalId": principal},
                        "arn": f"arn:aws:s3:::{bucket}",
                    },
                    "object": {"key": urllib.parse.quote_plus(key), **described},
                },
                "source": {"host": address, "port": "", "userAgent": user_agent},
            }
        ],
    }
