"""What was lost, what was misfiled, and which of it lets the benchmark fail."""

from __future__ import annotations

import hashlib
import json

import pytest

from benchmarks import checks, figures, objects
from benchmarks.making import batch_run, run
from benchmarks.objects import Filed, Found, Outcome, outcome
from benchmarks.variants import VARIANTS
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.testing import digit_png

KEYS = objects.keys_of("run", 10)
ETAGS = [hashlib.md5(digit_png(digit), usedforsecurity=False).hexdigest() for digit in range(10)]


def all_well() -> Found:
    found = Found()
    for digit, key in enumerate(KEYS):
        found.filed[key].append(Filed(bucket=f"digit-{digit}", etag=ETAGS[digit]))
        found.results[key].append(digit)
    return found


def record(key: bytes | None, value: bytes | None) -> Record:
    return Record(topic="results", partition=0, offset=0, timestamp_ms=0, key=key, value=value)


def test_what_lies_in_its_place_with_its_result_is_well() -> None:
    assert outcome(KEYS, all_well()) == Outcome(lost=0, misfiled=0, left=0)


def test_a_result_that_came_twice_is_no_fault() -> None:
    found = all_well()
    found.results[KEYS[3]].append(3)
    assert outcome(KEYS, found) == Outcome(lost=0, misfiled=0, left=0)


def test_what_is_nowhere_or_never_announced_is_lost() -> None:
    found = all_well()
    del found.filed[KEYS[1]]
    del found.results[KEYS[2]]
    assert outcome(KEYS, found) == Outcome(lost=2, misfiled=0, left=0)


def test_what_is_still_in_the_source_is_left_and_not_lost() -> None:
    found = all_well()
    del found.filed[KEYS[1]]
    found.left |= {KEYS[1], "another run/00000.png"}
    assert outcome(KEYS, found) == Outcome(lost=0, misfiled=0, left=1)


@pytest.mark.parametrize(
    "filed",
    [
        [Filed(bucket="digit-5", etag=ETAGS[4])],
        [Filed(bucket="digit-4", etag=ETAGS[5])],
        [Filed(bucket="digit-4", etag=ETAGS[4]), Filed(bucket="digit-5", etag=ETAGS[4])],
    ],
    ids=["another digit", "other bytes", "twice"],
)
def test_what_lies_in_a_wrong_place_is_misfiled(filed: list[Filed]) -> None:
    found = all_well()
    found.filed[KEYS[4]] = filed
    assert outcome(KEYS, found) == Outcome(lost=0, misfiled=1, left=0)


@pytest.mark.parametrize("digits", [[5], [None], [4, 5]])
def test_what_is_announced_wrongly_is_misfiled(digits: list[int | None]) -> None:
    found = all_well()
    found.results[KEYS[4]] = digits
    assert outcome(KEYS, found) == Outcome(lost=0, misfiled=1, left=0)


def test_a_result_names_its_object_and_its_digit() -> None:
    event = {"subject": "mnist/run/00007.png", "data": {"predictions": [7]}, "trace-id": "t"}
    value = json.dumps(event).encode()
    assert objects.announced(record(b"t", value)) == ("run/00007.png", 7)
    assert objects.announced(record(b"another", value)) == ("run/00007.png", None)
    assert objects.announced(record(None, value)) == ("run/00007.png", None)
    assert objects.announced(record(b"t", b"no event")) == ("", None)
    assert objects.announced(record(b"t", None)) == ("", None)


def problems(outcome: Outcome, *, variant: str = "ours", s3_requests: int = 300, versioned: bool = True) -> list[str]:
    runs = [
        run(variant, delay_ms=0.0, in_flight=1, s3_requests=300),
        run(variant, delay_ms=0.0, in_flight=64, s3_requests=300),
        run(variant, delay_ms=20.0, in_flight=64, s3_requests=s3_requests),
    ]
    whole = figures.whole(runs, {runs[0].name: outcome}, {}, reference="empty KServe")
    return checks.problems(VARIANTS, whole, figures.slow(runs), [], versioned=versioned)


def test_nothing_wrong_is_no_problem() -> None:
    assert problems(Outcome(lost=0, misfiled=0, left=0)) == []


def test_each_kind_of_wrong_end_is_a_problem() -> None:
    assert problems(Outcome(lost=1, misfiled=2, left=3)) == [
        "ours: 1 of 300 lost",
        "ours: 2 of 300 misfiled",
        "ours: 3 of 300 left",
    ]


def test_the_sample_may_do_what_it_likes() -> None:
    assert problems(Outcome(lost=1, misfiled=2, left=3), variant="sample", s3_requests=900) == []


def test_a_request_too_many_is_a_problem_and_one_that_was_repeated_is_none() -> None:
    well = Outcome(lost=0, misfiled=0, left=0)
    assert problems(well, s3_requests=400) == ["ours: 4.00 S3 requests an event, not 3"]
    assert problems(well, s3_requests=302) == []
    assert problems(well, s3_requests=400, versioned=False) == []


@pytest.mark.parametrize(
    ("s3_requests", "versioned", "expected"),
    [
        (205, True, []),  # three DELETEs, and a connection that broke
        (300, True, ["ours consume: 3.00 S3 requests an event, not 2.06"]),
        (300, False, []),
    ],
)
def test_a_batch_takes_two_requests_an_event_and_one_for_all(
    s3_requests: int, versioned: bool, expected: list[str]
) -> None:
    batches = figures.batched([batch_run("ours consume"), batch_run("ours consume", s3_requests=s3_requests)])
    assert checks.problems(VARIANTS, [], [], batches, versioned=versioned) == expected
