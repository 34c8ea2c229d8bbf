"""A member of a consumer group, on either client, whose Apache Kafka is frozen, killed and restarted."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from e2e.following import wait_until
from mnist_pipeline.adapters.group_member import GroupMember, Subscription
from mnist_pipeline.adapters.kafka import member_of
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.pipeline.settings import Kafka
from servers.kafka import KafkaProgram, KafkaServer
from taking import Taker

pytestmark = [
    pytest.mark.real,
    # kafka-python leaves the sockets of closed clients to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # and of those that were refused
]

_numbers = itertools.count()


@pytest.fixture(scope="module")
def fragile(kafka_program: KafkaProgram) -> Iterator[KafkaServer]:
    """A broker of these tests' own, to be broken."""
    with Sandbox() as sandbox, KafkaServer(kafka_program, sandbox) as server:
        yield server
    gc.collect()


@pytest.fixture(params=["kafka-python", "confluent"])
def joined(request: pytest.FixtureRequest, fragile: KafkaServer) -> Iterator[tuple[GroupMember, Taker, str]]:
    topic = f"notifications-{next(_numbers)}"
    fragile.create_topic(topic, 2)
    kafka = Kafka(bootstrap_servers=fragile.bootstrap_servers, topic="results", client=request.param)
    subscription = Subscription(topics=(topic,), group=topic, initial_offset="earliest", session_timeout_seconds=6.0)
    taker = Taker()
    member = member_of(kafka, subscription, taker, commit_seconds=0.2)
    member.begin()
    wait_until(lambda: len(taker.ours) == 2)
    produce(fragile, topic, b"before")
    wait_until(lambda: taker.values() == [b"before"])
    yield member, taker, topic
    member.close()


def produce(server: KafkaServer, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": server.bootstrap_servers, "log_level": 0})
    producer.produce(topic, value=value)
    assert producer.flush(30) == 0


def test_it_reads_on_after_its_broker_was_killed_and_started_again(
    fragile: KafkaServer, joined: tuple[GroupMember, Taker, str]
) -> None:
    member, taker, topic = joined
    fragile.kill()
    wait_until(lambda: member.trouble is not None)
    assert "KAFKA_BOOTSTRAP_SERVERS" in (member.trouble or "")
    fragile.start()
    fragile.wait_ready()
    produce(fragile, topic, b"after")
    wait_until(lambda: b"after" in taker.values(), seconds=60)
    wait_until(lambda: member.trouble is None)


def test_it_reads_on_after_its_broker_was_frozen_for_longer_than_a_session(
    fragile: KafkaServer, joined: tuple[GroupMember, Taker, str]
) -> None:
    member, taker, topic = joined
    fragile.freeze()
    try:
        time.sleep(8)
    finally:
        fragile.thaw()
    produce(fragile, topic, b"after")
    wait_until(lambda: b"after" in taker.values(), seconds=60)
    wait_until(lambda: member.trouble is None and member.is_assigned)
