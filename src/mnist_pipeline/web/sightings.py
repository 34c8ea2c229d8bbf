"""What one record of a topic tells of an object's way: that it was notified, or what became of it. Pure.

What the page keeps of a record is bounded here: anybody's record may lie on these topics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.adapters.s3_headers import decoded
from mnist_pipeline.pipeline import events, notifications
from mnist_pipeline.pipeline.errors import BadTraceId, Permanent
from mnist_pipeline.pipeline.events import MAX_TRACE_ID
from mnist_pipeline.pipeline.interpretation import Label
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.published import PredictionResult, read_result
from mnist_pipeline.pipeline.settings import Settings

_METADATA_PREFIX = "x-amz-meta-"
_IDENTITY = ("bucket", "key", "etag", "versionId")
_MOST_LABELS = 100
# Of a text that is shown: a bucket and a key are 1,088 bytes at most.
_LONGEST = 1200


@dataclass(frozen=True, kw_only=True)
class Notified:
    """A store has told Kafka that an object was created.

    Attributes:
        ref: the object.
        trace_id: of its user metadata, where the notification has them.
        upload: by which one upload is told from another of the same name; the same in a notification that comes twice.
        uploaded: when it was created, in milliseconds since 1970 by the store's clock, where it says so.
        record: the whole record.
    """

    ref: ObjectRef
    trace_id: str | None
    upload: str
    uploaded: float | None
    record: Record

    @property
    def at(self) -> float:
        """When it was written to Kafka, in milliseconds since 1970; when it was created, where no time is told."""
        told = self.record.timestamp_ms
        return float(told) if told >= 0 else self.uploaded or 0.0

    @property
    def place(self) -> str:
        """`bucket/key`."""
        return f"{self.ref.bucket}/{self.ref.key}"

    @property
    def object(self) -> dict[str, str]:
        """What identifies its version, as far as the notification tells it."""
        known = {"etag": self.ref.etag, "versionId": self.ref.version_id}
        return {name: value[:_LONGEST] for name, value in known.items() if value}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A result lies on Kafka.

    Attributes:
        result: what it says.
        object: what identifies its object's version; empty of an inline request.
        record: the whole record.
    """

    result: PredictionResult
    object: Mapping[str, str]
    record: Record

    @property
    def at(self) -> float:
        """When it was written to Kafka, in milliseconds since 1970; by the event, where the record tells none."""
        told = self.record.timestamp_ms
        if told >= 0:
            return float(told)
        return self.result.time.timestamp() * 1000

    @property
    def place(self) -> str | None:
        """`bucket/key` of the object; None of an inline request."""
        return f"{self.object['bucket']}/{self.object['key']}" if self.object else None

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels, the first hundred; what somebody else's event has in their place is none."""
        given = self.result.predictions[:_MOST_LABELS]
        return tuple(one[:_LONGEST] if isinstance(one, str) else one for one in given if isinstance(one, str | int))

    @property
    def destination(self) -> str | None:
        """`bucket/key` of the copy."""
        return self.result.destination and self.result.destination[:_LONGEST]

    @property
    def reason(self) -> str:
        """Why it was rejected, in one word."""
        return self.result.reason[:_LONGEST]

    @property
    def message(self) -> str:
        """Why it was rejected, in a sentence."""
        return self.result.message[:_LONGEST]


def notified_in(record: Record, settings: Settings) -> list[Notified]:
    """The objects that a record of the notifications' topic tells of: those that the transformer would take."""
    try:
        payload = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return []
    found = []
    for one in _records_of(payload):
        try:
            refs = notifications.read(one, settings).objects
        except Permanent:
            continue
        found += [_notified(ref, one, record, settings) for ref in refs]
    return found


def published_in(record: Record, settings: Settings) -> Published | None:
    """What a record of the results' topic tells; None where it is something else."""
    result = read_result(record.key, record.value, record.headers, trace_key=settings.trace_key)
    if result is None or max(len(result.trace_id), len(result.id)) > MAX_TRACE_ID:
        return None
    return Published(result=result, object=_object(result), record=record)


def as_json(record: Record) -> dict[str, Any]:
    """A record as people look at it: text where it is some."""
    told = record.value or b"null"
    try:
        orjson.loads(told)
        # As it is: orjson reads what is deeper than what it writes.
        value: Any = orjson.Fragment(told)
    except orjson.JSONDecodeError:
        value = _text(told)
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
        "key": None if record.key is None else _text(record.key),
        "headers": {name: _text(content) for name, content in record.headers},
        "value": value,
    }


def _records_of(payload: Any) -> Sequence[Any]:
    """The records of the forms that tell more than an object's name; any other form as one."""
    match payload:
        case {"Records": list(records)} | {"specversion": _, "data": {"Records": list(records)}}:
            return records
    return [payload]


def _notified(ref: ObjectRef, told: Any, record: Record, settings: Settings) -> Notified:
    described: dict[str, Any] = {}
    match told:
        case {"s3": {"object": dict(given)}}:
            described = given
    metadata = described.get("userMetadata")
    upload = described.get("sequencer") or ref.created or f"{record.partition}-{record.offset}"
    return Notified(
        ref=ref,
        trace_id=_trace_id(metadata if isinstance(metadata, dict) else {}, settings),
        upload=str(upload)[:_LONGEST],
        uploaded=None if ref.created is None else ref.created * 1000,
        record=record,
    )


def _trace_id(metadata: Mapping[str, Any], settings: Settings) -> str | None:
    named = {
        name.lower().removeprefix(_METADATA_PREFIX): decoded(value)
        for name, value in metadata.items()
        if name.lower().startswith(_METADATA_PREFIX) and isinstance(value, str)
    }
    try:
        return events.trace_id_in(named, settings)
    except BadTraceId:
        return None  # as the transformer, which derives one


def _object(result: PredictionResult) -> dict[str, str]:
    given = result.event["data"].get("object")
    if not isinstance(given, dict) or not {"bucket", "key"} <= given.keys():
        bucket, _, key = (result.subject or "").partition("/")
        given = {"bucket": bucket, "key": key} if key else {}
    return {name: given[name][:_LONGEST] for name in _IDENTITY if isinstance(given.get(name), str)}


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")
