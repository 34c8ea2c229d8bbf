"""Readiness: a latch, set once the store and Kafka have answered; from then on traffic is the better probe."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from mnist_pipeline.pipeline.errors import PipelineError

log = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
"""What one check of the store and Kafka may take."""

_PAUSE_SECONDS = 1.0


class Readiness:
    """One check at a time and not more often than once a second, until one succeeds; belongs to one event loop.

    KServe asks before every request, so `look` is cheap: a flag, or at most a second's wait while a check is under way.
    """

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._ready = False
        self._checking: asyncio.Task[None] | None = None
        self._checked_at = float("-inf")
        self._said = ""

    async def look(self) -> bool:
        """Whether a check has ever succeeded; starts one if it is time."""
        if self._ready:
            return True
        if self._checking is None and time.monotonic() - self._checked_at > _PAUSE_SECONDS:
            self._checking = asyncio.create_task(self._run())
        if self._checking is not None:
            await asyncio.wait((self._checking,), timeout=_PAUSE_SECONDS)
        return self._ready

    async def _run(self) -> None:
        try:
            await self._check()
        except PipelineError as exc:
            # Once for each new reason: a probe comes every few seconds, for as long as something is away.
            if str(exc) != self._said:
                self._said = str(exc)
                log.error("not ready: %s", exc)
        else:
            log.info("ready: the store and Kafka have answered")
            self._ready = True
        finally:
            self._checked_at = time.monotonic()
            self._checking = None
