"""`KafkaPublisher`: the port `Publisher` on kafka-python.

kafka-python's producer waits in three places: in its constructor, which asks a broker for its version, in `send()`,
which asks for the topic, and for the acknowledgement. Each of them is bounded here.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
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

from mnist_pipeline.adapters.kafka_connection import CREDENTIALS, Certainty, Connections
from mnist_pipeline.pipeline.errors import KafkaUnavailable, MessageTooLarge, PipelineError
from mnist_pipeline.pipeline.ports import Deadline, Message
from mnist_pipeline.pipeline.settings import Kafka

log = logging.getLogger(__name__)

_SLICE_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_CLOSE_SECONDS = 3.0

# What kafka-python raises, and what it means; the last ones are for settings and files that it cannot use.
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[PipelineError], str], ...] = (
    ((MessageSizeTooLargeError, RecordListTooLargeError), MessageTooLarge, "the message is too large"),
    (
        (TopicAuthorizationFailedError, UnknownTopicOrPartitionError, InvalidTopicError),
        KafkaUnavailable,
        "refused; check KAFKA_TOPIC and what our user may do",
    ),
    ((AuthorizationError, SaslAuthenticationFailedError), KafkaUnavailable, f"refused; check {CREDENTIALS}"),
    ((KafkaTimeoutError,), KafkaUnavailable, "no answer in time; check KAFKA_TOPIC and KAFKA_BOOTSTRAP_SERVERS"),
    ((KafkaError,), KafkaUnavailable, "failed; check KAFKA_BOOTSTRAP_SERVERS"),
    (
        (ValueError, TypeError, AssertionError, OSError),
        KafkaUnavailable,
        f"a setting cannot be used; check KAFKA_TOPIC, KAFKA_API_VERSION, {CREDENTIALS}",
    ),
)
_FOREIGN_ERRORS = tuple(kind for kinds, _, _ in _MEANINGS for kind in kinds)

_T = TypeVar("_T")


class _Attempt(Future[KafkaProducer]):
    """One producer, or why there is none, as soon as it is known."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = Connections()


class KafkaPublisher:
    """A Kafka topic, by the port `Publisher`; made at the first call, once a process, and safe to share.

    It can be pickled at any time: the producer stays behind. A producer that let a whole `timeout_seconds` pass in vain
    is replaced, so that brokers which hung, moved or changed their passwords are found again without a restart.

    A record that was given up may still arrive: results are delivered at least once.

    Args:
        kafka: where the brokers are, who we are there, and the topic; secrets appear in no message.
        timeout_seconds: how long a broker may take to answer; one that refuses us for good is not asked that long.
    """

    def __init__(self, kafka: Kafka, *, timeout_seconds: float = 10.0) -> None:
        self._topic = kafka.topic
        self._timeout_seconds = timeout_seconds
        # A batch counts as lost a second after its request does, so that the request's own error comes first.
        self._delivery_seconds = timeout_seconds + 1.0
        self._options: dict[str, Any] = {
            "client_id": "mnist-pipeline",
            "acks": "all",
            # The idempotent producer hangs for ever after a batch has expired in flight; and it would gain nothing, as
            # a redelivered event is published again anyway, under the same id.
            "enable_idempotence": False,
            "linger_ms": 0,
            "max_block_ms": int(_SLICE_SECONDS * 1000),
            "request_timeout_ms": int(timeout_seconds * 1000),
            "delivery_timeout_ms": int(self._delivery_seconds * 1000),
            # kafka-python's 30 s would be added to every outage.
            "reconnect_backoff_max_ms": 1000,
            "metrics_enabled": False,
            **kafka.client_options(),
        }
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None
        self._pause_until = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_attempt": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def publish(self, message: Message, *, deadline: Deadline) -> None:
        """Send the message and wait until all in-sync replicas have it."""
        with _translated(f"publish to {self._topic!r}"):
            attempt, producer = self._producer(deadline)
            future = self._patiently(
                attempt,
                lambda: producer.send(self._topic, key=message.key, value=message.value, headers=list(message.headers)),
                deadline,
            )
            started = time.monotonic()
            try:
                future.get(timeout=min(self._delivery_seconds + _SLICE_SECONDS, deadline.remaining()))
            except KafkaTimeoutError:
                if time.monotonic() - started >= self._timeout_seconds:
                    self._replace(attempt)
                raise

    def check(self, *, deadline: Deadline) -> None:
        """Ask for the topic's partitions; what a broker has told in the last minutes is not asked again."""
        with _translated(f"look up {self._topic!r}"):
            attempt, producer = self._producer(deadline)
            self._patiently(attempt, lambda: producer.partitions_for(self._topic), deadline)

    def close(self) -> None:
        """Drop what is in flight: nothing, once every publish has returned. A later call connects anew."""
        with self._lock:
            attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.add_done_callback(_close)

    def _producer(self, deadline: Deadline) -> tuple[_Attempt, KafkaProducer]:
        """The producer and the attempt that made it.

        One thread of its own constructs it, and every caller waits for that one until its own deadline; a failure
        answers everybody for a second, and then it is tried again.
        """
        left = deadline.remaining()
        with self._lock:
            attempt = self._attempt
            if attempt is None or (attempt.done() and attempt.exception() and time.monotonic() >= self._pause_until):
                attempt = self._attempt = _Attempt()
                threading.Thread(target=self._construct, args=(attempt,), name="kafka-connect", daemon=True).start()
        concurrent.futures.wait([attempt], timeout=left)
        if not attempt.done():
            raise KafkaUnavailable(attempt.connections.explain())
        failure = attempt.exception()
        if isinstance(failure, KafkaUnavailable):
            # Each thread raises its own: a traceback grows wherever an error is raised.
            raise KafkaUnavailable(str(failure)) from failure.__cause__
        return attempt, attempt.result()

    def _construct(self, attempt: _Attempt) -> None:
        try:
            producer = attempt.connections.open(KafkaProducer, timeout_seconds=self._timeout_seconds, **self._options)
        except Exception as exc:  # noqa: BLE001 - handed over to the threads that wait for it
            self._pause_until = time.monotonic() + _PAUSE_SECONDS
            attempt.set_exception(exc)
        else:
            attempt.set_result(producer)

    def _patiently(self, attempt: _Attempt, call: Callable[[], _T], deadline: Deadline) -> _T:
        """Repeat `call`, which gives up after a second without having done anything, until it is done or time is up."""
        started = time.monotonic()
        patience = min(self._timeout_seconds, deadline.remaining())
        while True:
            try:
                done = call()
            except KafkaTimeoutError as exc:
                waited = time.monotonic() - started
                if waited >= self._timeout_seconds:
                    self._replace(attempt)
                if waited >= patience:
                    trouble = attempt.connections.trouble
                    if trouble is None:
                        raise
                    # One broker of several may be away, and something else the matter.
                    guess = ", KAFKA_TOPIC" if trouble.certainty is Certainty.GUESS else ""
                    raise KafkaUnavailable(f"not connected: {trouble.text}{guess}") from exc
            else:
                attempt.connections.forget()
                return done

    def _replace(self, attempt: _Attempt) -> None:
        with self._lock:
            if self._attempt is not attempt:
                return
            self._attempt = None
        log.warning("Kafka has not answered for %g s; connecting anew", self._timeout_seconds)
        _close(attempt)


def _close(attempt: Future[KafkaProducer]) -> None:
    if attempt.exception():
        return
    producer = attempt.result()
    # close() raises where records are in flight, and then leaves its thread and its connections behind.
    with contextlib.suppress(KafkaError):
        producer.close(timeout=0)
    sender = producer._sender  # noqa: SLF001 - the only way to end it then
    sender.force_close()
    sender.join(_CLOSE_SECONDS)


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
