"""Reads one Kafka message with the strict CloudEvents SDK, version 2; runs in the SDK's own environment.

From stdin, as JSON: `key`, `value` and the values of `headers` (a list of pairs), all three in base64. To stdout, as
JSON: `attributes` and `data`, or `refused`, the SDK's complaints by the attribute's name.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from cloudevents.core.bindings.kafka import (  # type: ignore[import-not-found]  # our own environment has version 1
    KafkaMessage,
    from_kafka_event,
)
from cloudevents.core.exceptions import CloudEventValidationError  # type: ignore[import-not-found]  # the same


def read(message: dict[str, Any]) -> dict[str, Any]:
    """What the SDK makes of a message, whichever mode the SDK finds that it has."""
    headers = {name: base64.b64decode(value) for name, value in message["headers"]}
    key, value = base64.b64decode(message["key"]), base64.b64decode(message["value"])
    try:
        event = from_kafka_event(KafkaMessage(headers=headers, key=key, value=value))
    except CloudEventValidationError as exc:
        return {"refused": {name: [str(error) for error in errors] for name, errors in exc.errors.items()}}
    # The SDK gives `time` as a datetime.
    attributes = {**event.get_attributes(), "time": event.get_time().isoformat()}
    return {"attributes": attributes, "data": event.get_data()}


if __name__ == "__main__":
    json.dump(read(json.load(sys.stdin)), sys.stdout)
