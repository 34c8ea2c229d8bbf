"""The publisher, on either client, while Apache Kafka fails: frozen, killed, restarted, without the topic."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from kafka import KafkaConsumer, TopicPartition

from mnist_pipeline.adapters.confluent_publisher import ConfluentPublisher
from mnist_pipeline.adapters.kafka_publisher import KafkaPublisher
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.pipeline.errors import KafkaUnavailable, MessageTooLarge
from mnist_pipeline.pipeline.ports import Deadline, Message
from mnist_pipeline.pipeline.settings import Kafka
from servers.kafka import KafkaProgram, KafkaServer

pytestmark = [
    pytest.mark.real,
    # kafka-python leaves the sockets of closed clients to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"),
]

AnyPublisher = KafkaPublisher | ConfluentPublisher
Connect = Callable[..., AnyPublisher]

TOPIC = "results"
numbers = itertools.count()
MESSAGE = Message(key=b"k", value=b"v")


@pytest.fixture(scope="module")
def fragile(kafka_program: KafkaProgram) -> Iterator[KafkaServer]:
    """A broker of these tests' own, to be broken."""
    with Sandbox() as sandbox, KafkaServer(kafka_program, sandbox) as server:
        server.create_topic(TOPIC)
        yield server
    gc.collect()


@pytest.fixture(params=[KafkaPublisher, ConfluentPublisher], ids=["kafka-python", "confluent"])
def publisher_to(request: pytest.FixtureRequest, fragile: KafkaServer) -> Connect:
    """Makes a publisher, of each client in turn, that gives a broker so many seconds."""

    def connect(topic: str = TOPIC, *, timeout_seconds: float) -> AnyPublisher:
        kafka = Kafka(bootstrap_servers=fragile.bootstrap_servers, topic=topic)
        publisher: AnyPublisher = request.param(kafka, timeout_seconds=timeout_seconds)
        return publisher

    return connect


async def connected(publisher: AnyPublisher) -> AnyPublisher:
    await publisher.publish(MESSAGE, deadline=Deadline(20))
    return publisher


@pytest.fixture
async def publisher(fragile: KafkaServer, publisher_to: Connect) -> AsyncIterator[AnyPublisher]:
    """One that is connected and gives a broker two seconds; its broker is whole again after the test."""
    publisher = await connected(publisher_to(timeout_seconds=2))
    yield publisher
    if fragile.running:
        fragile.thaw()
    else:
        fragile.start()
    fragile.wait_ready()
    await publisher.close()


@pytest.fixture
async def patient(publisher: AnyPublisher, publisher_to: Connect) -> AsyncIterator[AnyPublisher]:
    """One that gives a broker so long that only a deadline can end it sooner."""
    del publisher  # which sees to the broker
    patient = await connected(publisher_to(timeout_seconds=15))
    yield patient
    await patient.close()


async def seconds(call: Awaitable[object]) -> float:
    started = time.monotonic()
    await call
    return time.monotonic() - started


async def refused(publisher: AnyPublisher, match: str, *, within: float = 20) -> None:
    with pytest.raises(KafkaUnavailable, match=match):
        await publisher.publish(MESSAGE, deadline=Deadline(within))


async def works_again(publisher: AnyPublisher) -> None:
    """Publish as a redelivering source does, until it is done."""
    give_up = time.monotonic() + 30
    while True:
        try:
            await publisher.publish(Message(key=b"k", value=b"after"), deadline=Deadline(10))
        except KafkaUnavailable:
            assert time.monotonic() < give_up
        else:
            return


def values(server: KafkaServer, topic: str = TOPIC) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=server.bootstrap_servers)
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        found: list[bytes] = []
        while consumer.position(partition) < end:
            found += [record.value for record in consumer.poll(timeout_ms=500).get(partition, [])]
        return found
    finally:
        consumer.close()


async def test_row_26_a_frozen_broker_is_given_up_within_the_deadline_and_used_again_when_it_is_back(
    fragile: KafkaServer, publisher: AnyPublisher, patient: AnyPublisher
) -> None:
    fragile.freeze()
    assert await seconds(refused(patient, "'results'|KAFKA", within=1)) < 10
    assert await seconds(refused(publisher, "'results'|KAFKA")) < 15
    assert await seconds(refused(publisher, "'results'|KAFKA")) < 15
    fragile.thaw()
    await works_again(patient)
    await works_again(publisher)
    assert b"after" in values(fragile)


async def test_a_broker_that_freezes_for_less_than_the_timeout_is_waited_for(
    fragile: KafkaServer, publisher: AnyPublisher
) -> None:
    fragile.freeze()
    threading.Timer(0.7, fragile.thaw).start()
    assert 0.5 < await seconds(publisher.publish(MESSAGE, deadline=Deadline(20))) < 5


async def test_row_26_a_killed_broker_is_used_again_when_it_is_back_on_its_port(
    fragile: KafkaServer, publisher: AnyPublisher, patient: AnyPublisher
) -> None:
    fragile.kill()
    assert await seconds(refused(patient, "'results'|KAFKA", within=1)) < 10
    assert await seconds(refused(publisher, "'results'|KAFKA")) < 15
    fragile.start()
    await works_again(patient)
    await works_again(publisher)


async def test_row_26_a_restart_costs_no_message_that_was_acknowledged_and_no_redelivery_fails_for_ever(
    fragile: KafkaServer, publisher: AnyPublisher
) -> None:
    acknowledged: list[bytes] = []
    wanted: float = math.inf

    async def publish(worker: int) -> None:
        number = 0
        while len(acknowledged) < wanted:
            value = b"%d-%d" % (worker, number)
            try:
                await publisher.publish(Message(key=b"k", value=value), deadline=Deadline(5))
            except KafkaUnavailable:
                continue
            acknowledged.append(value)
            number += 1
            await asyncio.sleep(0.02)

    workers = [asyncio.create_task(publish(worker)) for worker in range(4)]
    await asyncio.sleep(0.5)
    await asyncio.to_thread(fragile.stop)
    before = len(acknowledged)
    fragile.start()
    await asyncio.to_thread(fragile.wait_ready)
    wanted = before + 40
    await asyncio.wait(workers, timeout=20)
    wanted = 0
    await asyncio.gather(*workers)
    assert before > 0
    assert len(acknowledged) >= before + 40
    assert set(acknowledged) <= set(values(fragile))


async def test_row_26_a_broker_that_is_away_at_first_is_used_as_soon_as_it_is_there(
    fragile: KafkaServer, publisher: AnyPublisher, publisher_to: Connect
) -> None:
    fragile.stop()
    late = publisher_to(timeout_seconds=2)
    await refused(late, "KAFKA_BOOTSTRAP_SERVERS")
    fragile.start()
    await works_again(late)
    await late.close()
    await works_again(publisher)


async def test_row_27_a_missing_topic_is_told_by_its_name_within_the_timeout_and_found_once_it_is_made(
    fragile: KafkaServer, publisher: AnyPublisher, publisher_to: Connect
) -> None:
    topic = f"made-later-{next(numbers)}"
    await publisher.check(deadline=Deadline(20))
    missing = publisher_to(topic, timeout_seconds=2)
    assert await seconds(refused(missing, f"'{topic}'.*KAFKA_TOPIC")) < 5
    with pytest.raises(KafkaUnavailable, match=f"'{topic}'"):
        await missing.check(deadline=Deadline(20))
    fragile.create_topic(topic)
    await works_again(missing)
    await missing.close()
    assert values(fragile, topic) == [b"after"]


async def test_row_27_a_message_that_is_too_large_for_the_topic_is_refused_at_once_and_the_next_one_arrives(
    fragile: KafkaServer, publisher: AnyPublisher, publisher_to: Connect
) -> None:
    topic = f"narrow-{next(numbers)}"
    await publisher.check(deadline=Deadline(20))
    fragile.create_topic(topic, max_message_bytes="1000")
    narrow = publisher_to(topic, timeout_seconds=5)

    async def too_large() -> None:
        with pytest.raises(MessageTooLarge):
            await narrow.publish(Message(key=b"k", value=b"v" * 2000), deadline=Deadline(20))

    assert await seconds(too_large()) < 3
    await narrow.publish(MESSAGE, deadline=Deadline(20))
    await narrow.close()
    assert values(fragile, topic) == [b"v"]
