"""The buckets of a site on minio-py: `BucketStore` makes the calls, the parts say what has to be there."""

from __future__ import annotations

import base64
import hashlib
import secrets
import ssl
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from mnist_pipeline.pipeline.settings import DIGITS, Settings
from mnist_pipeline.pipeline.settings import Minio as MinioSettings
from mnist_pipeline.site.bucket_configs import (
    Change,
    lifecycle_change,
    notification_change,
    object_lock_state,
    versioning_change,
)
from mnist_pipeline.site.parts import Away, Part, Refused, State

DENIED = ("AccessDenied", "AllAccessDisabled")
"""S3's codes for what our user may not do."""

USER_HINT = "check what the user of MINIO_ACCESS_KEY may do"

_CONNECT_SECONDS = 3.0
_READ_SECONDS = 10.0
# MinIO may not know its own targets for a moment after it has become ready.
_ARN_SECONDS = 3.0
_ARN_PAUSE_SECONDS = 0.2
_MESSAGE_LENGTH = 200
_NO_CONFIGURATION = ("NoSuchLifecycleConfiguration", "NoSuchConfiguration", "ObjectLockConfigurationNotFoundError")
_EMPTY = {
    "versioning": b"<VersioningConfiguration/>",
    "lifecycle": b"<LifecycleConfiguration/>",
    "notification": b"<NotificationConfiguration/>",
}


class BucketStore:
    """The calls of S3 that a site's buckets take, each bounded in time.

    Every method raises `Refused` where the store answers with an error, and `Away` where it gives no answer.
    """

    def __init__(self, settings: MinioSettings) -> None:
        options: dict[str, Any] = {}
        if settings.secure:
            options["ssl_context"] = ssl.create_default_context(cafile=settings.ca_cert)
        self._region = settings.region
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            # A broken connection is tried once more; an answer never is.
            retries=urllib3.Retry(total=1, redirect=0, status=0, other=0, respect_retry_after_header=False),
            **options,
        )
        self._minio = Minio(
            settings.endpoint,
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            secure=settings.secure,
            region=settings.region,
            http_client=self._pool,
        )

    def has_bucket(self, bucket: str) -> bool:
        """Whether there is such a bucket.

        Where our user may not ask for it (S3: ListBucket), it asks for an object that is not there (S3: GetObject).
        """
        try:
            self._send("HEAD", bucket)
        except Refused as refused:
            code = refused.code
            if refused.denied:
                code = self._code_of_absent_object(bucket)
            if code == "NoSuchBucket":
                return False
            if code != "NoSuchKey":
                raise
        return True

    def make_bucket(self, bucket: str) -> None:
        """Make the bucket; one that is ours already will do."""
        with _translated(f"make bucket {bucket}"):
            try:
                self._minio.make_bucket(bucket_name=bucket, location=self._region)
            except S3Error as exc:
                if exc.code != "BucketAlreadyOwnedByYou":
                    raise

    def config(self, bucket: str, kind: str) -> bytes | None:
        """The bucket's `versioning`, `lifecycle`, `notification` or `object-lock`, XML; None where it has none."""
        try:
            return bytes(self._send("GET", bucket, query={kind: ""}).data)
        except Refused as refused:
            if refused.code not in _NO_CONFIGURATION:
                raise
            return None

    def object_lock(self, bucket: str) -> State:
        """Whether object lock keeps every upload of the bucket."""
        with _translated(f"object lock of bucket {bucket}"):
            return object_lock_state(self.config(bucket, "object-lock"))

    def set_config(self, bucket: str, kind: str, config: bytes) -> None:
        """Replace the bucket's `versioning`, `lifecycle` or `notification`."""
        # AWS wants it for a lifecycle: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html
        headers = {"Content-MD5": base64.b64encode(hashlib.md5(config, usedforsecurity=False).digest()).decode()}
        give_up = time.monotonic() + _ARN_SECONDS
        while True:
            try:
                self._send("PUT", bucket, query={kind: ""}, headers=headers, body=config)
            except Refused as refused:
                if refused.code != "InvalidArgument" or "ARN" not in str(refused):
                    raise
                if time.monotonic() > give_up:
                    raise Refused(
                        f"{refused}; check --notification-arn, and the MINIO_NOTIFY_KAFKA_... variables of the MinIO "
                        "server, which prints its ARNs when it starts"
                    ) from refused
                time.sleep(_ARN_PAUSE_SECONDS)
            else:
                return

    def newest_version(self, bucket: str, key: str) -> str | None:
        """The version id of an object, `null` in a bucket without versions; None where there is no such object."""
        try:
            return str(self._send("HEAD", bucket, key).headers.get("x-amz-version-id", "null"))
        except Refused as refused:
            if refused.code not in ("NoSuchKey", "MethodNotAllowed"):  # the second: a delete marker
                raise
            return None

    def remove(self, bucket: str, key: str, version_id: str) -> None:
        """Remove exactly this version; nothing happens where there is none."""
        self._send("DELETE", bucket, key, query={"versionId": version_id})

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _code_of_absent_object(self, bucket: str) -> str:
        try:
            self._send("GET", bucket, absent_key())
        except Refused as refused:
            return refused.code
        return ""

    def _send(
        self,
        method: str,
        bucket: str,
        key: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> BaseHTTPResponse:
        with _translated(f"{method} {bucket}"):
            # minio-py's public methods for configurations lose what its classes do not know.
            return self._minio._execute(  # noqa: SLF001 - see above
                method, bucket, key, body=body, headers=dict(headers or {}), query_params=dict(query or {})
            )


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """Let only our own errors out. Of foreign texts only the store's own message is repeated, cut short."""
    try:
        yield
    except S3Error as exc:
        code = exc.code or ""
        if code in DENIED:
            raise Refused(f"the store answered {code}; {USER_HINT}", code=code, denied=True) from exc
        message = f" ({(exc.message or '')[:_MESSAGE_LENGTH]!a})" if exc.message else ""
        hint = "; MINIO_ENDPOINT needs a store that can do this" if code == "NotImplemented" else ""
        raise Refused(f"the store answered {code!a:.80}{message}{hint}", code=code) from exc
    except (MinioException, HTTPError, OSError, ValueError, ET.ParseError) as exc:
        raise Away(f"{action}: no answer that makes sense ({type(exc).__name__}); check MINIO_ENDPOINT") from exc


def absent_key() -> str:
    """A key that no object has."""
    return f"mnist-pipeline-check-{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Bucket:
    """A bucket, there or not."""

    store: BucketStore
    name: str

    @property
    def what(self) -> str:
        """`bucket NAME`."""
        return f"bucket {self.name}"

    def look(self) -> State:
        """Whether it is there."""
        return State() if self.store.has_bucket(self.name) else State(lacks="is not there")

    def mend(self) -> None:
        """Make it."""
        self.store.make_bucket(self.name)


@dataclass(frozen=True)
class BucketConfig:
    """One configuration of a bucket; `change` tells how it should be, from what it is."""

    store: BucketStore
    bucket: str
    kind: str
    change: Callable[[bytes], Change | None]

    @property
    def what(self) -> str:
        """`KIND of bucket NAME`."""
        return f"{self.kind} of bucket {self.bucket}"

    def look(self) -> State:
        """Whether it is as it should be."""
        change = self._change()
        return State() if change is None else change.state

    def mend(self) -> None:
        """Replace it."""
        if change := self._change():
            self.store.set_config(self.bucket, self.kind, change.config)

    def _change(self) -> Change | None:
        with _translated(self.what):
            return self.change(self.store.config(self.bucket, self.kind) or _EMPTY[self.kind])


def bucket_parts(store: BucketStore, settings: Settings, arn: str) -> list[list[Part]]:
    """All that the store has to have: for each bucket the bucket itself, then what belongs to it."""
    groups: list[list[Part]] = [
        [
            Bucket(store, name),
            BucketConfig(store, name, "versioning", versioning_change),
            BucketConfig(store, name, "lifecycle", lifecycle_change),
            BucketConfig(
                store,
                name,
                "notification",
                lambda config: notification_change(config, arn, settings.source_suffixes),
            ),
        ]
        for name in dict.fromkeys(settings.source_buckets)
    ]
    others = [*(settings.destination_of(digit)[0] for digit in DIGITS), settings.rejected_bucket]
    # A destination may be a prefix in a source bucket, or the rejected bucket.
    return groups + [[Bucket(store, name)] for name in dict.fromkeys(others) if name not in settings.source_buckets]
