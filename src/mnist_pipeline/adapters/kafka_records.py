"""Reading a topic's records with kafka-python, without joining a consumer group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import AuthorizationError, KafkaError
from kafka.partitioner.default import murmur2

from mnist_pipeline.adapters.kafka_connection import Connections
from mnist_pipeline.adapters.kafka_troubles import TOPIC_REFUSED
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.settings import Kafka

CONNECT_SECONDS = 10.0
"""How long to try to connect, where nothing else is said."""

# How long a broker may hold a fetch that has nothing to give, and so how late Ctrl-C and a new record can be.
_FETCH_WAIT_MS = 100


def record_of(consumed: Any) -> Record:
    """The plain value of kafka-python's ConsumerRecord; a header without a value gets an empty one."""
    return Record(
        topic=consumed.topic,
        partition=consumed.partition,
        offset=consumed.offset,
        timestamp_ms=consumed.timestamp,
        key=consumed.key,
        value=consumed.value,
        headers=tuple((name, value or b"") for name, value in consumed.headers),
    )


def partition_of(key: bytes, partitions: Sequence[int]) -> int:
    """Where Kafka's own clients put a key: by murmur2, which the topic's number of partitions decides too."""
    hashed: int = murmur2(key)
    return partitions[(hashed & 0x7FFFFFFF) % len(partitions)]


class TopicReader:
    """Reads a topic, each partition in its order; it blocks, and belongs to one thread at a time.

    Args:
        kafka: where the brokers are, who we are there, and the topic.

    Attributes:
        partitions: the numbers of those that are read.
    """

    def __init__(self, kafka: Kafka) -> None:
        self.partitions: Sequence[int] = ()
        self._kafka = kafka
        self._connections = Connections(kafka)
        self._consumer: KafkaConsumer | None = None
        # Of each partition whose older records are left out.
        self._since_ms: dict[int, int] = {}
        self._ends: dict[TopicPartition, int] = {}

    def open(
        self,
        *,
        key: bytes | None = None,
        since: datetime | None = None,
        after: Mapping[int, int] | None = None,
        new_only: bool = False,
        timeout_seconds: float = CONNECT_SECONDS,
    ) -> None:
        """Connect, and begin at `since`, else at the beginning; with a key in its partition only.

        Args:
            key: whose partition is read.
            since: only records from this moment on.
            after: the offset behind which to begin instead, of each partition that has been read before.
            new_only: begin where it ends.
            timeout_seconds: how long to try.

        Raises:
            KafkaUnavailable: one line that names the variables to check.
        """
        topic = self._kafka.topic
        self._consumer = consumer = self._connections.open(
            KafkaConsumer,
            timeout_seconds=timeout_seconds,
            client_id="mnist-pipeline-reader",
            enable_auto_commit=False,
            # Where the records behind the last one are gone, or the topic was made anew, at what there is.
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            reconnect_backoff_max_ms=1000,
        )
        with self._translated():
            numbers = sorted(consumer.partitions_for_topic(topic) or ())
            if not numbers:
                raise KafkaUnavailable(
                    f"there is no topic {topic!r} for us; check KAFKA_TOPIC and what our user may do"
                )
            self.partitions = numbers if key is None else [partition_of(key, numbers)]
            places = [TopicPartition(topic, number) for number in self.partitions]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            self._ends = consumer.end_offsets(places)
            if since is not None:
                self._skip_to(int(since.timestamp() * 1000))
            self._go_on_behind(after or {})
            if new_only:
                for place, end in self._ends.items():
                    consumer.seek(place, end)

    def check(self, seconds: float) -> None:
        """Ask the brokers for something small, to know that they still answer: `poll` takes silence for no records.

        Raises:
            KafkaUnavailable: they do not, within so many seconds; one line that names the variables to check.
        """
        consumer = self._opened()
        with self._translated():
            consumer.end_offsets(list(self._ends), timeout_ms=int(seconds * 1000))

    def is_at_end(self) -> bool:
        """Whether all is read that was there when it was opened."""
        consumer = self._opened()
        with self._translated():
            return all(consumer.position(place) >= end for place, end in self._ends.items())

    def poll(self, seconds: float) -> list[Record]:
        """The next records, by time, waiting so long at most for the first.

        Raises:
            KafkaUnavailable: one line that names the variables to check.
        """
        consumer = self._opened()
        with self._translated():
            batches = consumer.poll(timeout_ms=int(seconds * 1000)).values()
        records = [
            record_of(consumed)
            for batch in batches
            for consumed in batch
            if consumed.timestamp >= self._since_ms.get(consumed.partition, 0)
        ]
        return sorted(records, key=_by_time)

    def close(self) -> None:
        """Close the connections."""
        if self._consumer is not None:
            self._consumer.close()

    def give_up(self) -> None:
        """Let `open` end in vain; for another thread."""
        self._connections.give_up()

    def _skip_to(self, since_ms: int) -> None:
        self._since_ms = dict.fromkeys(self.partitions, since_ms)
        consumer = self._opened()
        found = consumer.offsets_for_times(dict.fromkeys(self._ends, since_ms))
        # librdkafka's mock, the local stack's broker, knows no times: there what is older is read, and left out.
        first = consumer.offsets_for_times(dict.fromkeys(self._ends, 0))
        for place, end in self._ends.items():
            if found[place] is not None:
                consumer.seek(place, found[place].offset)
            elif first[place] is not None:
                consumer.seek(place, end)

    def _go_on_behind(self, after: Mapping[int, int]) -> None:
        for place, end in self._ends.items():
            # A partition with fewer records than were read is of another topic that has the name by now.
            if after.get(place.partition, end) < end:
                self._since_ms.pop(place.partition, None)
                self._opened().seek(place, after[place.partition] + 1)

    def _opened(self) -> KafkaConsumer:
        if self._consumer is None:
            raise AssertionError("open() comes first")
        return self._consumer

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except AuthorizationError as exc:
            raise KafkaUnavailable(f"topic {self._kafka.topic!r}: {TOPIC_REFUSED} ({type(exc).__name__})") from exc
        except KafkaError as exc:
            raise KafkaUnavailable(f"{self._connections.explain()} ({type(exc).__name__})") from exc


def read_topic(bootstrap_servers: str, topic: str, *, api_version: tuple[int, int]) -> list[Record]:
    """All records that the topic holds now, by time."""
    reader = TopicReader(Kafka(bootstrap_servers=bootstrap_servers, topic=topic, api_version=api_version))
    records: list[Record] = []
    try:
        reader.open()
        while not reader.is_at_end():
            records += reader.poll(1.0)
    finally:
        reader.close()
    return sorted(records, key=_by_time)


def _by_time(record: Record) -> tuple[int, int, int]:
    return record.timestamp_ms, record.partition, record.offset
