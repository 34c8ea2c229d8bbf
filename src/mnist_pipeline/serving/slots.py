"""Requests in hand at once: so many, and a short wait for the others."""

from __future__ import annotations

import asyncio

from mnist_pipeline.pipeline.errors import Busy

WAIT_SHARE = 0.25
"""What of its time a request waits for a slot; then it is told to come again."""


class Slots:
    """The slots of one process; belongs to one event loop."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._free = asyncio.Semaphore(number)

    async def take(self, seconds: float) -> None:
        """Take a slot, which is to be given back.

        Raises:
            Busy: none has become free for so long.
        """
        if not self._free.locked():
            await self._free.acquire()  # at once: no timer is needed
            return
        try:
            await asyncio.wait_for(self._free.acquire(), seconds)
        except (asyncio.TimeoutError, TimeoutError) as exc:
            raise Busy(f"{self._number} requests are in hand already") from exc

    def give_back(self) -> None:
        """Let another have it."""
        self._free.release()

    async def all(self) -> None:
        """Wait until no request is in hand, and let no other begin."""
        for _ in range(self._number):
            await self._free.acquire()
