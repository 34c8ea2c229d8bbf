"""`BucketStore`: the calls of S3 that make and look at the buckets of a site.

Configurations travel as XML, because minio-py's classes for them lose what they do not know.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from minio.error import S3Error
from minio.helpers import md5sum_hash

from mnist_pipeline.adapters.refusals import Away, Refused
from mnist_pipeline.adapters.s3 import S3, Answer, Patience, Request
from mnist_pipeline.adapters.s3_credentials import MakeProvider
from mnist_pipeline.adapters.s3_errors import NO_ANSWERS, translated
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.settings import Minio

USER_HINT = "check what the user of MINIO_ACCESS_KEY may do"

# Two attempts of a connection and an answer.
_SECONDS = 20.0
# MinIO may not know its own targets for a moment after it has become ready.
_ARN_SECONDS = 3.0
_ARN_PAUSE_SECONDS = 0.2
_MESSAGE_LENGTH = 200
_DENIED = ("AccessDenied", "AllAccessDisabled")
_NO_CONFIGURATION = ("NoSuchLifecycleConfiguration", "NoSuchConfiguration", "ObjectLockConfigurationNotFoundError")
# Which S3 takes where nothing is said, and refuses where it is said.
_DEFAULT_REGION = "us-east-1"
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class BucketStore:
    """The calls of S3 that a site's buckets take, each bounded in time.

    Every method raises `Refused` where the store answers with an error, and `Away` where it gives no answer.
    """

    def __init__(self, minio: Minio, *, credentials: MakeProvider | None = None) -> None:
        self._s3 = S3(minio, connections=1, credentials=credentials)
        self._region = minio.region

    async def has_bucket(self, bucket: str) -> bool:
        """Whether there is such a bucket.

        Where our user may not ask for it (S3: ListBucket), it asks for an object that is not there (S3: GetObject).
        """
        try:
            await self._send("HEAD", bucket)
        except Refused as refused:
            code = refused.code
            if refused.denied:
                code = await self._code_of_absent_object(bucket)
            if code == "NoSuchBucket":
                return False
            if code != "NoSuchKey":
                raise
        return True

    async def make_bucket(self, bucket: str) -> None:
        """Make the bucket, in our region (S3: CreateBucket); one that is ours already will do."""
        body = b""
        if self._region != _DEFAULT_REGION:
            root = ET.Element("CreateBucketConfiguration", {"xmlns": _NAMESPACE})
            ET.SubElement(root, "LocationConstraint").text = self._region
            body = ET.tostring(root)
        try:
            await self._send("PUT", bucket, body=body)
        except Refused as refused:
            if refused.code != "BucketAlreadyOwnedByYou":
                raise

    async def config(self, bucket: str, kind: str) -> bytes | None:
        """The bucket's `versioning`, `lifecycle`, `notification` or `object-lock`, XML; None where it has none."""
        try:
            return (await self._send("GET", bucket, query={kind: ""})).body
        except Refused as refused:
            if refused.code not in _NO_CONFIGURATION:
                raise
            return None

    async def set_config(self, bucket: str, kind: str, config: bytes) -> None:
        """Replace the bucket's `versioning`, `lifecycle` or `notification`."""
        # AWS wants it for a lifecycle: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html
        headers = {"Content-MD5": md5sum_hash(config) or ""}
        give_up = time.monotonic() + _ARN_SECONDS
        while True:
            try:
                await self._send("PUT", bucket, query={kind: ""}, headers=headers, body=config)
            except Refused as refused:
                if refused.code != "InvalidArgument" or "ARN" not in str(refused):
                    raise
                if time.monotonic() > give_up:
                    raise Refused(
                        f"{refused}; check --notification-arn, and the MINIO_NOTIFY_KAFKA_... variables of the MinIO "
                        "server, which prints its ARNs when it starts"
                    ) from refused
                await asyncio.sleep(_ARN_PAUSE_SECONDS)
            else:
                return

    async def newest_version(self, bucket: str, key: str) -> str | None:
        """The version id of an object, `null` in a bucket without versions; None where there is no such object."""
        try:
            return (await self._send("HEAD", bucket, key)).headers.get("x-amz-version-id", "null")
        except Refused as refused:
            if refused.code not in ("NoSuchKey", "MethodNotAllowed"):  # the second: a delete marker
                raise
            return None

    async def remove(self, bucket: str, key: str, version_id: str) -> None:
        """Remove exactly this version; nothing happens where there is none."""
        await self._send("DELETE", bucket, key, query={"versionId": version_id})

    async def close(self) -> None:
        """Close the connections."""
        await self._s3.close()

    async def _code_of_absent_object(self, bucket: str) -> str:
        try:
            await self._send("GET", bucket, absent_key())
        except Refused as refused:
            return refused.code
        return ""

    async def _send(
        self,
        method: str,
        bucket: str,
        key: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        request = Request(method=method, bucket=bucket, key=key, query=query or {}, headers=headers or {}, body=body)
        try:
            with translated(method, bucket, key, NO_ANSWERS):
                return await self._s3.send(request, Patience(deadline=Deadline(_SECONDS)))
        except PipelineError as exc:
            if isinstance(exc.__cause__, S3Error):
                raise _refused(exc.__cause__) from exc
            raise Away(str(exc)) from exc


def is_denial(error: PipelineError) -> bool:
    """Whether an `ObjectStore` raised it because our user may not do what was asked for."""
    return isinstance(error.__cause__, S3Error) and error.__cause__.code in _DENIED


def absent_key() -> str:
    """A key that no object has."""
    return f"mnist-pipeline-check-{secrets.token_hex(8)}"


def _refused(error: S3Error) -> Refused:
    """What the store answered; of its texts only its own message is repeated, cut short."""
    code = error.code or ""
    if code in _DENIED:
        return Refused(f"the store answered {code}; {USER_HINT}", code=code, denied=True)
    message = f" ({error.message[:_MESSAGE_LENGTH]!a})" if error.message else ""
    hint = "; MINIO_ENDPOINT needs a store that can do this" if code == "NotImplemented" else ""
    return Refused(f"the store answered {code!a:.80}{message}{hint}", code=code)
