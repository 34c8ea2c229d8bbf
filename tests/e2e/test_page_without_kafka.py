"""The live page while Kafka comes and goes: librdkafka's broker in this process, and Apache Kafka itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import pytest
from kafka import KafkaProducer

from mnist_pipeline import Digits, Settings
from mnist_pipeline.local.broker import API_VERSION, Broker
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.pipeline.settings import Kafka, Minio
from mnist_pipeline.web.app import Parts
from mnist_pipeline.web.server import Site, parts_of
from servers.kafka import KafkaProgram, KafkaServer

NOWHERE = Minio(endpoint="127.0.0.1:9", secure=False, access_key="a", secret_key="s")


PARTITIONS = 3


@dataclass(frozen=True)
class Brokers:
    """A Kafka that can go away and come back with its records, and the topic of notifications on it."""

    kafka: Kafka
    notifications: str
    go_away: Callable[[], object]
    come_back: Callable[[], object]


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.real)])
def brokers(request: pytest.FixtureRequest) -> Brokers:
    """The embedded broker, then the real one."""
    brokers: Brokers = request.getfixturevalue(f"{request.param}_brokers")
    return brokers


@pytest.fixture
def embedded_brokers() -> Iterator[Brokers]:
    with Broker({"results": PARTITIONS, "mnist": PARTITIONS}) as broker:
        kafka = Kafka(bootstrap_servers=broker.bootstrap_servers, topic="results", api_version=API_VERSION)
        yield Brokers(kafka, "mnist", broker.go_away, broker.come_back)


@pytest.fixture
def real_brokers(kafka_program: KafkaProgram) -> Iterator[Brokers]:
    with Sandbox() as sandbox, KafkaServer(kafka_program, sandbox) as server:
        for name in ("results", "mnist"):
            server.create_topic(name, PARTITIONS)

        def come_back() -> None:
            server.start()
            server.wait_ready()

        yield Brokers(
            Kafka(bootstrap_servers=server.bootstrap_servers, topic="results"), "mnist", server.kill, come_back
        )


def publish(kafka: Kafka, *trace_ids: str) -> None:
    """Results of inline requests."""
    producer = KafkaProducer(**kafka.client_options())
    for trace_id in trace_ids:
        event = {"specversion": "1.0", "id": trace_id, "type": "t", "time": "2026-11-26T16:00:00+00:00"}
        value = orjson.dumps({**event, "data": {"predictions": [7]}})
        producer.send(kafka.topic, key=trace_id.encode(), value=value).get(timeout=20)
    producer.close()


@contextlib.asynccontextmanager
async def page_of(brokers: Brokers) -> AsyncIterator[Parts]:
    settings = Settings(task=Digits(), minio=NOWHERE, kafka=brokers.kafka)
    async with parts_of(Site(settings=settings, topic=brokers.notifications, model_name="mnist")) as parts:
        yield parts


async def until(condition: Callable[[], bool], *, seconds: float = 40) -> None:
    async def wait() -> None:
        while not condition():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.02)

    await asyncio.wait_for(wait(), seconds)


def seen(parts: Parts) -> list[Any]:
    return [kept.journey.trace_id for kept in parts.live.journeys.newest(1000)]


def is_seen(parts: Parts, trace_id: str) -> bool:
    return trace_id in seen(parts)


async def test_kafka_that_goes_away_is_told_and_what_was_published_before_it_went_again_is_seen_once(
    brokers: Brokers,
) -> None:
    async with page_of(brokers) as parts:
        await until(lambda: parts.live.status["kafka"] == "ok")
        await asyncio.to_thread(publish, brokers.kafka, "a", "b", "c")
        await until(lambda: sorted(seen(parts)) == ["a", "b", "c"])
        for number in range(2):
            await asyncio.to_thread(brokers.go_away)
            await until(lambda: parts.live.status["kafka"] == "away")
            assert "KAFKA_BOOTSTRAP_SERVERS" in parts.live.status["says"]
            await asyncio.to_thread(brokers.come_back)
            await asyncio.to_thread(publish, brokers.kafka, f"d{number}", f"e{number}")
            await until(lambda: parts.live.status["kafka"] == "ok")
            await until(partial(is_seen, parts, f"e{number}"))
        assert sorted(seen(parts)) == ["a", "b", "c", "d0", "d1", "e0", "e1"]
        assert parts.live.journeys.change == 7, "nothing was read twice"


async def test_a_page_that_begins_while_kafka_is_away_is_there_when_kafka_comes(brokers: Brokers) -> None:
    await asyncio.to_thread(publish, brokers.kafka, "before")
    await asyncio.to_thread(brokers.go_away)
    async with page_of(brokers) as parts:
        await until(lambda: "check KAFKA_BOOTSTRAP_SERVERS" in parts.live.status["says"])
        await asyncio.to_thread(brokers.come_back)
        await until(lambda: parts.live.status["kafka"] == "ok" and seen(parts) == ["before"])
