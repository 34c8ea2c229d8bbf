"""What all browsers see at once: journeys, figures, and whether Kafka is there, as server-sent events.

Format: the HTML standard, section 9.2, "Server-sent events".

Nothing is queued for a browser: it is told what has changed since it was told last, so that a slow one gets the newest
state of each journey later, and costs no more than a fast one.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

import orjson

from mnist_pipeline.web.figures import Figures
from mnist_pipeline.web.journeys import Journeys, Step

REPLAYED = 200
"""Journeys that a browser is told of when it comes."""

MOST_STREAMS = 500
"""Browsers at once."""

# In one piece of a stream, which waits in memory until the browser has taken it.
_AT_ONCE = 200
# What changes within this time goes out together.
_PAUSE_SECONDS = 0.1
# Proxies cut what is silent for a minute, some for half of it.
_SILENCE_SECONDS = 15.0
_FIGURES_SECONDS = 1.0


class Live:
    """The newest of the site, and who watches it; belongs to one event loop.

    Args:
        topics: what is read; nothing is reached yet.

    Attributes:
        journeys: the newest of them.
        streams: how many watch it.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        self.journeys = Journeys()
        self.streams = 0
        self._figures = Figures()
        self._told_figures = self._figures.as_json()
        self._troubles = dict.fromkeys(topics, "Kafka is not reached yet")
        self._status = self._status_now(None)
        # By it a browser that comes back is known to have watched this process.
        self._process = secrets.token_hex(4)
        self._wakes: set[asyncio.Event] = set()
        self._is_closed = False

    @property
    def status(self) -> dict[str, Any]:
        """Whether Kafka is there, and since when."""
        return self._status

    def take(self, step: Step | None) -> None:
        """A journey has got further."""
        if step is not None:
            self._figures.take(step)
            self._wake()

    def tell(self, topic: str, trouble: str) -> None:
        """A topic can be read again, or not: then `trouble` says why."""
        self._troubles[topic] = trouble
        now = self._status_now(self._status)
        if now != self._status:
            self._status = now
            self._wake()

    async def run(self) -> None:
        """Keep the figures; it does not end."""
        while True:
            await asyncio.sleep(_FIGURES_SECONDS)
            figures = self._figures.as_json()
            if figures != self._told_figures:
                self._told_figures = figures
                self._wake()

    def close(self) -> None:
        """End all streams."""
        self._is_closed = True
        self._wake()

    async def stream(self, last_event_id: str = "") -> AsyncGenerator[bytes, None]:
        """What a browser gets, piece by piece, until it goes or the page is closed.

        Args:
            last_event_id: of the event that it has had last, where it comes back.
        """
        wake = asyncio.Event()
        self._wakes.add(wake)
        self.streams += 1
        try:
            cursor = self._change_of(last_event_id)
            status: object = None
            figures: object = None
            begins = True
            while not self._is_closed:
                wake.clear()
                pieces = []
                if begins or self._has_lost(cursor):
                    is_resumed = cursor is not None and not self._has_lost(cursor)
                    pieces.append(_event("begin", orjson.dumps({"is_resumed": is_resumed})))
                if status is not self._status:
                    status = self._status
                    pieces.append(_event("status", orjson.dumps(status)))
                if figures is not self._told_figures:
                    figures = self._told_figures
                    pieces.append(_event("figures", orjson.dumps(figures)))
                changed, cursor = self._told_next(cursor)
                pieces += changed
                begins = False
                if pieces:
                    yield b"".join(pieces)
                    await asyncio.sleep(_PAUSE_SECONDS if cursor == self.journeys.change else 0)
                elif not await _is_set_within(wake, _SILENCE_SECONDS):
                    yield b": still here\n\n"
        finally:
            self.streams -= 1
            self._wakes.discard(wake)

    def _status_now(self, before: Mapping[str, Any] | None) -> dict[str, Any]:
        topics: dict[str, list[str]] = {}
        for topic, trouble in self._troubles.items():
            topics.setdefault(trouble, []).append(topic)
        sentences = [f"{' and '.join(of)} cannot be read: {trouble}." for trouble, of in topics.items() if trouble]
        kafka = "away" if sentences else "ok"
        since = before["since"] if before is not None and before["kafka"] == kafka else time.time() * 1000
        return {"kafka": kafka, "says": " ".join(sentences) or "Kafka is there.", "since": since}

    def _told_next(self, cursor: int | None) -> tuple[list[bytes], int]:
        """The events of journeys that a browser gets next, and the change that it knows of by then."""
        if cursor is None or self._has_lost(cursor):
            # They stand by time, not by change: only who has all of them can go on from there.
            replayed = [_event("journey", kept.encoded) for kept in self.journeys.newest(REPLAYED)]
            return [*replayed, b"id: %s\n\n" % self._id_of(self.journeys.change)], self.journeys.change
        changed = self.journeys.changed_since(cursor, _AT_ONCE)
        told = [b"id: %s\n%s" % (self._id_of(kept.change), _event("journey", kept.encoded)) for kept in changed]
        return told, changed[-1].change if changed else self.journeys.change

    def _has_lost(self, cursor: int | None) -> bool:
        """Whether a journey has changed since then that is no longer here."""
        return cursor is not None and cursor < self.journeys.lost

    def _change_of(self, event_id: str) -> int | None:
        process, _, change = event_id.partition("-")
        if process != self._process or not change.isdecimal() or not change.isascii() or len(change) > len(str(2**63)):
            return None
        return int(change) if int(change) <= self.journeys.change else None

    def _id_of(self, change: int) -> bytes:
        return f"{self._process}-{change}".encode()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
