"""`Topics`: the calls of Kafka's admin protocol that make and look at the topics of a site, on kafka-python."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import IncompatibleBrokerVersion, KafkaError, KafkaTimeoutError, for_code

from mnist_pipeline.adapters.kafka_connection import Connections
from mnist_pipeline.adapters.refusals import Away, Refused
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.settings import Kafka

USER_HINT = "check what the user of KAFKA_SASL_USERNAME or KAFKA_SSL_CERTFILE may do"

BROKERS_DEFAULT = -1
"""As a replication factor: the brokers' own (KIP-464, Kafka 2.4)."""

_SECONDS = 10.0
_MESSAGE_LENGTH = 200

_HINTS = {
    "InvalidTopicError": "; check --topic and KAFKA_TOPIC",
    "InvalidPartitionsError": "; check --partitions",
    "InvalidReplicationFactorError": "; check --replication",
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """A topic that is there.

    Attributes:
        leaders: the broker that leads it, of each partition; below zero where none does.
        operations: what our user may do with it, by Kafka's names (`WRITE`); empty where the brokers do not tell.
    """

    leaders: tuple[int, ...]
    operations: frozenset[str] = frozenset()


class Topics:
    """The calls that a site's topics take, each bounded in time; `connect` makes it.

    The admin client blocks, so each call is in a thread; one after another, never two at once. Every method raises
    `Refused` where the cluster answers with an error, and `Away` where it gives no answer.
    """

    def __init__(self, admin: KafkaAdminClient, connections: Connections) -> None:
        self._admin = admin
        self._connections = connections

    @classmethod
    async def connect(cls, kafka: Kafka) -> Topics:
        """Connect to the cluster; where that is cut short, it is given up."""
        connections = Connections(kafka)

        def opened() -> KafkaAdminClient:
            return connections.open(
                KafkaAdminClient,
                timeout_seconds=_SECONDS,
                client_id="mnist-pipeline-setup",
                request_timeout_ms=int(_SECONDS * 1000),
                reconnect_backoff_max_ms=1000,
            )

        try:
            return cls(await asyncio.to_thread(opened), connections)
        except asyncio.CancelledError:
            connections.give_up()
            raise
        except KafkaUnavailable as exc:
            raise Away(str(exc)) from exc

    async def describe(self, topic: str) -> Description | None:
        """What the brokers tell of the topic (Kafka: Metadata); it does not come into being by being asked for.

        None where there is no such topic.
        """
        return await asyncio.to_thread(self._describe, topic)

    async def create(self, topic: str, *, partitions: int, replication: int) -> None:
        """Make the topic (Kafka: CreateTopics), and wait a few seconds for it; one that is there already will do."""
        await asyncio.to_thread(self._create, topic, partitions, replication)

    async def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(KafkaError):
            await asyncio.to_thread(self._admin.close)

    def _describe(self, topic: str) -> Description | None:
        with _translated(lambda: Away(f"no answer about topic {topic}: {self._connections.explain()}")):
            return description_of(self._admin.describe_topics([topic])[0])

    def _create(self, topic: str, partitions: int, replication: int) -> None:
        options = {"num_partitions": partitions, "replication_factor": replication}
        with _translated(lambda: Refused("the controller did not do it; look at the brokers")):
            answer = self._admin.create_topics({topic: options}, raise_errors=False)["topics"][0]
            _raise_for(answer["error_code"], answer.get("error_message"), ("NoError", "TopicAlreadyExistsError"))
            with contextlib.suppress(KafkaTimeoutError):
                self._admin.wait_for_topics([topic], timeout_ms=int(_SECONDS * 1000))


def description_of(answer: Mapping[str, Any]) -> Description | None:
    """What a broker's answer about a topic says, as kafka-python gives it; None: there is no such topic.

    Raises:
        Refused: the answer is another error.
    """
    if for_code(answer["error_code"]).__name__ == "UnknownTopicOrPartitionError":
        return None
    _raise_for(answer["error_code"], None, ("NoError",))
    return Description(
        leaders=tuple(partition["leader_id"] for partition in answer["partitions"]),
        operations=frozenset(answer.get("authorized_operations") or ()),
    )


def _raise_for(code: int, message: str | None, fine: Sequence[str]) -> None:
    name = for_code(code).__name__
    if name in fine:
        return
    says = f"Kafka answered {name}" + (f" ({message[:_MESSAGE_LENGTH]!a})" if message else "")
    if name in ("TopicAuthorizationFailedError", "ClusterAuthorizationFailedError"):
        raise Refused(f"{says}; {USER_HINT}", denied=True)
    raise Refused(says + _HINTS.get(name, ""))


@contextmanager
def _translated(meaning: Callable[[], Refused | Away]) -> Iterator[None]:
    """Let only our own errors out, `meaning()` where we know no better.

    Foreign texts are left out, they can hold settings and so a password.
    """
    try:
        yield
    except IncompatibleBrokerVersion as exc:
        raise Refused(
            "these brokers do not take this request; before Kafka 2.4 give --replication, else check KAFKA_API_VERSION"
        ) from exc
    except (KafkaError, ValueError, TypeError, AssertionError, OSError, RuntimeError, LookupError) as exc:
        meant = meaning()
        raise type(meant)(f"{meant} ({type(exc).__name__})") from exc
