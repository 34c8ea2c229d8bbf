"""An owner of a member of a consumer group, which keeps what it is given; as a program, a member that prints that."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from mnist_pipeline.adapters.group_member import Subscription
from mnist_pipeline.adapters.kafka import member_of
from mnist_pipeline.adapters.offsets import Offsets
from mnist_pipeline.adapters.records import Partition, Record
from mnist_pipeline.pipeline.settings import Kafka


class Taker:
    """An owner that settles each record at once, unless `settles` is false.

    Attributes:
        records: all that were taken.
        ours: the partitions that are.
        told: what the group decided, in order.
        stopped: the partitions of which no more is wanted.
    """

    def __init__(self, say: Callable[[str], object] = len) -> None:
        self.records: list[Record] = []
        self.ours: dict[Partition, Offsets] = {}
        self.told: list[tuple[str, set[Partition]]] = []
        self.stopped: Collection[Partition] = ()
        self.settles = True
        self._say = say
        self._lock = threading.Lock()

    def values(self, partition: Partition | None = None) -> list[bytes | None]:
        """Of the records taken, of one partition or of all."""
        return [
            record.value
            for record in self.records
            if partition in (None, Partition(topic=record.topic, number=record.partition))
        ]

    def was(self, what: str) -> set[Partition]:
        """The partitions that were assigned, revoked or lost."""
        return set().union(*(partitions for told, partitions in self.told if told == what))

    def settle(self) -> None:
        """Settle all that was taken and is still ours."""
        with self._lock:
            for record in self.records:
                if offsets := self.ours.get(Partition(record.topic, record.partition)):
                    offsets.settle(record.offset)

    def taken(self, records: Sequence[Record]) -> None:
        with self._lock:
            for record in records:
                offsets = self.ours[Partition(record.topic, record.partition)]
                offsets.begin(record.offset)
                self.records.append(record)
                if self.settles:
                    offsets.settle(record.offset)
                self._say(f"taken {record.partition} {record.offset}")

    def assigned(self, partitions: Collection[Partition]) -> None:
        self._tell("assigned", partitions)
        self.ours.update((partition, Offsets()) for partition in partitions)

    def revoked(self, partitions: Collection[Partition]) -> None:
        self._tell("revoked", partitions)
        for partition in partitions:
            del self.ours[partition]

    def lost(self, partitions: Collection[Partition]) -> None:
        self._tell("lost", partitions)
        for partition in partitions:
            del self.ours[partition]

    def settled(self) -> Mapping[Partition, int]:
        with self._lock:
            return {
                partition: position
                for partition, offsets in self.ours.items()
                if (position := offsets.to_commit) is not None
            }

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        for partition, position in offsets.items():
            self.ours[partition].committed = position
            self._say(f"committed {partition.number} {position}")

    def full(self) -> Collection[Partition]:
        return self.stopped

    def _tell(self, what: str, partitions: Collection[Partition]) -> None:
        self.told.append((what, set(partitions)))
        self._say(f"{what} {len(partitions)}")


def main(kafka: str, subscription: str) -> None:
    """Take, as the two values say in JSON, and commit often; until it is killed."""
    where = Kafka(**json.loads(kafka))
    if where.api_version is not None:
        where = replace(where, api_version=tuple(where.api_version))
    taker = Taker(say=lambda line: os.write(1, line.encode() + b"\n"))
    member_of(where, Subscription(**json.loads(subscription)), taker, commit_seconds=0.2).begin()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
