"""CloudEvents 1.0 as they come over HTTP, read by the CloudEvents SDK.

What its version 1 leaves to us: attributes percent-encoded as the HTTP binding has them, base64 that is none (it reads
it as no data), which required attribute is missing (it makes up an id), and a structured event that is known by its
shape alone.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from cloudevents.exceptions import GenericException
from cloudevents.http import from_dict, from_http

from mnist_pipeline.pipeline.errors import BadEvent, MalformedBody

_REQUIRED = ("specversion", "id", "source", "type")


@dataclass(frozen=True, kw_only=True)
class CloudEvent:
    """The context attributes of a CloudEvent that matter here."""

    id: str
    source: str
    type: str


def binary_attributes(headers: Mapping[str, str]) -> dict[str, Any]:
    """The attributes in `ce-` headers (HTTP binding 1.0.2, section 3.1), decoded; names as they are without `ce-`.

    Without a specversion it is no event, but its headers may still be somebody's extensions.

    Raises:
        BadEvent: an event without id, source or type, or of a version that is not known.
    """
    given: dict[str, Any] = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    if "specversion" in given:
        _check_required(given)
        # Of the headers only these: by a content type the SDK would take it for structured, and it cannot read an
        # attribute that is called as its own member. Others it gives back as they are.
        required = {f"ce-{name}": given[name] for name in _REQUIRED}
        try:
            given |= from_http(required, b"", data_unmarshaller=str).get_attributes()
        except GenericException as exc:
            raise _unreadable(given) from exc
    return {name: _percent_decoded(value) for name, value in given.items()}


def is_structured(payload: object) -> bool:
    """Whether this JSON is an event in structured mode, whatever its content type says; a payload's own member of that
    name does not make it one.
    """
    return isinstance(payload, dict) and "specversion" in payload and not payload.keys() & {"Records", "instances"}


def structured(envelope: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Attributes and data of a structured event (JSON format 1.0.2); data that came as base64 is bytes, no data None.

    Raises:
        BadEvent: it lacks id, source or type, or has a version that is not known.
        MalformedBody: its `data_base64` is no base64.
    """
    _check_required(envelope)
    try:
        event = from_dict(envelope)
    except GenericException as exc:
        raise _unreadable(envelope) from exc
    attributes = dict(event.get_attributes())
    encoded, data = attributes.pop("data_base64", None), event.get_data()
    if encoded in (None, ""):
        return attributes, data
    if data is not None or not isinstance(encoded, str):
        raise MalformedBody("the event has data beside its data_base64, or data_base64 that is no text")
    try:
        # In lines, as MIME has it, it is base64 too.
        return attributes, base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError as exc:
        raise MalformedBody("the event's data_base64 is no base64") from exc


def event_headers(given: Iterable[tuple[str, bytes]]) -> dict[str, str] | None:
    """The headers by which the event in a Kafka record comes over HTTP (Kafka binding 1.0.2, sections 3.2 and 3.3);
    None where they are of none.
    """
    headers = {name.lower(): value.decode("utf-8", "replace") for name, value in given}
    content_type = headers.get("content-type", "")
    if content_type.startswith("application/cloudevents+json"):
        return {"content-type": content_type}
    if "ce_specversion" not in headers:
        return None
    attributes = {
        name.replace("ce_", "ce-", 1): percent_encoded(value)
        for name, value in headers.items()
        if name.startswith("ce_")
    }
    return attributes | ({"content-type": content_type} if content_type else {})


def percent_encoded(value: str) -> str:
    """An attribute's value as a header (HTTP binding 1.0.2, section 3.1.3.2)."""
    # Space, double quote, percent and all outside printable ASCII are encoded.
    printable = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
    return quote(value, safe=printable)


def cloudevent_of(attributes: Mapping[str, Any]) -> CloudEvent | None:
    """The event that these attributes are of; None where they are of none."""
    if "specversion" not in attributes:
        return None
    return CloudEvent(**{name: attributes[name] for name in ("id", "source", "type")})


def _check_required(attributes: Mapping[str, Any]) -> None:
    for name in _REQUIRED:
        value = attributes.get(name)
        if not isinstance(value, str) or not value:
            raise BadEvent(f"the CloudEvent has no {name}")


def _unreadable(attributes: Mapping[str, Any]) -> BadEvent:
    return BadEvent(f"CloudEvents of version {attributes['specversion']!a:.20} are not known")


def _percent_decoded(value: Any) -> Any:
    """As section 3.1.3.2 has it; a value that cannot have been encoded so is left as it came."""
    if "%" not in value:
        return value
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        return value
