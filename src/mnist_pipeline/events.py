"""A request comes in: payload and headers become one frozen value, or a clear refusal. Pure: nothing is asked or
fetched.

Formats: notifications of MinIO, AWS S3 ("Event message structure", version 2.x) and Ceph RGW; inference requests of
KServe's V1 protocol; both as plain JSON, and as CloudEvents 1.0 in binary and structured HTTP mode.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_plus

import orjson

from mnist_pipeline.errors import BadEvent, BadKey, BadTraceId, MalformedBody, NotAllowed, Permanent
from mnist_pipeline.ports import MAX_KEY_BYTES
from mnist_pipeline.settings import DIGITS, Settings, has_control_characters

MAX_TRACE_ID = 256

# PutTagging, DeleteTagging, PutRetention and PutLegalHold match `s3:ObjectCreated:*` too, with the old ETag.
_CREATED = frozenset("ObjectCreated:" + how for how in ("Put", "Post", "Copy", "CompleteMultipartUpload"))


@dataclass(frozen=True, kw_only=True)
class Caller:
    """What of a request's headers travels on to its result; None is left out there."""

    request_host: str | None = None
    isvc_name: str | None = None
    isvc_namespace: str | None = None


NOBODY = Caller()
"""A caller of whom nothing is known."""


@dataclass(frozen=True, kw_only=True)
class CloudEvent:
    """The context attributes of a CloudEvent that matter here."""

    id: str
    source: str
    type: str


@dataclass(frozen=True, kw_only=True)
class ObjectRef:
    """An object as a notification names it: the likelier reading of its key, the version where it names one (`"null"`
    too), its ETag without quotes.

    Stores differ in whether they escape a key: `other_key` is the other way to read it, where that gives another name.
    """

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    other_key: str | None = None


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

    `instances` are as they came: `{"data": "<base64>"}`, or nested lists of numbers. `identity` has the parts from
    which a result's id is made; None where nothing identifies the request. `refusal` is why it can never be classified,
    where that is known already: who waits for its result is told all the same.
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
        MalformedBody: not JSON, or JSON that is no object.
        BadEvent: neither an event nor an inference request that we know.
        BadTraceId: a trace id in the payload, a header or an extension that is none.
    """
    if not body:
        return Nothing(reason="empty")
    payload, attributes = _json_object(body), _attributes_of(headers)
    if "specversion" in payload and not payload.keys() & {"Records", "instances"}:
        # Beside the event's own attributes: what a KafkaSource adds, Kafka's headers for instance.
        unpacked, data = _unpacked(payload)
        attributes |= unpacked
        if data is None:
            return Nothing(reason="empty")
        payload = data
    cloudevent = _cloudevent_of(attributes)
    if cloudevent and _is_own_reply(cloudevent, settings):
        return Nothing(reason="ownreply")
    if payload.get("Event") == "s3:TestEvent":
        return Nothing(reason="testevent")
    trace_id = _trace_id_of(payload, attributes, headers, settings.trace_key)
    caller = caller_of(headers, settings)
    if "Records" in payload:
        return _notification(payload["Records"], trace_id, caller, settings)
    if "instances" in payload:
        instances, refusal = payload["instances"], None
        if not isinstance(instances, list) or not instances:
            instances, refusal = [], BadEvent("instances is not a list of at least one instance")
        return _inline(tuple(instances), body, refusal=refusal, trace_id=trace_id, cloudevent=cloudevent, caller=caller)
    raise BadEvent("the body has neither Records, as a notification has, nor instances, as an inference request has")


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
    attributes = _attributes_of(headers)
    cloudevent = _cloudevent_of(attributes) if may_be_event else None
    trace_id = _trace_id_of(parameters, attributes, headers, settings.trace_key)
    caller = caller_of(headers, settings)
    return _inline(instances, content, refusal=refusal, trace_id=trace_id, cloudevent=cloudevent, caller=caller)


def trace_id_in(metadata: Mapping[str, str], settings: Settings) -> str | None:
    """The trace id in an object's user metadata; None where there is none.

    Raises:
        BadTraceId: there is one, but it is none.
    """
    value = metadata.get(settings.trace_key.lower())
    return _checked(value, "the object's metadata") if value else None


def caller_of(headers: Mapping[str, str], settings: Settings) -> Caller:
    """Who asked, by the request's headers, else by the settings that KServe and the manifests give."""
    return Caller(
        request_host=headers.get("host"),
        isvc_name=headers.get("kserve-isvc-name") or settings.inference_service_name,
        isvc_namespace=headers.get("kserve-isvc-namespace") or settings.pod_namespace,
    )


def is_output(bucket: str, key: str, settings: Settings) -> bool:
    """Whether an object of this name is one that we filed or rejected: its event must not be handled again."""
    if bucket == settings.rejected_bucket:
        return True
    return any(bucket == filed and key.startswith(prefix) for filed, prefix in map(settings.destination_of, DIGITS))


def check_source(bucket: str, key: str, settings: Settings) -> None:
    """See that an object of this name may be touched.

    Raises:
        NotAllowed: its bucket is not one of `SOURCE_BUCKETS`, or it ends in none of `SOURCE_SUFFIXES`.
        BadKey: no object can have this key.
    """
    if bucket not in settings.source_buckets:
        raise NotAllowed(f"bucket {bucket!r:.80} is not one of SOURCE_BUCKETS")
    if not key.endswith(settings.source_suffixes):
        raise NotAllowed(f"key {key!r:.200} ends in none of SOURCE_SUFFIXES")
    _check_key(key)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise MalformedBody(f"the body is not JSON: {exc}") from exc
    if not isinstance(payload, dict):
        raise MalformedBody(f"the body is a JSON {_json_type(payload)}, not an object")
    return payload


def _is_own_reply(cloudevent: CloudEvent, settings: Settings) -> bool:
    own_type = cloudevent.type in (settings.event_type, settings.rejected_type)
    return own_type and cloudevent.source == settings.event_source


def _attributes_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The attributes of a binary CloudEvent (CloudEvents HTTP binding 1.0.2, section 3.1), names without `ce-`."""
    return {name[3:]: _percent_decoded(value) for name, value in headers.items() if name.startswith("ce-")}


def _percent_decoded(value: str) -> str:
    """As section 3.1.3.2 has it; a value that cannot have been encoded so is left as it came."""
    if "%" not in value:
        return value
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        return value


def _unpacked(envelope: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Attributes and data of a structured CloudEvent (CloudEvents JSON format 1.0); None where it has no data."""
    data = envelope.get("data")
    if data is not None and not isinstance(data, dict):
        raise MalformedBody(f"the event's data is a JSON {_json_type(data)}, not an object")
    if "data_base64" in envelope:
        raise BadEvent("the event's data is base64, not JSON")
    attributes = {name: value for name, value in envelope.items() if name != "data"}
    return attributes, data


def _cloudevent_of(attributes: Mapping[str, Any]) -> CloudEvent | None:
    if "specversion" not in attributes:
        return None
    values = {name: attributes.get(name) for name in ("id", "source", "type")}
    for name, value in values.items():
        if not isinstance(value, str) or not value:
            raise BadEvent(f"the CloudEvent has no {name}")
    return CloudEvent(**values)  # type: ignore[arg-type]  # the loop above has seen that they are strings


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


def _notification(records: object, trace_id: str | None, caller: Caller, settings: Settings) -> Notification | Nothing:
    if not isinstance(records, list):
        raise BadEvent(f"Records is a JSON {_json_type(records)}, not a list")
    if not records:
        return Nothing(reason="empty")
    objects: list[ObjectRef] = []
    refused: list[Permanent] = []
    for record in records:
        try:
            objects += _created(record, settings)
        except Permanent as refusal:
            refused.append(refusal)
    return Notification(
        objects=tuple(objects),
        refused=tuple(refused),
        ignored=len(records) - len(objects) - len(refused),
        trace_id=trace_id,
        caller=caller,
    )


def _created(record: Any, settings: Settings) -> Iterator[ObjectRef]:
    """The object that this record says was created, if it does; the endpoint that some records name is never used."""
    match record:
        case {"eventName": str(name), "s3": {"bucket": {"name": str(bucket)}, "object": {"key": str(raw_key), **more}}}:
            version_id = more.get("versionId")
        case _:
            raise BadEvent("a record lacks its eventName, s3.bucket.name or s3.object.key")
    if name.removeprefix("s3:") not in _CREATED:
        return
    # Ceph RGW writes keys as they are, MinIO and AWS query-escaped.
    key = raw_key if record.get("eventSource") == "ceph:s3" else _decoded(raw_key)
    if not is_output(bucket, key, settings):
        check_source(bucket, key, settings)
        yield ObjectRef(bucket=bucket, key=key, version_id=str(version_id) if version_id else None)


def _decoded(key: str) -> str:
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError as exc:
        raise BadKey(f"key {key!r:.200} is not UTF-8 once decoded") from exc


def _check_key(key: str) -> None:
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise BadKey(f"the key is longer than {MAX_KEY_BYTES} bytes")
    if has_control_characters(key):
        raise BadKey(f"key {key!r:.200} has control characters")
    if any(segment in (".", "..") for segment in key.split("/")):
        raise BadKey(f"key {key!r:.200} has a segment of dots")


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
