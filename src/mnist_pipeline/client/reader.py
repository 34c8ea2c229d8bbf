"""`ResultReader`: the topic of results, read without a consumer group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import AuthorizationError, KafkaError
from kafka.partitioner.default import murmur2

from mnist_pipeline.adapters.kafka_connection import Connections
from mnist_pipeline.adapters.kafka_troubles import TOPIC_REFUSED
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.published import PredictionResult, read_result
from mnist_pipeline.pipeline.settings import Kafka

_CONNECT_SECONDS = 10.0
# How long a broker may hold a fetch that has nothing to give, and so how late Ctrl-C and a new result can be.
_FETCH_WAIT_MS = 100


class ResultReader:
    """Reads results of a topic in the order of each partition; it blocks, and belongs to one thread at a time.

    Args:
        kafka: where the brokers are, who we are there, and the topic.
        trace_key: the trace id's name.

    Attributes:
        partitions: the numbers of those that are read.
    """

    def __init__(self, kafka: Kafka, *, trace_key: str) -> None:
        self.partitions: Sequence[int] = ()
        self._kafka = kafka
        self._trace_key = trace_key
        self._connections = Connections()
        self._consumer: KafkaConsumer | None = None
        self._since_ms = 0
        self._ends: dict[TopicPartition, int] = {}

    def open(self, *, trace_id: str | None, since: datetime | None) -> None:
        """Connect, and begin at `since`, else at the beginning; with a trace id in the partition of that key only.

        Raises:
            KafkaUnavailable: one line that names the variables to check.
        """
        self._consumer = consumer = self._connections.open(
            KafkaConsumer,
            timeout_seconds=_CONNECT_SECONDS,
            client_id="mnist-pipeline-results",
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            reconnect_backoff_max_ms=1000,
            **self._kafka.client_options(),
        )
        with self._translated():
            topic = self._kafka.topic
            numbers = sorted(consumer.partitions_for_topic(topic) or ())
            if not numbers:
                raise KafkaUnavailable(f"there is no topic {topic!r} for us: {TOPIC_REFUSED}")
            if trace_id is not None:
                # Where Kafka's own clients put a key (`DefaultPartitioner`).
                numbers = [numbers[(murmur2(trace_id.encode()) & 0x7FFFFFFF) % len(numbers)]]
            self.partitions = numbers
            places = [TopicPartition(topic, number) for number in numbers]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            self._ends = consumer.end_offsets(places)
            if since is not None:
                self._since_ms = int(since.timestamp() * 1000)
                self._skip_to(self._since_ms)

    def is_at_end(self) -> bool:
        """Whether all is read that was there when it was opened."""
        consumer = self._opened()
        with self._translated():
            return all(consumer.position(place) >= end for place, end in self._ends.items())

    def poll(self, seconds: float) -> list[PredictionResult]:
        """The next results, waiting so long at most for the first.

        Raises:
            KafkaUnavailable: one line that names the variables to check.
        """
        consumer = self._opened()
        with self._translated():
            batches = consumer.poll(timeout_ms=int(seconds * 1000)).values()
        records = sorted((record for batch in batches for record in batch), key=lambda record: record.timestamp)
        return [result for record in records if (result := self._result(record)) is not None]

    def close(self) -> None:
        """Close the connections."""
        if self._consumer is not None:
            self._consumer.close()

    def give_up(self) -> None:
        """Let `open` end in vain; for another thread."""
        self._connections.give_up()

    def _result(self, record: Any) -> PredictionResult | None:
        if record.timestamp < self._since_ms:
            return None
        headers = [(name, value or b"") for name, value in record.headers]
        return read_result(record.key, record.value, headers, trace_key=self._trace_key)

    def _skip_to(self, since_ms: int) -> None:
        consumer = self._opened()
        found = consumer.offsets_for_times(dict.fromkeys(self._ends, since_ms))
        # librdkafka's mock, the local stack's broker, knows no times: there what is older is read, and left out.
        first = consumer.offsets_for_times(dict.fromkeys(self._ends, 0))
        for place, end in self._ends.items():
            if found[place] is not None:
                consumer.seek(place, found[place].offset)
            elif first[place] is not None:
                consumer.seek(place, end)

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
