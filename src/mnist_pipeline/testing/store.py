"""An object store in memory, as strict as MinIO about versions, preconditions and metadata."""

from __future__ import annotations

import asyncio
import hashlib
import math
import urllib.parse
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime

from mnist_pipeline.pipeline.errors import (
    BadKey,
    MetadataTooLarge,
    ObjectGone,
    ObjectRetained,
    PipelineError,
    StoreUnavailable,
    raise_where_nothing_is_known,
)
from mnist_pipeline.pipeline.ports import (
    KEYS_A_PAGE,
    MAX_KEY_BYTES,
    Deadline,
    ListedObject,
    ObjectVersion,
    StoredObject,
)
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.testing.failures import Call, Failures, raise_next

_SEGMENT_BYTES = 255
# Of a request's headers, and of those among them that are user metadata. AWS counts a name without its prefix, MinIO
# (isHTTPHeaderSizeTooLarge in cmd/generic-handlers.go) with it, and a value as it is sent.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
_HEADER_BYTES = 8 * 1024
_METADATA_BYTES = 2 * 1024
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
_MOST_TAGS = 10
_TAG_LENGTH = 256
_EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


class MemoryStore:
    """The port `ObjectStore` in memory, with versions and preconditions as MinIO has them.

    Every write is a second later than the one before, from 2026-01-01 on; version ids are counted UUIDs.

    Args:
        buckets: those that exist.
        versioned: those of them whose uploads get version ids. Objects from before a bucket was added keep none.
        create_buckets: whether a bucket comes into being when it is first written to.

    Attributes:
        buckets: bucket → key → versions, oldest first, the last one being current; one without data is a delete marker.
        versioned: may be changed at any time, as versioning can be switched on.
        locked: the ids of versions under a retention or a legal hold.
        undeletable: buckets from which our user may not delete.
        calls: every call of the port, in order.
        failures: what shall fail.
        on_call: called before each call does anything, for what others do in the meantime; it may be async.
        closed: whether `close` was called last.
    """

    def __init__(self, *buckets: str, versioned: Collection[str] = (), create_buckets: bool = False) -> None:
        self.buckets: dict[str, dict[str, list[StoredObject]]] = {bucket: {} for bucket in (*buckets, *versioned)}
        self.versioned = set(versioned)
        self.create_buckets = create_buckets
        self.locked: set[str] = set()
        self.undeletable: set[str] = set()
        self.calls: list[Call] = []
        self.failures = Failures()
        self.on_call: Callable[[Call], Awaitable[None] | None] | None = None
        self.closed = False
        self._writes = 0

    @classmethod
    def of(cls, settings: Settings) -> MemoryStore:
        """With the buckets that `setup` makes: the sources with versions, and all that is written to."""
        return cls(*(place.bucket for place in settings.outputs), versioned=settings.source_buckets)

    def upload(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        content_type: str = "image/png",
        content_headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ObjectVersion:
        """Store the object unconditionally, as a user's upload does; it is no call of the port, and takes any key and
        any metadata.
        """
        key = key.lstrip("/")
        versions = self._keys(bucket, writing=True).setdefault(key, [])
        self._writes += 1
        version_id = str(uuid.UUID(int=self._writes, version=4)) if bucket in self.versioned else None
        version = ObjectVersion(
            bucket=bucket,
            key=key,
            version_id=version_id,
            etag=hashlib.md5(data, usedforsecurity=False).hexdigest(),
            last_modified=format_datetime(_EPOCH + timedelta(seconds=self._writes), usegmt=True),
            content_type=content_type,
            content_headers=dict(content_headers or {}),
            metadata=dict(metadata or {}),
            tags=dict(tags or {}),
        )
        if version_id is None:
            versions[:] = [kept for kept in versions if kept.version.version_id is not None]
        versions.append(StoredObject(version=version, data=data))
        return version

    def remove(self, bucket: str, key: str) -> None:
        """Delete the object as a user does who names no version: where there are versions they stay, hidden by a delete
        marker. It is no call of the port.
        """
        keys = self._keys(bucket)
        if bucket not in self.versioned:
            keys.pop(_stored_key(key), None)
            return
        marker = self.upload(bucket, key, b"")
        keys[marker.key][-1] = StoredObject(version=marker, data=None)

    def keys(self, bucket: str) -> list[str]:
        """The keys in a bucket, sorted; none where there is no such bucket."""
        return sorted(key for key, versions in self.buckets.get(bucket, {}).items() if versions[-1].data is not None)

    def data(self, bucket: str, key: str) -> bytes:
        """The current bytes of an object.

        Raises:
            KeyError: there is none.
        """
        data = self.buckets[bucket][key][-1].data
        if data is None:
            raise KeyError(key)
        return data

    async def get(
        self, bucket: str, key: str, version_id: str | None, *, limit: int, deadline: Deadline
    ) -> StoredObject:
        """Fetch this version; the latest where `version_id` is None or no UUID."""
        await self._begin(Call(method="get", bucket=bucket, key=key, version_id=version_id), deadline)
        found = self._find(bucket, key, version_id if _is_version_id(version_id) else None)
        if found is None:
            raise ObjectGone(f"there is no {bucket!r}/{key!r} of version {version_id!r}")
        self._end("get")
        too_large = found.data is not None and len(found.data) > limit
        return StoredObject(
            version=replace(found.version, key=key),  # the name that was asked for
            data=None if too_large else found.data,
        )

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
        """Create the object; False where the key has a current version."""
        await self._begin(Call(method="put", bucket=bucket, key=key), deadline)
        _check_headers(content_headers, metadata, tags)
        self._keys(bucket, writing=True)
        created = self._find(bucket, key, None) is None
        if created:
            self.upload(
                bucket,
                key,
                data,
                content_type=content_type,
                content_headers=content_headers,
                metadata=metadata,
                tags=tags,
            )
        self._end("put")
        return created

    async def copy(
        self, version: ObjectVersion, bucket: str, key: str, *, metadata: Mapping[str, str], deadline: Deadline
    ) -> None:
        """Copy this version's bytes and tags, described as `version` is."""
        await self._begin(
            Call(method="copy", bucket=version.bucket, key=version.key, version_id=version.version_id), deadline
        )
        _check_headers(version.content_headers, metadata, {})
        found = self._find(version.bucket, version.key, version.version_id or "null")
        if found is None or found.data is None or found.version.etag != version.etag:
            raise ObjectGone(f"{version.bucket!r}/{version.key!r} changed or vanished before its copy")
        self.upload(
            bucket,
            _stored_key(key),
            found.data,
            content_type=version.content_type,
            content_headers=version.content_headers,
            metadata=metadata,
            tags=found.version.tags,
        )
        self._end("copy")

    async def delete(self, version: ObjectVersion, *, deadline: Deadline) -> bool:
        """Remove this version, and no other; an older one becomes current again."""
        await self._begin(
            Call(method="delete", bucket=version.bucket, key=version.key, version_id=version.version_id), deadline
        )
        removed = self._removed(version)
        self._end("delete")
        return removed

    async def delete_all(self, versions: Sequence[ObjectVersion], *, deadline: Deadline) -> list[bool | PipelineError]:
        """Remove these versions, and no others; of a single one it is a `delete`."""
        if len(versions) == 1:
            try:
                return [await self.delete(versions[0], deadline=deadline)]
            except ObjectRetained as exc:
                return [exc]
        await self._begin(Call(method="delete_all", versions=tuple(versions)), deadline)
        outcomes: list[bool | PipelineError] = []
        for version in versions:
            try:
                raise_next(self.failures.before, "delete")
                outcomes.append(self._removed(version))
            except PipelineError as exc:
                outcomes.append(exc)
        self._end("delete_all")
        raise_where_nothing_is_known(outcomes)
        return outcomes

    def _removed(self, version: ObjectVersion) -> bool:
        """Whether the version is gone now; False where the key holds another one."""
        bucket, key, version_id = version.bucket, version.key, version.version_id
        found = self._find(bucket, key, version_id or "null")
        unguarded = version_id not in (None, "null")
        unchanged = found is not None and (found.version.etag, found.version.last_modified) == (
            version.etag,
            version.last_modified,
        )
        if (unguarded or unchanged) and (bucket in self.undeletable or version_id in self.locked):
            raise ObjectRetained(f"{bucket!r}/{key!r} may not be deleted")
        if found is not None and (unguarded or unchanged):
            versions = self.buckets[bucket][found.version.key]
            versions.remove(found)
            if not versions:
                del self.buckets[bucket][found.version.key]
        return found is None or unguarded or unchanged

    async def set_tags(self, bucket: str, key: str, tags: Mapping[str, str], *, deadline: Deadline) -> None:
        """Replace the tags of the current version, which are ten at most."""
        await self._begin(Call(method="set_tags", bucket=bucket, key=key), deadline)
        found = self._find(bucket, key, None)
        if found is None:
            raise ObjectGone(f"there is no {bucket!r}/{key!r}")
        if len(tags) > _MOST_TAGS or any(len(value) > _TAG_LENGTH for value in tags.values()):
            raise StoreUnavailable(f"{len(tags)} tags are too many, or too long")
        versions = self.buckets[bucket][found.version.key]
        versions[versions.index(found)] = replace(found, version=replace(found.version, tags=dict(tags)))
        self._end("set_tags")

    async def check(self, bucket: str, *, deadline: Deadline) -> None:
        """Answer, whether there is such a bucket or not."""
        await self._begin(Call(method="check", bucket=bucket), deadline)
        self._end("check")

    async def list_after(
        self, bucket: str, key: str, *, most: int = KEYS_A_PAGE, deadline: Deadline
    ) -> list[ListedObject]:
        """The next objects of the bucket after `key`, at most a thousand; their age is a second for each later
        write.
        """
        await self._begin(Call(method="list_after", bucket=bucket, key=key), deadline)
        self._keys(bucket)
        now = _EPOCH + timedelta(seconds=self._writes)
        # S3's order is that of the bytes, not of the characters.
        later = sorted((one for one in self.keys(bucket) if one.encode() > key.encode()), key=str.encode)
        self._end("list_after")
        return [self._listed(bucket, one, now) for one in later[: min(most, KEYS_A_PAGE)]]

    def _listed(self, bucket: str, key: str, now: datetime) -> ListedObject:
        current = self.buckets[bucket][key][-1]
        modified = parsedate_to_datetime(current.version.last_modified)
        return ListedObject(
            key=key,
            size=len(current.data or b""),
            etag=current.version.etag,
            modified=modified,
            age_seconds=(now - modified).total_seconds(),
        )

    async def close(self) -> None:
        """Note that it was called."""
        self.closed = True

    async def _begin(self, call: Call, deadline: Deadline) -> None:
        self.closed = False
        self.calls.append(call)
        deadline.remaining()
        # As with a real store, others have their turn meanwhile.
        await asyncio.sleep(0)
        if self.on_call is not None:
            waiting = self.on_call(call)
            if waiting is not None:
                await waiting
        raise_next(self.failures.before, call.method)

    def _end(self, method: str) -> None:
        raise_next(self.failures.after, method)

    def _keys(self, bucket: str, *, writing: bool = False) -> dict[str, list[StoredObject]]:
        if writing and self.create_buckets:
            self.buckets.setdefault(bucket, {})
        if bucket not in self.buckets:
            raise StoreUnavailable(f"there is no bucket {bucket!r}")
        return self.buckets[bucket]

    def _find(self, bucket: str, key: str, version_id: str | None) -> StoredObject | None:
        """The version of this id; of `"null"` the one without an id, of None the current one."""
        versions = self._keys(bucket).get(_stored_key(key), [])
        if version_id is None:
            versions = versions[-1:]
        else:
            wanted = None if version_id == "null" else version_id
            versions = [found for found in versions if found.version.version_id == wanted]
        # A delete marker is no object.
        return next((found for found in versions if found.data is not None), None)


def _is_version_id(text: str | None) -> bool:
    """Whether MinIO takes the text for a version id; to others it answers 400."""
    if text == "null":
        return True
    try:
        return text is not None and bool(uuid.UUID(text))
    except ValueError:
        return False


def _stored_key(key: str) -> str:
    """The key by which MinIO stores the object: it drops slashes at the front, and refuses doubled ones elsewhere."""
    stored = key.lstrip("/")
    segments = stored.encode(errors="replace").split(b"/")
    too_long = len(key.encode(errors="replace")) > MAX_KEY_BYTES or any(len(part) > _SEGMENT_BYTES for part in segments)
    if too_long or b"" in segments[:-1] or not stored.strip() or {b".", b".."} & set(segments):
        raise BadKey(f"{key!r:.200} can be no object's key")
    return stored


def _check_headers(content_headers: Mapping[str, str], metadata: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """See that they are not more than MinIO takes; what else it counts with them is not known here."""
    size = sum(len(f"x-amz-meta-{name}") + _sent_bytes(value) for name, value in metadata.items())
    tagging = len(urllib.parse.urlencode(tags, quote_via=urllib.parse.quote))
    others = tagging + sum(len(name) + len(value) for name, value in content_headers.items())
    if size > _METADATA_BYTES or size + others > _HEADER_BYTES:
        raise MetadataTooLarge(f"{size:,} bytes of metadata and {others:,} of others are more than the store takes")


def _sent_bytes(value: str) -> int:
    """The length of a header's value: what is not printable ASCII becomes one encoded word of base64."""
    if value.isascii() and value.isprintable() and "=?" not in value:
        return len(value)
    return len("=?UTF-8?B??=") + 4 * math.ceil(len(value.encode()) / 3)
