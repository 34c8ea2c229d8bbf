"""A Kafka topic in memory."""

from __future__ import annotations

import asyncio

from mnist_pipeline.pipeline.errors import KafkaUnavailable, MessageTooLarge
from mnist_pipeline.pipeline.ports import Deadline, Message
from mnist_pipeline.testing.failures import Failures, raise_next


class MemoryPublisher:
    """The port `Publisher` in memory.

    Args:
        max_bytes: the largest value that it takes.

    Attributes:
        messages: what was published, in order.
        checks: how often `check` was called.
        failures: what shall fail, by the methods' names `publish` and `check`.
        closed: whether `close` was called last.
    """

    def __init__(self, *, max_bytes: int = 1_000_000) -> None:
        self.max_bytes = max_bytes
        self.messages: list[Message] = []
        self.checks = 0
        self.failures = Failures()
        self.closed = False
        self._answers = asyncio.Event()
        self._answers.set()

    def freeze(self) -> None:
        """Answer nobody, as a broker that goes on accepting connections and never says a word."""
        self._answers.clear()

    def thaw(self) -> None:
        """Answer again, also those who wait."""
        self._answers.set()

    async def publish(self, message: Message, *, deadline: Deadline) -> None:
        """Append the message to `messages`."""
        await self._wait_for_answer(deadline)
        self.closed = False
        raise_next(self.failures.before, "publish")
        if len(message.value) > self.max_bytes:
            raise MessageTooLarge(f"{len(message.value):,} bytes are more than {self.max_bytes:,}")
        self.messages.append(message)
        raise_next(self.failures.after, "publish")

    async def check(self, *, deadline: Deadline) -> None:
        """Count the call."""
        await self._wait_for_answer(deadline)
        self.closed = False
        self.checks += 1
        raise_next(self.failures.before, "check")

    async def close(self) -> None:
        """Note that it was called."""
        self.closed = True

    async def _wait_for_answer(self, deadline: Deadline) -> None:
        left = deadline.remaining()
        try:
            await asyncio.wait_for(self._answers.wait(), left)
        except (asyncio.TimeoutError, TimeoutError) as exc:
            raise KafkaUnavailable("Kafka did not answer in time") from exc
