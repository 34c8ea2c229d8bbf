"""The two ways in: an event is posted to `serve`, or written to a topic that `consume` reads.

Either way `deliver` gives an answer. What is written to a topic is answered by what becomes of the record: its offset
is committed (200), it is a dead letter (the code and the reason that this has), or an attempt has failed (503). A
record that failed is tried again by itself: so to deliver the same body again is to wait for what becomes of it next.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote_plus

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from e2e.following import Answer, post
from e2e.metrics import Metrics
from mnist_pipeline.local.broker import Broker
from mnist_pipeline.local.processes import Sandbox, free_port
from mnist_pipeline.local.servers import ModelServer
from servers.kafka import KafkaServer

Way: TypeAlias = Literal["http", "kafka"]

PARTITIONS = 16
DEAD_PARTITIONS = 4
LARGEST_RECORD = 8_000_000
_DELIVERY = "delivery"
_NAMES = re.compile(r'"(?:key|test-trace-id)": "([^"]+)"')
_SECONDS = 120.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A record of a test's topic."""

    id: bytes
    partition: int
    offset: int
    value: bytes | None


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A record that was given up; header names as they are."""

    headers: Mapping[str, bytes]
    value: bytes

    @property
    def answer(self) -> Answer:
        """What it says of the answer that was given to the event."""
        detail = base64.b64decode(self.headers["ce_knativeerrordata"]).decode()
        body = json.dumps({"detail": detail}).encode()
        return Answer(
            int(self.headers["ce_knativeerrorcode"]), {"kne-reason": self.headers["ce_reason"].decode()}, body
        )


def ordered_producer(kafka: Broker | KafkaServer, options: Mapping[str, Any] | None = None) -> Producer:
    """One whose records come once and in their order, also where a new partition's leader is not ready yet.

    By itself it sends again what was refused behind what was not.
    """
    # The embedded broker knows nothing of idempotent producers.
    order = {"max.in.flight": 1} if isinstance(kafka, Broker) else {"enable.idempotence": True}
    return Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0, **order, **(options or {})})


class Group:
    """A consumer group's topic, its dead letters and its offsets, as somebody sees them who is no member."""

    def __init__(self, kafka: Broker | KafkaServer, *, partitions: int = PARTITIONS, topic: str | None = None) -> None:
        self.name = f"group-{uuid.uuid4()}"
        self.topic = topic or f"events-{uuid.uuid4()}"
        self.dead_letter_topic = f"dead-{uuid.uuid4()}"
        self._partitions = partitions
        if topic is None:
            create_topic(kafka, self.topic, partitions)
        # The embedded broker keeps but 5 MiB of a partition.
        create_topic(kafka, self.dead_letter_topic, DEAD_PARTITIONS)
        self._dead = [TopicPartition(self.dead_letter_topic, number, 0) for number in range(DEAD_PARTITIONS)]
        self._read = [0] * DEAD_PARTITIONS
        self._producer = ordered_producer(kafka, {"message.max.bytes": LARGEST_RECORD, "linger.ms": 0})
        self._options = {
            "bootstrap.servers": kafka.bootstrap_servers,
            "log_level": 0,
            "group.id": self.name,
            "enable.auto.commit": False,
        }
        self._connect()
        self._turn = itertools.count()
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._committed: dict[int, int] = {}
        self._dead_letters: list[DeadLetter] = []

    def _connect(self) -> None:
        # Apart, because what is asked on a connection waits for the fetch before it.
        self._offsets = Consumer(self._options)
        self._reader = Consumer({**self._options, "fetch.wait.max.ms": 50})
        self._reader.assign([TopicPartition(one.topic, one.partition, self._read[one.partition]) for one in self._dead])

    def write(
        self, value: bytes | None, headers: Mapping[str, str | bytes] | None = None, *, partition: int | None = None
    ) -> Sent:
        """A record, in the partition whose turn it is if no other is named; headers as of HTTP."""
        (sent,) = self.write_all([(value, headers or {})], partition=partition)
        return sent

    def write_all(
        self, records: Iterable[tuple[bytes | None, Mapping[str, str | bytes]]], *, partition: int | None = None
    ) -> list[Sent]:
        """Many, one after another."""
        written: dict[bytes, Sent] = {}

        def note(delivery: bytes, error: object, message: Message) -> None:
            number, offset = message.partition(), message.offset()
            if error is None and number is not None and offset is not None:
                written[delivery] = Sent(id=delivery, partition=number, offset=offset, value=message.value())

        deliveries = []
        for value, headers in records:
            delivery = str(uuid.uuid4()).encode()
            deliveries.append(delivery)
            self._producer.produce(
                self.topic,
                value=value,
                key=delivery,
                headers=[*as_of_kafka(headers), (_DELIVERY, delivery)],
                partition=next(self._turn) % self._partitions if partition is None else partition,
                on_delivery=partial(note, delivery),
            )
        assert self._producer.flush(20) == 0
        return [written[delivery] for delivery in deliveries]

    @property
    def committed(self) -> Mapping[int, int]:
        """Of each partition the offset that is committed: one above the last record that is settled."""
        self._look()
        return self._committed

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """All so far."""
        self._look()
        return self._dead_letters

    def has_settled(self, sent: Sent) -> bool:
        """Whether the offset of a record is committed."""
        return self.committed.get(sent.partition, 0) > sent.offset

    def dead_letter_of(self, sent: Sent) -> DeadLetter | None:
        """What a record has become that was given up."""
        return next((letter for letter in self.dead_letters if sent.id in letter.headers.values()), None)

    def _look(self) -> None:
        with self._lock:
            if time.monotonic() - self._looked < _LOOK_SECONDS:
                return
            try:
                # In this order: a dead letter lies there before its record's offset is committed.
                ours = [TopicPartition(self.topic, number) for number in range(self._partitions)]
                committed = self._offsets.committed(ours, timeout=10)
                ends = [self._offsets.get_watermark_offsets(dead, timeout=10)[1] for dead in self._dead]
                while any(self._read[number] < end for number, end in enumerate(ends)):
                    for message in self._reader.consume(sum(ends), timeout=0.1):
                        assert message.error() is None, message.error()
                        headers = {name: value or b"" for name, value in message.headers() or ()}
                        self._dead_letters.append(DeadLetter(headers=headers, value=message.value() or b""))
                        self._read[message.partition() or 0] = (message.offset() or 0) + 1
                self._committed = {one.partition: one.offset for one in committed}
            except KafkaException:
                # A new client asks next: librdkafka (2.16) may never find its one broker again once that was away.
                self._connect()
            self._looked = time.monotonic()


def create_topic(kafka: Broker | KafkaServer, topic: str, partitions: int) -> None:
    """Make a topic; the embedded broker takes records of any size."""
    if isinstance(kafka, Broker):
        kafka.create_topic(topic, partitions)
    else:
        kafka.create_topic(topic, partitions, max_message_bytes=str(LARGEST_RECORD))


class ConsumeProcess(ModelServer):
    """`consume` as a program, a member of a group; the port of its health and metrics is the server's.

    Attributes:
        group: that of which it is a member.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        name: str,
        program: str,
        *,
        group: Group,
        dead_letters: bool = True,
        args: Sequence[str] = (),
        env: Mapping[str, str],
    ) -> None:
        self.model_name = "mnist"
        self.http_port = free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.group = group
        self._sandbox = sandbox
        self._pending: dict[bytes | None, Sent] = {}
        flags = {
            "--host": "127.0.0.1",
            "--http_port": str(self.http_port),
            "--topic": group.topic,
            "--group": group.name,
            "--backoff": "0.05",
            **({"--dead-letter-topic": group.dead_letter_topic} if dead_letters else {}),
        }
        command = [sys.executable, "-m", program, "consume", *itertools.chain(*flags.items()), *args]
        self.child = sandbox.start(name, command, env=env)

    def answers_to(self, requests: Sequence[tuple[bytes | None, Mapping[str, str | bytes]]]) -> list[Answer]:
        """Write records, but those that are tried again already, and give what becomes of each."""
        logged, before = self.child.log.stat().st_size, Metrics.of(self)
        pending = [self._pending.pop(value, None) for value, _ in requests]
        new = [request for request, sent in zip(requests, pending, strict=True) if sent is None]
        written = iter(self.group.write_all(new))
        return [self._become(sent or next(written), logged, before) for sent in pending]

    def _become(self, sent: Sent, logged: int, before: Metrics) -> Answer:
        give_up = time.monotonic() + _SECONDS
        while True:
            running = self.child.running
            if self.group.has_settled(sent):
                letter = self.group.dead_letter_of(sent)
                return Answer(200, {}, b"") if letter is None else letter.answer
            if not running:
                raise ConnectionError("it has ended, and the record is not settled")
            if self._has_failed(sent, logged):
                self._pending[sent.value] = sent
                now = Metrics.of(self).failed
                grown = {reason: times - before.failed.get(reason, 0.0) for reason, times in now.items()}
                return Answer(503, {"kne-reason": max(grown, key=lambda reason: grown[reason])}, b"")
            assert time.monotonic() < give_up, f"nothing becomes of {sent}: {self.child.log_tail()}"
            time.sleep(_LOOK_SECONDS)

    def _has_failed(self, sent: Sent, logged: int) -> bool:
        """Whether the log has said so since it had this size."""
        names = _names_in(sent)
        with self.child.log.open("rb") as log:
            log.seek(logged)
            errors = (line for line in log.read().decode().split("\n") if " ERROR " in line)
            return any(name in line for line in errors for name in names)


def deliver(server: ModelServer, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """Deliver an event by the server's way in: bytes as they are, all else as JSON."""
    (answer,) = deliver_all(server, [body], headers)
    return answer


def deliver_all(
    server: ModelServer, bodies: Sequence[Any], headers: Mapping[str, str] | None = None, *, at_once: int = 1
) -> list[Answer]:
    """The same of several: to Kafka all at once, over HTTP so many."""
    values = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
    if isinstance(server, ConsumeProcess):
        return server.answers_to([(value, headers or {}) for value in values])
    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(lambda value: post(server.predict_url, value, headers), values))


def as_of_kafka(headers: Mapping[str, str | bytes]) -> list[tuple[str, bytes]]:
    """Headers of HTTP as a producer writes them: an event's as CloudEvents' Kafka binding has them."""
    given = ((name, value.encode() if isinstance(value, str) else value) for name, value in headers.items())
    return [("ce_" + name[3:] if name.lower().startswith("ce-") else name, value) for name, value in given]


def _names_in(sent: Sent) -> list[str]:
    """What the log calls a record's work: the keys of its objects and its trace id, as they are written there."""
    found = _NAMES.findall((sent.value or b"").decode("utf-8", "replace"))
    return [ascii(unquote_plus(name))[1:-1] for name in found]
