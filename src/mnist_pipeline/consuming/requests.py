"""A Kafka record as a request of the path, and as a dead letter where it is given up. Pure."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from datetime import datetime, timezone

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.pipeline import events
from mnist_pipeline.pipeline.cloud_events import event_headers, percent_encoded
from mnist_pipeline.pipeline.errors import BodyTooLarge, PipelineError
from mnist_pipeline.pipeline.events import Inline, Request
from mnist_pipeline.pipeline.ports import Message
from mnist_pipeline.pipeline.settings import Settings

# As Knative: of an answer's body.
_ERROR_DATA_BYTES = 1024


def request_of(record: Record, settings: Settings) -> Request:
    """Read a record as the V1 path would have it from Knative's KafkaSource.

    Raises:
        Permanent: as `events.parse`; or its value is larger than `MAX_BODY_BYTES`.
    """
    value = record.value or b""
    if len(value) > settings.max_body_bytes:
        raise BodyTooLarge(f"the record's value is larger than {settings.max_body_bytes:,} bytes")
    headers = event_headers(record.headers)
    if headers is not None:
        # The trace goes on from the record, as Knative's dispatcher has it.
        traces = {name: value.decode("utf-8", "replace") for name, value in record.headers if name == "traceparent"}
        return events.parse(value, headers | traces, settings)
    request = events.parse(value, _plain_headers(record), settings)
    if isinstance(request, Inline) and request.identity is None:
        # So that it has the same identity however often it comes, and as its own dead letter.
        request = events.parse(value, _plain_headers(record) | _as_headers(attributes_of(record)), settings)
    return request


def attributes_of(record: Record) -> dict[str, str]:
    """The CloudEvent that a record is which is none by itself: KafkaSource's type, id and time."""
    attributes = {
        "specversion": "1.0",
        "id": f"partition:{record.partition}/offset:{record.offset}",
        "source": f"/kafka/topics/{record.topic}",
        "type": "dev.knative.kafka.event",
    }
    # A producer that takes Kafka's milliseconds for microseconds gives a time that no calendar has.
    with contextlib.suppress(ValueError, OverflowError):
        moment = datetime.fromtimestamp(record.timestamp_ms / 1000, tz=timezone.utc)
        attributes["time"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return attributes


def dead_letter(record: Record, error: PipelineError, destination: str) -> Message:
    """A record that is given up, as a CloudEvent with the extensions by which Knative says why.

    `ce_knativeerrordest`, `ce_knativeerrorcode`, `ce_knativeerrordata` (base64 of the first bytes of the answer's body)
    and, of our answer's `kne-reason`, `ce_reason`: https://knative.dev/docs/eventing/event-delivery/
    """
    headers = record.headers
    if event_headers(headers) is None:
        attributes = {name: value.encode() for name, value in attributes_of(record).items()}
        headers = tuple((f"ce_{name}", value) for name, value in attributes.items()) + tuple(
            (name.replace("ce-", "ce_", 1), value) for name, value in _passed_on(record)
        )
    text = str(error).encode("utf-8", "replace")[:_ERROR_DATA_BYTES]
    added = {
        "ce_knativeerrordest": destination.encode(),
        "ce_knativeerrorcode": str(error.status).encode(),
        "ce_knativeerrordata": base64.b64encode(text),
        "ce_reason": error.reason.encode(),
    }
    kept = tuple((name, value) for name, value in headers if name.lower() not in added)
    return Message(key=record.key or b"", value=record.value or b"", headers=kept + tuple(added.items()))


def _passed_on(record: Record) -> Iterator[tuple[str, bytes]]:
    """A plain record's own headers as KafkaSource passes them on: its content type, and extensions."""
    for name, value in record.headers:
        letters = "".join(letter for letter in name.lower() if letter.isascii() and letter.isalnum())
        yield ("content-type" if name.lower() == "content-type" else f"ce-kafkaheader{letters}"), value


def _plain_headers(record: Record) -> dict[str, str]:
    texts = ((name, value.decode("utf-8", "replace")) for name, value in _passed_on(record))
    return {name: percent_encoded(text) if name.startswith("ce-") else text for name, text in texts}


def _as_headers(attributes: dict[str, str]) -> dict[str, str]:
    return {f"ce-{name}": percent_encoded(value) for name, value in attributes.items()}
