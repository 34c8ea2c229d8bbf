"""consuming/lanes.py: whose turn it is, how much may wait, and what may be committed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mnist_pipeline.adapters.records import Partition, Record
from mnist_pipeline.consuming import lanes as module
from mnist_pipeline.consuming.lanes import MOST_BYTES, MOST_UNSETTLED, Lanes

ZERO, ONE = Partition("mnist", 0), Partition("mnist", 1)


class Told:
    """How often records are said to have come."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def records(count: int, *, partition: int = 0, start: int = 0) -> list[Record]:
    return [
        Record(topic="mnist", partition=partition, offset=offset, timestamp_ms=0, key=None, value=None)
        for offset in range(start, start + count)
    ]


def lanes_of(*partitions: Partition) -> Lanes:
    lanes = Lanes(Told())
    lanes.assigned(partitions)
    return lanes


def test_the_partitions_have_their_turns_and_each_gives_its_records_in_order() -> None:
    lanes = lanes_of(ZERO, ONE)
    lanes.taken([*records(3), *records(1, partition=1, start=7)])
    given = []
    while (found := lanes.next()) is not None:
        given.append((found[1].partition, found[1].offset))
    assert given == [(0, 0), (1, 7), (0, 1), (0, 2)]


def test_a_lane_that_is_held_gives_nothing_and_the_others_do() -> None:
    lanes = lanes_of(ZERO, ONE)
    lanes.taken([*records(2), *records(1, partition=1)])
    found = lanes.next()
    assert found is not None
    found[0].is_held = True
    others = lanes.next()
    assert others is not None
    assert others[0].partition == ONE
    assert lanes.next() is None
    found[0].is_held = False
    assert lanes.next() == (found[0], records(2)[1])


def test_whoever_waits_for_records_is_told_of_them() -> None:
    told = Told()
    lanes = Lanes(told)
    lanes.assigned([ZERO])
    lanes.taken(records(2))
    assert told.times == 1


def test_records_of_a_partition_that_is_not_ours_are_left() -> None:
    lanes = lanes_of(ZERO)
    lanes.taken(records(1, partition=1))
    assert lanes.next() is None


def test_only_what_is_settled_without_a_gap_is_to_be_committed_and_only_once() -> None:
    lanes = lanes_of(ZERO, ONE)
    lanes.taken([*records(3, start=10), *records(1, partition=1)])
    begun = [found for _ in range(4) if (found := lanes.next()) is not None]
    of_zero = [(lane, record) for lane, record in begun if record.partition == 0]
    lanes.settle(*of_zero[1])
    assert lanes.settled() == {}
    lanes.settle(*of_zero[0])
    assert lanes.settled() == {ZERO: 12}
    assert lanes.settled() == {ZERO: 12}
    lanes.committed({ZERO: 12})
    assert lanes.settled() == {}
    lanes.settle(*of_zero[2])
    assert lanes.settled() == {ZERO: 13}


@pytest.mark.parametrize("taken_back", [Lanes.revoked, Lanes.lost])
def test_what_is_settled_of_a_partition_that_was_taken_back_is_never_committed_even_where_it_is_ours_again(
    taken_back: object,
) -> None:
    assert callable(taken_back)
    lanes = lanes_of(ZERO)
    lanes.taken(records(2))
    found = lanes.next()
    assert found is not None
    lane, record = found
    assert lane.is_ours
    taken_back(lanes, [ZERO, ONE])
    assert (lanes.next(), lane.is_ours) == (None, False)
    lanes.assigned([ZERO])
    lanes.settle(lane, record)
    lanes.committed({ONE: 5})
    assert lanes.settled() == {}
    lanes.taken(records(1))
    again = lanes.next()
    assert again is not None
    lanes.settle(*again)
    assert lanes.settled() == {ZERO: 1}


def test_of_a_partition_with_many_unsettled_records_no_more_is_wanted_until_half_of_them_are_settled() -> None:
    lanes = lanes_of(ZERO, ONE)
    lanes.taken([*records(MOST_UNSETTLED - 1), *records(1, partition=1)])
    assert lanes.full() == []
    lanes.taken(records(1, start=MOST_UNSETTLED))
    assert lanes.full() == [ZERO]
    begun = [found for _ in range(MOST_UNSETTLED) if (found := lanes.next()) is not None and found[1].partition == 0]
    assert lanes.full() == [ZERO]
    for found in begun[: MOST_UNSETTLED // 2]:
        lanes.settle(*found)
    assert lanes.full() == [ZERO]
    lanes.settle(*begun[-1])
    assert lanes.full() == []
    lanes.taken(records(1, start=MOST_UNSETTLED + 1))
    assert lanes.full() == []


def test_of_a_partition_with_large_unsettled_records_no_more_is_wanted_until_half_of_their_bytes_are_settled() -> None:
    lanes = lanes_of(ZERO)
    quarter = b"x" * (MOST_BYTES // 4)
    lanes.taken([replace(record, value=quarter) for record in records(4)])
    assert lanes.full() == [ZERO]
    begun = [found for _ in range(4) if (found := lanes.next()) is not None]
    for found in begun[:2]:
        lanes.settle(*found)
    assert lanes.full() == [ZERO]
    lanes.settle(*begun[2])
    assert lanes.full() == []


def test_of_a_partition_with_many_settled_records_beyond_one_that_is_not_no_more_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_BEYOND", 3)
    lanes = lanes_of(ZERO)
    lanes.taken(records(4))
    first, *others = [found for _ in range(4) if (found := lanes.next()) is not None]
    for found in others[:2]:
        lanes.settle(*found)
    assert lanes.full() == []
    lanes.settle(*others[2])
    assert lanes.full() == [ZERO]
    lanes.settle(*first)
    assert (lanes.full(), lanes.settled()) == ([], {ZERO: 4})
