"""One member of a consumer group: it takes records, and commits what its owner has settled.

One thread owns the client of Kafka: it polls, hands records over, pauses the partitions of which the owner has enough,
and commits. Rebalances are cooperative (KIP-429): what stays ours is read on meanwhile. What is not settled when a
partition is taken back, or when the member ends, comes again, here or elsewhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mnist_pipeline.adapters.records import Partition, Record
from mnist_pipeline.adapters.trouble_log import TroubleLog
from mnist_pipeline.pipeline.errors import KafkaUnavailable

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 4.0

COMMIT_SECONDS = 3.0
REQUEST_SECONDS = 10.0
"""How long a broker may take to answer."""

METADATA_SECONDS = 10.0
"""How late a new topic, or a partition that was added, may be seen."""

STALLED_SECONDS = 60.0
"""How long a rebalance waits for a member that is alive and does not poll."""

# A fetch brings so much; a single larger record comes all the same.
PARTITION_BYTES = 256 * 1024
FETCH_BYTES = 2 * 1024 * 1024

_LONGEST_HEARTBEAT_SECONDS = 1.0

_LOOK_SECONDS = 1.0

_RIGHTS_HINT = "check --topic, --group and what the user of KAFKA_SASL_USERNAME or KAFKA_SSL_CERTFILE may do"
NOT_ALLOWED = f"not allowed to read it; {_RIGHTS_HINT}"


class Owner(Protocol):
    """Who consumes. Called on threads of the member and its client; each method returns at once, and raises nothing."""

    def taken(self, records: Sequence[Record]) -> None:
        """Take these records, of partitions that are ours, those of each in their order."""

    def assigned(self, partitions: Collection[Partition]) -> None:
        """Know that these are ours too; none, where the group has let us in and had none for us."""

    def revoked(self, partitions: Collection[Partition]) -> None:
        """Forget these, which the group has taken back; what was settled of them is committed."""

    def lost(self, partitions: Collection[Partition]) -> None:
        """Forget these: the group has gone on without us, and nothing of them can be committed."""

    def settled(self) -> Mapping[Partition, int]:
        """What to commit: one above the last settled offset, of each partition where that is new."""
        ...

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Know that these were committed."""

    def full(self) -> Collection[Partition]:
        """The partitions of which no more is wanted for now."""
        ...


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """What a member reads.

    Attributes:
        topics: their names; one that is not there yet is read as soon as it is.
        group: the consumer group that keeps the offsets.
        initial_offset: `latest` or `earliest`: where a group without committed offsets begins.
        session_timeout_seconds: after which the group gives up a member that is silent.
        fetch_wait_seconds: for how long a broker may hold a fetch that has nothing to give.
    """

    topics: Sequence[str]
    group: str
    initial_offset: str = "latest"
    session_timeout_seconds: float = 10.0
    fetch_wait_seconds: float = 0.1

    @property
    def heartbeat_seconds(self) -> float:
        """How often a member says that it is alive, and so how late it can hear of a rebalance."""
        return min(self.session_timeout_seconds / 3, _LONGEST_HEARTBEAT_SECONDS)


class GroupConsumer(Protocol):
    """A client of Kafka as a `GroupMember` uses it, from one thread; it tells its owner what the group decides.

    Each method but `give_up` and `close` may raise `KafkaUnavailable`, one line that names the variables to check.
    """

    @property
    def trouble(self) -> str | None:
        """What is the matter with the brokers, in such a line; None where nothing is known to be."""
        ...

    @property
    def is_joined(self) -> bool:
        """Whether the group has let us in."""
        ...

    def open(self) -> None:
        """Connect, within some seconds."""

    def missing(self) -> Sequence[str]:
        """Which of our topics are not there, or not for us; it is cheap where none was."""
        ...

    def poll(self, seconds: float) -> Sequence[Record]:
        """The next records, waiting so long at most for the first."""
        ...

    def pause(self, partitions: Collection[Partition] | None) -> None:
        """Fetch no more of these, or of any where it is None, and go on with the others."""

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit these offsets, within some seconds."""

    def give_up(self) -> None:
        """Let whatever call goes on end soon; for another thread, and the last but `close`."""

    def close(self) -> None:
        """Leave the group, which takes all partitions back, and close the connections; no more is committed."""


def commit_settled(owner: Owner, commit: Callable[[Mapping[Partition, int]], None]) -> None:
    """Commit what the owner has settled; where that fails a line in the log says so."""
    if offsets := owner.settled():
        try:
            commit(offsets)
        except KafkaUnavailable as exc:
            warn_uncommitted(exc)
        else:
            owner.committed(offsets)


def warn_uncommitted(why: Exception | str) -> None:
    """Say that a commit failed."""
    _log.warning("committing offsets failed, records may come again: %s", why)


class GroupMember:
    """Consumes from `begin` until `close`; `member_of` makes it.

    Args:
        consumer: the client.
        subscription: what it reads.
        owner: who gets the records.
        commit_seconds: how often what is settled is committed.
        on_failure: called once, from the member's thread, where it has ended by itself, for an error of our own.

    Attributes:
        is_assigned: whether the group has let us in, and our partitions are read.
    """

    def __init__(
        self,
        consumer: GroupConsumer,
        subscription: Subscription,
        owner: Owner,
        *,
        commit_seconds: float = 5.0,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self.is_assigned = False
        self._consumer = consumer
        self._topics = subscription.topics
        self._missing: Sequence[str] = ()
        self._owner = owner
        self._commit_seconds = commit_seconds
        self._on_failure = on_failure
        self._closing = threading.Event()
        self._commit_wanted = threading.Event()
        self._takes = True
        self._next_commit = 0.0
        self._next_look = 0.0
        self._log = TroubleLog(subscription.topics, self._closing)
        self._thread = threading.Thread(target=self._run, name="kafka-member", daemon=True)

    @property
    def trouble(self) -> str | None:
        """Why nothing is consumed now; None where nothing is the matter."""
        if self._log.said or self.is_assigned:
            return self._log.said or None
        return self._consumer.trouble or "the group has not let us in yet"

    def begin(self) -> None:
        """Consume from now on, and return at once.

        Where Kafka is away or refuses us, or a topic is not there, one line in the log says so and names the variables;
        it is tried again until `close`.
        """
        self._thread.start()

    def commit_soon(self) -> None:
        """Commit what is settled at the next turn; for any thread."""
        self._commit_wanted.set()

    def stop_taking(self) -> None:
        """Hand over nothing more, and stay a member, so that what is in hand can be committed; for any thread.

        A call of `taken` that has begun may end after this.
        """
        self._takes = False

    def close(self) -> None:
        """Commit what is settled and leave the group, within five seconds; for another thread, safe to call twice."""
        self._closing.set()
        if not self._thread.is_alive():
            return
        if self.is_assigned:
            self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            self._consumer.give_up()
            self._thread.join(1.0)

    def _run(self) -> None:
        try:
            if self._is_done(self._consumer.open):
                self._consume()
        except Exception:  # noqa: BLE001 - the thread ends here, whatever it was, and says so
            self.is_assigned = False
            if self._closing.is_set():
                return  # `close` has ended a call in its middle
            _log.exception("the member of the consumer group ended in a way that nobody foresaw")
            if self._on_failure is not None:
                self._on_failure()

    def _consume(self) -> None:
        self._next_commit = time.monotonic() + self._commit_seconds
        try:
            while self._is_done(self._turn):
                pass
        finally:
            try:
                self._commit()
            finally:
                self._consumer.close()
                self.is_assigned = False

    def _is_done(self, what: Callable[[], None]) -> bool:
        """Try it until it succeeds; it did not where we are closing."""
        while not self._closing.is_set():
            try:
                what()
            except KafkaUnavailable as exc:
                self._log.warn(str(exc))
                self._closing.wait(_RETRY_SECONDS)
            else:
                return True
        return False

    def _turn(self) -> None:
        self._look_for_topics()
        full = self._owner.full() if self._takes else None
        self._consumer.pause(full)
        records = self._consumer.poll(_POLL_SECONDS)
        if records and self._takes:
            self._owner.taken(records)
        self.is_assigned = self._consumer.is_joined
        self._log.look(self._consumer.trouble or self._not_there)
        if self._commit_wanted.is_set() or time.monotonic() >= self._next_commit:
            self._commit()

    def _look_for_topics(self) -> None:
        if time.monotonic() >= self._next_look:
            self._missing = self._consumer.missing()
            # Whoever joins a group for topics that are not there is let in for nothing, and must join again.
            if len(self._missing) == len(self._topics):
                raise KafkaUnavailable(self._not_there)
            self._next_look = time.monotonic() + _LOOK_SECONDS

    @property
    def _not_there(self) -> str:
        """What is the matter with the topics; empty where nothing is."""
        topics = ", ".join(self._missing)
        return f"{topics} is not there, or our user may not see it; {_RIGHTS_HINT}" if topics else ""

    def _commit(self) -> None:
        self._next_commit = time.monotonic() + self._commit_seconds
        self._commit_wanted.clear()
        commit_settled(self._owner, self._consumer.commit)
