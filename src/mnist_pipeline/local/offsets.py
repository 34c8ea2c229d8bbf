"""Where a source stands in each partition: what came, what is settled, what is waiting."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field

from kafka import TopicPartition

from mnist_pipeline.local.records import Record


class Offsets:
    """Which offsets of a partition are settled, in whatever order that happens; pure bookkeeping."""

    def __init__(self) -> None:
        self.position: int | None = None
        """The offset to commit, one above the last of the settled run from the start; None: nothing is settled yet."""
        self._begun: collections.deque[int] = collections.deque()
        self._settled: set[int] = set()

    def begin(self, offset: int) -> None:
        """A record came; offsets come in ascending order, with gaps."""
        self._begun.append(offset)

    def settle(self, offset: int) -> None:
        """It is done with."""
        self._settled.add(offset)
        while self._begun and self._begun[0] in self._settled:
            first = self._begun.popleft()
            self._settled.discard(first)
            self.position = first + 1


@dataclass(eq=False)
class Lane:
    """A partition that is ours, or was until the rebalance that goes on."""

    partition: TopicPartition
    ours: bool = True
    offsets: Offsets = field(default_factory=Offsets)
    waiting: collections.deque[Record] = field(default_factory=collections.deque)
    in_flight: int = 0
    paused: bool = False
    committed: int | None = None
