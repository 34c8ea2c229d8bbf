"""The partitions that are ours: what waits in each, what is in hand, and what may be committed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mnist_pipeline.adapters.offsets import Offsets
from mnist_pipeline.adapters.records import Partition, Record

MOST_UNSETTLED = 500
"""So many records of one partition may be unsettled before no more of it is fetched, until half of them are settled."""

MOST_BYTES = 8 * 1024 * 1024
"""The same of the bytes of their values: one fetch may bring more, and no other follows."""

MOST_BEYOND = 50_000
"""So many records may be settled beyond one that is not: they would come again after a crash."""


@dataclass(eq=False)
class Lane:
    """One partition, from when the group gives it to us until it takes it back.

    Attributes:
        is_ours: whether it has not.
        is_held: whether no record of it may begin now.
        is_full: whether no more of it was wanted when it was last asked.
    """

    partition: Partition
    offsets: Offsets = field(default_factory=Offsets)
    waiting: deque[Record] = field(default_factory=deque)
    unsettled: int = 0
    unsettled_bytes: int = 0
    is_ours: bool = True
    is_held: bool = False
    is_full: bool = False

    def has_enough(self) -> bool:
        """Whether no more of it is wanted now."""
        share = max(self.unsettled / MOST_UNSETTLED, self.unsettled_bytes / MOST_BYTES)
        self.is_full = share >= (0.5 if self.is_full else 1) or self.offsets.beyond >= MOST_BEYOND
        return self.is_full


class Lanes:
    """The owner of a member of the group, which calls from its own threads; everything else is the event loop's.

    Args:
        arrived: called from the member's thread when records have come.
    """

    def __init__(self, arrived: Callable[[], None]) -> None:
        self._arrived = arrived
        self._lock = threading.Lock()
        self._lanes: dict[Partition, Lane] = {}
        # In the order in which they have their turn.
        self._turns: deque[Lane] = deque()

    # --- for the member ---

    def taken(self, records: Sequence[Record]) -> None:
        """Let these wait for their turn."""
        with self._lock:
            for record in records:
                lane = self._lanes.get(Partition(record.topic, record.partition))
                if lane is not None:
                    lane.offsets.begin(record.offset)
                    lane.waiting.append(record)
                    lane.unsettled += 1
                    lane.unsettled_bytes += len(record.value or b"")
        self._arrived()

    def assigned(self, partitions: Collection[Partition]) -> None:
        """Begin with these."""
        with self._lock:
            for partition in partitions:
                lane = self._lanes[partition] = Lane(partition)
                self._turns.append(lane)

    def revoked(self, partitions: Collection[Partition]) -> None:
        """Forget these; what of them is in hand goes on to its end, and is not committed any more."""
        with self._lock:
            for partition in partitions:
                if (lane := self._lanes.pop(partition, None)) is not None:
                    self._turns.remove(lane)
                    lane.is_ours = False

    lost = revoked

    def settled(self) -> Mapping[Partition, int]:
        """What is to be committed."""
        with self._lock:
            positions = ((partition, lane.offsets.to_commit) for partition, lane in self._lanes.items())
            return {partition: position for partition, position in positions if position is not None}

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Note what is."""
        with self._lock:
            for partition, position in offsets.items():
                if partition in self._lanes:
                    self._lanes[partition].offsets.committed = position

    def full(self) -> Collection[Partition]:
        """Of these no more."""
        with self._lock:
            return [partition for partition, lane in self._lanes.items() if lane.has_enough()]

    # --- for the event loop ---

    def next(self) -> tuple[Lane, Record] | None:
        """The next record that waits, of each partition in turn."""
        with self._lock:
            for _ in range(len(self._turns)):
                lane = self._turns[0]
                self._turns.rotate(-1)
                if lane.waiting and not lane.is_held:
                    return lane, lane.waiting.popleft()
        return None

    def settle(self, lane: Lane, record: Record) -> None:
        """A record is done with."""
        with self._lock:
            lane.offsets.settle(record.offset)
            lane.unsettled -= 1
            lane.unsettled_bytes -= len(record.value or b"")
