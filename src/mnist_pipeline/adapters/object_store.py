"""`MinioObjectStore`: the port `ObjectStore` on minio-py, for MinIO and whatever else speaks S3.

Everything goes through one lower-level call of minio-py, `Minio._execute`, which signs, sends and parses errors. Its
public methods cannot send `If-None-Match` with a PUT, send a HEAD before each copy, and list a thousand keys at least.

Metadata values that are not printable ASCII travel as RFC 2047 encoded words, as AWS and MinIO document it, and are
decoded when fetched; values that another client sent as raw UTF-8 are understood too. They are then a third longer,
which can be more than the 2 KB that S3 allows: MinIO counts names, with their prefix, and values as they are sent
(`isHTTPHeaderSizeTooLarge` in its cmd/generic-handlers.go), AWS names without it.
"""

from __future__ import annotations

import base64
import email.errors
import email.header
import hashlib
import http
import http.client
import io
import logging
import ssl
import threading
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import urllib3
from minio import Minio
from minio.error import MinioAdminException, MinioException, S3Error
from minio.helpers import check_bucket_name, check_object_name
from minio.time import from_http_header, from_iso8601utc
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError
from urllib3.response import BaseHTTPResponse

from mnist_pipeline.pipeline.errors import (
    BadKey,
    MetadataTooLarge,
    ObjectGone,
    ObjectRetained,
    ObjectTooLarge,
    PipelineError,
    StoreUnavailable,
)
from mnist_pipeline.pipeline.ports import (
    CONTENT_HEADERS,
    MAX_KEY_BYTES,
    Deadline,
    ListedObject,
    ObjectVersion,
    StoredObject,
)
from mnist_pipeline.pipeline.settings import Minio as MinioSettings

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 3.0
_READ_SECONDS = 10.0
_CHUNK_BYTES = 64 * 1024
_KEYS_A_LISTING = 1000
_METADATA_PREFIX = "x-amz-meta-"
_DEFAULT_CONTENT_TYPE = "application/octet-stream"
# Of a content type and each content header, as S3 Batch Operations have it, because a PUT has no limit of its own.
# Longer ones could be uploaded, without the headers that we send beside them, and not be sent again: all of a request's
# are 8 KB at most. https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_S3ObjectMetadata.html
_CONTENT_HEADER_LENGTH = 1024
# Names how the upload travelled, not what it is; a store may take it for how ours travels.
_TRANSFER_CODING = "aws-chunked"

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
_GET_ANSWERS = {**_GONE, **_BAD_KEY, "InvalidArgument": BadKey}
_PUT_ANSWERS = {**_BAD_KEY, **_TOO_MUCH}
_COPY_ANSWERS: dict[str, type[PipelineError]] = {
    **_GONE,
    **_TOO_MUCH,
    **dict.fromkeys(_BAD_KEY, ObjectTooLarge),
    "PreconditionFailed": ObjectGone,
    "EntityTooLarge": ObjectTooLarge,
    "InvalidRequest": ObjectTooLarge,  # AWS's answer to more than 5 GiB
}
_DELETE_ANSWERS: dict[str, type[PipelineError]] = dict.fromkeys(
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
_TAGGING_ANSWERS = {**_GONE, **_BAD_KEY}
_NO_ANSWERS: dict[str, type[PipelineError]] = {}

_CREDENTIALS = "check MINIO_ACCESS_KEY and MINIO_SECRET_KEY, and what their user may do"
_ENDPOINT = "check MINIO_ENDPOINT"
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_HOST = (62, 64)
_HINTS = {
    "AccessDenied": _CREDENTIALS,
    "InvalidAccessKeyId": "check MINIO_ACCESS_KEY",
    "SignatureDoesNotMatch": "check MINIO_SECRET_KEY",
    "AuthorizationHeaderMalformed": "check MINIO_REGION",
    "RequestTimeTooSkewed": "check the clocks",
}

# What minio-py, and urllib3, http.client and ElementTree below it, raise. ValueError: minio-py decodes and parses
# answers without a guard; OSError: files and sockets.
_FOREIGN_ERRORS = (
    MinioException,
    MinioAdminException,
    HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
    ET.ParseError,
)


@dataclass(frozen=True, kw_only=True)
class _Patience:
    """How often one request may be sent, and how long each time may take."""

    deadline: Deadline
    attempts: int = 2
    connect_seconds: float = _CONNECT_SECONDS
    read_seconds: float = _READ_SECONDS


# minio-py has no arguments for these, so they pass around it, from _send to _Connections.
_patience: ContextVar[_Patience] = ContextVar("mnist_pipeline_minio_patience")


class _Connections(urllib3.PoolManager):
    """The connection pool; each request gets timeouts within its deadline, and retries of its own.

    Only a broken connection is tried again, never an answer. Redirects are not followed: they would carry a signature,
    or repeat a DELETE.
    """

    def urlopen(self, method: str, url: str, redirect: bool = False, **kw: Any) -> BaseHTTPResponse:  # type: ignore[override] # noqa: FBT001, FBT002 - urllib3's signature
        patience = _patience.get()
        share = patience.deadline.remaining() / patience.attempts
        again = patience.attempts - 1
        kw["timeout"] = urllib3.Timeout(
            connect=min(patience.connect_seconds, share), read=min(patience.read_seconds, share), total=share
        )
        kw["pool_timeout"] = share
        kw["retries"] = urllib3.Retry(
            total=again, connect=again, read=again, redirect=0, status=0, other=0, respect_retry_after_header=False
        )
        return super().urlopen(method, url, redirect, **kw)


class MinioObjectStore:
    """An S3-compatible store, by the port `ObjectStore`; made at the first call, once a process, and safe to share.

    It can be pickled at any time: the connections stay behind. A request waits 3 s for a connection and 10 s for an
    answer at most; a PUT and a copy, which may be large, up to the deadline. A body that trickles in can overstay the
    deadline by one read.

    Args:
        minio: where the store is, and who we are there; secrets appear in no message. Its `ca_cert`, where it has one,
            holds the only certificates that are trusted.
        connections: how many may be open at once; further threads wait for one.
    """

    def __init__(self, minio: MinioSettings, *, connections: int = 64) -> None:
        self._settings = minio
        self._connections = connections
        self._lock = threading.Lock()
        self._minio: Minio | None = None
        self._pool: _Connections | None = None
        self._unversioned_seen = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_minio": None, "_pool": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def get(self, bucket: str, key: str, version_id: str | None, *, limit: int, deadline: Deadline) -> StoredObject:
        """Fetch exactly this version, at most `limit` bytes of it, as stored: a content encoding is not undone.

        One round trip, one more where the object has tags, one more where the store calls the version invalid.
        """
        patience = _Patience(deadline=deadline)
        with _translated("GET", bucket, key, _GET_ANSWERS):
            try:
                response = self._send("GET", bucket, key, patience, version_id=version_id, stream=True)
            except S3Error as exc:
                if version_id is None or exc.code != "InvalidArgument":
                    raise
                log.info("the store calls version %.80r of %.80r/%.200r invalid", version_id, bucket, key)
                response = self._send("GET", bucket, key, patience, stream=True)
            try:
                data = _read(response, limit, deadline)
            finally:
                # Before release_conn, close() ends a connection whose body was not read to its end; else it is kept.
                response.close()
                response.release_conn()
            headers = response.headers
            version = _version(bucket, key, headers)
            if headers.get("x-amz-tagging-count", "0") != "0":
                version = replace(version, tags=self._tags(version, patience))
            return StoredObject(version=version, data=data)

    def put(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        content_type: str,
        content_headers: Mapping[str, str],
        metadata: Mapping[str, str],
        tags: Mapping[str, str],
        deadline: Deadline,
    ) -> bool:
        """Create the object with `If-None-Match: *`; False where the store answers 412.

        Sent again if the connection breaks; where the first one had arrived the answer is then False, and the bytes are
        the same.
        """
        headers = {
            "If-None-Match": "*",
            "Content-Type": content_type,
            **content_headers,
            **_metadata_headers(metadata),
        }
        if tags:
            headers["x-amz-tagging"] = urllib.parse.urlencode(tags, quote_via=urllib.parse.quote)
        with _translated("PUT", bucket, key, _PUT_ANSWERS):
            try:
                self._send("PUT", bucket, key, _until(deadline, attempts=2), headers=headers, body=data)
            except S3Error as exc:
                if exc.code != "PreconditionFailed":
                    raise
                return False
            return True

    def copy(
        self, version: ObjectVersion, bucket: str, key: str, *, metadata: Mapping[str, str], deadline: Deadline
    ) -> None:
        """Have the server copy exactly this version; one round trip, its tags are copied too."""
        source = urllib.parse.quote(f"/{version.bucket}/{version.key}")
        headers = {
            "x-amz-copy-source": f"{source}?versionId={urllib.parse.quote(version.version_id or 'null')}",
            "x-amz-copy-source-if-match": f'"{version.etag}"',
            "x-amz-metadata-directive": "REPLACE",
            "Content-Type": version.content_type,
            **version.content_headers,
            **_metadata_headers(metadata),
        }
        with _translated(f"copy of {_place(version.bucket, version.key)}", bucket, key, _COPY_ANSWERS):
            response = self._send("PUT", bucket, key, _until(deadline, attempts=1), headers=headers)
            # A copy can fail after its status line has been sent.
            # https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
            if ET.fromstring(response.data).tag.rpartition("}")[2] != "CopyObjectResult":  # noqa: S314 - as minio-py does
                raise S3Error.fromxml(response)

    def delete(self, version: ObjectVersion, *, deadline: Deadline) -> bool:
        """Remove exactly this version: one round trip, two where it has no version id of its own.

        Without one, the object's ETag and Last-Modified are compared before; an upload that arrives between the two
        requests would be removed unseen, so source buckets should have versions.
        """
        bucket, key, version_id = version.bucket, version.key, version.version_id or "null"
        with _translated("DELETE", bucket, key, _DELETE_ANSWERS):
            if version_id == "null":
                self._warn_once(bucket)
                try:
                    now = self._headers_of_null(bucket, key, _Patience(deadline=deadline))
                except S3Error as exc:
                    if exc.response.status in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.METHOD_NOT_ALLOWED):
                        return True
                    raise
                if (_etag(now), now.get("last-modified", "")) != (version.etag, version.last_modified):
                    return False
            try:
                # Sent once: a second one could hit what was uploaded after the first.
                self._send("DELETE", bucket, key, _Patience(deadline=deadline, attempts=1), version_id=version_id)
            except S3Error as exc:
                if exc.code not in ("NoSuchKey", "NoSuchVersion"):
                    raise
            return True

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str], *, deadline: Deadline) -> None:
        """Replace the tags of the current object (S3: PutObjectTagging); one round trip."""
        root = ET.Element("Tagging")
        tag_set = ET.SubElement(root, "TagSet")
        for name, value in tags.items():
            tag = ET.SubElement(tag_set, "Tag")
            ET.SubElement(tag, "Key").text = name
            ET.SubElement(tag, "Value").text = value
        body = ET.tostring(root)
        # AWS wants it: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectTagging.html
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        with _translated("tagging of", bucket, key, _TAGGING_ANSWERS):
            self._send(
                "PUT",
                bucket,
                key,
                _Patience(deadline=deadline),
                query={"tagging": ""},
                headers={"Content-MD5": md5},
                body=body,
            )

    def check(self, bucket: str, *, deadline: Deadline) -> None:
        """List at most one key of `bucket`, which takes the right to list it and no other."""
        # Both empty ones are sent because policies may ask for them.
        query = {"list-type": "2", "max-keys": "1", "prefix": "", "delimiter": ""}
        with _translated("list", bucket, None, _NO_ANSWERS):
            try:
                self._send("GET", bucket, None, _Patience(deadline=deadline), query=query)
            except S3Error as exc:
                if exc.code != "NoSuchBucket":
                    raise

    def list_after(self, bucket: str, key: str, *, deadline: Deadline) -> list[ListedObject]:
        """The next objects of a bucket after `key`, in the order of their names, at most a thousand; one round trip.

        Only those that are current are listed. None: `key` was the last one.

        Raises:
            StoreUnavailable, DeadlineExceeded: as the methods of the port.
        """
        # Names may have characters that XML cannot carry.
        query = {
            "list-type": "2",
            "prefix": "",
            "delimiter": "",
            "encoding-type": "url",
            "start-after": key,
            "max-keys": str(_KEYS_A_LISTING),
        }
        with _translated("list", bucket, None, _NO_ANSWERS):
            response = self._send("GET", bucket, None, _Patience(deadline=deadline), query=query)
            now = from_http_header(response.headers.get("date", ""))
            return [
                ListedObject(
                    key=urllib.parse.unquote_plus(found.findtext("{*}Key", "")),
                    # The store's clock is told in whole seconds, an object's time more exactly.
                    age_seconds=max((now - _time(found.findtext("{*}LastModified", ""))).total_seconds(), 0.0),
                )
                for found in ET.fromstring(response.data).iterfind("{*}Contents")  # noqa: S314 - as minio-py does
            ]

    def close(self) -> None:
        """Close the idle connections; those in use close when their request ends. A later call opens new ones."""
        with self._lock:
            pool, self._pool, self._minio = self._pool, None, None
        if pool is not None:
            pool.clear()

    def _headers_of_null(self, bucket: str, key: str, patience: _Patience) -> Mapping[str, str]:
        """What a HEAD of the version `null` answers."""
        try:
            return self._send("HEAD", bucket, key, patience, version_id="null").headers
        except S3Error as exc:
            if exc.response.status != http.HTTPStatus.FORBIDDEN:
                raise
        # A HEAD has no body to say whether it is our credentials that are refused, or this user for good.
        response = self._send("GET", bucket, key, patience, version_id="null", stream=True)
        response.close()
        response.release_conn()
        return response.headers

    def _tags(self, version: ObjectVersion, patience: _Patience) -> dict[str, str]:
        version_id = version.version_id or "null"
        response = self._send(
            "GET", version.bucket, version.key, patience, version_id=version_id, query={"tagging": ""}
        )
        tags = ET.fromstring(response.data).iterfind("{*}TagSet/{*}Tag")  # noqa: S314 - as minio-py does
        return {tag.findtext("{*}Key", ""): tag.findtext("{*}Value", "") for tag in tags}

    def _warn_once(self, bucket: str) -> None:
        if not self._unversioned_seen:
            self._unversioned_seen = True
            log.warning(
                "an object of bucket %.80r has no version id: an upload that replaces it in the very moment of its "
                "release can be lost; switch versioning on (mnist-pipeline setup does)",
                bucket,
            )

    def _send(
        self,
        method: str,
        bucket: str,
        key: str | None,
        patience: _Patience,
        *,
        version_id: str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        stream: bool = False,
    ) -> BaseHTTPResponse:
        """Send one signed request and return its 2xx answer, the body not yet read where `stream`."""
        _check_names(bucket, key)
        version = {} if version_id is None else {"versionId": version_id}
        token = _patience.set(patience)
        try:
            return self._client()._execute(  # noqa: SLF001 - the module's docstring tells why
                method,
                bucket,
                key,
                body=body,
                headers=dict(headers or {}),
                query_params={**version, **(query or {})},
                preload_content=not stream,
            )
        finally:
            _patience.reset(token)

    def _client(self) -> Minio:
        with self._lock:
            if self._minio is None:
                self._pool = self._connect()
                try:
                    self._minio = Minio(
                        self._settings.endpoint,
                        access_key=self._settings.access_key,
                        secret_key=self._settings.secret_key,
                        secure=self._settings.secure,
                        # Without a region minio-py asks for each bucket's, which its user may not be allowed to.
                        region=self._settings.region,
                        http_client=self._pool,
                    )
                except ValueError as exc:
                    raise StoreUnavailable(f"check MINIO_ENDPOINT and MINIO_REGION: {exc}") from exc
            return self._minio

    def _connect(self) -> _Connections:
        options: dict[str, Any] = {"num_pools": 1, "maxsize": self._connections, "block": True}
        if self._settings.secure:
            try:
                options["ssl_context"] = ssl.create_default_context(cafile=self._settings.ca_cert)
            except OSError as exc:
                raise StoreUnavailable(
                    f"MINIO_CA_CERT, {self._settings.ca_cert!r}, cannot be read: {exc.strerror}"
                ) from exc
        return _Connections(**options)


def _until(deadline: Deadline, *, attempts: int) -> _Patience:
    """Patience up to the deadline, for requests that move many bytes.

    The connect timeout is part of it, because urllib3 sends the whole of a body under it.
    """
    left = deadline.remaining()
    return _Patience(deadline=deadline, attempts=attempts, connect_seconds=left, read_seconds=left)


def _check_names(bucket: str, key: str | None) -> None:
    try:
        check_bucket_name(bucket)
    except ValueError as exc:
        raise StoreUnavailable(f"{bucket!r:.80} is no name of a bucket") from exc
    if key is None:
        return
    try:
        # `.` and `..` would be resolved on the way; a lone surrogate cannot be sent.
        check_object_name(key)
        length = len(key.encode())
    except ValueError as exc:
        raise BadKey(f"{key!r:.200} can be no object's key") from exc
    # MinIO refuses it only to who writes; to who reads it says that there is no such object.
    if length > MAX_KEY_BYTES:
        raise BadKey(f"{key!r:.200} is longer than {MAX_KEY_BYTES:,} bytes and can be no object's key")


def _read(response: BaseHTTPResponse, limit: int, deadline: Deadline) -> bytes | None:
    """The body, or None where it is longer than `limit`; of that at most one byte more is read.

    urllib3 raises where the body is shorter than its Content-Length.
    """
    if int(response.headers.get("content-length", "0")) > limit:
        return None
    # BytesIO gives away the buffer that it has filled: a list of chunks, once joined, would take twice the room.
    body = io.BytesIO()
    left = limit + 1
    # read1 returns what has arrived, so that a trickling body cannot hold the thread beyond the deadline.
    while chunk := response.read1(min(left, _CHUNK_BYTES), decode_content=False):
        deadline.remaining()
        body.write(chunk)
        left -= len(chunk)
        if not left:
            return None
    return body.getvalue()


def _version(bucket: str, key: str, headers: Mapping[str, str]) -> ObjectVersion:
    content_type = headers.get("content-type", "")
    content_headers = {name: headers.get(name, "") for name in CONTENT_HEADERS}
    codings = content_headers["content-encoding"].split(",")
    kept = [coding for coding in codings if coding.strip().lower() != _TRANSFER_CODING]
    content_headers["content-encoding"] = ",".join(kept).strip()
    return ObjectVersion(
        bucket=bucket,
        key=key,
        version_id=headers.get("x-amz-version-id"),
        etag=_etag(headers),
        last_modified=headers.get("last-modified", ""),
        # What could not be signed and sent again, when the object is filed, is replaced or left out.
        content_type=content_type if _can_be_sent(content_type) else _DEFAULT_CONTENT_TYPE,
        content_headers={name: value for name, value in content_headers.items() if _can_be_sent(value)},
        metadata={
            name.lower()[len(_METADATA_PREFIX) :]: _decoded(value)
            for name, value in headers.items()
            if name.lower().startswith(_METADATA_PREFIX)
        },
    )


def _time(text: str) -> datetime:
    time = from_iso8601utc(text)
    if time is None:
        raise ValueError(text)
    return time


def _etag(headers: Mapping[str, str]) -> str:
    etag = headers.get("etag", "").strip('"')
    if not etag:
        raise StoreUnavailable(f"the store sent an object without an ETag; is it S3? {_ENDPOINT}")
    return etag


def _metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    return {_METADATA_PREFIX + name: _encoded(value) for name, value in metadata.items()}


def _can_be_sent(content_header: str) -> bool:
    return 0 < len(content_header) <= _CONTENT_HEADER_LENGTH and _is_plain(content_header)


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable()


def _encoded(value: str) -> str:
    """The value as it can stand in a header: itself, or an encoded word (RFC 2047, section 4.1)."""
    if _is_plain(value) and "=?" not in value:
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


def _decoded(value: str) -> str:
    """The text of a header's value, which http.client has read as Latin-1."""
    try:
        value = value.encode("latin-1").decode()
    except UnicodeError:
        return value
    if "=?" not in value:
        return value
    try:
        text = str(email.header.make_header(email.header.decode_header(value)))
        text.encode()  # UTF-7, for one, can say a lone surrogate, which could not be sent again
    except (email.errors.MessageError, LookupError, ValueError):
        return value
    return text


def _place(bucket: str, key: str | None) -> str:
    return f"{bucket!r:.80}" if key is None else f"{bucket!r:.80}/{key!r:.200}"


@contextmanager
def _translated(
    action: str, bucket: str, key: str | None, answers: Mapping[str, type[PipelineError]]
) -> Iterator[None]:
    """Let only our own errors out; `answers` says what the codes of S3 errors mean here."""
    try:
        yield
    except S3Error as exc:
        raise _refusal(exc, f"{action} {_place(bucket, key)}", bucket, answers) from exc
    except _FOREIGN_ERRORS as exc:
        raise _failure(exc, f"{action} {_place(bucket, key)}") from exc


def _refusal(exc: S3Error, action: str, bucket: str, answers: Mapping[str, type[PipelineError]]) -> PipelineError:
    code = exc.code or ""
    if kind := answers.get(code):
        return kind(f"{action}: the store answered {code!r:.80}")
    if code == "NoSuchBucket":
        return StoreUnavailable(f"{action}: there is no bucket {bucket!r:.80}")
    hint = _HINTS.get(code)
    return StoreUnavailable(f"{action}: the store answered {code!r:.80}" + (f"; {hint}" if hint else ""))


def _failure(exc: Exception, action: str) -> PipelineError:
    """What happened below S3; the text of foreign errors is left out, it can hold anything that the store has sent."""
    if isinstance(exc, MaxRetryError) and exc.reason is not None:
        exc = exc.reason
    kind = type(exc).__name__
    if isinstance(exc, SSLError) and exc.args and isinstance(exc.args[0], ssl.SSLCertVerificationError):
        failed = exc.args[0]
        hint = _ENDPOINT if failed.verify_code in _OTHER_HOST else "check MINIO_CA_CERT"
        return StoreUnavailable(f"{action}: the store's certificate is not trusted ({failed.verify_message}); {hint}")
    if isinstance(exc, SSLError):
        return StoreUnavailable(f"{action}: the store speaks no TLS there; {_ENDPOINT}, S3_USE_HTTPS")
    if isinstance(exc, HTTPError | OSError):
        return StoreUnavailable(f"{action}: no answer from the store ({kind}); {_ENDPOINT}")
    return StoreUnavailable(f"{action}: the store's answer makes no sense ({kind}); {_ENDPOINT}")
