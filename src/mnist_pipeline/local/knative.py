"""What Knative's Kafka dispatcher puts on the wire for a KafkaSource, and what it makes of the answer; pure functions.

Source of the format: knative-extensions/eventing-kafka-broker 1.23 (`InvalidCloudEventInterceptor`,
`CloudEventOverridesMutator`, `WebClientCloudEventSender`, `RecordDispatcherImpl`), run against a programmable sink; the
Kafka and HTTP bindings of CloudEvents 1.0 for a record that is a CloudEvent itself, and what CloudEvents' SDK for Java
4.0.1 with Jackson 2.22, by which Knative reads such a record, made of broken ones.
"""

from __future__ import annotations

import base64
import enum
import http
import json
import re
import string
from dataclasses import dataclass
from datetime import MAXYEAR, datetime, timezone
from typing import Any, Literal, NoReturn

from mnist_pipeline.adapters.records import Record

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
_TEXT_ATTRIBUTES = frozenset({*_REQUIRED_ATTRIBUTES, "subject", "time", "dataschema"})
_SPEC_VERSIONS = ("1.0", "0.3")
_JSON_CONTENT_TYPE = re.compile(r"(application|text)/([A-Za-z]+\+)?json(;.*)?")  # for the SDK no others are JSON
_JSON = "application/json"
_GREGORIAN_CYCLE_YEARS = 400
_GREGORIAN_CYCLE_MS = 146_097 * 86_400_000


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
    if event is None or event.attributes.get("specversion") not in _SPEC_VERSIONS:
        return None
    if not all(event.attributes.get(attribute) for attribute in _REQUIRED_ATTRIBUTES):
        return None
    if not all(_ATTRIBUTE_CHARACTERS.issuperset(attribute) for attribute in event.attributes):
        return None
    return event


def _structured_event(value: bytes | None) -> _Event | None:
    """The event in CloudEvents' JSON format, section 3; None where it cannot be unpacked, for whatever reason."""
    try:
        envelope = json.loads(
            str(value or b"", "utf-8-sig"), object_pairs_hook=_json_object, parse_constant=_refuse_constant
        )
        return _unpacked(envelope)
    except (ValueError, TypeError, RecursionError):
        return None


def _unpacked(envelope: Any) -> _Event:
    """The event of a JSON document; ValueError or TypeError: it is none."""
    if not isinstance(envelope, dict) or {"data", "data_base64"} <= envelope.keys():
        raise ValueError("no object, or one with its data twice")
    content_type = envelope.pop("datacontenttype", None)
    if not isinstance(content_type, str | None):
        raise TypeError("datacontenttype")
    data = None
    if "data_base64" in envelope:
        data = base64.b64decode(envelope.pop("data_base64"), validate=True)
    elif "data" in envelope:
        payload = envelope.pop("data")
        if content_type is None:
            content_type = _JSON
        if _JSON_CONTENT_TYPE.fullmatch(content_type):
            payload = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # As Java writes it: `?` for a lone surrogate, which an escape in JSON can make and UTF-8 has no bytes for.
        data = str.encode(payload, "utf-8", "replace")
    attributes = {key: _attribute_text(key, item) for key, item in envelope.items() if item is not None}
    return _Event(attributes=attributes, content_type=content_type, data=data)


def _json_object(members: list[tuple[str, object]]) -> dict[str, object]:
    for name, _ in members:
        name.encode()  # Jackson takes a lone surrogate in a text, but not in a name; UnicodeEncodeError is a ValueError
    return dict(members)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _attribute_name(header: str) -> str:
    return "".join(character for character in header.lower() if character in _ATTRIBUTE_CHARACTERS)


def _attribute_text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if name in _TEXT_ATTRIBUTES or isinstance(value, float):
        raise TypeError(name)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _timestamp(milliseconds: int) -> str:
    """RFC 3339 as Java writes it: no zeros at the end of the fraction, a `+` before a year of more than four digits.

    Such a year comes from a producer that takes Kafka's milliseconds for microseconds; `datetime` has none, so that it
    is found in the calendar's first cycle from 1970 on.
    """
    cycles, rest = divmod(milliseconds, _GREGORIAN_CYCLE_MS)
    moment = datetime.fromtimestamp(rest // 1000, tz=timezone.utc)
    year = moment.year + _GREGORIAN_CYCLE_YEARS * cycles
    fraction = f".{rest % 1000:03}".rstrip("0").rstrip(".")
    return f"{'+' if year > MAXYEAR else ''}{year:04}{moment:-%m-%dT%H:%M:%S}{fraction}Z"
