"""A copy of an object comes into being: under a name that is free, described as its source is, and never over another.

An object moved is the same object: its bytes, content type, content headers, metadata and tags are kept, and its trace
id is among the metadata, so that the copy and its result find each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from mnist_pipeline.pipeline.errors import BadKey, MetadataTooLarge, ObjectGone, StoreUnavailable
from mnist_pipeline.pipeline.ports import MAX_KEY_BYTES, Deadline, ObjectStore, ObjectVersion
from mnist_pipeline.pipeline.results import id_of, object_identity

log = logging.getLogger(__name__)

REJECTED_REASON = "rejected-reason"
"""Among the metadata of a rejected object: why, in one word."""

PUBLISHED_AS = "published-as"
"""The tag of a copy whose source may not be released: the ids of the results that Kafka has acknowledged for it.

So they are not published again whenever the event comes again, or `reconcile` meets the source.
"""

MAX_SEGMENT_BYTES = 255
# What follows the last dot is a suffix only if it is as short as one.
MAX_SUFFIX = 16

# As many as fit into the 256 characters of a tag's value; sources with one key and the same bytes share a copy.
_PUBLISHED_IDS = 6

# How often an object that appears and vanishes under our hands is put again.
_PUT_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Where an object has been filed, or rejected, and the tags that it has there."""

    bucket: str
    key: str
    tags: Mapping[str, str]

    @property
    def published(self) -> list[str]:
        """The ids of the results with which it is marked."""
        return self.tags.get(PUBLISHED_AS, "").split()


async def put(
    store: ObjectStore,
    version: ObjectVersion,
    data: bytes,
    bucket: str,
    key: str,
    *,
    own: Mapping[str, str],
    deadline: Deadline,
) -> Copy:
    """Put the bytes of `version`, with all that describes it and our `own` metadata, under the first of their names
    that is free or has the same bytes.

    Raises:
        StoreUnavailable: all names are taken by other bytes; or as the port does.
    """

    async def write(like: ObjectVersion) -> Copy:
        for name in _names(key, data):
            for _ in range(_PUT_ATTEMPTS):
                created = await store.put(
                    bucket,
                    name,
                    data,
                    content_type=like.content_type,
                    content_headers=like.content_headers,
                    metadata=like.metadata,
                    tags=like.tags,
                    deadline=deadline,
                )
                if created:
                    return Copy(bucket=bucket, key=name, tags=like.tags)
                try:
                    there = await store.get(bucket, name, None, limit=len(data), deadline=deadline)
                except ObjectGone:
                    continue  # it vanished meanwhile: put again
                if there.data == data:
                    return Copy(bucket=bucket, key=name, tags=there.version.tags)
                break
        raise StoreUnavailable(f"every name for {key!r} in bucket {bucket!r} is taken by other bytes")

    return await _write_what_fits(version, own, write)


async def have_copied(
    store: ObjectStore, version: ObjectVersion, bucket: str, *, own: Mapping[str, str], deadline: Deadline
) -> Copy:
    """Have the server copy what is not in hand, to a name that only this very version can have.

    A copy that is marked with this version's result is left as it is: a new one would not be marked.
    """
    identity = object_identity(version)
    digest = hashlib.sha256("\n".join(identity).encode()).hexdigest()
    key = _suffixed(version.key, digest[:12])
    # To who may not list a bucket, S3 says of what is missing there that it is forbidden.
    with contextlib.suppress(ObjectGone, BadKey, StoreUnavailable):
        there = await store.get(bucket, key, None, limit=0, deadline=deadline)
        copy = Copy(bucket=bucket, key=key, tags=there.version.tags)
        if id_of(identity) in copy.published:
            return copy

    async def write(like: ObjectVersion) -> Copy:
        await store.copy(like, bucket, key, metadata=like.metadata, deadline=deadline)
        return Copy(bucket=bucket, key=key, tags=version.tags)

    return await _write_what_fits(version, own, write)


async def mark(store: ObjectStore, copy: Copy, result_id: str, *, deadline: Deadline) -> None:
    """Note on the copy that the result of this id is published, beside its other tags.

    Raises:
        StoreUnavailable, ObjectGone, BadKey, DeadlineExceeded: it is not noted.
    """
    ids = [*copy.published, result_id][-_PUBLISHED_IDS:]
    await store.set_tags(copy.bucket, copy.key, {**copy.tags, PUBLISHED_AS: " ".join(ids)}, deadline=deadline)


async def _write_what_fits(
    version: ObjectVersion, own: Mapping[str, str], write: Callable[[ObjectVersion], Awaitable[Copy]]
) -> Copy:
    """Have a copy written that is described as the version is, with our `own` metadata; with less, where the store
    takes no more.
    """
    refusal: MetadataTooLarge | None = None
    for like in _descriptions(version, own):
        try:
            copy = await write(like)
        except MetadataTooLarge as exc:
            refusal = exc
            continue
        if refusal is not None:
            _warn_of_what_is_lost(version, like)
        return copy
    raise refusal or AssertionError("there is always one description")


def _descriptions(version: ObjectVersion, own: Mapping[str, str]) -> Iterator[ObjectVersion]:
    """How a copy may be described, fullest first; the content type and our own metadata are always part of it.

    What we add to the metadata, or its being encoded, can be too much for a store that took it from the user; tags may
    be set in a request's body, and are sent in a header.
    """
    yield (like := replace(version, metadata={**version.metadata, **own}))
    if version.metadata:
        yield (like := replace(like, metadata=own))
    if version.tags:
        yield replace(like, metadata={**version.metadata, **own}, tags={})
        yield (like := replace(like, tags={}))
    if version.content_headers:
        yield replace(like, content_headers={})


def _warn_of_what_is_lost(version: ObjectVersion, like: ObjectVersion) -> None:
    kinds = (
        (version.metadata, like.metadata),
        (version.tags, like.tags),
        (version.content_headers, like.content_headers),
    )
    if left_out := [name for had, has in kinds for name in sorted(had.keys() - has.keys())]:
        log.warning(
            "%s/%s had more metadata or tags than the store takes: %.200s are left out where it is now",
            version.bucket,
            ascii(version.key),
            ascii(left_out),
        )


def _names(key: str, data: bytes) -> Iterator[str]:
    """The names for these bytes, best first: the key, then with 12 and with 64 hexadecimal digits of their sha256."""
    if _fits(key):
        yield key
    digest = hashlib.sha256(data).hexdigest()
    yield _suffixed(key, digest[:12])
    yield _suffixed(key, digest)


def _fits(key: str) -> bool:
    encoded = key.encode()
    return len(encoded) <= MAX_KEY_BYTES and all(len(part) <= MAX_SEGMENT_BYTES for part in encoded.split(b"/"))


def _suffixed(key: str, digest: str) -> str:
    """`<stem, cut to fit>-<digest><suffix>`; cut where the last segment or the whole name would be too long."""
    stem, dot, suffix = key.rpartition(".")
    if not dot or "/" in suffix or len(suffix) > MAX_SUFFIX:
        stem, dot, suffix = key, "", ""
    end = f"-{digest}{dot}{suffix}".encode()
    cut = stem.encode()[: MAX_KEY_BYTES - len(end)]
    too_long = len(cut.rpartition(b"/")[2]) + len(end) - MAX_SEGMENT_BYTES
    if too_long > 0:
        cut = cut[:-too_long]
    # A character that was cut in two is left out whole.
    return cut.decode(errors="ignore") + end.decode()
