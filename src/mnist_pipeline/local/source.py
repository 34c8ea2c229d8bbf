"""A stand-in for Knative's KafkaSource: delivers a topic's records to a URL over HTTP, at least once.

One thread owns the consumer: it polls, hands records to workers, and commits what is settled. The workers, each with a
connection of its own, post, wait and post again. A record is settled when the sink answered 2xx or when it has become a
dead letter; offsets are committed up to the first that is not. What is not settled when the source stops comes again.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import AuthorizationError, KafkaConnectionError, KafkaError

from mnist_pipeline.adapters.kafka_connection import Connections
from mnist_pipeline.adapters.kafka_records import Record, record_of
from mnist_pipeline.local.delivery import DeadLetter, Delivery, Manner
from mnist_pipeline.local.knative import Backoff
from mnist_pipeline.local.offsets import Lane, Rebalances
from mnist_pipeline.local.processes import Part, PartFailed
from mnist_pipeline.local.trouble_log import TroubleLog
from mnist_pipeline.local.workers import Workers
from mnist_pipeline.pipeline.errors import KafkaUnavailable

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_RECONNECT_SECONDS = 3.0
_COMMIT_SECONDS = 5.0  # as often as Knative's dispatcher
_POLL_MS = 100
# All that was fetched: kafka-python (3.0.12) does not come back to a batch of which it has given only the first records
# when its partition was paused. A fetch is bounded by its bytes.
_POLL_RECORDS = sys.maxsize
_RIGHTS_HINT = "check --topic, --group and what the user of KAFKA_SASL_USERNAME or KAFKA_SSL_CERTFILE may do"


class Source(Part):
    """Delivers `topic` to `sink_url` from `start()` until `close()`.

    Args:
        bootstrap_servers: of Kafka, comma separated.
        topic: whose records are delivered.
        sink_url: where they are posted.
        group: the consumer group that keeps the offsets.
        namespace: of the KafkaSource that this stands for; part of `ce-source` and `Kn-Namespace`.
        name: of that KafkaSource; part of `ce-source`.
        ordered: one in flight a partition; else up to `max_in_flight` at once, in any order.
        retry: attempts after the first, before the record becomes a dead letter.
        backoff_seconds: see `knative.wait_seconds`; 0 turns retries off, as with Knative.
        backoff_policy: `exponential` or `linear`.
        timeout_seconds: for one attempt.
        max_in_flight: requests at once, over all partitions.
        initial_offset: `latest` or `earliest`: where a group without committed offsets begins.
        api_version: for kafka-python; None: it asks the broker.
        session_timeout_seconds: after which the group gives up a member that is silent.
        client_options: more for kafka-python's KafkaConsumer, credentials for instance.
        on_dead_letter: called with each dead letter, from a worker's thread, before its offset counts as settled. An
            exception it raises is logged and the record is gone, as with Knative when the dead-letter sink fails.
        on_failure: called once where `failed` becomes true, from a thread of the source's own.

    `failed`: nothing is delivered any more, for an error of our own; the next source gets what is not committed.

    Raises:
        ValueError, http.client.InvalidURL: nothing can be posted to `sink_url`.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        sink_url: str,
        *,
        group: str,
        namespace: str = "default",
        name: str = "mnist",
        ordered: bool = True,
        retry: int = 10,
        backoff_seconds: float = 0.3,
        backoff_policy: Backoff = "exponential",
        timeout_seconds: float = 600.0,
        max_in_flight: int = 100,
        initial_offset: str = "latest",
        api_version: tuple[int, int] | None = None,
        session_timeout_seconds: float = 10.0,
        client_options: Mapping[str, object] | None = None,
        on_dead_letter: Callable[[DeadLetter], None] | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self.topic = topic
        self.sink_url = sink_url
        self.failed = False
        self._ordered = ordered
        self._max_in_flight = max_in_flight
        self._on_failure = on_failure
        self._closing = threading.Event()
        self._delivery = Delivery(
            Manner(
                sink_url=sink_url,
                namespace=namespace,
                name=name,
                retry=retry,
                backoff_seconds=backoff_seconds,
                backoff_policy=backoff_policy,
                timeout_seconds=timeout_seconds,
                on_dead_letter=on_dead_letter,
            ),
            self._closing,
        )
        self._consumer_options: dict[str, object] = {
            "bootstrap_servers": bootstrap_servers,
            "group_id": group,
            "api_version": api_version,
            "enable_auto_commit": False,
            "auto_offset_reset": initial_offset,
            "session_timeout_ms": int(session_timeout_seconds * 1000),
            "heartbeat_interval_ms": int(session_timeout_seconds * 1000 / 3),
            **(client_options or {}),
        }
        self._lock = threading.Lock()
        self._lanes: dict[TopicPartition, Lane] = {}
        self._workers = Workers(self._delivery, self._lock, most=max_in_flight, done=self._done)
        self._assigned = threading.Event()
        self._looked_for = "Kafka"
        self._log = TroubleLog(topic, self._closing)
        self._connections = Connections()
        self._thread: threading.Thread | None = None
        self._consumer: KafkaConsumer | None = None

    @property
    def delivered(self) -> int:
        """How many records were delivered."""
        return self._delivery.delivered

    @property
    def failed_attempts(self) -> int:
        """How many attempts failed."""
        return self._delivery.failed_attempts

    @property
    def dead_lettered(self) -> int:
        """How many records were given up."""
        return self._delivery.dead_lettered

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """The newest thousand of them."""
        return self._delivery.dead_letters

    def wait_ready(self) -> None:
        """Start, which a `with` block does."""
        self.start()

    def begin(self) -> None:
        """Deliver from now on, and return at once.

        Where Kafka is away or refuses us, it is logged in one line that names the variables, and tried again until
        `close()`.
        """
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self._thread.start()

    def start(self, *, timeout_seconds: float = 30.0) -> None:
        """Join the group and begin to deliver; return once partitions are assigned.

        Raises:
            PartFailed: Kafka is not there, or the group did not let us in in time.
        """
        self.begin()
        if not self._assigned.wait(timeout_seconds):
            trouble = self._log.said or self._connections.explain()
            self.close()
            raise PartFailed("source", f"found no {self._looked_for} in {timeout_seconds:g} s: {trouble}")

    def close(self) -> None:
        """Begin nothing more, let what is in flight finish, commit, leave the group; safe to call twice.

        A record that waits for its next attempt is left as it is, and comes again.
        """
        self._closing.set()
        if self._thread is not None:
            # The thread may be connecting, or in a call that has no timeout, asking for the topic; this ends it.
            if self._consumer is None:
                self._connections.give_up()
            elif not self._assigned.is_set():
                self._consumer.close(autocommit=False, timeout_ms=1_000)
            self._thread.join()
            self._thread = None

    # The consumer's thread

    def _run(self) -> None:
        try:
            self._consume_until_closed()
        except Exception:  # noqa: BLE001 - the thread ends here, whatever it was, and says so
            if self._closing.is_set() and not self._assigned.is_set():
                return  # `close` has closed the consumer in the middle of a call
            _log.exception("topic %s: delivery ended in a way that nobody foresaw", self.topic)
            self.failed = True
            if self._on_failure is not None:
                self._on_failure()

    def _consume_until_closed(self) -> None:
        while not self._closing.is_set():
            try:
                consumer = self._connections.open(
                    KafkaConsumer, timeout_seconds=_CONNECT_SECONDS, **self._consumer_options
                )
            except KafkaUnavailable as exc:
                self._log.warn(str(exc))
                self._closing.wait(_RECONNECT_SECONDS)
                continue
            self._consumer = consumer
            self._consume(consumer)

    def _consume(self, consumer: KafkaConsumer) -> None:
        try:
            consumer.subscribe([self.topic], listener=Rebalances(self))
            self._await_topic(consumer)
            next_commit = time.monotonic() + _COMMIT_SECONDS
            while not self._closing.is_set():
                try:
                    polled = consumer.poll(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
                    for partition, batch in polled.items():
                        self._accept(partition, [record_of(consumed) for consumed in batch])
                except AuthorizationError as exc:
                    self._log.warn(f"not allowed to read it; {_RIGHTS_HINT} ({type(exc).__name__})")
                    self._closing.wait(1.0)
                except KafkaConnectionError:
                    # In the words of a poll that finds no connection: which of the two comes first is chance.
                    self._log.warn(self._connections.explain())
                    self._closing.wait(1.0)
                except KafkaError as exc:
                    self._log.warn(f"not read: {self._connections.explain()} ({type(exc).__name__})")
                    self._closing.wait(1.0)
                else:
                    self._log.look(self._connections)
                self._pause_and_resume(consumer)
                if time.monotonic() >= next_commit:
                    self._commit(consumer)
                    next_commit = time.monotonic() + _COMMIT_SECONDS
        finally:
            self._workers.end()
            self._commit(consumer)
            consumer.close(autocommit=False, timeout_ms=5_000)

    def _await_topic(self, consumer: KafkaConsumer) -> None:
        """Wait until Kafka knows the topic, which also loads its metadata into the subscribed consumer.

        Without it kafka-python joins the group knowing no partitions of the topic, assigns none, and joins again; of a
        topic that does not exist it says nothing at all.
        """
        while not self._closing.is_set():
            try:
                topics = consumer.topics()
            except KafkaError:
                self._log.warn(self._connections.explain())
            else:
                self._looked_for = f"topic {self.topic!r}"
                if self.topic in topics:
                    self._looked_for = f"partition of topic {self.topic!r}"
                    return
                self._log.warn(f"it is not there, or our user may not see it; {_RIGHTS_HINT}")
            self._closing.wait(0.1)

    def _accept(self, partition: TopicPartition, records: list[Record]) -> None:
        with self._lock:
            lane = self._lanes.get(partition)
            if lane is None:
                return
            for record in records:
                lane.offsets.begin(record.offset)
                lane.waiting.append(record)
            self._submit(lane)

    def _submit(self, lane: Lane) -> None:
        """Hand what may go now to the workers. The lock is held."""
        while lane.ours and lane.waiting and not (self._ordered and lane.in_flight):
            lane.in_flight += 1
            self._workers.put(lane, lane.waiting.popleft())

    def _done(self, lane: Lane, record: Record, *, settled: bool) -> None:
        """A worker is done with a record. The lock is held."""
        lane.in_flight -= 1
        if settled:
            lane.offsets.settle(record.offset)
        if not self._closing.is_set():
            self._submit(lane)

    def _pause_and_resume(self, consumer: KafkaConsumer) -> None:
        """Fetch no more of a partition that has a backlog, so that memory stays bounded."""
        with self._lock:
            full = [
                lane for lane in self._lanes.values() if not lane.paused and lane.backlog >= 2 * self._max_in_flight
            ]
            empty = [lane for lane in self._lanes.values() if lane.paused and lane.backlog < self._max_in_flight]
        # Not under the lock: the consumer may wait for its own thread, and that one for the lock.
        try:
            for lane in full + empty:
                (consumer.resume if lane.paused else consumer.pause)(lane.partition)
                lane.paused = not lane.paused
        except KafkaError:
            _log.debug("a partition was taken back meanwhile", exc_info=True)

    def _commit(self, consumer: KafkaConsumer) -> None:
        with self._lock:
            settled = [(lane, position) for lane in self._lanes.values() if (position := lane.to_commit()) is not None]
        if not settled:
            return
        try:
            consumer.commit({lane.partition: OffsetAndMetadata(at) for lane, at in settled}, timeout_ms=5_000)
        except KafkaError:
            _log.warning("committing offsets of topic %s failed; records may come again", self.topic, exc_info=True)
        else:
            for lane, position in settled:
                lane.committed = position

    def partitions_assigned(self, partitions: set[TopicPartition]) -> None:
        """The group gave us these, and no others."""
        with self._lock:
            self._drop(self._lanes.keys() - partitions)
            for partition in partitions:
                # Of a partition that we had before, kafka-python keeps its position and whether it is paused: what was
                # waiting is not fetched again.
                lane = self._lanes.setdefault(partition, Lane(partition))
                lane.ours = True
                self._submit(lane)
        if not self._assigned.is_set():
            _log.info("delivering topic %s to %s", self.topic, self.sink_url)
            self._assigned.set()

    def partitions_revoked(self, partitions: set[TopicPartition]) -> None:
        """The group takes these back, perhaps to give them to us again; as with Knative nothing is committed now."""
        with self._lock:
            for partition in partitions & self._lanes.keys():
                self._lanes[partition].ours = False

    def partitions_lost(self, partitions: set[TopicPartition]) -> None:
        """The group has gone on without us: kafka-python forgets its positions, and so do we."""
        with self._lock:
            self._drop(partitions & self._lanes.keys())

    def _drop(self, partitions: set[TopicPartition]) -> None:
        """Forget these; what is not settled comes again, here or elsewhere. The lock is held."""
        for partition in partitions:
            lane = self._lanes.pop(partition)
            lane.ours = False
            lane.waiting.clear()
