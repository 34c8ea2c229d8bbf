"""The notifications on a topic of their own, and how far the variant that reads them has come."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import OffsetSpec

from benchmarks.place import PARTITIONS, Place
from benchmarks.process import Feed, Running
from mnist_pipeline.local.processes import Part

_PRODUCE_SECONDS = 30.0
_SETTLE_SECONDS = 900.0
# An answer takes two milliseconds of ours and the broker's.
_ASK_EVERY_SECONDS = 0.05


class Backlog(Part):
    """What a feed's topic holds, and what the variant has made of it, as the broker says.

    Args:
        place: where the broker is.
        feed: what the variant reads.
        results: the topic that it writes to.
    """

    def __init__(self, place: Place, feed: Feed, results: str) -> None:
        self.feed = feed
        self._partitions = _partitions(feed.topic)
        self._results = _partitions(results)
        where = {"bootstrap_servers": place.bootstrap_servers, "api_version": place.api_version}
        self._producer = KafkaProducer(**where)
        self._admin = KafkaAdminClient(**where)
        self._to_announce = 0

    def produce(self, notifications: Sequence[bytes]) -> None:
        """Produce them as MinIO does, under the names of their objects; they are there when it returns."""
        self._to_announce = sum(self._ends(self._results)) + len(notifications)
        topic = self.feed.topic
        sent = [self._producer.send(topic, key=json.loads(one)["Key"].encode(), value=one) for one in notifications]
        for one in sent:
            one.get(timeout=_PRODUCE_SECONDS)

    def wait_announced(self, running: Running) -> None:
        """Wait until as many results are on the topic as notifications were produced.

        Raises:
            PartFailed: who should do it has ended, or has not after a quarter of an hour.
        """
        self._wait(running, lambda: sum(self._ends(self._results)) >= self._to_announce)

    def wait_committed(self, running: Running) -> None:
        """Wait until all is committed.

        Raises:
            PartFailed: the same.
        """
        self._wait(running, lambda: self._committed() == self._ends(self._partitions))

    def close(self) -> None:
        """Close the connections."""
        self._producer.close()
        self._admin.close()

    def _ends(self, partitions: Sequence[TopicPartition]) -> list[int]:
        ends = self._admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        return [ends[one].offset for one in partitions]

    def _committed(self) -> list[int]:
        group = self.feed.topic
        committed = self._admin.list_group_offsets({group: self._partitions})[group]
        return [max(committed[one].offset, 0) for one in self._partitions]

    def _wait(self, running: Running, is_done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + _SETTLE_SECONDS
        while not is_done():
            if not running.child.running:
                raise running.child.failed("ended before all was done")
            if time.monotonic() > give_up:
                raise running.child.failed(f"has not done all after {_SETTLE_SECONDS:g} s")
            time.sleep(_ASK_EVERY_SECONDS)


def _partitions(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(PARTITIONS)]
