"""`ConfluentPublisher`: the port `Publisher` on confluent-kafka, librdkafka's client; of the extra `[fast]`.

librdkafka sends in threads of its own, which take no time from Python. Only what it has to say must be fetched: for
that a thread waits in `poll()`, which calls back for each acknowledgement and for each connection that ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Producer

from mnist_pipeline.adapters.kafka_troubles import (
    BAD_SETTING,
    FAILED,
    NO_ANSWER,
    TOO_LARGE,
    TOPIC_REFUSED,
    USER_REFUSED,
)
from mnist_pipeline.adapters.librdkafka import Connections, name_of
from mnist_pipeline.adapters.producer_connection import MOST_BYTES, CurrentConnection, ProducerConnection
from mnist_pipeline.pipeline.errors import KafkaUnavailable, MessageTooLarge, PipelineError
from mnist_pipeline.pipeline.ports import Deadline, Message
from mnist_pipeline.pipeline.settings import Kafka

_LATE_SECONDS = 1.0
_POLL_SECONDS = 0.1
_PAUSE_SECONDS = 0.05

# What librdkafka's errors mean, by their names; those that begin with an underscore are its own.
_MEANINGS: tuple[tuple[frozenset[str], type[PipelineError], str], ...] = (
    (frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"}), MessageTooLarge, TOO_LARGE),
    (
        frozenset(
            {
                "TOPIC_AUTHORIZATION_FAILED",
                "UNKNOWN_TOPIC_OR_PART",
                "TOPIC_EXCEPTION",
                "_UNKNOWN_TOPIC",
                "_UNKNOWN_PARTITION",
            }
        ),
        KafkaUnavailable,
        TOPIC_REFUSED,
    ),
    (
        frozenset({"CLUSTER_AUTHORIZATION_FAILED", "SASL_AUTHENTICATION_FAILED", "_AUTHENTICATION", "_SSL"}),
        KafkaUnavailable,
        USER_REFUSED,
    ),
    (
        frozenset({"_MSG_TIMED_OUT", "_TIMED_OUT", "_TIMED_OUT_QUEUE", "REQUEST_TIMED_OUT", "BufferError"}),
        KafkaUnavailable,
        NO_ANSWER,
    ),
    (frozenset({"_INVALID_ARG", "ValueError", "TypeError"}), KafkaUnavailable, BAD_SETTING),
)
_TOO_LATE = KafkaError(KafkaError._TIMED_OUT)  # noqa: SLF001 - its name for it

# A topic that is being made is not there at first, and then without a leader.
_TIMEOUTS = frozenset({"_MSG_TIMED_OUT", "_TIMED_OUT"})
_MAY_COME = frozenset({"UNKNOWN_TOPIC_OR_PART", "LEADER_NOT_AVAILABLE"})


class ConfluentPublisher:
    """A Kafka topic, by the port `Publisher`; connected at the first call, one producer a process.

    It does what `KafkaPublisher` does, and takes the same arguments.

    Args:
        kafka: where the brokers are, who we are there, and the topic; secrets appear in no message.
        timeout_seconds: how long a broker may take to answer; one that refuses us for good is not asked that long.
        most_bytes: larger messages are not sent to a broker.
    """

    def __init__(self, kafka: Kafka, *, timeout_seconds: float = 10.0, most_bytes: int = MOST_BYTES) -> None:
        self._topic = kafka.topic
        self._timeout_seconds = timeout_seconds
        self._delivery_seconds = timeout_seconds + 1.0
        self._current = CurrentConnection(
            partial(_Connection, kafka, timeout_seconds, self._delivery_seconds, most_bytes),
            timeout_seconds=timeout_seconds,
        )

    async def publish(self, message: Message, *, deadline: Deadline) -> None:
        """Send the message and wait until all in-sync replicas have it."""
        with _translated(f"publish to {self._topic!r}"):
            connection = await self._current.get(deadline)
            async with connection.group:
                deadline.remaining()
                await self._publish(connection, message, deadline)

    async def _publish(self, connection: _Connection, message: Message, deadline: Deadline) -> None:
        receipt = connection.acks.receipt()

        def delivered(error: KafkaError | None, _: object) -> None:
            connection.acks.settle(receipt, None if error is None else KafkaException(error))

        connection.opened.result().produce(
            self._topic, message.value, message.key, headers=list(message.headers), on_delivery=delivered
        )
        started = time.monotonic()
        seconds = min(self._delivery_seconds + _LATE_SECONDS, deadline.remaining())
        try:
            await connection.acks.within(seconds, receipt, KafkaException(_TOO_LATE))
        except KafkaException as exc:
            if name_of(exc) in _TIMEOUTS and time.monotonic() - started >= self._timeout_seconds:
                self._current.replace(connection)
            raise

    async def check(self, *, deadline: Deadline) -> None:
        """Ask for the topic's partitions; what a broker has told is not asked again on the same connection."""
        with _translated(f"look up {self._topic!r}"):
            await self._current.get(deadline)

    async def close(self) -> None:
        """Drop what is in flight: nothing, once every publish has returned. A later call connects anew."""
        await self._current.close()


class _Connection(ProducerConnection[Producer]):
    """One producer of confluent-kafka."""

    def __init__(self, kafka: Kafka, timeout_seconds: float, delivery_seconds: float, most_bytes: int) -> None:
        super().__init__()
        self._topic = kafka.topic
        self._timeout_seconds = timeout_seconds
        self._connections = Connections(
            kafka,
            # Not before an attempt is given up: what librdkafka then says of the connection is not why.
            timeout_seconds=delivery_seconds,
            acks="all",
            # As KafkaPublisher does, which says why.
            enable_idempotence=False,
            linger_ms=0,
            request_timeout_ms=int(timeout_seconds * 1000),
            message_timeout_ms=int(delivery_seconds * 1000),
            message_max_bytes=most_bytes,
            # To the same partitions as kafka-python: by murmur2, as Java's.
            partitioner="murmur2_random",
        )
        self._polling: threading.Thread | None = None
        self._has_ended = threading.Event()

    def open(self) -> Producer:
        producer = self._connections.open(Producer)
        self._polling = threading.Thread(target=self._poll, args=(producer,), name="kafka-poll", daemon=True)
        self._polling.start()
        try:
            self._look_up_topic(producer)
        except Exception:
            self.shut(producer)
            raise
        return producer

    def is_over(self) -> bool:
        return super().is_over() or self._connections.is_outdated

    def give_up(self) -> None:
        """Nothing to do: the look-up sees `is_closing` a moment later."""

    def explain(self) -> str:
        return self._connections.explain()

    def shut(self, producer: Producer) -> None:
        # Whoever waits for an acknowledgement is told so; close() alone would wait for it, for ever.
        producer.purge()
        producer.flush(_POLL_SECONDS)
        self._has_ended.set()
        if self._polling is not None:
            self._polling.join()
        producer.close()

    def _poll(self, producer: Producer) -> None:
        while not self._has_ended.is_set():
            producer.poll(_POLL_SECONDS)
            self._connections.keep_current(producer)

    def _look_up_topic(self, producer: Producer) -> None:
        end = time.monotonic() + self._timeout_seconds
        refusal: KafkaError | None = None
        while True:
            if (found := self._connections.look_up(producer, self._topic)) is not None:
                refusal = found.error
                if refusal is None:
                    return
                if refusal.name() not in _MAY_COME:
                    break
            if time.monotonic() >= end or self.is_closing or self._connections.is_hopeless:
                break
            time.sleep(_PAUSE_SECONDS)
        if refusal is None:
            raise KafkaUnavailable(self.explain())
        raise _failure(KafkaException(refusal), f"look up {self._topic!r}")


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """Let only our own errors out."""
    try:
        yield
    except (KafkaException, BufferError, RuntimeError, ValueError, TypeError) as exc:
        raise _failure(exc, action) from exc


def _failure(exc: Exception, action: str) -> PipelineError:
    """What a foreign error means; its text is left out, it can hold settings and so a password."""
    name = name_of(exc)
    known = ((error, meaning) for names, error, meaning in _MEANINGS if name in names)
    error, meaning = next(known, (KafkaUnavailable, FAILED))
    return error(f"{action}: {meaning} ({name})")
