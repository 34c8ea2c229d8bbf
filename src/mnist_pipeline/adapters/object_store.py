"""`MinioObjectStore`: the port `ObjectStore` over S3, for MinIO and whatever else speaks it."""

from __future__ import annotations

import asyncio
import http
import logging
import urllib.parse
import xml.etree.ElementTree as ET
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from minio.error import S3Error
from minio.helpers import md5sum_hash
from minio.time import from_http_header, from_iso8601utc
from urllib3 import HTTPResponse

from mnist_pipeline.adapters.s3 import MOST_ANSWER_BYTES, S3, Answer, Patience, Request
from mnist_pipeline.adapters.s3_credentials import MakeProvider
from mnist_pipeline.adapters.s3_deletes import as_xml, batches, outcomes_in
from mnist_pipeline.adapters.s3_errors import (
    COPY_ANSWERS,
    DELETE_ANSWERS,
    GET_ANSWERS,
    NO_ANSWERS,
    PUT_ANSWERS,
    REMOVED,
    TAGGING_ANSWERS,
    place,
    translated,
)
from mnist_pipeline.adapters.s3_headers import etag_of, metadata_headers, version_of
from mnist_pipeline.adapters.s3_names import check_names
from mnist_pipeline.pipeline.concurrently import concurrently
from mnist_pipeline.pipeline.errors import ObjectRetained, PipelineError, raise_where_nothing_is_known, without_frames
from mnist_pipeline.pipeline.ports import KEYS_A_PAGE, Deadline, ListedObject, ObjectVersion, StoredObject
from mnist_pipeline.pipeline.settings import Minio

log = logging.getLogger(__name__)

# Of one `delete_all`: other requests want connections too.
_DELETES_AT_ONCE = 8
_MOST_ENDED = 100


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
        # The store's tokens for what follows the last key of a page.
        self._ended: OrderedDict[tuple[str, str], str] = OrderedDict()

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
                if exc.code not in REMOVED:
                    raise
            return True

    async def delete_all(self, versions: Sequence[ObjectVersion], *, deadline: Deadline) -> list[bool | PipelineError]:
        """Remove exactly these versions: one round trip for each bucket and each thousand of them.

        Those without a version id of their own, or with a name that may not come through in XML, are deleted one by
        one, a few at a time.
        """
        slots = asyncio.Semaphore(_DELETES_AT_ONCE)
        outcomes: dict[int, bool | PipelineError] = {}

        async def settle(numbers: Sequence[int]) -> None:
            async with slots:
                outcomes.update(
                    zip(numbers, await self._deleted([versions[number] for number in numbers], deadline), strict=True)
                )

        await concurrently([settle(numbers) for numbers in batches(versions)])
        in_order = [outcomes[number] for number in range(len(versions))]
        raise_where_nothing_is_known(in_order)
        return in_order

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

    async def list_after(
        self, bucket: str, key: str, *, most: int = KEYS_A_PAGE, deadline: Deadline
    ) -> list[ListedObject]:
        """The next objects of a bucket after `key`, in the order of their names, at most a thousand; one round trip.

        Only those that are current are listed. None: `key` was the last one.

        Raises:
            StoreUnavailable, DeadlineExceeded: as the methods of the port.
        """
        # Names may have characters that XML cannot carry.
        query = {"list-type": "2", "prefix": "", "delimiter": "", "encoding-type": "url", "max-keys": str(most)}
        # A store that is told where it ended need not look for that place again, which takes long where keys are many.
        if token := self._ended.pop((bucket, key), None):
            query["continuation-token"] = token
        else:
            query["start-after"] = key
        with translated("list", bucket, None, NO_ANSWERS):
            request = Request(method="GET", bucket=bucket, query=query)
            answer = await self._send(request, Patience(deadline=deadline))
            now = from_http_header(answer.headers.get("date", ""))
            root = ET.fromstring(answer.body or b"")  # noqa: S314 - as minio-py does
            page = [_listed(found, now) for found in root.iterfind("{*}Contents")]
            if page and (ended := root.findtext("{*}NextContinuationToken")):
                self._ended[bucket, page[-1].key] = ended
                # Of listings that nobody goes on with.
                if len(self._ended) > _MOST_ENDED:
                    self._ended.popitem(last=False)
            return page

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

    async def _deleted(self, batch: Sequence[ObjectVersion], deadline: Deadline) -> list[bool | PipelineError]:
        """What became of each of a batch."""
        try:
            if len(batch) > 1:
                return await self._deleted_together(batch, deadline)
            return [await self.delete(batch[0], deadline=deadline)]
        except ObjectRetained as exc:
            if len(batch) == 1:
                return [without_frames(exc)]
        except PipelineError as exc:
            return [without_frames(exc)] * len(batch)
        # The store refuses the request as such; what it says of each must be asked one by one.
        return [outcome for version in batch for outcome in await self._deleted([version], deadline)]

    async def _deleted_together(self, batch: Sequence[ObjectVersion], deadline: Deadline) -> list[bool | PipelineError]:
        """What a multi-object delete answers (S3: DeleteObjects) for versions of one bucket."""
        bucket, body = batch[0].bucket, as_xml(batch)
        with translated("DELETE", bucket, None, DELETE_ANSWERS):
            # AWS wants it: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
            headers = {"Content-MD5": md5sum_hash(body) or ""}
            request = Request(method="POST", bucket=bucket, query={"delete": ""}, headers=headers, body=body)
            answer = await self._send(request, Patience.until(deadline, attempts=1))
            return outcomes_in(answer.body or b"", batch)

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
        check_names(request.bucket, request.key)
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


def _listed(found: ET.Element, now: datetime) -> ListedObject:
    modified = _time(found.findtext("{*}LastModified", ""))
    return ListedObject(
        key=urllib.parse.unquote_plus(found.findtext("{*}Key", "")),
        size=int(found.findtext("{*}Size", "0")),
        etag=found.findtext("{*}ETag", "").strip('"'),
        modified=modified,
        # The store's clock is told in whole seconds, an object's time more exactly.
        age_seconds=max((now - modified).total_seconds(), 0.0),
    )


def _time(text: str) -> datetime:
    time = from_iso8601utc(text)
    if time is None:
        raise ValueError(text)
    return time
