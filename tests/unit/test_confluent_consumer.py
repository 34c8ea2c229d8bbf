"""confluent_consumer.py: what a `poll` gives while the group decides, on a client that does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from mnist_pipeline.adapters import confluent_consumer
from mnist_pipeline.adapters.confluent_consumer import ConfluentGroupConsumer
from mnist_pipeline.adapters.group_member import Subscription
from mnist_pipeline.pipeline.settings import Kafka
from taking import Taker

OURS = [TopicPartition("mnist", 0)]


class Client:
    """librdkafka's client: each `poll` does the next of its steps.

    Attributes:
        steps: a value is a record of partition 0 at that offset, None is nothing, and anything else is called first.
        is_silent: whether no broker answers.
    """

    def __init__(self) -> None:
        self.steps: list[Callable[[], object] | int | None] = []
        self.is_silent = False
        self.is_subscribed = False
        self.is_closed = False
        self.decide: dict[str, Callable[[object, Sequence[TopicPartition]], None]] = {}

    def list_topics(self, topic: str, **_: Any) -> object:
        if self.is_silent:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))  # noqa: SLF001 - librdkafka's own errors are called so
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None)})

    def subscribe(self, _: Sequence[str], **callbacks: Any) -> None:
        self.is_subscribed = True
        self.decide = callbacks

    def poll(self, _: float) -> object:
        step = self.steps.pop(0) if self.steps else None
        while callable(step):
            step()
            step = self.steps.pop(0)
        return step if step is None else record(step)

    def unsubscribe(self) -> None:
        self.is_subscribed = False

    def close(self) -> None:
        assert not self.is_subscribed, "librdkafka may hang"
        assert not self.steps, "librdkafka may hang"
        self.is_closed = True


def record(offset: int) -> object:
    values = {
        "topic": "mnist",
        "partition": 0,
        "offset": offset,
        "timestamp": (1, 0),
        "key": None,
        "value": b"",
        "headers": None,
        "error": None,
    }
    return SimpleNamespace(**{name: lambda value=value: value for name, value in values.items()})


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    """The clients that were made."""
    made: list[Client] = []

    def make(*_: Any, **__: Any) -> Client:
        made.append(Client())
        return made[-1]

    monkeypatch.setattr(confluent_consumer, "Consumer", make)
    return made


@pytest.fixture
def consumer(clients: list[Client]) -> ConfluentGroupConsumer:
    kafka = Kafka(bootstrap_servers="127.0.0.1:1", topic="results")
    made = ConfluentGroupConsumer(kafka, Subscription(topics=("mnist",), group="g"), Taker())
    made.open()
    assert len(clients) == 1
    return made


def offsets(consumer: ConfluentGroupConsumer) -> list[int]:
    return [one.offset for one in consumer.poll(0)]


def test_what_comes_after_a_partition_is_ours_again_is_given_and_what_came_before_is_not(
    clients: list[Client], consumer: ConfluentGroupConsumer
) -> None:
    (client,) = clients

    def assign() -> None:
        client.decide["on_assign"](client, OURS)

    def lose() -> None:
        client.decide["on_lost"](client, OURS)

    client.steps = [assign, 3, 4]
    assert offsets(consumer) == [3, 4]
    client.steps = [5, 6, lose, assign, 3, 4]
    assert offsets(consumer) == [3, 4]
    client.steps = [lose, assign, 3]
    assert offsets(consumer) == [3]
    client.steps = [4, lose, None]
    assert offsets(consumer) == []


def test_a_client_whom_no_broker_answers_is_replaced_while_the_group_has_not_let_us_in(
    clients: list[Client], consumer: ConfluentGroupConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (client,) = clients
    monkeypatch.setattr(confluent_consumer, "_SILENT_SECONDS", 0.0)
    client.steps = [lambda: client.decide["on_assign"](client, OURS), None]
    consumer.poll(0)
    client.is_silent = True
    consumer.poll(0)
    assert len(clients) == 1, "the group has us"
    client.steps = [lambda: client.decide["on_lost"](client, OURS), None]
    consumer.poll(0)
    consumer.poll(0)
    assert [one.is_closed for one in clients] == [True, False]
    consumer.poll(0)
    assert len(clients) == 2, "it is answered"


def test_all_that_the_group_has_decided_is_told_before_the_client_is_closed(
    clients: list[Client], consumer: ConfluentGroupConsumer
) -> None:
    (client,) = clients
    told: list[str] = []
    client.steps = [lambda: told.append("assigned"), 3, lambda: told.append("revoked"), None]
    consumer.close()
    assert told == ["assigned", "revoked"]
    assert client.is_closed
