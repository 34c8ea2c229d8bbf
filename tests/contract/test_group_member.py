"""What a `GroupMember` promises, on both clients, checked over the embedded broker and Apache Kafka itself."""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import pytest

from e2e.following import wait_until
from e2e.ways import ordered_producer
from mnist_pipeline.adapters.group_member import GroupMember, Subscription
from mnist_pipeline.adapters.kafka import member_of
from mnist_pipeline.adapters.records import Partition, Record
from mnist_pipeline.local.broker import Broker
from mnist_pipeline.local.processes import Child, Sandbox
from mnist_pipeline.pipeline.settings import Kafka
from servers.kafka import KafkaServer
from taking import Taker

# kafka-python leaves the sockets of closed clients to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning")

_numbers = itertools.count()


@dataclass
class Site:
    """A broker with topics and groups of the test's own."""

    kafka: Kafka
    broker: Broker | KafkaServer
    session_timeout_seconds: float = 6.0
    group: str = field(default_factory=lambda: f"group-{next(_numbers)}")
    members: list[GroupMember] = field(default_factory=list)

    def topic(self, partitions: int = 1) -> str:
        """A new one."""
        topic = f"notifications-{next(_numbers)}"
        self.broker.create_topic(topic, partitions)
        return topic

    def produce(self, topic: str, values: Sequence[bytes], *, partitions: int = 1) -> None:
        """Records in the topic's partitions, by turns."""
        producer = ordered_producer(self.broker, {"message.max.bytes": 8_000_000})
        for number, value in enumerate(values):
            producer.produce(topic, value=value, partition=number % partitions)
        assert producer.flush(20) == 0

    def take(self, *topics: str, kafka: Kafka | None = None, settles: bool = True) -> tuple[GroupMember, Taker]:
        """A member that has begun; it commits only when it must."""
        taker = Taker()
        taker.settles = settles
        member = member_of(kafka or self.kafka, self.subscription(*topics), taker, commit_seconds=60)
        self.members.append(member)
        member.begin()
        return member, taker

    def subscription(self, *topics: str) -> Subscription:
        """Of a group that begins at the topics' start."""
        return Subscription(
            topics=topics,
            group=self.group,
            initial_offset="earliest",
            session_timeout_seconds=self.session_timeout_seconds,
            fetch_wait_seconds=0.02,
        )

    def start(self, sandbox: Sandbox, topic: str) -> Child:
        """A member as a program of its own."""
        given = [json.dumps(asdict(value)) for value in (self.kafka, self.subscription(topic))]
        return sandbox.start(
            "member",
            [sys.executable, "-m", "taking", *given],
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )


@pytest.fixture(scope="module")
def embedded() -> Iterator[Broker]:
    with Broker({}) as running:
        yield running
    gc.collect()


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.real)])
def broker(request: pytest.FixtureRequest) -> Broker | KafkaServer:
    found: Broker | KafkaServer = request.getfixturevalue("embedded" if request.param == "embedded" else "real_kafka")
    return found


@pytest.fixture(params=["kafka-python", "confluent"])
def site(request: pytest.FixtureRequest, broker: Broker | KafkaServer) -> Iterator[Site]:
    if isinstance(broker, Broker):
        site = Site(broker.kafka("results", client=request.param), broker)
    else:
        site = Site(Kafka(bootstrap_servers=broker.bootstrap_servers, topic="results", client=request.param), broker)
    yield site
    for member in site.members:
        member.close()
    gc.collect()


@pytest.fixture
def short_sessions(site: Site) -> None:
    """The embedded broker awaits for so long, less a second, who joins or has left, and not only who is gone."""
    if isinstance(site.broker, Broker):
        site.session_timeout_seconds = 3.0


@pytest.fixture
def changing_group(site: Site) -> None:
    """Where members join that have others beside them."""
    if isinstance(site.broker, Broker):
        pytest.skip("the embedded broker loses count of who leads while a group's members come, and refuses SyncGroup")


def numbered(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


def test_records_come_whole_and_in_the_order_of_their_partition(site: Site) -> None:
    topic = site.topic(3)
    producer = ordered_producer(site.broker)
    producer.produce(topic, key=b"k", value=None, partition=0, headers=[("a", b"1"), ("a", None), ("b", b"")])
    assert producer.flush(20) == 0
    site.produce(topic, numbered(0, 300), partitions=3)
    _, taker = site.take(topic)
    wait_until(lambda: len(taker.records) == 301)
    for number in range(3):
        values = [value for value in taker.values(Partition(topic, number)) if value is not None]
        assert values == numbered(0, 300)[number::3]
    first = next(record for record in taker.records if record.value is None)
    assert first.timestamp_ms == pytest.approx(time.time() * 1000, abs=60_000)
    assert replace(first, timestamp_ms=0) == Record(
        topic=topic,
        partition=0,
        offset=0,
        timestamp_ms=0,
        key=b"k",
        value=None,
        headers=(("a", b"1"), ("a", b""), ("b", b"")),
    )


@pytest.mark.usefixtures("short_sessions")
def test_a_member_goes_on_where_the_last_one_has_committed_at_its_end(site: Site) -> None:
    topic = site.topic(2)
    site.produce(topic, numbered(0, 20), partitions=2)
    first, taker = site.take(topic)
    wait_until(lambda: len(taker.records) == 20)
    first.close()
    assert taker.was("revoked") == {Partition(topic, 0), Partition(topic, 1)}
    site.produce(topic, numbered(20, 30), partitions=2)
    _, taker = site.take(topic)
    wait_until(lambda: len(taker.records) >= 10)
    assert set(taker.values()) == set(numbered(20, 30))
    assert len(taker.values()) == 10


@pytest.mark.usefixtures("short_sessions")
def test_what_is_not_settled_comes_again(site: Site) -> None:
    topic = site.topic()
    site.produce(topic, numbered(0, 5))
    first, taker = site.take(topic, settles=False)
    wait_until(lambda: len(taker.records) == 5)
    taker.ours[Partition(topic, 0)].settle(0)
    first.close()
    _, taker = site.take(topic)
    wait_until(lambda: len(taker.records) >= 4)
    assert taker.values() == numbered(1, 5)


def test_it_is_committed_soon_where_that_is_asked_for(site: Site) -> None:
    topic = site.topic()
    site.produce(topic, numbered(0, 5))
    member, taker = site.take(topic)
    wait_until(lambda: len(taker.records) == 5)
    offsets = taker.ours[Partition(topic, 0)]
    wait_until(lambda: offsets.to_commit == 5)
    member.commit_soon()
    wait_until(lambda: offsets.committed == 5)


def test_several_topics_are_read_by_one_member(site: Site) -> None:
    topics = [site.topic(), site.topic(2)]
    for topic in topics:
        site.produce(topic, [topic.encode()])
    _, taker = site.take(*topics)
    wait_until(lambda: len(taker.records) == 2)
    assert {(record.topic, record.value) for record in taker.records} == {(it, it.encode()) for it in topics}


@pytest.mark.usefixtures("changing_group")
def test_a_member_that_joins_gets_some_partitions_and_the_others_are_read_on_without_a_break(site: Site) -> None:
    topic = site.topic(4)
    site.produce(topic, numbered(0, 40), partitions=4)
    _, first = site.take(topic)
    wait_until(lambda: len(first.records) == 40)
    _, second = site.take(topic)
    produced = 40

    def go_on() -> bool:
        nonlocal produced
        site.produce(topic, numbered(produced, produced + 4), partitions=4)
        produced += 4
        return bool(second.records)

    wait_until(go_on, seconds=30, every=0.1)
    wait_until(lambda: len(first.records) + len(second.records) >= produced)
    assert len(first.ours) == len(second.ours) == 2
    assert first.was("revoked") == second.ours.keys(), "what stays is not taken back"
    assert first.was("lost") == set()
    assert sorted([*first.values(), *second.values()], key=lambda value: int(value or b"")) == numbered(0, produced)


@pytest.mark.usefixtures("changing_group")
def test_a_member_that_joins_is_let_in_where_there_is_nothing_for_it(site: Site) -> None:
    topic = site.topic()
    _, first = site.take(topic)
    wait_until(lambda: bool(first.ours))
    idle, taker = site.take(topic)
    wait_until(lambda: idle.is_assigned)
    assert (taker.told, idle.trouble) == ([("assigned", set())], None)


@pytest.mark.usefixtures("changing_group")
def test_what_a_member_that_leaves_has_not_read_is_read_by_the_others(site: Site) -> None:
    topic = site.topic(2)
    leaving, first = site.take(topic)
    wait_until(lambda: len(first.ours) == 2)
    _, second = site.take(topic)
    wait_until(lambda: len(second.ours) == 1, seconds=30)
    leaving.close()
    site.produce(topic, numbered(0, 10), partitions=2)
    wait_until(lambda: len(second.records) == 10, seconds=30)


@pytest.mark.usefixtures("short_sessions")
def test_another_member_goes_on_where_one_that_was_killed_has_committed(site: Site) -> None:
    topic = site.topic(2)
    with Sandbox() as sandbox:
        killed = site.start(sandbox, topic)
        wait_until(lambda: "assigned 2" in killed.log.read_text(), seconds=30)
        site.produce(topic, numbered(0, 10), partitions=2)
        wait_until(lambda: {"committed 0 5", "committed 1 5"} <= set(killed.log.read_text().splitlines()))
        killed.kill()
        site.produce(topic, numbered(10, 20), partitions=2)
        _, taker = site.take(topic)
        wait_until(lambda: set(taker.values()) == set(numbered(10, 20)), seconds=30)


@pytest.mark.usefixtures("changing_group")
def test_a_member_that_was_silent_for_too_long_loses_its_partitions_and_joins_again(site: Site) -> None:
    topic = site.topic(2)
    with Sandbox() as sandbox:
        silent = site.start(sandbox, topic)
        wait_until(lambda: "assigned 2" in silent.log.read_text(), seconds=30)
        site.produce(topic, numbered(0, 10), partitions=2)
        wait_until(lambda: "committed" in silent.log.read_text())
        os.kill(silent.pid, signal.SIGSTOP)
        _, taker = site.take(topic)
        wait_until(lambda: len(taker.ours) == 2, seconds=30)
        site.produce(topic, numbered(10, 20), partitions=2)
        wait_until(lambda: set(numbered(10, 20)) <= set(taker.values()))
        os.kill(silent.pid, signal.SIGCONT)
        wait_until(lambda: "lost 2" in silent.log.read_text(), seconds=30)
        wait_until(lambda: silent.log.read_text().rstrip().endswith("assigned 1"), seconds=30)
        wait_until(lambda: len(taker.ours) == 1)
        assert "revoked" not in silent.log.read_text(), "nothing of it could be committed"


def test_nothing_is_skipped_or_given_twice_although_partitions_are_paused_again_and_again(site: Site) -> None:
    topic = site.topic(3)
    # Of each partition, more than one fetch brings.
    values = [b"%d" % number + b"." * 200 for number in range(12_000)]
    site.produce(topic, values, partitions=3)
    _, taker = site.take(topic)
    ours = [Partition(topic, number) for number in range(3)]
    pauses = 0
    while len(taker.records) < len(values):
        # Each of them, and each two of them.
        stopped = [ours[pauses % 3], ours[pauses // 3 % 3]]
        taker.stopped = stopped
        pauses += 1
        before = len(taker.records)
        deadline = time.monotonic() + 0.2
        while len(taker.records) == before and time.monotonic() < deadline:
            time.sleep(0.001)
    assert pauses > 2
    taker.stopped = ()
    for number in range(3):
        offsets = [record.offset for record in taker.records if record.partition == number]
        assert offsets == list(range(4_000)), taker.told
        assert taker.values(ours[number]) == values[number::3]


def test_of_a_paused_partition_nothing_comes_until_it_is_wanted_again(site: Site) -> None:
    topic = site.topic(2)
    paused, other = Partition(topic, 0), Partition(topic, 1)
    _, taker = site.take(topic)
    taker.stopped = [paused]
    wait_until(lambda: len(taker.ours) == 2)
    site.produce(topic, numbered(0, 2), partitions=2)
    wait_until(lambda: taker.values(other) == [b"1"])
    # What was fetched before it was paused has come by now.
    before = len(taker.values(paused))
    site.produce(topic, numbered(2, 10), partitions=2)
    wait_until(lambda: len(taker.values(other)) == 5)
    assert len(taker.values(paused)) == before
    taker.stopped = ()
    wait_until(lambda: len(taker.values(paused)) == 5)


@pytest.mark.usefixtures("changing_group")
def test_a_partition_that_was_paused_when_it_was_taken_back_is_read_when_it_is_ours_again(site: Site) -> None:
    topic = site.topic(2)
    _, first = site.take(topic)
    wait_until(lambda: len(first.ours) == 2)
    first.stopped = list(first.ours)
    other, second = site.take(topic)
    wait_until(lambda: len(second.ours) == 1 and len(first.ours) == 1, seconds=30)
    first.stopped = ()
    other.close()
    wait_until(lambda: len(first.ours) == 2, seconds=30)
    site.produce(topic, numbered(0, 10), partitions=2)
    wait_until(lambda: len(first.records) == 10)


@pytest.mark.usefixtures("short_sessions")
def test_a_member_that_takes_no_more_can_still_commit_what_it_has(site: Site) -> None:
    topic = site.topic()
    site.produce(topic, numbered(0, 5))
    member, taker = site.take(topic, settles=False)
    wait_until(lambda: len(taker.records) == 5)
    member.stop_taking()
    site.produce(topic, numbered(5, 10))
    taker.settle()
    member.commit_soon()
    offsets = taker.ours[Partition(topic, 0)]
    wait_until(lambda: offsets.committed == 5)
    member.close()
    assert taker.values() == numbered(0, 5)
    _, taker = site.take(topic)
    wait_until(lambda: taker.values() == numbered(5, 10), seconds=30)


def test_a_record_larger_than_a_fetch_comes_too(broker: Broker | KafkaServer, site: Site) -> None:
    topic = f"large-{next(_numbers)}"
    if isinstance(broker, KafkaServer):
        broker.create_topic(topic, 1, max_message_bytes="8000000")
    else:
        broker.create_topic(topic, 1)
    large = b"." * 3_000_000
    site.produce(topic, [b"small", large, b"small"])
    _, taker = site.take(topic)
    wait_until(lambda: len(taker.records) == 3)
    assert taker.values() == [b"small", large, b"small"]


def test_a_topic_that_comes_later_is_read_and_until_then_the_log_says_that_it_is_not_there(
    broker: Broker | KafkaServer, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    if isinstance(broker, Broker):
        pytest.skip("the embedded broker makes a topic that is asked for")
    there, later = site.topic(), f"later-{next(_numbers)}"
    site.produce(there, [b"1"])
    member, taker = site.take(there, later)
    wait_until(lambda: taker.values() == [b"1"])
    wait_until(lambda: member.trouble is not None)
    assert member.trouble is not None
    assert member.trouble.startswith(f"{later} is not there, or our user may not see it; check --topic, --group")
    broker.create_topic(later)
    site.produce(later, [b"2"])
    wait_until(lambda: taker.values() == [b"1", b"2"], seconds=30)
    wait_until(lambda: member.trouble is None)
    (line,) = [line for line in caplog.messages if "not there" in line]
    assert line.endswith("; trying again")


@pytest.mark.usefixtures("changing_group")
def test_a_group_may_have_members_on_both_clients(site: Site) -> None:
    topic = site.topic(4)
    other = replace(site.kafka, client={"kafka-python": "confluent"}.get(site.kafka.client, "kafka-python"))
    _, first = site.take(topic)
    wait_until(lambda: len(first.ours) == 4)
    site.produce(topic, numbered(0, 40), partitions=4)
    wait_until(lambda: len(first.records) == 40)
    leaving, second = site.take(topic, kafka=other)
    wait_until(lambda: len(first.ours) == len(second.ours) == 2, seconds=30)
    site.produce(topic, numbered(40, 80), partitions=4)
    wait_until(lambda: len(first.records) + len(second.records) >= 80)
    leaving.close()
    wait_until(lambda: len(first.ours) == 4, seconds=30)
    site.produce(topic, numbered(80, 120), partitions=4)

    def taken() -> set[int]:
        # What was not committed when a partition moved comes twice.
        return {int(value or b"") for value in [*first.values(), *second.values()]}

    wait_until(lambda: len(taken()) == 120)
    assert taken() == set(range(120))


def test_closing_a_member_that_has_not_begun_does_nothing(site: Site) -> None:
    member = member_of(site.kafka, site.subscription("any"), Taker())
    member.close()
    member.close()
