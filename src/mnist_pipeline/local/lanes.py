"""What a source has in hand of each partition: records that wait, and those that its workers deliver."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from mnist_pipeline.adapters.offsets import Offsets
from mnist_pipeline.adapters.records import Partition, Record
from mnist_pipeline.local.delivery import Delivery
from mnist_pipeline.local.workers import Workers


@dataclass(eq=False)
class Lane:
    """A partition that is ours, or was."""

    offsets: Offsets = field(default_factory=Offsets)
    waiting: collections.deque[Record] = field(default_factory=collections.deque)
    in_flight: int = 0

    @property
    def backlog(self) -> int:
        """How many records are neither settled nor given back."""
        return len(self.waiting) + self.in_flight


class Lanes:
    """The owner of a source's records, by the port `Owner`.

    Args:
        delivery: what delivers a record.
        ordered: one in flight a partition.
        max_in_flight: over all partitions.
        closing: once it is set, nothing more is begun.
        on_assigned: called whenever the group has given us partitions, or has let us in and had none.
    """

    def __init__(
        self,
        delivery: Delivery,
        *,
        ordered: bool,
        max_in_flight: int,
        closing: threading.Event,
        on_assigned: Callable[[], None],
    ) -> None:
        self._on_assigned = on_assigned
        self._ordered = ordered
        self._max_in_flight = max_in_flight
        self._closing = closing
        self._lock = threading.Lock()
        self._lanes: dict[Partition, Lane] = {}
        self._full: set[Partition] = set()
        self._workers = Workers(delivery, self._lock, most=max_in_flight)

    def end(self) -> None:
        """Wait until what is in flight is done with."""
        self._workers.end()

    def taken(self, records: Sequence[Record]) -> None:
        """Deliver them, each when its turn has come."""
        with self._lock:
            for record in records:
                lane = self._lanes[Partition(record.topic, record.partition)]
                lane.offsets.begin(record.offset)
                lane.waiting.append(record)
                self._submit(lane)

    def assigned(self, partitions: Collection[Partition]) -> None:
        """Begin with these."""
        with self._lock:
            self._lanes.update((partition, Lane()) for partition in partitions)
        self._on_assigned()

    def revoked(self, partitions: Collection[Partition]) -> None:
        """Forget these; what is not settled comes again, here or elsewhere."""
        with self._lock:
            for partition in partitions:
                self._lanes.pop(partition).waiting.clear()

    lost = revoked

    def settled(self) -> Mapping[Partition, int]:
        """Of each partition whose position is new."""
        with self._lock:
            positions = {partition: lane.offsets.to_commit for partition, lane in self._lanes.items()}
        return {partition: position for partition, position in positions.items() if position is not None}

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Remember them."""
        with self._lock:
            for partition in offsets.keys() & self._lanes.keys():
                self._lanes[partition].offsets.committed = offsets[partition]

    def full(self) -> Collection[Partition]:
        """Those with a backlog, until half of it is done with."""
        with self._lock:
            backlogs = {partition: lane.backlog for partition, lane in self._lanes.items()}
        self._full = {
            partition
            for partition, backlog in backlogs.items()
            if backlog >= self._max_in_flight * (1 if partition in self._full else 2)
        }
        return self._full

    def _submit(self, lane: Lane) -> None:
        """Hand what may go now to the workers. The lock is held."""
        while lane.waiting and not (self._closing.is_set() or (self._ordered and lane.in_flight)):
            lane.in_flight += 1
            self._workers.put(lane.waiting.popleft(), partial(self._done, lane))

    def _done(self, lane: Lane, record: Record, *, settled: bool) -> None:
        """A worker is done with a record. The lock is held."""
        lane.in_flight -= 1
        if settled:
            lane.offsets.settle(record.offset)
        self._submit(lane)
