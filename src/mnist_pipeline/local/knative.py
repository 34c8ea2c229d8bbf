"""What Knative's Kafka dispatcher puts on the wire for a KafkaSource, and what it makes of the answer; pure functions.

Source of the format: knative-extensions/eventing-kafka-broker 1.23 (`InvalidCloudEventInterceptor`,
`CloudEventOverridesMutator`, `WebClientCloudEventSender`, `RecordDispatcherImpl`), run against a programmable sink; the
Kafka and HTTP bindings of CloudEvents 1.0 for a record that is a CloudEvent itself.
"""

from __future__ import annotations

import base64
import enum
import http
import json
import string
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from mnist_pipeline.local.records import Record

Backoff = Literal["exponential", "linear"]

_ERROR_DATA_BYTES = 1024
_RETRYABLE_4XX = frozenset(
    {
        http.HTTPStatus.NOT_FOUND,
        http.HTTPStatus.REQUEST_TIMEOUT,
        http.HTTPStatus.CONFLICT,
        http.HTTPStatus.TOO_MANY_REQUESTS,
    }
)
_ATTRIBUTE_CHARACTERS = frozenset(string.ascii_lowercase + string.digits)
_REQUIRED_ATTRIBUTES = ("specversion", "id", "source", "type")


class Verdict(enum.Enum):
    """What the dispatcher does after an answer."""

    COMMIT = "commit"
    RETRY = "retry"
    DEAD_LETTER = "dead letter"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One POST to the sink: its headers and its body, None where it has none, and so no Content-Length either."""

    headers: tuple[tuple[str, bytes], ...]
    body: bytes | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the sink answered."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class _Event:
    """A CloudEvent on its way out: context attributes and extensions, and its data."""

    attributes: dict[str, str]
    content_type: str | None
    data: bytes | None


def verdict(status: int | None) -> Verdict:
    """What follows from the answer's status; None: no answer (refused, reset, timeout).

    A redirect is not followed. (Knative follows a 303, with a GET; that is left out.)
    """
    if status is None or status >= http.HTTPStatus.INTERNAL_SERVER_ERROR or status in _RETRYABLE_4XX:
        return Verdict.RETRY
    if status < http.HTTPStatus.MULTIPLE_CHOICES:
        return Verdict.COMMIT
    return Verdict.DEAD_LETTER


def wait_seconds(attempt: int, *, backoff_seconds: float, policy: Backoff = "exponential") -> float:
    """Seconds before the retry number `attempt`, from 1: backoff·2^n, so first twice the backoff; linear: backoff·n."""
    return backoff_seconds * (float(2**attempt) if policy == "exponential" else attempt)


def request_of(record: Record, *, namespace: str, name: str) -> Request:
    """The request that a KafkaSource `name` in `namespace` makes of a record.

    A record that is a CloudEvent, binary or structured, is delivered as that event in binary mode; any other becomes
    the data of an event of type `dev.knative.kafka.event`, without a content type unless the record carries one.
    """
    event = _cloud_event(record) or _record_event(record, namespace=namespace, name=name)
    headers = [("Prefer", "reply"), ("Kn-Namespace", namespace)]
    headers += [(f"ce-{attribute}", value) for attribute, value in event.attributes.items()]
    headers += [("ce-knativekafkapartition", str(record.partition)), ("ce-knativekafkaoffset", str(record.offset))]
    if event.content_type is not None:
        headers.append(("content-type", event.content_type))
    # The dispatcher's tracing goes on from the record's trace context.
    headers += [(key, _text(value)) for key, value in record.headers if key == "traceparent"]
    return Request(headers=tuple((key, header_bytes(value)) for key, value in headers), body=event.data)


def dead_letter_of(request: Request, *, sink_url: str, answer: Answer | None) -> Request:
    """The request that a dead-letter sink gets: the event and what went wrong; `answer` None: there was none."""
    extensions = {"knativeerrordest": sink_url}
    if answer is not None:
        extensions["knativeerrorcode"] = str(answer.status)
        for key, value in answer.headers:
            if key.lower().startswith("kne-"):
                extensions[key.lower().removeprefix("kne-")] = value
        if answer.body:
            extensions["knativeerrordata"] = base64.b64encode(answer.body[:_ERROR_DATA_BYTES]).decode()
    replaced = {f"ce-{extension}" for extension in extensions}
    kept = tuple((key, value) for key, value in request.headers if key not in replaced)
    added = tuple((f"ce-{extension}", header_bytes(value)) for extension, value in extensions.items())
    return Request(headers=kept + added, body=request.body)


def header_bytes(value: str) -> bytes:
    """A header's value as Netty writes it: each UTF-16 unit one byte, `?` where it is beyond Latin-1.

    So `é` is 0xE9, `日本` is `??`, and an emoji, two units, is `??` too.
    """
    utf_16 = value.encode("utf-16-be", "surrogatepass")
    return bytes(low if high == 0 else ord("?") for high, low in zip(utf_16[::2], utf_16[1::2], strict=True))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _record_event(record: Record, *, namespace: str, name: str) -> _Event:
    attributes = {
        "specversion": "1.0",
        "id": f"partition:{record.partition}/offset:{record.offset}",
        "source": f"/apis/v1/namespaces/{namespace}/kafkasources/{name}#{record.topic}",
        "type": "dev.knative.kafka.event",
        "subject": f"partition:{record.partition}#{record.offset}",
        "time": _timestamp(record.timestamp_ms),
    }
    if record.key:
        attributes |= {"partitionkey": _text(record.key), "key": _text(record.key)}
    content_type = None
    for key, value in record.headers:
        if key.lower() == "content-type":
            content_type = _text(value).lower()
        else:
            attributes["kafkaheader" + _attribute_name(key)] = _text(value)
    return _Event(attributes=attributes, content_type=content_type, data=record.value)


def _cloud_event(record: Record) -> _Event | None:
    """The record as the CloudEvent that it is; None where it is none, or a broken one: that counts as plain data."""
    headers = {key.lower(): _text(value) for key, value in record.headers}
    content_type = headers.get("content-type")
    if content_type is not None and content_type.lower().startswith("application/cloudevents+json"):
        event = _structured_event(record.value)
    else:
        attributes = {key.removeprefix("ce_"): value for key, value in headers.items() if key.startswith("ce_")}
        event = _Event(attributes=attributes, content_type=content_type, data=record.value)
    if event is None or not all(event.attributes.get(attribute) for attribute in _REQUIRED_ATTRIBUTES):
        return None
    return event


def _structured_event(value: bytes | None) -> _Event | None:
    """CloudEvents' JSON format, section 3: a missing data content type means JSON; `data_base64` holds bytes."""
    try:
        envelope = json.loads(value or b"")
        if not isinstance(envelope, dict):
            return None
        encoded = envelope.pop("data_base64", None)
        data = None if encoded is None else base64.b64decode(encoded, validate=True)
    except (ValueError, TypeError, RecursionError):
        return None
    content_type = envelope.pop("datacontenttype", None)
    if not isinstance(content_type, str | None):
        return None
    payload = envelope.pop("data", None)
    if data is None and payload is not None:
        is_text = isinstance(payload, str) and content_type is not None and "json" not in content_type
        data = (payload if is_text else json.dumps(payload, ensure_ascii=False, separators=(",", ":"))).encode()
    attributes = {key: _attribute_text(item) for key, item in envelope.items() if item is not None}
    return _Event(attributes=attributes, content_type=content_type, data=data)


def _attribute_name(header: str) -> str:
    return "".join(character for character in header.lower() if character in _ATTRIBUTE_CHARACTERS)


def _attribute_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _timestamp(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
