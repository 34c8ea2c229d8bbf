"""The topics of a site on kafka-python's admin client: `Topics` makes the calls, `Topic` says what has to be there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import IncompatibleBrokerVersion, KafkaError, KafkaTimeoutError, for_code

from mnist_pipeline.adapters.kafka_connection import Connections
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.settings import Kafka
from mnist_pipeline.site.parts import Away, Refused, State

DEFAULT_PARTITIONS = 6

USER_HINT = "check what the user of KAFKA_SASL_USERNAME or KAFKA_SSL_CERTFILE may do"

_SECONDS = 10.0
# As a replication factor (KIP-464, Kafka 2.4).
_BROKERS_DEFAULT = -1
_MESSAGE_LENGTH = 200

_HINTS = {
    "InvalidTopicError": "; check --topic and KAFKA_TOPIC",
    "InvalidPartitionsError": "; check --partitions",
    "InvalidReplicationFactorError": "; check --replication",
}


class Topics:
    """The calls of Kafka's admin protocol that a site's topics take, each bounded in time.

    Every method raises `Refused` where the cluster answers with an error, and `Away` where it gives no answer.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._connections = Connections()
        try:
            self._admin = self._connections.open(
                KafkaAdminClient,
                timeout_seconds=_SECONDS,
                **kafka.client_options(),
                client_id="mnist-pipeline-setup",
                request_timeout_ms=int(_SECONDS * 1000),
                reconnect_backoff_max_ms=1000,
            )
        except KafkaUnavailable as exc:
            raise Away(str(exc)) from exc

    def describe(self, topic: str) -> Mapping[str, Any]:
        """What the brokers tell of the topic (Kafka: Metadata); it does not come into being by being asked for."""
        with _translated(lambda: Away(f"no answer about topic {topic}: {self._connections.explain()}")):
            described: Mapping[str, Any] = self._admin.describe_topics([topic])[0]
            return described

    def create(self, topic: str, *, partitions: int, replication: int) -> None:
        """Make the topic (Kafka: CreateTopics), and wait a few seconds for it; one that is there already will do."""
        options = {"num_partitions": partitions, "replication_factor": replication}
        with _translated(lambda: Refused("the controller did not do it; look at the brokers")):
            answer = self._admin.create_topics({topic: options}, raise_errors=False)["topics"][0]
            _raise_for(answer["error_code"], answer.get("error_message"), ("NoError", "TopicAlreadyExistsError"))
            with contextlib.suppress(KafkaTimeoutError):
                self._admin.wait_for_topics([topic], timeout_ms=int(_SECONDS * 1000))

    def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(KafkaError):
            self._admin.close()


@dataclass(frozen=True)
class Topic:
    """A topic, there or not; `needed`: the transformer produces to it, so its user has to see it."""

    topics: Topics
    name: str
    partitions: int | None
    replication: int | None
    needed: bool

    @property
    def what(self) -> str:
        """`topic NAME`."""
        return f"topic {self.name}"

    def look(self) -> State:
        """Whether it is there, each partition with a leader."""
        described = self.topics.describe(self.name)
        if for_code(described["error_code"]).__name__ == "UnknownTopicOrPartitionError":
            return State(lacks="is not there")
        _raise_for(described["error_code"], None, ("NoError",), needed=self.needed)
        leaders = [partition["leader_id"] for partition in described["partitions"]]
        if not leaders or min(leaders) < 0:
            raise Refused(f"{leaders.count(-1)} of its {len(leaders)} partitions have no leader; look at the brokers")
        if self.partitions not in (None, len(leaders)):
            return State(note=f"with {len(leaders)} partitions, which setup does not change")
        return State()

    def mend(self) -> None:
        """Make it."""
        self.topics.create(
            self.name,
            partitions=self.partitions or DEFAULT_PARTITIONS,
            replication=self.replication or _BROKERS_DEFAULT,
        )


def _raise_for(code: int, message: str | None, fine: Sequence[str], *, needed: bool = False) -> None:
    name = for_code(code).__name__
    if name in fine:
        return
    says = f"Kafka answered {name}" + (f" ({message[:_MESSAGE_LENGTH]!a})" if message else "")
    if name in ("TopicAuthorizationFailedError", "ClusterAuthorizationFailedError"):
        raise Refused(f"{says}; {USER_HINT}", denied=True, needed=needed)
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
