"""A stand-in for Knative's KafkaSource: delivers a topic's records to a URL over HTTP, at least once.

A member of a consumer group takes the records. Workers, each with a connection of its own, post, wait and post again. A
record is settled when the sink answered 2xx or when it has become a dead letter; offsets are committed up to the first
that is not. What is not settled when the source stops comes again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from mnist_pipeline.adapters.group_member import Subscription
from mnist_pipeline.adapters.kafka import member_of
from mnist_pipeline.local.delivery import DeadLetter, Delivery, Manner
from mnist_pipeline.local.knative import Backoff
from mnist_pipeline.local.lanes import Lanes
from mnist_pipeline.local.processes import Part, PartFailed
from mnist_pipeline.pipeline.settings import Kafka

_log = logging.getLogger(__name__)


class Source(Part):
    """Delivers topics to `sink_url` from `start()` until `close()`.

    Args:
        kafka: where the brokers are, and who we are there.
        subscription: the topics, and the consumer group that keeps their offsets.
        sink_url: where the records are posted.
        namespace: of the KafkaSource that this stands for; part of `ce-source` and `Kn-Namespace`.
        name: of that KafkaSource; part of `ce-source`.
        ordered: one in flight a partition; else up to `max_in_flight` at once, in any order.
        retry: attempts after the first, before the record becomes a dead letter.
        backoff_seconds: see `knative.wait_seconds`; 0 turns retries off, as with Knative.
        backoff_policy: `exponential` or `linear`.
        timeout_seconds: for one attempt.
        max_in_flight: requests at once, over all partitions.
        on_dead_letter: called with each dead letter, from a worker's thread, before its offset counts as settled. An
            exception it raises is logged and the record is gone, as with Knative when the dead-letter sink fails.
        on_failure: called once where `failed` becomes true, from a thread of the source's own.

    `failed`: nothing is delivered any more, for an error of our own; the next source gets what is not committed.

    Raises:
        ValueError, http.client.InvalidURL: nothing can be posted to `sink_url`.
    """

    def __init__(
        self,
        kafka: Kafka,
        subscription: Subscription,
        sink_url: str,
        *,
        namespace: str = "default",
        name: str = "mnist",
        ordered: bool = True,
        retry: int = 10,
        backoff_seconds: float = 0.3,
        backoff_policy: Backoff = "exponential",
        timeout_seconds: float = 600.0,
        max_in_flight: int = 100,
        on_dead_letter: Callable[[DeadLetter], None] | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self.sink_url = sink_url
        self.failed = False
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
        self._topics = ", ".join(subscription.topics)
        self._begun = threading.Event()
        self._lanes = Lanes(
            self._delivery,
            ordered=ordered,
            max_in_flight=max_in_flight,
            closing=self._closing,
            on_assigned=self._begin_to_deliver,
        )
        # As often as Knative's dispatcher commits.
        self._member = member_of(kafka, subscription, self._lanes, commit_seconds=5.0, on_failure=self._fail)

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
        self._member.begin()

    def start(self, *, timeout_seconds: float = 30.0) -> None:
        """Join the group and begin to deliver; return once partitions are assigned.

        Raises:
            PartFailed: Kafka is not there, or the group did not let us in in time.
        """
        self.begin()
        if not self._begun.wait(timeout_seconds):
            trouble = self._member.trouble
            self.close()
            raise PartFailed("source", f"has no partition after {timeout_seconds:g} s: {trouble}")

    def close(self) -> None:
        """Begin nothing more, let what is in flight finish, commit, leave the group; safe to call twice.

        A record that waits for its next attempt is left as it is, and comes again.
        """
        self._closing.set()
        self._member.stop_taking()
        self._lanes.end()
        self._member.close()

    def _begin_to_deliver(self) -> None:
        if not self._begun.is_set():
            _log.info("delivering topic %s to %s", self._topics, self.sink_url)
            self._begun.set()

    def _fail(self) -> None:
        self.failed = True
        if self._on_failure is not None:
            self._on_failure()
