"""An object's headers, as S3 has them, become an `ObjectVersion`, and the other way round; pure.

Metadata values that are not printable ASCII travel as RFC 2047 encoded words, as AWS and MinIO document it, and are
decoded when fetched; values that another client sent as raw UTF-8 are understood too. They are then a third longer,
which can be more than the 2 KB that S3 allows: MinIO counts names, with their prefix, and values as they are sent
(`isHTTPHeaderSizeTooLarge` in its cmd/generic-handlers.go), AWS names without it.
"""

from __future__ import annotations

import base64
import email.errors
import email.header
from collections.abc import Mapping

from mnist_pipeline.pipeline.errors import StoreUnavailable
from mnist_pipeline.pipeline.ports import CONTENT_HEADERS, ObjectVersion

_METADATA_PREFIX = "x-amz-meta-"
_DEFAULT_CONTENT_TYPE = "application/octet-stream"
# Of a content type and each content header, as S3 Batch Operations have it, because a PUT has no limit of its own.
# Longer ones could be uploaded, without the headers that we send beside them, and not be sent again: all of a request's
# are 8 KB at most. https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_S3ObjectMetadata.html
_CONTENT_HEADER_LENGTH = 1024
# Names how the upload travelled, not what it is; a store may take it for how ours travels.
_TRANSFER_CODING = "aws-chunked"


def version_of(bucket: str, key: str, headers: Mapping[str, str]) -> ObjectVersion:
    """The version that these headers describe, in an answer to GET or HEAD."""
    content_type = headers.get("content-type", "")
    content_headers = {name: headers.get(name, "") for name in CONTENT_HEADERS}
    codings = content_headers["content-encoding"].split(",")
    kept = [coding for coding in codings if coding.strip().lower() != _TRANSFER_CODING]
    content_headers["content-encoding"] = ",".join(kept).strip()
    return ObjectVersion(
        bucket=bucket,
        key=key,
        version_id=headers.get("x-amz-version-id"),
        etag=etag_of(headers),
        last_modified=headers.get("last-modified", ""),
        # What could not be signed and sent again, when the object is filed, is replaced or left out.
        content_type=content_type if _can_be_sent(content_type) else _DEFAULT_CONTENT_TYPE,
        content_headers={name: value for name, value in content_headers.items() if _can_be_sent(value)},
        metadata={
            name.lower()[len(_METADATA_PREFIX) :]: decoded(value)
            for name, value in headers.items()
            if name.lower().startswith(_METADATA_PREFIX)
        },
    )


def etag_of(headers: Mapping[str, str]) -> str:
    """The ETag, without its quotes."""
    etag = headers.get("etag", "").strip('"')
    if not etag:
        raise StoreUnavailable("the store sent an object without an ETag; is it S3? check MINIO_ENDPOINT")
    return etag


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """User metadata as it is sent."""
    return {_METADATA_PREFIX + name: encoded(value) for name, value in metadata.items()}


def _can_be_sent(content_header: str) -> bool:
    return 0 < len(content_header) <= _CONTENT_HEADER_LENGTH and _is_plain(content_header)


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable()


def encoded(value: str) -> str:
    """The value as it can stand in a header: itself, or an encoded word (RFC 2047, section 4.1)."""
    if _is_plain(value) and "=?" not in value:
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


def decoded(value: str) -> str:
    """The text of a header's value, which was read as UTF-8, and what is none as lone surrogates."""
    if not value.isascii():
        raw = value.encode("utf-8", "surrogateescape")
        try:
            value = raw.decode()
        except UnicodeDecodeError:
            return raw.decode("latin-1")
    if "=?" not in value:
        return value
    try:
        text = str(email.header.make_header(email.header.decode_header(value)))
        text.encode()  # UTF-7, for one, can say a lone surrogate, which could not be sent again
    except (email.errors.MessageError, LookupError, ValueError):
        return value
    return text
