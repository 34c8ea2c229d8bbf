"""What became of a trace id: from memory, or, of an older one, from the topics as they lie on Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.pipeline.errors import DeadlineExceeded, KafkaUnavailable
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.web.journeys import Journeys, Kept
from mnist_pipeline.web.sightings import Notified, Published, as_json, notified_in, published_in

_RESULTS_SECONDS = 30.0
# The notifications are a help to whoever looks, and not what was asked for.
_NOTIFICATIONS_SECONDS = 10.0
_BEFORE_SECONDS = 600.0
# Whoever gives every upload the same trace id sees the newest.
_MOST_RESULTS = 20
_KEPT_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class History:
    """Looks on the topics.

    Attributes:
        settings: the site's.
        results: reads the records of the partition where a key lies, to its end; raises KafkaUnavailable.
        notifications: reads all records from a moment on: stores do not hash keys as Kafka's own clients do.
    """

    settings: Settings
    results: Callable[[bytes], AsyncGenerator[Record, None]]
    notifications: Callable[[datetime], AsyncGenerator[Record, None]]

    async def of(self, trace_id: str, journeys: Journeys) -> dict[str, Any] | None:
        """The journeys with a trace id, and the records that tell them, as the page gets them; None: it is unknown.

        Raises:
            KafkaUnavailable: Kafka is away, slow or refuses us.
            DeadlineExceeded: the topic of results is too long to be read for one.
        """
        found = journeys.with_trace_id(trace_id)
        if not any(kept.results or kept.notifications for kept in found):
            found = await self._older(trace_id) or found
        if not found:
            return None
        return {
            "journeys": [kept.journey for kept in found],
            "notifications": [as_json(record) for kept in found for record in kept.notifications],
            "results": [as_json(record) for kept in found for record in kept.results],
        }

    async def _older(self, trace_id: str) -> list[Kept]:
        try:
            results = await asyncio.wait_for(self._results_with(trace_id), _RESULTS_SECONDS)
        except (asyncio.TimeoutError, TimeoutError) as exc:
            raise DeadlineExceeded(
                f"the topic of results was not read to its end within {_RESULTS_SECONDS:g} s"
            ) from exc
        joined = Journeys(kept_bytes=_KEPT_BYTES)
        for published in results:
            joined.published(published)
        if any(seen.place for seen in results):
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError, KafkaUnavailable):
                await asyncio.wait_for(self._add_notifications(joined, trace_id, results), _NOTIFICATIONS_SECONDS)
        return joined.with_trace_id(trace_id)

    async def _results_with(self, trace_id: str) -> list[Published]:
        found: list[Published] = []
        async with contextlib.aclosing(self.results(trace_id.encode())) as records:
            async for record in records:
                seen = published_in(record, self.settings)
                if seen is not None and seen.result.trace_id == trace_id:
                    found = [*found, seen][-_MOST_RESULTS:]
        return found

    async def _add_notifications(self, joined: Journeys, trace_id: str, results: Sequence[Published]) -> None:
        """Add those of the results' objects, until each has one."""
        earliest = min(seen.at for seen in results) / 1000 - _BEFORE_SECONDS
        # Producers may tell any time; Kafka is asked for none before 1970.
        since = datetime.fromtimestamp(min(max(earliest, 0), time.time()), timezone.utc)
        async with contextlib.aclosing(self.notifications(since)) as records:
            async for record in records:
                for notified in notified_in(record, self.settings):
                    if notified.trace_id in (None, trace_id) and _is_of_one(notified, results):
                        joined.notified(notified)
                if all(kept.notifications for kept in joined.with_trace_id(trace_id)):
                    return


def _is_of_one(notified: Notified, results: Sequence[Published]) -> bool:
    """Whether it is about the version of one of these results."""
    return any(
        seen.place == notified.place
        and all(seen.object.get(name) in (None, value) for name, value in notified.object.items() if value != "null")
        for seen in results
    )
