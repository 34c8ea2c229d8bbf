"""`ConfluentPublisher`: the port `Publisher` on confluent-kafka, librdkafka's client; of the extra `[fast]`.

librdkafka sends in threads of its own, which take no time from Python. Only what it has to say must be fetched: for
that a thread waits in `poll()`, which calls back for each acknowledgement and for each connection that ends.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from mnist_pipeline.adapters.kafka_troubles import (
    BAD_SETTING,
    FAILED,
    HUNG_UP,
    MECHANISM,
    NO_ANSWER,
    NO_CONNECTION,
    NO_SASL,
    NO_TLS,
    OUR_CERTIFICATE,
    REFUSED,
    TOO_LARGE,
    TOPIC_REFUSED,
    UNUSABLE,
    USER_REFUSED,
    Trouble,
    Troubles,
)
from mnist_pipeline.adapters.producer_connection import CurrentConnection, ProducerConnection
from mnist_pipeline.pipeline.errors import KafkaUnavailable, MessageTooLarge, PipelineError
from mnist_pipeline.pipeline.ports import Deadline, Message
from mnist_pipeline.pipeline.settings import Kafka

_LATE_SECONDS = 1.0
_POLL_SECONDS = 0.1
_LOOK_UP_SECONDS = 0.25
_PAUSE_SECONDS = 0.05

_NAMES = {
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
}
"""What librdkafka calls the options that kafka-python has."""

# librdkafka does not say what is wrong with a certificate: its authority, its age or its host.
_UNTRUSTED = Trouble("a broker's certificate is not trusted; check KAFKA_SSL_CAFILE, KAFKA_BOOTSTRAP_SERVERS")

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

# Of a connection that ended, by what librdkafka (2.16) says of it; the first that fits.
_TROUBLES: tuple[tuple[str, Trouble], ...] = (
    ("Request not valid in current SASL state", NO_SASL),
    ("mechanism handshake failed", MECHANISM),
    ("SASL", REFUSED),
    ("certificate verify failed", _UNTRUSTED),
    ("tls alert", OUR_CERTIFICATE),
    ("SSL", NO_TLS),
    ("Connect to", NO_CONNECTION),
    ("resolve", NO_CONNECTION),
    ("Disconnected", HUNG_UP),
)


class ConfluentPublisher:
    """A Kafka topic, by the port `Publisher`; connected at the first call, one producer a process.

    It does what `KafkaPublisher` does, and takes the same arguments.

    Args:
        kafka: where the brokers are, who we are there, and the topic; secrets appear in no message.
        timeout_seconds: how long a broker may take to answer; one that refuses us for good is not asked that long.
    """

    def __init__(self, kafka: Kafka, *, timeout_seconds: float = 10.0) -> None:
        self._topic = kafka.topic
        self._timeout_seconds = timeout_seconds
        self._delivery_seconds = timeout_seconds + 1.0
        timeout_ms, delivery_ms = int(timeout_seconds * 1000), int(self._delivery_seconds * 1000)
        given = kafka.client_options()
        servers = given["bootstrap_servers"]
        config = {
            "bootstrap.servers": ",".join(servers),
            "client.id": "mnist-pipeline",
            "acks": "all",
            # As KafkaPublisher does, which says why.
            "enable.idempotence": False,
            "linger.ms": 0,
            "request.timeout.ms": timeout_ms,
            # Not before an attempt is given up: what librdkafka then says of the connection is not why.
            "socket.timeout.ms": delivery_ms,
            "socket.connection.setup.timeout.ms": delivery_ms,
            "message.timeout.ms": delivery_ms,
            "reconnect.backoff.max.ms": 1000,
            "socket.nagle.disable": True,
            "socket.keepalive.enable": True,
            # As large as kafka-python's, and to the same partitions: by murmur2, as Java's.
            "message.max.bytes": 1_048_576,
            "partitioner": "murmur2_random",
            **{name: given[ours] for ours, name in _NAMES.items() if ours in given},
        }
        if kafka.api_version is not None:
            # It asks a broker all the same, and believes this only of one that does not answer that.
            config["broker.version.fallback"] = ".".join(map(str, kafka.api_version))
        self._current = CurrentConnection(
            partial(_Connection, self._topic, config, timeout_seconds), timeout_seconds=timeout_seconds
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
            if _name(exc) in _TIMEOUTS and time.monotonic() - started >= self._timeout_seconds:
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

    def __init__(self, topic: str, config: dict[str, Any], timeout_seconds: float) -> None:
        super().__init__()
        self._topic = topic
        self._config = config
        self._servers = [_address(server) for server in config["bootstrap.servers"].split(",")]
        self._timeout_seconds = timeout_seconds
        self._troubles = Troubles()
        self._polling: threading.Thread | None = None
        self._has_ended = threading.Event()

    def open(self) -> Producer:
        # Its log has the name of kafka-python's, because where that is too loud this is.
        logger = logging.getLogger("kafka.librdkafka")
        try:
            producer = Producer({**self._config, "error_cb": self._noted}, logger=logger)
        except (KafkaException, ValueError, TypeError) as exc:
            raise KafkaUnavailable(f"{UNUSABLE.text} ({type(exc).__name__})") from exc
        self._polling = threading.Thread(target=self._poll, args=(producer,), name="kafka-poll", daemon=True)
        self._polling.start()
        try:
            self._look_up_topic(producer)
        except Exception:
            self.shut(producer)
            raise
        return producer

    def give_up(self) -> None:
        """Nothing to do: the look-up sees `is_closing` a moment later."""

    def explain(self) -> str:
        return self._troubles.explain()

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

    def _look_up_topic(self, producer: Producer) -> None:
        end = time.monotonic() + self._timeout_seconds
        refusal: KafkaError | None = None
        while True:
            # What it raises says nothing; the reasons come to error_cb.
            with contextlib.suppress(KafkaException):
                refusal = producer.list_topics(self._topic, timeout=_LOOK_UP_SECONDS).topics[self._topic].error
                self._troubles.forget()
                if refusal is None:
                    return
                if refusal.name() not in _MAY_COME:
                    break
            if time.monotonic() >= end or self.is_closing or self._troubles.are_hopeless(self._servers):
                break
            time.sleep(_PAUSE_SECONDS)
        if refusal is None:
            raise KafkaUnavailable(self.explain())
        raise _failure(KafkaException(refusal), f"look up {self._topic!r}")

    def _noted(self, error: KafkaError) -> None:
        """Remember how a connection ended, from what librdkafka says of it."""
        # protocol://host:port/bootstrap: what is the matter
        where, _, what = error.str().partition(": ")
        trouble = next((trouble for words, trouble in _TROUBLES if words in what), None)
        if trouble is not None:
            self._troubles.note(_address(where), trouble)
        elif error.name() == "_ALL_BROKERS_DOWN" and self._troubles.trouble is None:
            # It says nothing of connections that were closed before an answer came.
            self._troubles.note(None, HUNG_UP)


def _address(broker: str) -> str:
    """`host:port` of a bootstrap server, or of a broker as librdkafka calls it."""
    host, _, port = broker.rpartition("://")[2].partition("/")[0].partition(":")
    return f"{host}:{port or 9092}"


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """Let only our own errors out."""
    try:
        yield
    except (KafkaException, BufferError, RuntimeError, ValueError, TypeError) as exc:
        raise _failure(exc, action) from exc


def _failure(exc: Exception, action: str) -> PipelineError:
    """What a foreign error means; its text is left out, it can hold settings and so a password."""
    name = _name(exc)
    known = ((error, meaning) for names, error, meaning in _MEANINGS if name in names)
    error, meaning = next(known, (KafkaUnavailable, FAILED))
    return error(f"{action}: {meaning} ({name})")


def _name(exc: Exception) -> str:
    return exc.args[0].name() if isinstance(exc, KafkaException) else type(exc).__name__
