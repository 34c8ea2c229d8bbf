"""What every `Publisher` promises, checked over the one in memory, the embedded broker and Apache Kafka itself."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Protocol

import pytest
from kafka import KafkaConsumer, TopicPartition

from mnist_pipeline.adapters.confluent_publisher import ConfluentPublisher
from mnist_pipeline.adapters.kafka_publisher import KafkaPublisher
from mnist_pipeline.local.broker import API_VERSION, Broker
from mnist_pipeline.pipeline.errors import DeadlineExceeded, KafkaUnavailable, MessageTooLarge
from mnist_pipeline.pipeline.ports import Deadline, Message, Publisher
from mnist_pipeline.pipeline.settings import Kafka
from mnist_pipeline.testing import MemoryPublisher
from servers.kafka import KafkaServer

# kafka-python leaves the sockets of closed clients to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning")


class Backend(Protocol):
    """A publisher, and a look at what its topic holds."""

    @property
    def publisher(self) -> Publisher:
        """The one under test."""
        ...

    def messages(self) -> list[Message]:
        """All messages of the topic, in order."""
        ...

    def freeze(self) -> None:
        """Have its broker accept connections and answer nobody."""
        ...

    def thaw(self) -> None:
        """Have it answer again."""
        ...


class MemoryBackend:
    """The public fake."""

    def __init__(self) -> None:
        self.publisher = MemoryPublisher()

    def messages(self) -> list[Message]:
        """What it holds."""
        return self.publisher.messages

    def freeze(self) -> None:
        """As the fake does it."""
        self.publisher.freeze()

    def thaw(self) -> None:
        """As the fake does it."""
        self.publisher.thaw()


@dataclass
class BrokerBackend:
    """A topic of one partition on a broker."""

    publisher: KafkaPublisher | ConfluentPublisher
    bootstrap_servers: str
    topic: str
    api_version: tuple[int, int] | None = None
    server: KafkaServer | None = None

    def messages(self) -> list[Message]:
        """What a consumer reads from the topic's start to its end."""
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap_servers, api_version=self.api_version)
        try:
            partition = TopicPartition(self.topic, 0)
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            end = consumer.end_offsets([partition])[partition]
            records = []
            while consumer.position(partition) < end:
                records += consumer.poll(timeout_ms=500).get(partition, [])
            return [Message(key=it.key, value=it.value, headers=tuple(it.headers)) for it in records]
        finally:
            consumer.close()

    def freeze(self) -> None:
        """Halt the broker's process."""
        if self.server is None:
            pytest.skip("the embedded broker is part of this process and cannot be frozen alone")
        self.server.freeze()

    def thaw(self) -> None:
        """Let it go on."""
        if self.server is not None:
            self.server.thaw()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker({}) as running:
        yield running
    gc.collect()


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture(
    params=[
        "memory",
        "embedded",
        "embedded confluent",
        pytest.param("kafka", marks=pytest.mark.real),
        pytest.param("kafka confluent", marks=pytest.mark.real),
    ]
)
async def backend(request: pytest.FixtureRequest, numbers: Iterator[int]) -> AsyncIterator[Backend]:
    broker_kind, _, client = request.param.partition(" ")
    if broker_kind == "memory":
        yield MemoryBackend()
        return
    topic = f"results-{next(numbers)}"
    if broker_kind == "embedded":
        broker: Broker = request.getfixturevalue("broker")
        broker.create_topic(topic, 1)
        servers, api_version, server = broker.bootstrap_servers, API_VERSION, None
    else:
        kafka: KafkaServer = request.getfixturevalue("real_kafka")
        kafka.create_topic(topic)
        servers, api_version, server = kafka.bootstrap_servers, None, kafka
    kind = ConfluentPublisher if client == "confluent" else KafkaPublisher
    publisher = kind(Kafka(bootstrap_servers=servers, topic=topic, api_version=api_version), timeout_seconds=5)
    yield BrokerBackend(publisher, servers, topic, api_version, server)
    await publisher.close()
    gc.collect()


def soon() -> Deadline:
    return Deadline(20)


async def test_a_message_arrives_as_it_is(backend: Backend) -> None:
    message = Message(
        key="grün".encode(), value=b'{"a": 1}\x00\xff', headers=(("ce_id", b"1"), ("ce_id", b"2"), ("x", b"\xff"))
    )
    await backend.publisher.publish(message, deadline=soon())
    assert backend.messages() == [message]


async def test_a_message_without_headers_has_none(backend: Backend) -> None:
    await backend.publisher.publish(Message(key=b"k", value=b"v"), deadline=soon())
    assert backend.messages() == [Message(key=b"k", value=b"v")]


async def test_messages_in_turn_stay_in_order(backend: Backend) -> None:
    sent = [Message(key=b"k", value=b"%d" % number) for number in range(5)]
    for message in sent:
        await backend.publisher.publish(message, deadline=soon())
    assert backend.messages() == sent


async def test_of_many_messages_at_once_each_arrives_once(backend: Backend) -> None:
    sent = [Message(key=b"%d" % number, value=b"v" * number) for number in range(64)]
    await asyncio.gather(*(backend.publisher.publish(message, deadline=soon()) for message in sent))
    assert sorted(backend.messages(), key=lambda message: int(message.key)) == sent


async def test_a_message_that_is_too_large_is_refused_and_the_next_one_arrives(backend: Backend) -> None:
    with pytest.raises(MessageTooLarge):
        await backend.publisher.publish(Message(key=b"k", value=b"v" * 2_000_000), deadline=soon())
    await backend.publisher.publish(Message(key=b"k", value=b"v"), deadline=soon())
    assert [message.value for message in backend.messages()] == [b"v"]


async def test_a_check_is_answered(backend: Backend) -> None:
    await backend.publisher.check(deadline=soon())
    assert backend.messages() == []


async def test_nothing_is_begun_after_the_deadline(backend: Backend) -> None:
    with pytest.raises(DeadlineExceeded):
        await backend.publisher.publish(Message(key=b"k", value=b"v"), deadline=Deadline(0))
    with pytest.raises(DeadlineExceeded):
        await backend.publisher.check(deadline=Deadline(0))
    assert backend.messages() == []


async def test_row_26_a_frozen_broker_is_given_up_within_the_deadline_and_works_again_when_it_is_back(
    backend: Backend,
) -> None:
    await backend.publisher.publish(Message(key=b"k", value=b"before"), deadline=soon())
    backend.freeze()
    try:
        started = time.monotonic()
        with pytest.raises((KafkaUnavailable, DeadlineExceeded)):
            await backend.publisher.publish(Message(key=b"k", value=b"unanswered"), deadline=Deadline(1))
        assert 0.5 < time.monotonic() - started < 10
    finally:
        backend.thaw()
    give_up = time.monotonic() + 30
    while True:
        try:
            await backend.publisher.publish(Message(key=b"k", value=b"after"), deadline=soon())
            break
        except KafkaUnavailable:
            assert time.monotonic() < give_up
    values = [message.value for message in backend.messages()]
    assert (values[0], values[-1]) == (b"before", b"after")


async def test_a_closed_publisher_can_be_used_again(backend: Backend) -> None:
    await backend.publisher.publish(Message(key=b"k", value=b"1"), deadline=soon())
    await backend.publisher.close()
    await backend.publisher.close()
    await backend.publisher.publish(Message(key=b"k", value=b"2"), deadline=soon())
    assert [message.value for message in backend.messages()] == [b"1", b"2"]
