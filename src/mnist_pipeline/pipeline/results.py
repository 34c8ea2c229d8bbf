"""A prediction goes out: a result becomes a CloudEvent, and that a Kafka message or an HTTP reply. Pure.

Formats: CloudEvents 1.0 with its JSON format, Kafka protocol binding and HTTP protocol binding. The structured form
has the attribute names `request-host`, `kserve-isvc-name`, `kserve-isvc-namespace` and the trace key, as users of the
Kafka-sink transformer know them; hyphens are not legal there, so strict SDKs read the binary form, where they are
plain Kafka headers. The CloudEvents SDK writes both, but for these names, for the content type by which a structured
record is known, and for the percent-encoding of HTTP, which its version 1 does not have.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any, Literal, cast

import orjson
from cloudevents import conversion, kafka
from cloudevents.http import CloudEvent

from mnist_pipeline.pipeline.cloud_events import percent_encoded
from mnist_pipeline.pipeline.errors import Permanent
from mnist_pipeline.pipeline.events import NOBODY, Caller, Inline
from mnist_pipeline.pipeline.interpretation import Label
from mnist_pipeline.pipeline.ports import Message, ObjectVersion
from mnist_pipeline.pipeline.stages import NO_TRACE, TraceContext

_JSON = {"datacontenttype": "application/json"}

# Of this project alone: never change it, or redelivered work gets new ids.
_NAMESPACE = uuid.UUID("6c1f7d0e-5f0b-4c5e-9b52-0b1d6a4d7f11")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one object or one inline request; the latter has no `subject`, but the `labels` predicted."""

    id: str
    trace_id: str
    type: str
    source: str
    time: str
    data: Mapping[str, Any]
    subject: str | None = None
    caller: Caller = NOBODY
    labels: Sequence[Label] = ()


def object_identity(version: ObjectVersion) -> tuple[str, ...]:
    """What makes a fetched object this one: the same whichever way and however often its event arrives."""
    unversioned = version.version_id in (None, "null")
    age = version.last_modified if unversioned else str(version.version_id)
    return ("object", version.bucket, version.key, version.etag, age)


def id_of(identity: Sequence[str] | None) -> str:
    """The uuid5 of an identity; a random uuid where there is none."""
    if identity is None:
        return str(uuid.uuid4())
    # A JSON array keeps the parts apart, whatever characters they have.
    return str(uuid.uuid5(_NAMESPACE, orjson.dumps(list(identity)).decode()))


def trace_id_of(identity: Sequence[str] | None) -> str:
    """A trace id for work that came without one, derived from its identity."""
    return id_of(None if identity is None else ("trace", *identity))


def object_data(version: ObjectVersion) -> dict[str, str]:
    """The identity of an object, as a result event shows it."""
    data = {"bucket": version.bucket, "key": version.key, "etag": version.etag, "lastModified": version.last_modified}
    return data | ({"versionId": version.version_id} if version.version_id else {})


def object_result(
    version: ObjectVersion,
    trace_id: str,
    data: Mapping[str, Any],
    *,
    type: str,
    source: str,
    caller: Caller,
) -> Result:
    """The result of an object: its bucket and key are the subject, its identity is part of the data."""
    return Result(
        id=id_of(object_identity(version)),
        trace_id=trace_id,
        type=type,
        source=source,
        time=now(),
        data={**data, "object": object_data(version)},
        subject=f"{version.bucket}/{version.key}",
        caller=caller,
    )


def inline_result(
    request: Inline, data: Mapping[str, Any], *, type: str, source: str, labels: Sequence[Label] = ()
) -> Result:
    """The result of an inline request: exactly the attributes that the Kafka-sink transformer wrote."""
    return Result(
        id=id_of(request.identity),
        trace_id=request.trace_id or trace_id_of(request.identity),
        type=type,
        source=source,
        time=now(),
        data=data,
        caller=request.caller,
        labels=labels,
    )


def rejected_data(refusal: Permanent) -> dict[str, str]:
    """The data of a rejected event: the reason's word and its sentence."""
    return {"reason": refusal.reason, "message": str(refusal)}


def now() -> str:
    """This moment in UTC, RFC 3339 with microseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def to_message(
    result: Result,
    *,
    mode: Literal["structured", "binary"],
    trace_key: str,
    seconds: Mapping[str, float] = MappingProxyType({}),
    trace: TraceContext = NO_TRACE,
) -> Message:
    """The Kafka record of a result, keyed by its trace id, which is among its headers in both modes.

    So are, where they are given, how long each stage took, as `server-timing` (W3C Server Timing, section 3: names, and
    milliseconds), and the context of the distributed trace.
    """
    key = result.trace_id.encode()
    extensions = _extensions(result, trace_key)
    if mode == "structured":
        record = kafka.to_structured(
            CloudEvent.create(_attributes(result), result.data),
            # The SDK takes names as CloudEvents have them: without capitals.
            envelope_marshaller=lambda envelope: orjson.dumps({**envelope, **extensions}),
            key_mapper=lambda _: key,
        )
        # Kafka protocol binding 1.0.2, section 3.3: by this a structured event is known. The SDK has its data's.
        headers = {"content-type": b"application/cloudevents+json; charset=UTF-8", trace_key: key}
    else:
        record = kafka.to_binary(
            CloudEvent.create({**_attributes(result), **_JSON}, result.data),
            data_marshaller=orjson.dumps,
            key_mapper=lambda _: key,
        )
        headers = record.headers | {name: value.encode() for name, value in extensions.items()}
    if seconds:
        timing = ", ".join(f"{stage};dur={took * 1000:.2f}" for stage, took in seconds.items())
        headers["server-timing"] = timing.encode()
    headers |= {name: value.encode() for name, value in trace.items()}
    # Bytes, as orjson has made them.
    return Message(key=key, value=cast("bytes", record.value), headers=tuple(headers.items()))


def to_reply(result: Result, *, trace_key: str) -> tuple[dict[str, str], bytes]:
    """The result as an HTTP reply in binary mode: headers and body. Here the four are extensions, without hyphens."""
    extensions = {_legal(name): value for name, value in _extensions(result, trace_key).items()}
    event = CloudEvent.create({**_attributes(result), **_JSON, **extensions}, result.data)
    headers, body = conversion.to_binary(event, data_marshaller=orjson.dumps)
    return {name: percent_encoded(value) if name.startswith("ce-") else value for name, value in headers.items()}, body


def _attributes(result: Result) -> dict[str, str]:
    """The context attributes; an inline result has no subject and no datacontenttype, as its users know it."""
    attributes = {
        "specversion": "1.0",
        "id": result.id,
        "source": result.source,
        "type": result.type,
        "time": result.time,
    }
    if result.subject is not None:
        attributes |= {"subject": result.subject, **_JSON}
    return attributes


def _extensions(result: Result, trace_key: str) -> dict[str, str]:
    extensions = {
        "request-host": result.caller.request_host,
        "kserve-isvc-name": result.caller.isvc_name,
        "kserve-isvc-namespace": result.caller.isvc_namespace,
        trace_key: result.trace_id,
    }
    return {name: value for name, value in extensions.items() if value is not None}


def _legal(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
