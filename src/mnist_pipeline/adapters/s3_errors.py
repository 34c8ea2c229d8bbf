"""What the errors of a store mean to the pipeline, and what mends them."""

from __future__ import annotations

import asyncio
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from minio.error import MinioAdminException, MinioException, S3Error

from mnist_pipeline.adapters.http1 import BrokenConnection
from mnist_pipeline.adapters.http1_response import BadResponse
from mnist_pipeline.pipeline.errors import (
    BadKey,
    MetadataTooLarge,
    ObjectGone,
    ObjectRetained,
    ObjectTooLarge,
    PipelineError,
    StoreUnavailable,
)

# What an S3 error's code means to each method; every other code is StoreUnavailable.
_BAD_KEY: dict[str, type[PipelineError]] = {
    "XMinioInvalidObjectName": BadKey,
    "InvalidObjectName": BadKey,
    "KeyTooLongError": BadKey,
    "KeyTooLong": BadKey,
    "InvalidURI": BadKey,
}
_GONE: dict[str, type[PipelineError]] = {
    "NoSuchKey": ObjectGone,
    "NoSuchVersion": ObjectGone,
    "MethodNotAllowed": ObjectGone,  # the version is a delete marker
}
_TOO_MUCH: dict[str, type[PipelineError]] = {
    "MetadataTooLarge": MetadataTooLarge,
    "RequestHeaderSectionTooLarge": MetadataTooLarge,  # AWS's answer where the tags are too many bytes
}
GET_ANSWERS = {**_GONE, **_BAD_KEY, "InvalidArgument": BadKey}
PUT_ANSWERS = {**_BAD_KEY, **_TOO_MUCH}
COPY_ANSWERS: dict[str, type[PipelineError]] = {
    **_GONE,
    **_TOO_MUCH,
    **dict.fromkeys(_BAD_KEY, ObjectTooLarge),
    "PreconditionFailed": ObjectGone,
    "EntityTooLarge": ObjectTooLarge,
    "InvalidRequest": ObjectTooLarge,  # AWS's answer to more than 5 GiB
}
REMOVED = ("NoSuchKey", "NoSuchVersion")
"""Codes of a DELETE that had nothing to do."""

DELETE_ANSWERS: dict[str, type[PipelineError]] = dict.fromkeys(
    (
        "AccessDenied",  # a policy without delete, MFA delete; AWS's and Ceph's answer to a lock
        "AllAccessDisabled",
        "InvalidRequest",  # MinIO's answer to a lock
        "ObjectLockedByBucketPolicy",  # Cloudflare R2
        "ObjectUnderActiveHold",  # Google, as the next one
        "RetentionPolicyNotMet",
        "FileImmutable",  # Alibaba
        "InvalidArgument",
        "MethodNotAllowed",
        "NotImplemented",
    ),
    ObjectRetained,
)
TAGGING_ANSWERS = {**_GONE, **_BAD_KEY}
NO_ANSWERS: dict[str, type[PipelineError]] = {}

_CREDENTIALS = "check MINIO_ACCESS_KEY and MINIO_SECRET_KEY, and what their user may do"
_ENDPOINT = "check MINIO_ENDPOINT"
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_HOST = (62, 64)
_SESSION = "check AWS_SESSION_TOKEN, or the role that it is of"
_HINTS = {
    "AccessDenied": _CREDENTIALS,
    "InvalidAccessKeyId": "check MINIO_ACCESS_KEY",
    "SignatureDoesNotMatch": "check MINIO_SECRET_KEY",
    **dict.fromkeys(("ExpiredToken", "InvalidToken", "InvalidTokenId"), _SESSION),
    "AuthorizationHeaderMalformed": "check MINIO_REGION",
    "PermanentRedirect": "check MINIO_ENDPOINT and MINIO_REGION",
    "RequestTimeTooSkewed": "check the clocks",
}

# What minio-py, our HTTP client and ElementTree raise. ValueError: names and answers that cannot be read; LookupError:
# answers in an encoding that Python does not have; OSError: files, and connections that end within an answer.
_FOREIGN_ERRORS = (
    MinioException,
    MinioAdminException,
    BrokenConnection,
    BadResponse,
    asyncio.TimeoutError,
    TimeoutError,
    OSError,
    ValueError,
    LookupError,
    ET.ParseError,
)


def place(bucket: str, key: str | None) -> str:
    """A bucket or an object, as it stands in a message."""
    return f"{bucket!r:.80}" if key is None else f"{bucket!r:.80}/{key!r:.200}"


@contextmanager
def translated(action: str, bucket: str, key: str | None, answers: Mapping[str, type[PipelineError]]) -> Iterator[None]:
    """Let only our own errors out; `answers` says what the codes of S3 errors mean here."""
    try:
        yield
    except S3Error as exc:
        raise refusal(exc.code or "", action, bucket, key, answers) from exc
    except _FOREIGN_ERRORS as exc:
        raise _failure(exc, f"{action} {place(bucket, key)}") from exc


def refusal(
    code: str, action: str, bucket: str, key: str | None, answers: Mapping[str, type[PipelineError]]
) -> PipelineError:
    """What the code of an S3 error means, by `answers`."""
    action = f"{action} {place(bucket, key)}"
    if kind := answers.get(code):
        return kind(f"{action}: the store answered {code!r:.80}")
    if code == "NoSuchBucket":
        return StoreUnavailable(f"{action}: there is no bucket {bucket!r:.80}")
    hint = _HINTS.get(code)
    return StoreUnavailable(f"{action}: the store answered {code!r:.80}" + (f"; {hint}" if hint else ""))


def _failure(exc: Exception, action: str) -> PipelineError:
    """What happened below S3; the text of foreign errors is left out, it can hold anything that the store has sent."""
    below = exc.__cause__ if isinstance(exc, BrokenConnection) else exc
    kind = type(below).__name__
    if isinstance(below, ssl.SSLCertVerificationError):
        hint = _ENDPOINT if below.verify_code in _OTHER_HOST else "check MINIO_CA_CERT"
        return StoreUnavailable(f"{action}: the store's certificate is not trusted ({below.verify_message}); {hint}")
    if isinstance(below, ssl.SSLError):
        return StoreUnavailable(f"{action}: the store speaks no TLS there; {_ENDPOINT}, S3_USE_HTTPS")
    if isinstance(below, (asyncio.TimeoutError, OSError)):
        return StoreUnavailable(f"{action}: no answer from the store ({kind}); {_ENDPOINT}")
    return StoreUnavailable(f"{action}: the store's answer makes no sense ({kind}); {_ENDPOINT}")
