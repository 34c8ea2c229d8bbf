"""The two ports of the pipeline, `ObjectStore` and `Publisher`, and the values that pass through them.

Both belong to one event loop, and never block it. Adapters: `adapters.object_store.MinioObjectStore` and
`adapters.kafka_publisher.KafkaPublisher`; in memory: `testing.MemoryStore` and `testing.MemoryPublisher`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from mnist_pipeline.pipeline.errors import DeadlineExceeded, PipelineError

MAX_KEY_BYTES = 1024
"""S3: a key is at most so many bytes of UTF-8."""

KEYS_A_PAGE = 1000
"""S3: a listing has at most so many keys at once."""

CONTENT_HEADERS = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")
"""What S3 keeps of an upload's own headers beside its content type ("system-defined metadata" that a user may set)."""


class Deadline:
    """A point in monotonic time by which an event must be settled, shared by all of its steps; `began`: since when."""

    __slots__ = ("_end", "began")

    def __init__(self, seconds: float) -> None:
        self.began = time.monotonic()
        self._end = self.began + seconds

    def remaining(self) -> float:
        """Seconds left, above zero.

        Raises:
            DeadlineExceeded: none are left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded("the event's deadline has passed")
        return left

    def share(self, part: float) -> Deadline:
        """An earlier deadline, after `part` (0..1) of what is left, so that the steps that follow have the rest."""
        return Deadline(part * (self._end - time.monotonic()))


@dataclass(frozen=True, kw_only=True)
class ObjectVersion:
    """One version of an object as the store described it when it was fetched; its identity.

    `version_id` is None in a bucket that never had versions, `"null"` for an object from before they were switched on.
    `etag` is without quotes, `last_modified` the HTTP date as sent, `metadata` has lower-case names without `x-amz-
    meta-`, `content_headers` those of CONTENT_HEADERS that it has.
    """

    bucket: str
    key: str
    version_id: str | None
    etag: str
    last_modified: str
    content_type: str = "application/octet-stream"
    content_headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """A version and its bytes; `data` is None where they are more than the limit that the caller gave."""

    version: ObjectVersion
    data: bytes | None


@dataclass(frozen=True, kw_only=True)
class ListedObject:
    """One object in a listing; its times are by the store's own clock, its ETag is without quotes."""

    key: str
    size: int
    etag: str
    modified: datetime
    age_seconds: float


@dataclass(frozen=True, kw_only=True)
class Message:
    """One Kafka record without its topic."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class ObjectStore(Protocol):
    """Where the images are: an S3-compatible store.

    Every method may raise StoreUnavailable (away, slow, confused, credentials refused, bucket missing) and
    DeadlineExceeded; nothing of the client library passes through.
    """

    async def get(
        self, bucket: str, key: str, version_id: str | None, *, limit: int, deadline: Deadline
    ) -> StoredObject:
        """Fetch exactly this version; the latest where `version_id` is None or where the store calls it invalid.

        Raises:
            ObjectGone: there is no such object or version.
            BadKey: the store says that no object can have this key.
        """
        ...

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
        """Create the object; False, and nothing done, where one of that key exists already.

        Raises:
            BadKey: the store says that no object can have this key.
            MetadataTooLarge: `metadata` is more than it takes, or that with the headers and tags; nothing is done.
        """
        ...

    async def copy(
        self, version: ObjectVersion, bucket: str, key: str, *, metadata: Mapping[str, str], deadline: Deadline
    ) -> None:
        """Have the server copy exactly this version, its metadata replaced by `metadata`, to a name that only it can
        have; its content type, content headers and tags stay.

        Raises:
            ObjectGone: it changed or vanished before.
            ObjectTooLarge: the server refuses to copy it.
            MetadataTooLarge: `metadata` is more than it takes, or that with the headers; nothing is done.
        """
        ...

    async def delete(self, version: ObjectVersion, *, deadline: Deadline) -> bool:
        """Remove exactly this version; False, and nothing removed, where the key holds another one by now.

        A version that is gone already counts as removed. Never repeated, never begun after the deadline.

        Raises:
            ObjectRetained: the store refuses it, and would refuse it again.
        """
        ...

    async def delete_all(self, versions: Sequence[ObjectVersion], *, deadline: Deadline) -> list[bool | PipelineError]:
        """Remove exactly these versions, with as few requests as the store takes; what `delete` would say of each, or
        the error that it would raise, in the order of `versions`.

        Never repeated, and no request is begun after the deadline: what became of some may be known, and of others not.
        It raises only where each of them may still be there, and could be removed later; the first one's error.
        """
        ...

    async def set_tags(self, bucket: str, key: str, tags: Mapping[str, str], *, deadline: Deadline) -> None:
        """Replace the tags of the object that is there now.

        Raises:
            ObjectGone: there is none.
        """
        ...

    async def check(self, bucket: str, *, deadline: Deadline) -> None:
        """Ask the store for something small about `bucket`, to know that it answers us; a missing bucket is an
        answer.
        """
        ...

    async def close(self) -> None:
        """Release the connections; a later call may open new ones."""
        ...


class Publisher(Protocol):
    """Where the results go: a Kafka topic.

    Every method may raise KafkaUnavailable and DeadlineExceeded; nothing of the client library passes through.
    """

    async def publish(self, message: Message, *, deadline: Deadline) -> None:
        """Send the message and wait for the broker's acknowledgement.

        Raises:
            MessageTooLarge: the client or the broker refuses it for its size.
        """
        ...

    async def check(self, *, deadline: Deadline) -> None:
        """Ask a broker for the topic, to know that it answers us."""
        ...

    async def close(self) -> None:
        """Release the connections within a few seconds, whatever the brokers do."""
        ...
