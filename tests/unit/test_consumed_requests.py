"""consuming/requests.py: a record is read as behind a KafkaSource, and given up in the words of Knative."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from digits import digits_settings
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.consuming.requests import dead_letter, request_of
from mnist_pipeline.local import knative
from mnist_pipeline.local.knative import Answer, dead_letter_of
from mnist_pipeline.pipeline import events
from mnist_pipeline.pipeline.cloud_events import event_headers
from mnist_pipeline.pipeline.errors import BadEvent, BadImage, BodyTooLarge, PipelineError, Reject, StoreUnavailable
from mnist_pipeline.pipeline.events import Inline, Nothing, Notification, Request
from mnist_pipeline.pipeline.ports import Message
from mnist_pipeline.testing import minio_event

SETTINGS = digits_settings(trace_key="test-trace-id")
INLINE = b'{"instances": [{"data": "iVBORw0KGgo="}]}'
RECORD = Record(
    topic="mnist",
    partition=3,
    offset=17,
    timestamp_ms=1795322606302,
    key=b"mnist/0.png",
    value=json.dumps(minio_event("mnist", "a b.png", trace_id="of the object")).encode(),
)
OF_AN_EVENT = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"7"),
    ("ce_source", "/été 100%".encode()),
    ("ce_type", b"digit"),
    ("content-type", b"application/json; charset=utf-8"),
)
STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)
ENVELOPE = {"specversion": "1.0", "id": "7", "source": "/me", "type": "digit", "data": json.loads(INLINE)}
TRACEPARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def behind_a_kafka_source(record: Record) -> Request:
    """What the transformer reads of the request that a KafkaSource makes of it."""
    request = knative.request_of(record, namespace="ns", name="digits")
    headers = {name.lower(): value.decode("latin-1") for name, value in request.headers}
    return events.parse(request.body or b"", headers, SETTINGS)


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        replace(RECORD, headers=(("Test-Trace-Id", b"abc"), ("x_1", b"1"), TRACEPARENT)),
        replace(RECORD, value=None),
        replace(RECORD, value=b""),
        replace(RECORD, value=INLINE, headers=(*OF_AN_EVENT, ("ce_testtraceid", b"abc"))),
        replace(RECORD, value=INLINE, headers=(*OF_AN_EVENT, TRACEPARENT)),
        replace(RECORD, headers=OF_AN_EVENT),
        replace(RECORD, value=json.dumps(ENVELOPE).encode(), headers=STRUCTURED),
        replace(RECORD, value=b"\xff\xd8\xff a picture", headers=(("Content-Type", b"image/jpeg"),)),
        replace(RECORD, value=b"GIF8 a picture", headers=(("Content-Type", b"image/gif"), ("Test-Trace-Id", b"a"))),
        replace(RECORD, value=INLINE),
    ],
    ids=[
        "a notification",
        "one with headers",
        "a tombstone",
        "an empty value",
        "a binary event",
        "one that belongs to a trace",
        "a notification as a binary event",
        "a structured event",
        "an image",
        "an image of another kind",
        "an inline request",
    ],
)
def test_a_record_is_read_as_behind_a_kafka_source(record: Record) -> None:
    read, behind = request_of(record, SETTINGS), behind_a_kafka_source(record)
    if isinstance(read, Inline) and isinstance(behind, Inline) and event_headers(record.headers) is None:
        # The event has its source from the KafkaSource, which is not there.
        assert (read.instances, read.trace_id, read.caller) == (behind.instances, behind.trace_id, behind.caller)
    else:
        assert read == behind


def test_an_inline_request_that_nothing_identifies_has_the_identity_of_its_place_in_the_topic() -> None:
    read = request_of(replace(RECORD, value=INLINE), SETTINGS)
    assert isinstance(read, Inline)
    assert read.trace_id == "partition:3/offset:17"
    assert read.identity == ("/kafka/topics/mnist", "partition:3/offset:17", "partition:3/offset:17")


def test_an_inline_request_that_nothing_identifies_and_its_dead_letter_have_one_identity() -> None:
    record = replace(RECORD, value=INLINE)
    letter = dead_letter(record, BadEvent("nothing"), "a destination")
    again = request_of(replace(record, offset=99, value=letter.value, headers=letter.headers), SETTINGS)
    first = request_of(record, SETTINGS)
    assert isinstance(first, Inline)
    assert isinstance(again, Inline)
    assert (first.identity, first.trace_id) == (again.identity, again.trace_id)


def test_a_value_is_refused_by_its_size_before_anything_is_read_of_it() -> None:
    settings = digits_settings(max_body_bytes=10)
    assert request_of(replace(RECORD, value=None), settings) == Nothing(reason="empty")
    with pytest.raises(BodyTooLarge, match="larger than 10 bytes"):
        request_of(replace(RECORD, value=b"{" * 11), settings)


# --- dead letters ---


def as_knative_writes_it(record: Record, error: PipelineError) -> tuple[dict[str, bytes], bytes | None]:
    """Of the dead letter that follows from our answer: its headers as those of a record, and its value."""
    answer = Answer(status=error.status, headers=(("kne-reason", error.reason),), body=str(error).encode())
    request = knative.request_of(record, namespace="ns", name="digits")
    letter = dead_letter_of(request, sink_url="a destination", answer=answer)
    return {name.replace("ce-", "ce_", 1): value for name, value in letter.headers}, letter.body


def written(record: Record, error: PipelineError) -> tuple[dict[str, bytes], Message]:
    message = dead_letter(record, error, "a destination")
    headers = dict(message.headers)
    assert len(headers) == len(message.headers), "a header came twice"
    return headers, message


ERRORS = [BadImage("no image"), StoreUnavailable("away"), Reject("toodark", "é" * 1000), PipelineError("a bug")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
@pytest.mark.parametrize("headers", [(), OF_AN_EVENT], ids=["a plain record", "an event"])
def test_a_dead_letter_says_why_in_the_words_of_knative(
    headers: tuple[tuple[str, bytes], ...], error: PipelineError
) -> None:
    record = replace(RECORD, headers=headers)
    ours, message = written(record, error)
    theirs, value = as_knative_writes_it(record, error)
    said = {name for name in theirs if "error" in name} | {"ce_reason"}
    assert {name: ours[name] for name in said} == {name: theirs[name] for name in said}
    assert {name for name in ours if "error" in name} | {"ce_reason"} == said
    assert (message.key, message.value) == (record.key, value)


def test_the_dead_letter_of_a_plain_record_is_the_event_that_a_kafka_source_makes_of_it() -> None:
    record = replace(RECORD, headers=(("Test-Trace-Id", b"abc"), ("Content-Type", b"application/json"), TRACEPARENT))
    ours, _ = written(record, BadImage("no image"))
    theirs, _ = as_knative_writes_it(record, BadImage("no image"))
    assert ours.pop("ce_source") == b"/kafka/topics/mnist"
    # What else a KafkaSource says is about the record and not of it.
    assert ours.items() <= theirs.items()
    assert theirs.keys() - ours.keys() == {
        *("ce_source", "ce_subject", "ce_key", "ce_partitionkey", "ce_knativekafkapartition", "ce_knativekafkaoffset"),
        *("Prefer", "Kn-Namespace", "traceparent"),
    }


@pytest.mark.parametrize(
    ("value", "headers"),
    [(INLINE, OF_AN_EVENT), (json.dumps(ENVELOPE).encode(), STRUCTURED)],
    ids=["binary", "structured"],
)
def test_the_dead_letter_of_an_event_is_that_event_and_no_older_reason_stays(
    value: bytes, headers: tuple[tuple[str, bytes], ...]
) -> None:
    record = replace(RECORD, value=value, headers=headers)
    first = dead_letter(record, StoreUnavailable("away"), "somebody else")
    assert first.headers[: len(headers)] == headers
    again, message = written(replace(record, headers=first.headers), BadImage("no image"))
    assert again == written(record, BadImage("no image"))[0]
    assert message.value == value


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, headers=(("Test-Trace-Id", b"abc"), ("content-type", b"application/json"))),
        replace(RECORD, value=INLINE),
        replace(RECORD, value=INLINE, headers=OF_AN_EVENT),
        replace(RECORD, value=json.dumps(ENVELOPE).encode(), headers=STRUCTURED),
    ],
    ids=["a notification", "an inline request", "a binary event", "a structured event"],
)
def test_a_dead_letter_that_is_sent_again_is_read_as_the_record_was(record: Record) -> None:
    message = dead_letter(record, BadImage("no image"), "a destination")
    # As `replay` reads it, and posts it.
    headers = event_headers(message.headers)
    assert headers is not None
    sent = {name: value for name, value in headers.items() if not name.startswith(("ce-knativeerror", "ce-reason"))}
    assert events.parse(message.value, sent, SETTINGS) == request_of(record, SETTINGS)


def test_a_dead_letter_of_a_record_without_key_and_value_has_empty_ones() -> None:
    message = dead_letter(replace(RECORD, key=None, value=None), BadEvent("nothing"), "a destination")
    assert (message.key, message.value) == (b"", b"")


@pytest.mark.parametrize(
    ("milliseconds", "time"),
    [
        (1795322606302, b"2026-11-22T04:43:26.302Z"),
        (-1, b"1969-12-31T23:59:59.999Z"),
        (1795322606302000, None),
        (2**63 - 1, None),
    ],
)
def test_a_dead_letter_has_the_records_time_where_a_calendar_has_it(milliseconds: int, time: bytes | None) -> None:
    headers, _ = written(replace(RECORD, timestamp_ms=milliseconds), BadEvent("no event"))
    assert headers.get("ce_time") == time


def test_what_an_error_says_is_cut_to_the_first_bytes() -> None:
    headers, _ = written(RECORD, BadEvent("é" * 1000))
    assert base64.b64decode(headers["ce_knativeerrordata"]) == ("é" * 512).encode()


def test_a_notification_s_trace_id_may_be_a_header_of_the_record() -> None:
    read: Any = request_of(replace(RECORD, headers=(("test-trace-id", b"abc"),)), SETTINGS)
    assert isinstance(read, Notification)
    assert read.trace_id == "abc"
