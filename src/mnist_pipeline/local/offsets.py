"""Where a source stands in each partition: what came, what is settled, what is waiting."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import Protocol

from kafka import ConsumerRebalanceListener, TopicPartition

from mnist_pipeline.adapters.kafka_records import Record


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

    @property
    def backlog(self) -> int:
        """How many records are neither settled nor given back."""
        return len(self.waiting) + self.in_flight

    def to_commit(self) -> int | None:
        """The offset that is new since the last commit; None where there is none, or the partition is not ours."""
        position = self.offsets.position
        return position if self.ours and position != self.committed else None


class Owner(Protocol):
    """Who is told what the group decides."""

    def partitions_assigned(self, partitions: set[TopicPartition]) -> None:
        """The group gave us these, and no others."""

    def partitions_revoked(self, partitions: set[TopicPartition]) -> None:
        """The group takes these back, perhaps to give them to us again."""

    def partitions_lost(self, partitions: set[TopicPartition]) -> None:
        """The group has gone on without us."""


class Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Passes the group's decisions on; called on kafka-python's own thread, which must not be blocked."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Pass it on."""
        self._owner.partitions_assigned(assigned)

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Pass it on."""
        self._owner.partitions_revoked(revoked)

    def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        """Pass it on."""
        self._owner.partitions_lost(lost)
