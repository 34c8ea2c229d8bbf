"""`ConfluentGroupConsumer`: a member's client on confluent-kafka, librdkafka's client; of the extra `[fast]`.

librdkafka fetches in threads of its own. What the group decides, and how connections end, it tells in `poll()`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from mnist_pipeline.adapters.group_member import (
    FETCH_BYTES,
    METADATA_SECONDS,
    NOT_ALLOWED,
    PARTITION_BYTES,
    REQUEST_SECONDS,
    STALLED_SECONDS,
    Owner,
    Subscription,
    commit_settled,
)
from mnist_pipeline.adapters.kafka_troubles import FAILED
from mnist_pipeline.adapters.librdkafka import Connections, name_of
from mnist_pipeline.adapters.records import Partition, Record
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.settings import Kafka

_POLL_RECORDS = 1000
# So long after the group has let us go, and as long again after each try, a client whom no broker answers is replaced:
# librdkafka (2.16) drops a broker that is not among those of an answer, and at times never finds it again.
_SILENT_SECONDS = 10.0
_NOT_ALLOWED = frozenset({"TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED"})
_UNKNOWN_TOPIC = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})


class ConfluentGroupConsumer:
    """By the port `GroupConsumer`; the arguments are `KafkaGroupConsumer`'s.

    Attributes:
        is_joined: whether the group has let us in.
    """

    def __init__(self, kafka: Kafka, subscription: Subscription, owner: Owner) -> None:
        self.is_joined = False
        self._topics = subscription.topics
        self._owner = owner
        self._new_connections = partial(
            Connections,
            kafka,
            timeout_seconds=REQUEST_SECONDS,
            group_id=subscription.group,
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset=subscription.initial_offset,
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=_ms(subscription.session_timeout_seconds),
            heartbeat_interval_ms=_ms(subscription.heartbeat_seconds),
            max_poll_interval_ms=_ms(STALLED_SECONDS),
            topic_metadata_refresh_interval_ms=_ms(METADATA_SECONDS),
            fetch_wait_max_ms=_ms(subscription.fetch_wait_seconds),
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=PARTITION_BYTES,
            # Fetched ahead at most, beyond what one fetch brings.
            queued_max_messages_kbytes=FETCH_BYTES // 1024,
            # Else it waits for a second where it has enough.
            fetch_queue_backoff_ms=10,
        )
        self._connections = self._new_connections()
        self._consumer: Any = None
        self._is_closing = False
        self._ours: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._taken_back: set[Partition] = set()
        self._missing: Sequence[str] = ()
        self._must_look = True
        self._given_up = False
        self._refusal: str | None = None
        self._next_doubt = 0.0

    @property
    def trouble(self) -> str | None:
        """What the connections tell, else why we are not let in, or may not read."""
        is_well = self._consumer is not None and self._connections.trouble is None
        return self._refusal if is_well else self._connections.explain()

    def open(self) -> None:
        """Connect and subscribe; the group is joined by the first `poll`."""
        self._subscribe(self._connected(self._connections))

    def _connected(self, connections: Connections) -> Any:
        consumer: Any = connections.open(Consumer)
        end = time.monotonic() + REQUEST_SECONDS
        while not self._is_answered(consumer, connections):
            consumer.poll(0)  # which tells the connections why
            if time.monotonic() >= end or self._given_up or connections.is_hopeless:
                consumer.close()
                raise KafkaUnavailable(connections.explain())
        return consumer

    def _subscribe(self, consumer: Any) -> None:
        consumer.subscribe(list(self._topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        self._consumer = consumer
        self._next_doubt = time.monotonic() + _SILENT_SECONDS

    def _replace(self) -> None:
        """Join as a new member, with connections of its own, and the certificates that the files hold by now."""
        connections = self._new_connections()
        consumer = self._connected(connections)
        # Nothing can be committed by the one whom the brokers refuse or do not answer.
        self.close()
        self._is_closing = self.is_joined = False
        self._connections = connections
        self._subscribe(consumer)

    def missing(self) -> Sequence[str]:
        """Ask for the topics where one was not there, or where we do not know whether a broker is there."""
        if self._must_look or self._missing or self.trouble is not None:
            missing = []
            for topic in self._topics:
                if (found := self._connections.look_up(self._consumer, topic)) is None:
                    break
                if found.error is not None:
                    missing.append(topic)
            else:
                self._missing, self._must_look = missing, False
        return self._missing

    def poll(self, seconds: float) -> list[Record]:
        """What comes first, and what else is there by then."""
        self._connections.keep_current(self._consumer)
        if self._connections.is_outdated or self._is_silent():
            self._replace()
        records: list[Record] = []
        errors: list[KafkaError] = []
        # One at a time. Of a batch nobody could tell what was fetched before the group took a partition back from what
        # was fetched after it was ours again: the first must not be handed over, and the second never comes again.
        while len(records) + len(errors) < _POLL_RECORDS:
            self._taken_back.clear()
            consumed = self._consumer.poll(0 if records or errors else seconds)
            if self._taken_back:
                records = [one for one in records if Partition(one.topic, one.partition) not in self._taken_back]
            if consumed is None:
                break
            if (error := consumed.error()) is None:
                records.append(_record_of(consumed))
            else:
                errors.append(error)
        if errors:
            self._note(errors)
        elif records:
            self._refusal = None
        return records

    def pause(self, partitions: Collection[Partition] | None) -> None:
        """Pause these, and resume the others."""
        wanted = self._ours.copy() if partitions is None else self._ours.intersection(partitions)
        if wanted != self._paused:
            self._consumer.pause([TopicPartition(*partition) for partition in wanted - self._paused])
            self._consumer.resume([TopicPartition(*partition) for partition in self._paused - wanted])
            self._paused = wanted

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit them."""
        wanted = [TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        with _translated():
            for done in self._consumer.commit(offsets=wanted, asynchronous=False):
                if done.error is not None:
                    raise KafkaException(done.error)

    def give_up(self) -> None:
        """Let `open` end; no other call can be ended."""
        self._given_up = True

    def close(self) -> None:
        """Leave the group."""
        self._is_closing = True
        # First comes what the group has decided and `poll` has not told yet: where librdkafka's `close` (2.16) has to
        # tell more than one such thing, it may hang for ever, and Python with it.
        self._consumer.unsubscribe()
        while self._consumer.poll(0) is not None:
            pass
        self._consumer.close()

    def _is_silent(self) -> bool:
        """Whether no broker answers, asked now and then while the group has not let us in."""
        now = time.monotonic()
        if not self.is_joined and now < self._next_doubt:
            return False
        self._next_doubt = now + _SILENT_SECONDS
        return not (self.is_joined or self._is_answered(self._consumer, self._connections))

    def _is_answered(self, consumer: Any, connections: Connections) -> bool:
        return connections.look_up(consumer, self._topics[0]) is not None

    def _note(self, errors: Sequence[KafkaError]) -> None:
        for error in errors:
            if error.fatal():
                raise KafkaException(error)
            if error.name() in _UNKNOWN_TOPIC:
                self._must_look = True
            else:
                self._refusal = str(_failure(KafkaException(error)))

    def _assigned(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        added = _in_ours(partitions)
        self._ours |= added
        if added or not self.is_joined:
            self._owner.assigned(added)
        self.is_joined = True
        self._refusal = None

    def _revoked(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        if not self._is_closing:
            commit_settled(self._owner, self.commit)
        self._owner.revoked(self._forget(partitions))

    def _lost(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self.is_joined = False
        self._owner.lost(self._forget(partitions))

    def _forget(self, partitions: Sequence[TopicPartition]) -> set[Partition]:
        gone = _in_ours(partitions)
        if paused := gone & self._paused:
            # librdkafka would remember it, should they be ours again.
            self._consumer.resume([TopicPartition(*partition) for partition in paused])
        self._ours -= gone
        self._paused -= gone
        self._taken_back |= gone
        return gone


def _record_of(consumed: Any) -> Record:
    return Record(
        topic=consumed.topic(),
        partition=consumed.partition(),
        offset=consumed.offset(),
        timestamp_ms=consumed.timestamp()[1],
        key=consumed.key(),
        value=consumed.value(),
        headers=tuple((name, value or b"") for name, value in consumed.headers() or ()),
    )


def _in_ours(partitions: Sequence[TopicPartition]) -> set[Partition]:
    return {Partition(one.topic, one.partition) for one in partitions}


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except KafkaException as exc:
        raise _failure(exc) from exc


def _failure(exc: KafkaException) -> KafkaUnavailable:
    name = name_of(exc)
    return KafkaUnavailable(f"{NOT_ALLOWED if name in _NOT_ALLOWED else FAILED} ({name})")


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
