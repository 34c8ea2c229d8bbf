"""Reads the site's two topics and tells `Live` what they tell, for as long as the page lasts.

Without a consumer group: whoever looks takes nothing from anybody, and leaves no trace on the brokers. Where Kafka goes
away it is said, and tried again until it is back; then each partition is gone on with behind the record that was read
last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.web.journeys import Step
from mnist_pipeline.web.live import Live
from mnist_pipeline.web.sightings import Notified, Published, notified_in, published_in

log = logging.getLogger(__name__)

# No record for so long: then the brokers are asked whether they are still there, and have so long to answer.
_SILENCE_SECONDS = 2.0
_CHECK_SECONDS = 3.0
_AGAIN_SECONDS = 0.5


class Topic(Protocol):
    """A topic that is being read: `client.topics.OpenTopic`."""

    async def poll(self) -> list[Record]:
        """The next records; none where none have come for a moment."""
        ...

    async def check(self, seconds: float) -> None:
        """See that the brokers answer.

        Raises:
            KafkaUnavailable: they do not, within so many seconds.
        """
        ...


Open = Callable[[Mapping[int, int]], AbstractAsyncContextManager[Topic]]
"""Opens a topic behind these offsets, by partition; raises KafkaUnavailable."""


SeenIn = Callable[[Record], Sequence[Notified | Published]]
"""What a record tells."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A topic as the page reads it; `named_by` is the flag or the variable that names it."""

    topic: str
    named_by: str
    open: Open


class Feed:
    """Both topics of a site, from their sources to `live`."""

    def __init__(self, live: Live, settings: Settings, *, notifications: Source, results: Source) -> None:
        self._live = live
        self._settings = settings
        self._notifications = notifications
        self._results = results

    async def run(self) -> None:
        """Read until it is cancelled."""
        await asyncio.gather(
            self._follow(self._notifications, self._notified_in),
            self._follow(self._results, self._published_in),
        )

    async def _follow(self, source: Source, seen_in: SeenIn) -> None:
        after: dict[int, int] = {}
        while True:
            try:
                async with source.open(after) as topic:
                    self._tell(source, "")
                    await self._read(topic, seen_in, after)
            except KafkaUnavailable as exc:
                self._tell(source, str(exc))
            except Exception:
                # A bug of ours must not end the page.
                log.exception("reading topic %s failed in a way that nobody foresaw", source.topic)
                self._tell(source, "internal error; the log has more")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _read(self, topic: Topic, seen_in: SeenIn, after: dict[int, int]) -> None:
        heard = time.monotonic()
        while True:
            records = await topic.poll()
            if records:
                # They come by time. A topic that was made anew begins with small offsets again.
                after.update(sorted((record.partition, record.offset) for record in records))
                # In a thread: a record may have a megabyte.
                for seen in await asyncio.to_thread(_all_seen_in, records, seen_in):
                    self._live.take(self._take(seen))
            elif time.monotonic() - heard > _SILENCE_SECONDS:
                await topic.check(_CHECK_SECONDS)
            else:
                continue
            heard = time.monotonic()

    def _take(self, seen: Notified | Published) -> Step | None:
        journeys = self._live.journeys
        return journeys.notified(seen) if isinstance(seen, Notified) else journeys.published(seen)

    def _notified_in(self, record: Record) -> Sequence[Notified]:
        return notified_in(record, self._settings)

    def _published_in(self, record: Record) -> Sequence[Published]:
        seen = published_in(record, self._settings)
        return [] if seen is None else [seen]

    def _tell(self, source: Source, trouble: str) -> None:
        before = self._live.status["kafka"]
        # Whoever reads a topic takes it for that of the results.
        self._live.tell(source.topic, trouble.replace("KAFKA_TOPIC", source.named_by))
        status = self._live.status
        if status["kafka"] != before:
            log.log(logging.WARNING if trouble else logging.INFO, "%s", status["says"])


def _all_seen_in(records: Sequence[Record], seen_in: SeenIn) -> list[Notified | Published]:
    found: list[Notified | Published] = []
    for record in records:
        try:
            found += seen_in(record)
        except Exception:
            # A bug of ours, which must not hide what the others tell.
            log.exception("%s, partition %d, offset %d is passed over", record.topic, record.partition, record.offset)
    return found
