"""Announces what lies in the source buckets on a topic, as MinIO does what is uploaded, so that a consumer group does
the work.

It is safe beside live traffic and beside itself: an object that is announced twice is gone the second time, or has a
result with the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence

import orjson

from mnist_pipeline.pipeline.minio_notification import notification_of
from mnist_pipeline.pipeline.ports import Deadline, ListedObject, Message, Publisher
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.site.reconcile import PROGRESS_SECONDS, Listing, is_missed
from mnist_pipeline.site.shards import Shard, Shards

log = logging.getLogger(__name__)

USER_AGENT = "mnist-pipeline reconcile"
"""By which a reader tells these notifications from the store's own."""

# So many keep a producer busy, and are a few MB at most.
_IN_FLIGHT = 1000
_PUBLISH_SECONDS = 60.0
# The rate is kept in steps of this time.
_STEP_SECONDS = 0.1
_KEEP_SECONDS = 1.0


def announcement(bucket: str, one: ListedObject) -> Message:
    """The record that MinIO would write of an object in a listing. It names no version, which listings do not tell."""
    notification = notification_of(
        bucket,
        one.key,
        time=one.modified.strftime("%Y-%m-%dT%H:%M:%S.") + f"{one.modified.microsecond // 1000:03}Z",
        described={
            **({"size": one.size} if one.size else {}),
            "eTag": one.etag,
            "sequencer": f"{round(one.modified.timestamp() * 1e9):016X}",
        },
        user_agent=USER_AGENT,
    )
    return Message(key=f"{bucket}/{one.key}".encode(), value=orjson.dumps(notification))


class Announcer:
    """One run over the source buckets.

    Args:
        listing: of the store.
        publisher: to the notifications' topic.
        settings: which buckets and suffixes are sources.
        older_than_seconds: younger objects are left to their events.
        shards: so many listings are read side by side.
        begin: where an earlier run ended; None: at the front.
        rate: at most so many objects a second; None: as fast as it goes.
        keep: told at the start, every second and at the end what is left, so that a later run may begin there.

    Attributes:
        announced: how many notifications the brokers have acknowledged.
    """

    def __init__(
        self,
        listing: Listing,
        publisher: Publisher,
        settings: Settings,
        *,
        older_than_seconds: float,
        shards: int,
        begin: Iterable[Shard] | None = None,
        rate: float | None = None,
        keep: Callable[[Sequence[Shard]], None] | None = None,
    ) -> None:
        self.announced = 0
        self._publisher = publisher
        self._settings = settings
        self._older_than_seconds = older_than_seconds
        whole = [Shard(bucket=bucket) for bucket in settings.source_buckets]
        self._shards = Shards(listing, whole if begin is None else begin, most=shards)
        self._at_once = max(_IN_FLIGHT // shards, 1)
        self._pause_seconds = 1 / rate if rate else 0.0
        if rate:
            self._at_once = max(min(self._at_once, int(rate * _STEP_SECONDS)), 1)
        self._keep = keep or (lambda _left: None)
        self._next_at = self._kept_at = self._told_at = time.monotonic()

    @property
    def left(self) -> Sequence[Shard]:
        """What is not announced to its end."""
        return self._shards.left

    def stop(self) -> None:
        """Begin no other object."""
        self._shards.stop()

    async def run(self) -> None:
        """Announce everything.

        Raises:
            StoreUnavailable, DeadlineExceeded: a listing is cut short.
            KafkaUnavailable: notifications are not acknowledged.
            OSError: raised by `keep`.
        """
        self._keep(self.left)
        try:
            await self._shards.walk(self._announce)
        finally:
            self._keep(self.left)

    def summary(self) -> str:
        """How far it has come, in one line."""
        return f"{self.announced:,} announced; {'not all' if self.left else 'all'} of the listing is read"

    async def _announce(self, shard: Shard, listed: Sequence[ListedObject]) -> None:
        due = [
            one
            for one in listed
            if is_missed(shard.bucket, one, self._settings, older_than_seconds=self._older_than_seconds)
        ]
        for first in range(0, len(due), self._at_once):
            some = due[first : first + self._at_once]
            await self._turn(len(some))
            if self._shards.stopped.is_set():
                return
            await self._publish(shard, some)
        self._tell()

    async def _turn(self, number: int) -> None:
        """Wait as long as the rate asks for before so many more, or until it is stopped."""
        now = time.monotonic()
        at, self._next_at = self._next_at, max(self._next_at, now) + number * self._pause_seconds
        if at > now:
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(self._shards.stopped.wait(), at - now)

    async def _publish(self, shard: Shard, some: Sequence[ListedObject]) -> None:
        """Publish the notifications of some objects, and move behind those that are acknowledged."""
        deadline = Deadline(_PUBLISH_SECONDS)
        sent = await asyncio.gather(
            *(self._publisher.publish(announcement(shard.bucket, one), deadline=deadline) for one in some),
            return_exceptions=True,
        )
        self.announced += sent.count(None)
        for one, failure in zip(some, sent, strict=True):
            if failure is not None:
                raise failure
            shard.after = one.key
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now > self._kept_at + _KEEP_SECONDS:
            self._kept_at = now
            self._keep(self.left)
        if now > self._told_at + PROGRESS_SECONDS:
            self._told_at = now
            log.info("so far: %s", self.summary())
