"""`KafkaGroupConsumer`: a member's client on kafka-python."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import AuthorizationError, KafkaConnectionError, KafkaError
from kafka.structs import MemberState

from mnist_pipeline.adapters.group_member import (
    COMMIT_SECONDS,
    FETCH_BYTES,
    METADATA_SECONDS,
    NOT_ALLOWED,
    PARTITION_BYTES,
    REQUEST_SECONDS,
    STALLED_SECONDS,
    Owner,
    Subscription,
    warn_uncommitted,
)
from mnist_pipeline.adapters.kafka_connection import Connections
from mnist_pipeline.adapters.kafka_records import record_of
from mnist_pipeline.adapters.records import Partition, Record
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.settings import Kafka

# All that was fetched, which is bounded by its bytes: kafka-python (3.0.12) does not come back to a batch of which it
# has given only the first records when its partition was paused.
_POLL_RECORDS = sys.maxsize


class KafkaGroupConsumer:
    """By the port `GroupConsumer`.

    Args:
        kafka: where the brokers are, and who we are there.
        subscription: what is read.
        owner: who is told what the group decides, on kafka-python's own thread.

    Attributes:
        is_joined: whether the group has let us in.
    """

    def __init__(self, kafka: Kafka, subscription: Subscription, owner: Owner) -> None:
        self.is_joined = False
        self._topics = subscription.topics
        self._owner = owner
        self._connections = Connections(kafka)
        self._assignor = CooperativeStickyAssignor()
        self._options: dict[str, Any] = {
            "client_id": "mnist-pipeline",
            "group_id": subscription.group,
            "enable_auto_commit": False,
            "auto_offset_reset": subscription.initial_offset,
            "partition_assignment_strategy": [self._assignor],
            "session_timeout_ms": _ms(subscription.session_timeout_seconds),
            "heartbeat_interval_ms": _ms(subscription.heartbeat_seconds),
            "max_poll_interval_ms": _ms(STALLED_SECONDS),
            "request_timeout_ms": _ms(REQUEST_SECONDS),
            "metadata_max_age_ms": _ms(METADATA_SECONDS),
            "allow_auto_create_topics": False,
            "fetch_max_wait_ms": _ms(subscription.fetch_wait_seconds),
            "fetch_max_bytes": FETCH_BYTES,
            "max_partition_fetch_bytes": PARTITION_BYTES,
            "reconnect_backoff_max_ms": 1000,
            "metrics_enabled": False,
        }
        self._rebalances = _Rebalances(owner, self._lost)
        self._consumer: Any = None

    @property
    def trouble(self) -> str | None:
        """What the connections tell."""
        is_well = self._consumer is not None and self._connections.trouble is None
        return None if is_well else self._connections.explain()

    def open(self) -> None:
        """Connect and subscribe; the group is joined by the first `poll`."""
        consumer = self._connections.open(KafkaConsumer, timeout_seconds=REQUEST_SECONDS, **self._options)
        self._rebalances.commit_async = consumer.commit_async
        consumer.subscribe(list(self._topics), listener=self._rebalances)
        self._consumer = consumer

    def missing(self) -> Sequence[str]:
        """Ask the brokers for all topics where one is not known, which also loads what kafka-python must know of them.

        Of a topic that does not exist it says nothing by itself.
        """
        with self._translated():
            return [topic for topic in self._topics if not self._consumer.partitions_for_topic(topic)]

    def poll(self, seconds: float) -> list[Record]:
        """All that was fetched."""
        with self._translated():
            polled = self._consumer.poll(timeout_ms=_ms(seconds), max_records=_POLL_RECORDS)
            if not self.is_joined and self._consumer.group_metadata().state == MemberState.STABLE:
                self.is_joined = True
                if not self._consumer.assignment():
                    self._owner.assigned(())
            return [record_of(consumed) for batch in polled.values() for consumed in batch]

    def pause(self, partitions: Collection[Partition] | None) -> None:
        """Pause these, and resume the others."""
        ours, paused = self._consumer.assignment(), self._consumer.paused()
        wanted = ours if partitions is None else ours & {TopicPartition(*partition) for partition in partitions}
        self._consumer.pause(*(wanted - paused))
        self._consumer.resume(*(paused - wanted))

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit them."""
        with self._translated():
            self._consumer.commit(_in_its_words(offsets), timeout_ms=_ms(COMMIT_SECONDS))

    def give_up(self) -> None:
        """End the connections."""
        if self._consumer is None:
            self._connections.give_up()
        else:
            self._leave(0.0)

    def close(self) -> None:
        """Leave the group."""
        self._leave(COMMIT_SECONDS)

    def _leave(self, seconds: float) -> None:
        self._rebalances.commit_async = None
        self._consumer.close(autocommit=False, timeout_ms=_ms(seconds))

    def _lost(self) -> None:
        self.is_joined = False
        # kafka-python (3.0.12) would tell the group that we still have what we had.
        self._assignor.member_assignment = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except AuthorizationError as exc:
            raise KafkaUnavailable(f"{NOT_ALLOWED} ({type(exc).__name__})") from exc
        except KafkaConnectionError as exc:
            # In the words of a poll that finds no connection: which of the two comes first is chance.
            raise KafkaUnavailable(self._connections.explain()) from exc
        except KafkaError as exc:
            raise KafkaUnavailable(f"not read: {self._connections.explain()} ({type(exc).__name__})") from exc


class _Rebalances(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Passes the group's decisions on, while a `poll` waits for them."""

    def __init__(self, owner: Owner, on_lost: Callable[[], None]) -> None:
        self.commit_async: Callable[..., Any] | None = None
        self._owner = owner
        self._on_lost = on_lost

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._owner.assigned(_in_ours(assigned))

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        # Whoever gets them is told so only once we have joined again, and reads what was committed then.
        if self.commit_async is not None and (offsets := self._owner.settled()):
            try:
                await self.commit_async(_in_its_words(offsets))
            except KafkaError as exc:
                warn_uncommitted(type(exc).__name__)
            else:
                self._owner.committed(offsets)
        self._owner.revoked(_in_ours(revoked))

    async def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        self._on_lost()
        self._owner.lost(_in_ours(lost))


def _in_ours(partitions: Collection[TopicPartition]) -> list[Partition]:
    return [Partition(*partition) for partition in partitions]


def _in_its_words(offsets: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {TopicPartition(*partition): OffsetAndMetadata(offset) for partition, offset in offsets.items()}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
