"""A request comes in: body and headers become one frozen value, or a clear refusal. Pure: nothing is asked or
fetched.

A request is a notification (`notifications`), an inference request of KServe's V1 protocol or an image itself; each as
it is, or as the data of a CloudEvent (`cloud_events`).
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from mnist_pipeline.pipeline import cloud_events, notifications
from mnist_pipeline.pipeline.cloud_events import CloudEvent
from mnist_pipeline.pipeline.errors import BadEvent, BadTraceId, MalformedBody, Permanent
from mnist_pipeline.pipeline.notifications import ObjectRef, Records
from mnist_pipeline.pipeline.setting_values import has_control_characters
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.stages import TraceContext, trace_context

MAX_TRACE_ID = 256

# What no JSON begins with.
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """What of a request's headers travels on to its result; None is left out there.

    `trace` is the distributed trace that the request belongs to, which has nothing to do with its trace id.
    """

    request_host: str | None = None
    isvc_name: str | None = None
    isvc_namespace: str | None = None
    trace: TraceContext = field(default_factory=dict)


NOBODY = Caller()
"""A caller of whom nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Notification:
    """Objects that were created, and the records that were refused; `ignored` counts those with nothing to do."""

    objects: tuple[ObjectRef, ...]
    refused: tuple[Permanent, ...] = ()
    ignored: int = 0
    trace_id: str | None = None
    caller: Caller = NOBODY


@dataclass(frozen=True, kw_only=True)
class Inline:
    """Images or tensors that came in the request itself.

    `instances` are as they came: `{"data": "<base64>"}`, nested lists of numbers, or the bytes of an image. `identity`
    has the parts from which a result's id is made; None where nothing identifies the request. `refusal` is why it can
    never be classified, where that is known already: who waits for its result is told all the same.
    """

    instances: tuple[Any, ...]
    refusal: Permanent | None = None
    trace_id: str | None = None
    cloudevent: CloudEvent | None = None
    identity: tuple[str, ...] | None = None
    caller: Caller = NOBODY


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """A request with nothing to do: no body, no records, a test event, our own reply. `reason` is one word."""

    reason: str


Request = Notification | Inline | Nothing


def parse(body: bytes, headers: Mapping[str, str], settings: Settings) -> Request:
    """Read a request of the V1 path; `headers` have lower-case names.

    Raises:
        MalformedBody: not JSON, or JSON of another type than it can be.
        BadEvent: neither an event nor an inference request that we know.
        BadTraceId: a trace id in the payload, a header or an extension that is none.
    """
    if not body:
        return Nothing(reason="empty")
    attributes = cloud_events.binary_attributes(headers)
    payload = _payload(body, headers.get("content-type"))
    if cloud_events.is_structured(payload):
        unpacked, data = cloud_events.structured(payload)
        # Beside the event's own attributes: what a KafkaSource adds, Kafka's headers for instance.
        attributes |= unpacked
        if data in (None, "", b""):
            return Nothing(reason="empty")
        if isinstance(data, str | bytes):
            body = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
            data = _payload(body, attributes.get("datacontenttype"))
        payload = data
    cloudevent = cloud_events.cloudevent_of(attributes)
    if cloudevent and _is_own_reply(cloudevent, settings):
        return Nothing(reason="ownreply")
    trace_id = _trace_id_of(payload if isinstance(payload, dict) else {}, attributes, headers, settings.trace_key)
    caller = caller_of(headers, settings, attributes)
    if notifications.is_notification(payload):
        return _notification(notifications.read(payload, settings), trace_id, caller)
    instances, refusal = _instances(payload)
    return _inline(instances, body, refusal=refusal, trace_id=trace_id, cloudevent=cloudevent, caller=caller)


def inline_v2(
    instances: tuple[Any, ...],
    content: bytes,
    parameters: Mapping[str, object],
    headers: Mapping[str, str],
    settings: Settings,
    *,
    refusal: Permanent | None = None,
    may_be_event: bool = True,
) -> Inline:
    """The same value for a V2 request, whose trace key is one of `parameters`; gRPC metadata counts as headers.

    `content` is what the identity is hashed from: the bytes of the input tensor.

    Raises:
        BadEvent: it is a binary CloudEvent without id, source or type.
        BadTraceId: a trace id in the parameters or a header that is none.
    """
    if not may_be_event:
        headers = {name: value for name, value in headers.items() if name != "ce-specversion"}
    attributes = cloud_events.binary_attributes(headers)
    cloudevent = cloud_events.cloudevent_of(attributes)
    trace_id = _trace_id_of(parameters, attributes, headers, settings.trace_key)
    caller = caller_of(headers, settings, attributes)
    return _inline(instances, content, refusal=refusal, trace_id=trace_id, cloudevent=cloudevent, caller=caller)


def trace_id_in(metadata: Mapping[str, str], settings: Settings) -> str | None:
    """The trace id in an object's user metadata; None where there is none.

    Raises:
        BadTraceId: there is one, but it is none.
    """
    value = metadata.get(settings.trace_key.lower())
    return _checked(value, "the object's metadata") if value else None


def check_trace_id(trace_id: str) -> str:
    """The trace id that somebody is about to send or to look for.

    Raises:
        BadTraceId: it is none.
    """
    return _checked(trace_id, "the trace id")


def caller_of(headers: Mapping[str, str], settings: Settings, attributes: Mapping[str, object] | None = None) -> Caller:
    """Who asked, by the request's headers, else by the settings that KServe and the manifests give.

    `attributes`: of the CloudEvent that the request is.
    """
    return Caller(
        trace=trace_context(headers) or _trace_of(attributes or {}),
        request_host=headers.get("host"),
        isvc_name=headers.get("kserve-isvc-name") or settings.inference_service_name,
        isvc_namespace=headers.get("kserve-isvc-namespace") or settings.pod_namespace,
    )


def _trace_of(attributes: Mapping[str, object]) -> TraceContext:
    """The distributed tracing extension of CloudEvents 1.0, else the headers of the Kafka record that it was."""
    record = {name: attributes.get("kafkaheader" + name) for name in ("traceparent", "tracestate")}
    return trace_context(attributes) or trace_context(record)


def _payload(body: bytes, content_type: object) -> Any:
    """An image as its bytes, everything else as the JSON that it is."""
    if body.startswith(_IMAGES) or str(content_type).lower().startswith("image/"):
        return body
    try:
        payload = orjson.loads(body.removeprefix(codecs.BOM_UTF8))
        # Some encode JSON twice.
        return orjson.loads(payload) if isinstance(payload, str) else payload
    except orjson.JSONDecodeError as exc:
        raise MalformedBody(f"the body is not JSON: {exc}") from exc


def _instances(payload: Any) -> tuple[tuple[Any, ...], Permanent | None]:
    """What there is to be classified; with nothing, why not."""
    match payload:
        case bytes():
            return (payload,), None
        case {"instances": [_, *_] as instances}:
            return tuple(instances), None
        case {"instances": _}:
            return (), BadEvent("instances is not a list of at least one instance")
        case dict():
            raise BadEvent(
                "the body is no notification, has no instances, as an inference request has, and is no image"
            )
    raise MalformedBody(f"the body is a JSON {_json_type(payload)}, not an object")


def _is_own_reply(cloudevent: CloudEvent, settings: Settings) -> bool:
    own_type = cloudevent.type in (settings.event_type, settings.rejected_type)
    return own_type and cloudevent.source == settings.event_source


def _trace_id_of(
    payload: Mapping[str, object], attributes: Mapping[str, object], headers: Mapping[str, str], key: str
) -> str | None:
    """The first found of: the payload's key; a CloudEvent extension, an HTTP header, a Kafka header of that name."""
    header = key.lower()
    # CloudEvents allow letters and digits only in a name, so Knative and SDKs leave the hyphens out; curl users do not.
    extension = "".join(letter for letter in header if letter.isalnum())
    found = (
        (payload.get(key), f"the payload's {key}"),
        (attributes.get(extension), f"the extension {extension}"),
        (attributes.get(header), f"the extension {header}"),
        (headers.get(header), f"the header {header}"),
        (attributes.get("kafkaheader" + extension), f"the Kafka header {header}"),
        (attributes.get("kafkaheader" + header), f"the Kafka header {header}"),
    )
    return next((_checked(value, where) for value, where in found if value not in (None, "")), None)


def _checked(value: object, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise BadTraceId(f"{where} is neither a string nor an integer")
    if len(value) > MAX_TRACE_ID:
        raise BadTraceId(f"{where} is longer than {MAX_TRACE_ID} characters")
    if has_control_characters(value):
        raise BadTraceId(f"{where} has control characters")
    return value


def _notification(records: Records, trace_id: str | None, caller: Caller) -> Notification | Nothing:
    if records.are_empty:
        return Nothing(reason="empty")
    if records.tests and not (records.objects or records.refused):
        return Nothing(reason="testevent")
    return Notification(
        objects=records.objects, refused=records.refused, ignored=records.ignored, trace_id=trace_id, caller=caller
    )


def _inline(
    instances: tuple[Any, ...],
    content: bytes,
    *,
    refusal: Permanent | None,
    trace_id: str | None,
    cloudevent: CloudEvent | None,
    caller: Caller,
) -> Inline:
    identity: tuple[str, ...] | None = None
    if cloudevent:
        if not trace_id:
            # Any id is legal for a CloudEvent; one that is no trace id leaves it to be derived.
            with contextlib.suppress(BadTraceId):
                trace_id = _checked(cloudevent.id, "the CloudEvent's id")
        identity = (cloudevent.source, cloudevent.id, trace_id or "")
    elif trace_id:
        identity = (trace_id, hashlib.sha256(content).hexdigest())
    return Inline(
        instances=instances,
        refusal=refusal,
        trace_id=trace_id,
        cloudevent=cloudevent,
        identity=identity,
        caller=caller,
    )


def _json_type(value: object) -> str:
    names: dict[type, str] = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
