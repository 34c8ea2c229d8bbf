"""What one instance of an inline request holds, as senders write it: an image in base64, its bytes, or a tensor. Pure.

Formats: TensorFlow Serving's `{"b64": ...}`, also under a name; this project's own `{"data": ...}`; a data URL (RFC
2397); base64 of both alphabets (RFC 4648, sections 4 and 5), with the line breaks of MIME and without its padding.
"""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import unquote_to_bytes

from mnist_pipeline.pipeline.errors import BadImage

_BLANKS = b" \t\r\n\f\v"
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]*|[A-Za-z0-9_-]*)={0,2}")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def content_of(instance: Any) -> Any:
    """What the instance holds: text or bytes where it is an image, else what should be a tensor.

    It may be under `data`; an image under `b64` too, also in an object inside the instance.
    """
    if not isinstance(instance, dict):
        return instance
    if "data" in instance and not isinstance(instance["data"], dict):
        return instance["data"]
    nested = [value for value in instance.values() if isinstance(value, dict) and "b64" in value]
    image = instance.get("b64", nested[0]["b64"] if len(nested) == 1 else None)
    return image if isinstance(image, str | bytes) else None


def is_image(instance: Any) -> bool:
    """Whether the instance is an image, and no tensor."""
    return isinstance(content_of(instance), str | bytes)


def image_in(text: str) -> bytes:
    """The bytes of an image from base64 as people write it: the file alone, or a data URL of it.

    Raises:
        BadImage: it is no base64.
    """
    text = text.strip()
    try:
        if text[:5].lower() == "data:":
            kind, _, data = text.partition(",")
            if not kind.lower().endswith(";base64"):
                raise BadImage("an instance's data is a data URL without base64")
            encoded = unquote_to_bytes(data)
        else:
            encoded = text.encode("ascii")
    except UnicodeError as exc:
        raise BadImage("an instance's data is not base64") from exc
    encoded = encoded.translate(None, _BLANKS)
    if not _BASE64.fullmatch(encoded):
        raise BadImage("an instance's data is not base64")
    digits = encoded.rstrip(b"=").translate(_URL_SAFE)
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4))
    except ValueError as exc:  # one digit too many
        raise BadImage("an instance's data is not base64") from exc
