"""`MinioObjectStore`: the port `ObjectStore` over S3, for MinIO and whatever else speaks it."""

from __future__ import annotations

import functools
import http
import logging
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from minio.error import S3Error
from minio.helpers import check_bucket_name, check_object_name, md5sum_hash
from minio.time import from_http_header, from_iso8601utc
from urllib3 import HTTPResponse

from mnist_pipeline.adapters.s3 import MOST_ANSWER_BYTES, S3, Answer, Patience, Request
from mnist_pipeline.adapters.s3_credentials import MakeProvider
from mnist_pipeline.adapters.s3_errors import (
    COPY_ANSWERS,
    DELETE_ANSWERS,
    GET_ANSWERS,
    NO_ANSWERS,
    PUT_ANSWERS,
    TAGGING_ANSWERS,
    place,
    translated,
)
from mnist_pipeline.adapters.s3_headers import etag_of, metadata_headers, version_of
from mnist_pipeline.pipeline.errors import BadKey, StoreUnavailable
from mnist_pipeline.pipeline.ports import MAX_KEY_BYTES, Deadline, ListedObject, ObjectVersion, StoredObject
from mnist_pipeline.pipeline.settings import Minio

log = logging.getLogger(__name__)

_KEYS_A_LISTING = 1000


class MinioObjectStore:
    """An S3-compatible store, by the port `ObjectStore`, for one event loop; its connections are made when needed.

    It can be pickled at any time: the connections stay behind. A request waits 3 s for a connection and 10 s for an
    answer at most, and 10 s for more of it; a PUT and a copy, which may be large, up to the deadline. No call takes
    longer than that.

    Args:
        minio: where the store is, and who we are there; secrets appear in no message. Its `ca_cert`, where it has one,
            holds the only certificates that are trusted.
        connections: how many may be open at once; further calls wait for one.
        credentials: makes minio-py's provider of credentials, where they are not those of `minio`; picklable.
    """

    def __init__(self, minio: Minio, *, connections: int = 64, credentials: MakeProvider | None = None) -> None:
        self._s3 = S3(minio, connections=connections, credentials=credentials)
        self._unversioned_seen = False

    async def get(
        self, bucket: str, key: str, version_id: str | None, *, limit: int, deadline: Deadline
    ) -> StoredObject:
        """Fetch exactly this version, at most `limit` bytes of it, as stored: a content encoding is not undone.

        One round trip, one more where the object has tags, one more where the store calls the version invalid.
        """
        patience = Patience(deadline=deadline)
        with translated("GET", bucket, key, GET_ANSWERS):
            try:
                answer = await self._send(_object("GET", bucket, key, version_id=version_id, limit=limit), patience)
            except S3Error as exc:
                if version_id is None or exc.code != "InvalidArgument":
                    raise
                log.info("the store calls version %.80r of %.80r/%.200r invalid", version_id, bucket, key)
                answer = await self._send(_object("GET", bucket, key, limit=limit), patience)
            version = version_of(bucket, key, answer.headers)
            if answer.headers.get("x-amz-tagging-count", "0") != "0":
                version = replace(version, tags=await self._tags(version, patience))
            return StoredObject(version=version, data=answer.body)

    async def put(
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
            **metadata_headers(metadata),
        }
        if tags:
            headers["x-amz-tagging"] = urllib.parse.urlencode(tags, quote_via=urllib.parse.quote)
        with translated("PUT", bucket, key, PUT_ANSWERS):
            try:
                await self._send(
                    _object("PUT", bucket, key, headers=headers, body=data), Patience.until(deadline, attempts=2)
                )
            except S3Error as exc:
                if exc.code != "PreconditionFailed":
                    raise
                return False
            return True

    async def copy(
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
            **metadata_headers(metadata),
        }
        with translated(f"copy of {place(version.bucket, version.key)}", bucket, key, COPY_ANSWERS):
            request = _object("PUT", bucket, key, headers=headers)
            answer = await self._send(request, Patience.until(deadline, attempts=1))
            # A copy can fail after its status line has been sent.
            # https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
            result = ET.fromstring(answer.body or b"")  # noqa: S314 - as minio-py does
            if result.tag.rpartition("}")[2] != "CopyObjectResult":
                raise S3Error.fromxml(HTTPResponse(body=answer.body or b""))

    async def delete(self, version: ObjectVersion, *, deadline: Deadline) -> bool:
        """Remove exactly this version: one round trip, two where it has no version id of its own.

        Without one, the object's ETag and Last-Modified are compared before; an upload that arrives between the two
        requests would be removed unseen, so source buckets should have versions.
        """
        bucket, key, version_id = version.bucket, version.key, version.version_id or "null"
        with translated("DELETE", bucket, key, DELETE_ANSWERS):
            if version_id == "null":
                self._warn_once(bucket)
                try:
                    now = await self._headers_of_null(bucket, key, Patience(deadline=deadline))
                except S3Error as exc:
                    if exc.response.status in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.METHOD_NOT_ALLOWED):
                        return True
                    raise
                if (etag_of(now), now.get("last-modified", "")) != (version.etag, version.last_modified):
                    return False
            try:
                # Sent once: a second one could hit what was uploaded after the first.
                request = _object("DELETE", bucket, key, version_id=version_id)
                await self._send(request, Patience(deadline=deadline, attempts=1))
            except S3Error as exc:
                if exc.code not in ("NoSuchKey", "NoSuchVersion"):
                    raise
            return True

    async def set_tags(self, bucket: str, key: str, tags: Mapping[str, str], *, deadline: Deadline) -> None:
        """Replace the tags of the current object (S3: PutObjectTagging); one round trip."""
        root = ET.Element("Tagging")
        tag_set = ET.SubElement(root, "TagSet")
        for name, value in tags.items():
            tag = ET.SubElement(tag_set, "Tag")
            ET.SubElement(tag, "Key").text = name
            ET.SubElement(tag, "Value").text = value
        body: bytes = ET.tostring(root)
        # AWS wants it: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectTagging.html
        headers = {"Content-MD5": md5sum_hash(body) or ""}
        request = _object("PUT", bucket, key, query={"tagging": ""}, headers=headers, body=body)
        with translated("tagging of", bucket, key, TAGGING_ANSWERS):
            await self._send(request, Patience(deadline=deadline))

    async def check(self, bucket: str, *, deadline: Deadline) -> None:
        """List at most one key of `bucket`, which takes the right to list it and no other."""
        # Both empty ones are sent because policies may ask for them.
        query = {"list-type": "2", "max-keys": "1", "prefix": "", "delimiter": ""}
        with translated("list", bucket, None, NO_ANSWERS):
            try:
                await self._send(Request(method="GET", bucket=bucket, query=query), Patience(deadline=deadline))
            except S3Error as exc:
                if exc.code != "NoSuchBucket":
                    raise

    async def list_after(self, bucket: str, key: str, *, deadline: Deadline) -> list[ListedObject]:
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
        with translated("list", bucket, None, NO_ANSWERS):
            request = Request(method="GET", bucket=bucket, query=query)
            answer = await self._send(request, Patience(deadline=deadline))
            now = from_http_header(answer.headers.get("date", ""))
            return [
                ListedObject(
                    key=urllib.parse.unquote_plus(found.findtext("{*}Key", "")),
                    # The store's clock is told in whole seconds, an object's time more exactly.
                    age_seconds=max((now - _time(found.findtext("{*}LastModified", ""))).total_seconds(), 0.0),
                )
                for found in ET.fromstring(answer.body or b"").iterfind("{*}Contents")  # noqa: S314 - as minio-py does
            ]

    async def close(self) -> None:
        """Close the connections, those in use too; a later call opens new ones."""
        await self._s3.close()

    async def _headers_of_null(self, bucket: str, key: str, patience: Patience) -> Mapping[str, str]:
        """What a HEAD of the version `null` answers."""
        try:
            return (await self._send(_object("HEAD", bucket, key, version_id="null"), patience)).headers
        except S3Error as exc:
            if exc.response.status != http.HTTPStatus.FORBIDDEN:
                raise
        # A HEAD has no body to say whether it is our credentials that are refused, or this user for good.
        return (await self._send(_object("GET", bucket, key, version_id="null", limit=0), patience)).headers

    async def _tags(self, version: ObjectVersion, patience: Patience) -> dict[str, str]:
        version_id, query = version.version_id or "null", {"tagging": ""}
        request = _object("GET", version.bucket, version.key, version_id=version_id, query=query)
        answer = await self._send(request, patience)
        tags = ET.fromstring(answer.body or b"").iterfind("{*}TagSet/{*}Tag")  # noqa: S314 - as minio-py does
        return {tag.findtext("{*}Key", ""): tag.findtext("{*}Value", "") for tag in tags}

    def _warn_once(self, bucket: str) -> None:
        if not self._unversioned_seen:
            self._unversioned_seen = True
            log.warning(
                "an object of bucket %.80r has no version id: an upload that replaces it in the very moment of its "
                "release can be lost; switch versioning on (mnist-pipeline setup does)",
                bucket,
            )

    async def _send(self, request: Request, patience: Patience) -> Answer:
        _check_names(request.bucket, request.key)
        return await self._s3.send(request, patience)


def _object(
    method: str,
    bucket: str,
    key: str,
    *,
    version_id: str | None = None,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    limit: int = MOST_ANSWER_BYTES,
) -> Request:
    """A request about one object, or a version of it."""
    version = {} if version_id is None else {"versionId": version_id}
    return Request(
        method=method,
        bucket=bucket,
        key=key,
        query={**version, **(query or {})},
        headers=headers or {},
        body=body,
        limit=limit,
    )


@functools.lru_cache(maxsize=256)
def _is_bucket(name: str) -> bool:
    """Whether S3 takes the name; it is the same few all the time."""
    try:
        check_bucket_name(name)
    except ValueError:
        return False
    return True


def _check_names(bucket: str, key: str | None) -> None:
    if not _is_bucket(bucket):
        raise StoreUnavailable(f"{bucket!r:.80} is no name of a bucket")
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


def _time(text: str) -> datetime:
    time = from_iso8601utc(text)
    if time is None:
        raise ValueError(text)
    return time
