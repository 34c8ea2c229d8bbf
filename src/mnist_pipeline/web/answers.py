"""Answers that are kept for a short time: what many browsers ask at once is asked once, and only so much is in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Answers(Generic[_T]):
    """What was answered, by what was asked; for one event loop.

    Args:
        seconds: how long an answer is kept; an error is not.
        most: how many are kept.
        at_once: how many are being made at once; the others wait.
    """

    def __init__(self, *, seconds: float, most: int, at_once: int) -> None:
        self._seconds = seconds
        self._most = most
        self._slots = asyncio.Semaphore(at_once)
        self._kept: dict[Hashable, asyncio.Task[_T]] = {}

    async def get(self, asked: Hashable, make: Callable[[], Awaitable[_T]]) -> _T:
        """The answer that is kept, or being made for somebody else, or what `make` gives."""
        answer = self._kept.get(asked)
        if answer is None:
            answer = self._kept[asked] = asyncio.create_task(self._make(make))
            answer.add_done_callback(partial(self._keep, asked))
            while len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
        # Who asked first may go before the others.
        return await asyncio.shield(answer)

    async def close(self) -> None:
        """Give up what is being made."""
        answers = list(self._kept.values())
        for answer in answers:
            answer.cancel()
        await asyncio.gather(*answers, return_exceptions=True)

    async def _make(self, make: Callable[[], Awaitable[_T]]) -> _T:
        async with self._slots:
            return await make()

    def _keep(self, asked: Hashable, answer: asyncio.Task[_T]) -> None:
        # Read once, an error that nobody waits for any more is not complained of.
        if answer.cancelled() or answer.exception():
            self._forget(asked, answer)
        else:
            asyncio.get_running_loop().call_later(self._seconds, self._forget, asked, answer)

    def _forget(self, asked: Hashable, answer: asyncio.Task[_T]) -> None:
        if self._kept.get(asked) is answer:
            del self._kept[asked]
