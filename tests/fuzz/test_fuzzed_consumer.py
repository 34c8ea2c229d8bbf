"""consumer.py: whatever fails, and whichever partitions come and go, nothing is committed before it is settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from group import Group, of_notification
from leaping import run
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.consuming.consumer import Manner
from mnist_pipeline.pipeline.errors import DeadlineExceeded, KafkaUnavailable, PredictorUnavailable, StoreUnavailable
from mnist_pipeline.testing import digit_png

MAX_IN_FLIGHT = 4
# Of a notification; more of them than a batch has would take no more slots.
MOST_KEYS = 3
PARTITIONS = (0, 1)
TENSOR = [[0.0] * 28] * 28
BROKEN_PNG = digit_png(7)[:100]

Step = Callable[["Topic"], object]
partitions = st.sampled_from(PARTITIONS)
# Few, so that they meet again.
keys = st.lists(st.sampled_from(["a.png", "b.png", "c.png", "d.png"]), min_size=1, max_size=MOST_KEYS, unique=True)


@dataclass
class Topic:
    """What was written to the topic, and how far the group has come.

    Attributes:
        versions: of the objects that a record names, key and id, by its value.
        fetched: how far the partitions that are ours were read.
    """

    group: Group
    versions: dict[bytes, list[tuple[str, str | None]]] = field(default_factory=dict)
    fetched: dict[int, int] = field(default_factory=lambda: {0: 0})

    def upload(self, partition: int, names: list[str], digit: int | None, *, beside: bool) -> None:
        """Upload a digit, or what is none, and write the notification; `beside`: with a record that is refused."""
        uploads = [f"{partition}-{name}" for name in names]
        data = BROKEN_PNG if digit is None else digit_png(digit)
        records = self.group.uploaded(*uploads, data=data) + [of_notification("other", "x.png")] * beside
        record = self.group.record({"Records": records}, partition=partition)
        found = [(key, self.group.store.buckets["mnist"][key][-1].version.version_id) for key in uploads]
        self.versions[record.value or b""] = found
        self.hand_over(partition)

    def write(self, partition: int, value: Mapping[str, object] | bytes | None) -> None:
        self.group.record(value, partition=partition)
        self.hand_over(partition)

    def hand_over(self, partition: int) -> None:
        """Give what was not fetched yet, where the partition is ours."""
        if partition in self.fetched:
            records = self.group.topic.get(partition, [])
            self.group.give(*records[self.fetched[partition] :])
            self.fetched[partition] = len(records)

    def take_back(self, partition: int) -> None:
        if self.fetched.pop(partition, None) is not None:
            self.group.revoke(partition)

    def assign(self, partition: int, forgotten: int) -> None:
        """Give a partition, from where it was committed, or from before, where a commit was lost."""
        if partition not in self.fetched:
            self.group.assign(partition)
            self.fetched[partition] = max(self.group.committed(partition) - forgotten, 0)
            self.hand_over(partition)

    def is_settled(self, record: Record) -> bool:
        """Whether there is nothing left to do for it."""
        value = record.value or b""
        if value in [letter.value for letter in self.group.letters.messages]:
            return True
        in_the_source = self.group.store.buckets["mnist"]
        if value in self.versions:
            left = {(key, one.version.version_id) for key, many in in_the_source.items() for one in many}
            return not left.intersection(self.versions[value])
        if b"instances" in value:
            return any(result["trace-id"].encode() in value for result in self.group.results)
        return not value

    def check(self) -> None:
        """See that all that is committed is settled, and that no more is in hand than may be."""
        for partition, records in self.group.topic.items():
            committed = self.group.committed(partition)
            assert all(self.is_settled(record) for record in records[:committed])
        assert self.group.gauge.most <= MAX_IN_FLIGHT

    def check_order(self) -> None:
        """See that no version of a key was published before an older one that was not given up."""
        given_up = {letter.value for letter in self.group.letters.messages}
        in_order = {one for value, many in self.versions.items() if value not in given_up for one in many}
        published = [one["data"]["object"] for one in self.group.results if "object" in one["data"]]
        first: dict[str, list[str]] = {}
        for key, version_id in dict.fromkeys((one["key"], one["versionId"]) for one in published):
            if (key, version_id) in in_order:
                first.setdefault(key, []).append(version_id)
        # The ids are counted.
        assert all(ids == sorted(ids) for ids in first.values())


def inline(topic: Topic, partition: int) -> None:
    number = sum(map(len, topic.group.topic.values()))
    topic.write(partition, {"instances": [TENSOR], "trace-id": f"inline-{number}."})


def refused(topic: Topic, partition: int) -> None:
    number = sum(map(len, topic.group.topic.values()))
    topic.write(partition, b"no JSON %d" % number)


def fail(topic: Topic, what: str, times: int, error: type[Exception]) -> None:
    """Let the next calls of something fail."""
    group = topic.group
    match what:
        case "predict":
            group.predictor.failures += [error("injected")] * times
        case "dead letter":
            group.letters.failures.before.setdefault("publish", []).extend([KafkaUnavailable("injected")] * times)
        case "publish":
            group.publisher.failures.before.setdefault("publish", []).extend([KafkaUnavailable("injected")] * times)
        case "lose an acknowledgement":
            group.publisher.failures.after.setdefault("publish", []).extend([KafkaUnavailable("injected")] * times)
        case method:
            failing = StoreUnavailable if error is ZeroDivisionError else error
            group.store.failures.before.setdefault(method, []).extend([failing("injected")] * times)


steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        lambda partition, names, digit, beside: lambda topic: topic.upload(partition, names, digit, beside=beside),
        partitions,
        keys,
        st.sampled_from([3, 7, None]),
        st.booleans(),
    ),
    st.builds(lambda partition: lambda topic: inline(topic, partition), partitions),
    st.builds(lambda partition: lambda topic: refused(topic, partition), partitions),
    st.builds(lambda partition: lambda topic: topic.write(partition, None), partitions),
    st.builds(lambda partition: lambda topic: topic.take_back(partition), partitions),
    st.builds(
        lambda partition, forgotten: lambda topic: topic.assign(partition, forgotten), partitions, st.integers(0, 2)
    ),
    st.builds(
        lambda what, times, error: lambda topic: fail(topic, what, times, error),
        st.sampled_from(["get", "put", "delete", "delete_all", "check", "publish", "lose an acknowledgement"])
        | st.sampled_from(["predict", "dead letter"]),
        st.integers(1, 12),
        st.sampled_from([StoreUnavailable, DeadlineExceeded, PredictorUnavailable, ZeroDivisionError]),
    ),
)
# A step, and how many seconds pass after it; with none, the loop has some turns.
waits = st.sampled_from([None, None, 0.01, 1.0, 100.0])


async def consume(plan: list[tuple[Step, float | None]], manner: Manner, seconds: float) -> None:
    """Go through the plan, with a store whose every call takes so long."""
    async with Group(manner, max_in_flight=MAX_IN_FLIGHT) as group:
        topic = Topic(group)
        group.store.on_call = lambda _: asyncio.sleep(seconds)
        for step, wait in plan:
            step(topic)
            topic.check()
            if wait is None:
                for _ in range(5):
                    await asyncio.sleep(0)
            else:
                await asyncio.sleep(wait)
            topic.check()
        # Once nothing fails any more, all is settled.
        for failing in (group.store.failures, group.publisher.failures, group.letters.failures):
            failing.before.clear()
            failing.after.clear()
        group.predictor.failures.clear()
        for partition in PARTITIONS:
            topic.assign(partition, 0)
        await asyncio.sleep(3600)
        topic.check()
        assert {number: group.committed(number) for number in group.topic} == {
            number: len(records) for number, records in group.topic.items()
        }
        topic.check_order()


@given(
    st.lists(st.tuples(steps, waits), min_size=10, max_size=40),
    st.builds(
        Manner,
        batch=st.integers(MOST_KEYS, 5),
        linger_seconds=st.sampled_from([0.0, 0.02, 5.0]),
        retry=st.integers(0, 3),
    ),
    st.sampled_from([0.0, 0.05, 3.0]),
)
def test_all_is_settled_in_the_end_and_nothing_is_committed_before_it_is(
    plan: list[tuple[Step, float | None]], manner: Manner, seconds: float
) -> None:
    run(consume(plan, manner, seconds))
