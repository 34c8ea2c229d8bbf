"""`KafkaPublisher`: the port `Publisher` on kafka-python.

kafka-python's producer blocks in two places: in its constructor, which asks a broker for its version, and where it asks
for the topic. Both are done in threads of their own. What is left of `send()` then puts a record into a list and wakes
the producer's own thread, which also brings the acknowledgements.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from kafka import KafkaProducer
from kafka.errors import (
    AuthorizationError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from mnist_pipeline.adapters.kafka_connection import Connections
from mnist_pipeline.adapters.kafka_troubles import (
    BAD_SETTING,
    FAILED,
    NO_ANSWER,
    TOO_LARGE,
    TOPIC_REFUSED,
    USER_REFUSED,
    Certainty,
)
from mnist_pipeline.adapters.producer_connection import (
    CLOSE_SECONDS,
    MOST_BYTES,
    CurrentConnection,
    ProducerConnection,
)
from mnist_pipeline.adapters.threads import in_thread, is_done_within
from mnist_pipeline.pipeline.errors import KafkaUnavailable, MessageTooLarge, PipelineError
from mnist_pipeline.pipeline.ports import Deadline, Message
from mnist_pipeline.pipeline.settings import Kafka

_SLICE_SECONDS = 1.0

# What kafka-python raises, and what it means; the last ones are for settings and files that it cannot use.
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[PipelineError], str], ...] = (
    ((MessageSizeTooLargeError, RecordListTooLargeError), MessageTooLarge, TOO_LARGE),
    (
        (TopicAuthorizationFailedError, UnknownTopicOrPartitionError, InvalidTopicError),
        KafkaUnavailable,
        TOPIC_REFUSED,
    ),
    ((AuthorizationError, SaslAuthenticationFailedError), KafkaUnavailable, USER_REFUSED),
    ((KafkaTimeoutError,), KafkaUnavailable, NO_ANSWER),
    ((KafkaError,), KafkaUnavailable, FAILED),
    ((ValueError, TypeError, AssertionError, OSError), KafkaUnavailable, BAD_SETTING),
)
_FOREIGN_ERRORS = tuple(kind for kinds, _, _ in _MEANINGS for kind in kinds)

_T = TypeVar("_T")


class KafkaPublisher:
    """A Kafka topic, by the port `Publisher`; connected at the first call, one producer a process.

    It can be pickled at any time: the producer stays behind. A producer that let a whole `timeout_seconds` pass in vain
    is replaced, so that brokers which hung, moved or changed their passwords are found again without a restart.

    A record that was given up, at its deadline or by cancellation, may still arrive: at least once is the promise.

    Args:
        kafka: where the brokers are, who we are there, and the topic; secrets appear in no message.
        timeout_seconds: how long a broker may take to answer; one that refuses us for good is not asked that long.
        most_bytes: larger messages are not sent to a broker.
    """

    def __init__(self, kafka: Kafka, *, timeout_seconds: float = 10.0, most_bytes: int = MOST_BYTES) -> None:
        self._topic = kafka.topic
        self._timeout_seconds = timeout_seconds
        # A batch counts as lost a second after its request does, so that the request's own error comes first.
        self._delivery_seconds = timeout_seconds + 1.0
        options: dict[str, Any] = {
            "client_id": "mnist-pipeline",
            "acks": "all",
            # The idempotent producer hangs for ever after a batch has expired in flight; and it would gain nothing, as
            # a redelivered event is published again anyway, under the same id.
            "enable_idempotence": False,
            "linger_ms": 0,
            # send() is called on the event loop: where it does not know the topic it shall say so, and not wait.
            "max_block_ms": 0,
            "request_timeout_ms": int(timeout_seconds * 1000),
            "delivery_timeout_ms": int(self._delivery_seconds * 1000),
            # kafka-python's 30 s would be added to every outage.
            "reconnect_backoff_max_ms": 1000,
            "max_request_size": most_bytes,
            "metrics_enabled": False,
        }
        self._current = CurrentConnection(
            partial(_Connection, kafka, options, timeout_seconds), timeout_seconds=timeout_seconds
        )

    async def publish(self, message: Message, *, deadline: Deadline) -> None:
        """Send the message and wait until all in-sync replicas have it."""
        with _translated(f"publish to {self._topic!r}"):
            connection = await self._current.get(deadline)
            async with connection.group:
                deadline.remaining()
                await self._publish(connection, message, deadline)

    async def _publish(self, connection: _Connection, message: Message, deadline: Deadline) -> None:
        send = partial(
            connection.opened.result().send,
            self._topic,
            key=message.key,
            value=message.value,
            headers=list(message.headers),
        )
        sent = await self._knowing_the_topic(connection, send, deadline)
        receipt = connection.acks.receipt()
        sent.add_callback(lambda _: connection.acks.settle(receipt, None))
        sent.add_errback(lambda error: connection.acks.settle(receipt, error))
        started = time.monotonic()
        seconds = min(self._delivery_seconds + _SLICE_SECONDS, deadline.remaining())
        try:
            await connection.acks.within(seconds, receipt, KafkaTimeoutError())
        except KafkaTimeoutError:
            if time.monotonic() - started >= self._timeout_seconds:
                self._current.replace(connection)
            raise

    async def check(self, *, deadline: Deadline) -> None:
        """Ask for the topic's partitions; what a broker has told in the last minutes is not asked again."""
        with _translated(f"look up {self._topic!r}"):
            connection = await self._current.get(deadline)
            look_up = partial(connection.opened.result().partitions_for, self._topic)
            await self._knowing_the_topic(connection, look_up, deadline)

    async def close(self) -> None:
        """Drop what is in flight: nothing, once every publish has returned. A later call connects anew."""
        await self._current.close()

    async def _knowing_the_topic(self, connection: _Connection, call: Callable[[], _T], deadline: Deadline) -> _T:
        """What `call` returns, which gives up at once where the producer does not know the topic."""
        try:
            return call()
        except KafkaTimeoutError:
            asked = connection.ask_for_topic()
        in_time = await is_done_within(asked, deadline.remaining())
        failure = asked.exception() if in_time else KafkaTimeoutError()
        if failure is None:
            deadline.remaining()
            return call()
        trouble = connection.connections.trouble
        if isinstance(failure, KafkaTimeoutError):
            if in_time:
                self._current.replace(connection)
            if trouble is not None:
                # One broker of several may be away, and something else the matter.
                guess = ", KAFKA_TOPIC" if trouble.certainty is Certainty.GUESS else ""
                raise KafkaUnavailable(f"not connected: {trouble.text}{guess}") from failure
        raise failure


class _Connection(ProducerConnection[KafkaProducer]):
    """One producer of kafka-python.

    Attributes:
        connections: what is the matter with the brokers.
    """

    def __init__(self, kafka: Kafka, options: dict[str, Any], timeout_seconds: float) -> None:
        super().__init__()
        self.connections = Connections(kafka)
        self._topic = kafka.topic
        self._options = options
        self._timeout_seconds = timeout_seconds
        self._asked: asyncio.Future[None] | None = None

    def open(self) -> KafkaProducer:
        return self.connections.open(KafkaProducer, timeout_seconds=self._timeout_seconds, **self._options)

    def give_up(self) -> None:
        self.connections.give_up()

    def explain(self) -> str:
        return self.connections.explain()

    def shut(self, producer: KafkaProducer) -> None:
        # close() raises where records are in flight, and then leaves its thread and its connections behind.
        with contextlib.suppress(KafkaError):
            producer.close(timeout=0)
        sender = producer._sender  # noqa: SLF001 - the only way to end it then
        sender.force_close()
        sender.join(CLOSE_SECONDS)

    def close(self) -> list[asyncio.Future[None]]:
        return super().close() + ([] if self._asked is None else [self._asked])

    def ask_for_topic(self) -> asyncio.Future[None]:
        """Ask for the topic's partitions, where nobody has begun yet.

        What comes of it is a KafkaTimeoutError where they are not known after `timeout_seconds`.
        """
        if self._asked is None:
            self._asked = in_thread(partial(self._ask_for_topic, self.opened.result()), name="kafka-topic")
            self._asked.add_done_callback(self._answered)
        return self._asked

    def _ask_for_topic(self, producer: KafkaProducer) -> None:
        end = time.monotonic() + self._timeout_seconds
        while True:
            try:
                # partitions_for() waits no longer than `max_block_ms`, and so not at all.
                producer._wait_on_metadata(self._topic, int(_SLICE_SECONDS * 1000))  # noqa: SLF001
            except KafkaTimeoutError:
                if self.is_closing or time.monotonic() >= end:
                    raise
            else:
                self.connections.forget()
                return

    def _answered(self, _: object) -> None:
        # An error would keep the frames of all that it was raised to.
        self._asked = None


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """Let only our own errors out."""
    try:
        yield
    except _FOREIGN_ERRORS as exc:
        raise _failure(exc, action) from exc


def _failure(exc: Exception, action: str) -> PipelineError:
    """What a foreign error means; its text is left out, it can hold settings and so a password."""
    error, meaning = next((error, meaning) for kinds, error, meaning in _MEANINGS if isinstance(exc, kinds))
    return error(f"{action}: {meaning} ({type(exc).__name__})")
