"""Messages that come close together go to the broker together: a request costs as much CPU for one as for ten.

kafka-python's own `linger_ms` would hold each message, also the one that nobody joins; this holds none where messages
come one after the other.
"""

from __future__ import annotations

import asyncio

HOLD_SECONDS = 0.008
"""How long a message waits for others, where others are likely to come."""

# So many times in a row a message may wait in vain, before the next ones are not held.
_PATIENCE = 8


class Grouping:
    """Lets messages of one event loop go in groups. Others are likely where one is still under way when another comes,
    or has come while one waited.
    """

    def __init__(self) -> None:
        self._under_way = 0
        self._patience = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> None:
        """Wait until a message may go; it is under way until the block ends."""
        if self._under_way:
            self._patience = _PATIENCE
        if self._patience:
            await self._turn()
        self._under_way += 1

    async def __aexit__(self, *_: object) -> None:
        self._under_way -= 1

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_later(HOLD_SECONDS, self._let_go)
        self._waiting.append(turn)
        await turn

    def _let_go(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._patience = _PATIENCE if len(waiting) > 1 else self._patience - 1
        for turn in waiting:
            # Whoever was cancelled does not go.
            if not turn.done():
                turn.set_result(None)
