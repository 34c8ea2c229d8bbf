"""A topic's records on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TypeVar

from mnist_pipeline.adapters.kafka_records import CONNECT_SECONDS, TopicReader
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.adapters.threads import in_thread
from mnist_pipeline.pipeline.settings import Kafka

_POLL_SECONDS = 0.5

_T = TypeVar("_T")


class OpenTopic:
    """A topic that is being read; for one event loop."""

    def __init__(self, reader: TopicReader) -> None:
        self._reader = reader
        # kafka-python's consumer blocks, and takes one call at a time.
        self._lock = threading.Lock()

    async def poll(self) -> list[Record]:
        """The next records, by time; none where none have come within half a second."""
        return await self.call(partial(self._reader.poll, _POLL_SECONDS))

    async def is_at_end(self) -> bool:
        """Whether all is read that was there when it was opened."""
        return await self.call(self._reader.is_at_end)

    async def check(self, seconds: float) -> None:
        """See that the brokers still answer.

        Raises:
            KafkaUnavailable: they do not, within so many seconds.
        """
        await self.call(partial(self._reader.check, seconds))

    def call(self, method: Callable[[], _T]) -> asyncio.Future[_T]:
        """Call a method of the reader once the call before it has ended; nobody need wait for it."""

        def alone() -> _T:
            with self._lock:
                return method()

        return in_thread(alone, name="topic")


@contextlib.asynccontextmanager
async def opened(
    kafka: Kafka,
    *,
    key: bytes | None = None,
    since: datetime | None = None,
    after: Mapping[int, int] | None = None,
    new_only: bool = False,
    timeout: float = CONNECT_SECONDS,
) -> AsyncGenerator[OpenTopic, None]:
    """A topic, read from `since` or from its beginning; with a key, only the partition where its records are.

    `after` has the offsets behind which it is gone on with, by partition; with `new_only` only what comes is read.

    Raises:
        KafkaUnavailable: Kafka is away, or no answer came within `timeout` seconds, or it refuses us or the topic.
    """
    reader = TopicReader(kafka)
    topic = OpenTopic(reader)
    seconds = min(timeout, CONNECT_SECONDS)
    try:
        open_it = partial(reader.open, key=key, since=since, after=after, new_only=new_only, timeout_seconds=seconds)
        await topic.call(open_it)
        yield topic
    finally:
        reader.give_up()
        topic.call(reader.close)


async def records(
    kafka: Kafka, *, key: bytes | None = None, since: datetime | None = None, follow: bool = False
) -> AsyncGenerator[Record, None]:
    """The records of a topic, each partition in its order.

    Args:
        kafka: where it is.
        key: only the partition where this key's records are.
        since: only those from this moment on; None: all that are there.
        follow: go on waiting for others; else it ends where the topic ended when it began.

    Raises:
        KafkaUnavailable: Kafka is away, slow, or refuses us or the topic.
    """
    async with opened(kafka, key=key, since=since) as topic:
        while follow or not await topic.is_at_end():
            for record in await topic.poll():
                yield record
