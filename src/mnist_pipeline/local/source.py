"""A stand-in for Knative's KafkaSource: delivers a topic's records to a URL over HTTP, at least once.

    with Source("127.0.0.1:9092", "mnist", "http://127.0.0.1:8080/v1/models/mnist:predict", group="mnist") as source:
        ...
    source.delivered

One thread owns the consumer: it polls, hands records to workers, and commits what is settled. The workers, each with a
connection of its own, post, wait and post again. A record is settled when the sink answered 2xx or when it has become a
dead letter; offsets are committed up to the first that is not. What is not settled when the source stops comes again.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import logging
import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import AuthorizationError, KafkaConnectionError, KafkaError

from mnist_pipeline.adapters.kafka_connection import Connections
from mnist_pipeline.local.knative import (
    Answer,
    Backoff,
    Request,
    Verdict,
    dead_letter_of,
    request_of,
    verdict,
    wait_seconds,
)
from mnist_pipeline.local.processes import Part, PartFailed
from mnist_pipeline.local.records import Record, record_of
from mnist_pipeline.pipeline.errors import KafkaUnavailable

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_RECONNECT_SECONDS = 3.0
# A broker that ends breaks its connections off first, and only then takes no more of them; another may take over.
_TROUBLE_SECONDS = 1.0
_COMMIT_SECONDS = 5.0  # as often as Knative's dispatcher
_POLL_MS = 100
# All that was fetched: kafka-python (3.0.12) does not come back to a batch of which it has given only the first records
# when its partition was paused. A fetch is bounded by its bytes.
_POLL_RECORDS = sys.maxsize
_DEAD_LETTERS_KEPT = 1_000
_URL_CHARACTERS = frozenset(map(chr, range(ord("!"), ord("~") + 1)))
_RIGHTS_HINT = "check --topic, --group and what the user of KAFKA_SASL_USERNAME or KAFKA_SSL_CERTFILE may do"


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A record that was given up.

    `request` is what a dead-letter sink gets: the event; of a record that no event could be made of its value alone.
    No `answer`: the last attempt had none.
    """

    record: Record
    request: Request
    answer: Answer | None
    attempts: int


class Offsets:
    """Which offsets of a partition are settled, in whatever order that happens; pure bookkeeping."""

    def __init__(self) -> None:
        self.position: int | None = None
        """The offset to commit, one above the last of the settled run from the start; None: nothing is settled yet."""
        self._begun: collections.deque[int] = collections.deque()
        self._settled: set[int] = set()

    def begin(self, offset: int) -> None:
        """A record came; offsets come in ascending order, with gaps."""
        self._begun.append(offset)

    def settle(self, offset: int) -> None:
        """It is done with."""
        self._settled.add(offset)
        while self._begun and self._begun[0] in self._settled:
            first = self._begun.popleft()
            self._settled.discard(first)
            self.position = first + 1


@dataclass(eq=False)
class _Lane:
    """A partition that is ours, or was until the rebalance that goes on."""

    partition: TopicPartition
    ours: bool = True
    offsets: Offsets = field(default_factory=Offsets)
    waiting: collections.deque[Record] = field(default_factory=collections.deque)
    in_flight: int = 0
    paused: bool = False
    committed: int | None = None


class SinkConnection:
    """One keep-alive connection to a sink, for one thread; the first `post` opens it.

    Raises:
        ValueError, http.client.InvalidURL: nothing can be posted to this URL.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout_seconds)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _URL_CHARACTERS.issuperset(self._path):
            raise ValueError(f"{url!r} has characters that a URL must escape")

    def post(self, request: Request) -> Answer:
        """Post it and read the whole answer.

        Raises:
            OSError, http.client.HTTPException: no answer.
            ValueError: a header that HTTP cannot carry, from a record's key with a line break for instance.
        """
        if self._connection.sock is not None and _is_readable(self._connection.sock):
            self._connection.close()  # the sink has closed it while it lay idle: that is no failed attempt
        try:
            self._connection.putrequest("POST", self._path, skip_accept_encoding=True)
            for name, value in request.headers:
                self._connection.putheader(name, value)
            if request.body is not None:
                self._connection.putheader("Content-Length", str(len(request.body)))
            self._connection.endheaders(request.body)
            response = self._connection.getresponse()
            return Answer(status=response.status, headers=tuple(response.getheaders()), body=response.read())
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close it; a later `post` opens a new one."""
        self._connection.close()


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


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

    `delivered`, `failed_attempts` and `dead_lettered` count; `dead_letters` holds the newest thousand. `failed` says
    that nothing is delivered any more, for an error of the program's own; what is not committed comes again to the next
    source.

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
        SinkConnection(sink_url, timeout_seconds)  # here, and not in every worker, it fails where it must
        self.topic = topic
        self.sink_url = sink_url
        self.delivered = 0
        self.failed_attempts = 0
        self.dead_lettered = 0
        self.failed = False
        self.dead_letters: collections.deque[DeadLetter] = collections.deque(maxlen=_DEAD_LETTERS_KEPT)
        self._namespace = namespace
        self._name = name
        self._ordered = ordered
        self._retry = retry if backoff_seconds > 0 else 0
        self._backoff_seconds = backoff_seconds
        self._backoff_policy: Backoff = backoff_policy
        self._timeout_seconds = timeout_seconds
        self._max_in_flight = max_in_flight
        self._on_dead_letter = on_dead_letter
        self._on_failure = on_failure
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
        self._lanes: dict[TopicPartition, _Lane] = {}
        self._tasks: queue.SimpleQueue[tuple[_Lane, Record] | None] = queue.SimpleQueue()
        self._queued = 0
        self._idle = 0
        self._workers: list[threading.Thread] = []
        self._assigned = threading.Event()
        self._looked_for = "Kafka"
        self._said = ""
        self._well_at = time.monotonic()
        self._closing = threading.Event()
        self._connections = Connections()
        self._thread: threading.Thread | None = None
        self._consumer: KafkaConsumer | None = None

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
            trouble = self._said or self._connections.explain()
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
                self._warn(str(exc))
                self._closing.wait(_RECONNECT_SECONDS)
            else:
                self._consumer = consumer
                self._consume(consumer)

    def _warn(self, text: str) -> None:
        """Log what is the matter, once for as long as it stays the same, and not where we brought it about."""
        if text != self._said and not self._closing.is_set():
            _log.warning("topic %s: %s; trying again", self.topic, text)
            self._said = text

    def _consume(self, consumer: KafkaConsumer) -> None:
        try:
            consumer.subscribe([self.topic], listener=_Partitions(self))
            self._await_topic(consumer)
            next_commit = time.monotonic() + _COMMIT_SECONDS
            while not self._closing.is_set():
                try:
                    polled = consumer.poll(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
                    for partition, batch in polled.items():
                        self._accept(partition, [record_of(consumed) for consumed in batch])
                except AuthorizationError as exc:
                    self._warn(f"not allowed to read it; {_RIGHTS_HINT} ({type(exc).__name__})")
                    self._closing.wait(1.0)
                except KafkaConnectionError:
                    # In the words of a poll that finds no connection: which of the two comes first is chance.
                    self._warn(self._connections.explain())
                    self._closing.wait(1.0)
                except KafkaError as exc:
                    self._warn(f"not read: {self._connections.explain()} ({type(exc).__name__})")
                    self._closing.wait(1.0)
                else:
                    self._tell_connection()
                self._pause_and_resume(consumer)
                if time.monotonic() >= next_commit:
                    self._commit(consumer)
                    next_commit = time.monotonic() + _COMMIT_SECONDS
        finally:
            for _ in self._workers:
                self._tasks.put(None)
            for worker in self._workers:
                worker.join()
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
                topics = None
                self._warn(self._connections.explain())
            if topics is not None:
                self._looked_for = f"topic {self.topic!r}"
            if topics and self.topic in topics:
                self._looked_for = f"partition of topic {self.topic!r}"
                return
            if topics is not None:
                self._warn(f"it is not there, or our user may not see it; {_RIGHTS_HINT}")
            self._closing.wait(0.1)

    def _tell_connection(self) -> None:
        """A poll without records does not tell whether a broker is there; its connections do."""
        if self._connections.trouble is None:
            self._well_at = time.monotonic()
            if self._said:
                _log.info("topic %s: is read again", self.topic)
                self._said = ""
        elif time.monotonic() - self._well_at >= _TROUBLE_SECONDS:
            self._warn(self._connections.explain())

    def _accept(self, partition: TopicPartition, records: list[Record]) -> None:
        with self._lock:
            lane = self._lanes.get(partition)
            if lane is None:
                return
            for record in records:
                lane.offsets.begin(record.offset)
                lane.waiting.append(record)
            self._submit(lane)

    def _submit(self, lane: _Lane) -> None:
        """Hand what may go now to the workers, with one more of them where none is idle. The lock is held."""
        while lane.ours and lane.waiting and not (self._ordered and lane.in_flight):
            lane.in_flight += 1
            self._queued += 1
            self._tasks.put((lane, lane.waiting.popleft()))
            if self._queued > self._idle and len(self._workers) < self._max_in_flight:
                worker = threading.Thread(target=self._work, name=f"source-{len(self._workers)}", daemon=True)
                self._workers.append(worker)
                self._idle += 1
                worker.start()

    def _pause_and_resume(self, consumer: KafkaConsumer) -> None:
        """Fetch no more of a partition that has a backlog, so that memory stays bounded."""
        full, empty = [], []
        with self._lock:
            for lane in self._lanes.values():
                backlog = len(lane.waiting) + lane.in_flight
                if not lane.paused and backlog >= 2 * self._max_in_flight:
                    full.append(lane)
                elif lane.paused and backlog < self._max_in_flight:
                    empty.append(lane)
        # Not under the lock: the consumer may wait for its own thread, and that one for the lock.
        try:
            for lane in full:
                consumer.pause(lane.partition)
                lane.paused = True
            for lane in empty:
                consumer.resume(lane.partition)
                lane.paused = False
        except KafkaError:
            _log.debug("a partition was taken back meanwhile", exc_info=True)

    def _commit(self, consumer: KafkaConsumer) -> None:
        with self._lock:
            settled = [
                (lane, OffsetAndMetadata(lane.offsets.position))
                for lane in self._lanes.values()
                if lane.ours and lane.offsets.position is not None and lane.offsets.position != lane.committed
            ]
        if not settled:
            return
        try:
            consumer.commit({lane.partition: position for lane, position in settled}, timeout_ms=5_000)
        except KafkaError:
            _log.warning("committing offsets of topic %s failed; records may come again", self.topic, exc_info=True)
            return
        for lane, position in settled:
            lane.committed = position.offset

    def partitions_assigned(self, partitions: set[TopicPartition]) -> None:
        """The group gave us these, and no others."""
        with self._lock:
            self._drop(self._lanes.keys() - partitions)
            for partition in partitions:
                # Of a partition that we had before, kafka-python keeps its position and whether it is paused: what was
                # waiting is not fetched again.
                lane = self._lanes.setdefault(partition, _Lane(partition))
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

    # The workers' threads

    def _work(self) -> None:
        connection = SinkConnection(self.sink_url, self._timeout_seconds)
        with contextlib.closing(connection):
            while task := self._tasks.get():
                lane, record = task
                with self._lock:
                    self._queued -= 1
                    self._idle -= 1
                try:
                    settled = self._deliver(connection, record)
                except Exception:  # noqa: BLE001 - whatever it is must not end the worker: the partition would stand still
                    _log.exception("%s is neither delivered nor given up; a restart brings it again", _place(record))
                    settled = False
                with self._lock:
                    self._idle += 1
                    lane.in_flight -= 1
                    if settled:
                        lane.offsets.settle(record.offset)
                    if not self._closing.is_set():
                        self._submit(lane)

    def _deliver(self, connection: SinkConnection, record: Record) -> bool:
        """Deliver one record; whether it is settled: not so where we are closing before its next attempt."""
        request: Request | None = None
        attempt = 0
        unforeseen = False
        while not self._closing.is_set():
            answer = None
            try:
                if request is None:
                    request = request_of(record, namespace=self._namespace, name=self._name)
                answer = self._attempt(connection, request)
            except Exception:  # noqa: BLE001 - it counts as no answer, so that the record ends as a dead letter
                if not unforeseen:
                    _log.exception("%s: an attempt failed in a way that was not foreseen", _place(record))
                unforeseen = True
            outcome = verdict(None if answer is None else answer.status)
            if outcome is Verdict.COMMIT:
                with self._lock:
                    self.delivered += 1
                return True
            with self._lock:
                self.failed_attempts += 1
            attempt += 1
            if outcome is Verdict.DEAD_LETTER or attempt > self._retry:
                self._give_up(record, request or Request(headers=(), body=record.value), answer, attempt)
                return True
            self._closing.wait(
                wait_seconds(attempt, backoff_seconds=self._backoff_seconds, policy=self._backoff_policy)
            )
        return False

    def _attempt(self, connection: SinkConnection, request: Request) -> Answer | None:
        try:
            return connection.post(request)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            # A header that cannot be sent counts as no answer, as with Knative: its writer fails, so it retries.
            _log.debug("no answer from %s: %s", self.sink_url, exc)
            return None

    def _give_up(self, record: Record, request: Request, answer: Answer | None, attempts: int) -> None:
        letter = DeadLetter(
            record=record,
            request=dead_letter_of(request, sink_url=self.sink_url, answer=answer),
            answer=answer,
            attempts=attempts,
        )
        _log.warning(
            "gave up %s after %d attempts: %s",
            *(_place(record), attempts),
            "no answer" if answer is None else f"status {answer.status}",
        )
        if self._on_dead_letter is not None:
            try:
                self._on_dead_letter(letter)
            except Exception:  # noqa: BLE001 - whatever the caller's function raises must not end the worker
                _log.exception("the dead letter of offset %d is lost", record.offset)
        with self._lock:
            self.dead_lettered += 1
            self.dead_letters.append(letter)


def _place(record: Record) -> str:
    return f"partition {record.partition} offset {record.offset}"


class _Partitions(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Passes the group's decisions to the source; called on kafka-python's own thread, which must not be blocked."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._source.partitions_assigned(assigned)

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._source.partitions_revoked(revoked)

    def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        self._source.partitions_lost(lost)
