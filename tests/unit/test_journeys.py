"""web/sightings.py, web/journeys.py, web/figures.py: what both topics tell, joined."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import orjson
import pytest

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.web.figures import Figures
from mnist_pipeline.web.journeys import Journey, Journeys, Step
from mnist_pipeline.web.sightings import as_json, notified_in, published_in
from unit.page_records import ETAG, SETTINGS, notification, result

TRACED: dict[str, Any] = {"trace_id": "t"}


def take(journeys: Journeys, *records: Record) -> list[Step]:
    """What a reader of both topics does with these records."""
    steps = []
    for record in records:
        if record.topic == "mnist":
            steps += [journeys.notified(seen) for seen in notified_in(record, SETTINGS)]
        elif (seen := published_in(record, SETTINGS)) is not None:
            steps.append(journeys.published(seen))
    return [step for step in steps if step is not None]


def all_of(journeys: Journeys) -> list[Journey]:
    return [kept.journey for kept in journeys.newest(1000)]


def test_a_notification_and_its_result_are_one_journey_that_gets_further() -> None:
    journeys = Journeys()
    first, second = take(journeys, notification("a.png", **TRACED), result("t", "a.png"))
    assert (first.before, first.after.state, first.after.uploaded, first.after.notified) == (
        None,
        "notified",
        1000,
        2000,
    )
    assert (second.before, second.after.id) == (first.after, first.after.id)
    (journey,) = all_of(journeys)
    assert (journey.trace_id, journey.place, journey.state) == ("t", "mnist/a.png", "filed")
    assert (journey.label, journey.score, journey.destination) == (7, 0.98, "digit-7/a.png")
    assert (journey.uploaded, journey.notified, journey.published, journey.latency) == (1000, 2000, 3000, 2000)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("is_traced", [True, False])
def test_in_whatever_order_the_records_are_seen_and_however_often_it_is_one_journey(
    order: tuple[int, ...], is_traced: bool
) -> None:
    journeys = Journeys()
    told = (
        notification("a.png", **(TRACED if is_traced else {})),
        result("t", "a.png"),
        notification("b.png", sequencer="2"),
    )
    take(journeys, *(told[number] for number in order), *told)
    a, b = sorted(all_of(journeys), key=lambda journey: str(journey.place))
    assert (a.trace_id, a.place, a.state, a.notified, a.published) == ("t", "mnist/a.png", "filed", 2000, 3000)
    assert (b.trace_id, b.place, b.state) == (None, "mnist/b.png", "notified")


def test_our_own_upload_is_the_same_journey_whether_it_is_told_before_or_after_its_notification() -> None:
    for is_first in (True, False):
        journeys = Journeys()
        if is_first:
            step = journeys.uploaded("t", "mnist/a.png", at=900)
            assert step is not None
            assert (step.after.state, step.after.uploaded) == ("uploaded", 900)
        take(journeys, notification("a.png", **TRACED))
        if not is_first:
            journeys.uploaded("t", "mnist/a.png", at=900)
        (journey,) = all_of(journeys)
        assert (journey.state, journey.uploaded, journey.notified) == ("notified", 900 if is_first else 1000, 2000)


def test_another_upload_of_the_same_name_is_another_journey_and_each_gets_its_own_result() -> None:
    journeys = Journeys()
    other: dict[str, Any] = {"etag": "0" * 32}
    take(journeys, notification("a.png"), notification("a.png", sequencer="2", **other))
    take(journeys, result("t2", "a.png", result_id="r-2", etag="0" * 32), result("t1", "a.png"))
    assert [(one.trace_id, one.state) for one in all_of(journeys)] == [("t1", "filed"), ("t2", "filed")]


def test_versions_of_one_object_are_told_apart() -> None:
    journeys = Journeys()
    take(journeys, notification("a.png", version_id="v1"), notification("a.png", sequencer="2", version_id="v2"))
    take(journeys, result("t2", "a.png", result_id="r-2", version_id="v2"))
    assert [(one.trace_id, one.state) for one in all_of(journeys)] == [(None, "notified"), ("t2", "filed")]


def test_what_was_rejected_and_is_replayed_with_the_same_trace_id_is_two_journeys() -> None:
    journeys = Journeys()
    refused: dict[str, Any] = {"reason": "badimage", "message": "no digit"}
    take(journeys, notification("a.png", **TRACED), result("t", "a.png", rejected=True, **refused))
    take(journeys, notification("a.png", sequencer="2", **TRACED), result("t", "a.png", result_id="r-2"))
    assert [(one.state, one.reason, one.message) for one in all_of(journeys)] == [
        ("rejected", "badimage", "no digit"),
        ("filed", "", ""),
    ]
    assert len(journeys.with_trace_id("t")) == 2


def test_what_is_to_be_reviewed_and_what_came_inline_say_so() -> None:
    journeys = Journeys()
    take(journeys, result("t", "a.png", predictions=[3], scores=[0.4], review=True, destination="mnist-review/a.png"))
    take(
        journeys, result("inline", result_id="r-2", predictions=[1, 2]), result("one", result_id="r-3", predictions=[5])
    )
    review, several, one = all_of(journeys)
    assert (review.state, review.label, review.score, review.destination) == ("review", 3, 0.4, "mnist-review/a.png")
    assert (several.state, several.place, several.label, several.labels) == ("predicted", None, None, (1, 2))
    assert (one.label, one.labels) == (5, (5,))


def test_the_stages_are_those_of_the_result_s_header() -> None:
    timing = b"wait;dur=0.41, fetch;dur=2.13, decode;dur=0.09, predict;dur=3.20, file;dur=2.27"
    journeys = Journeys()
    take(journeys, result("t", "a.png", headers=(("Server-Timing", timing),)), result("u", "b.png", result_id="r-2"))
    first, second = all_of(journeys)
    assert first.stages == {"wait": 0.41, "fetch": 2.13, "decode": 0.09, "predict": 3.2, "file": 2.27}
    assert second.stages == {}


def test_where_kafka_tells_no_time_the_events_do() -> None:
    journeys = Journeys()
    take(journeys, notification("a.png", at=-1), result("t", "a.png", at=-1))
    (journey,) = all_of(journeys)
    assert (journey.uploaded, journey.notified, journey.published) == (1000, 1000, 3000)


def test_no_more_than_the_newest_are_kept_whichever_topic_is_read_faster() -> None:
    journeys = Journeys(most=3)
    # All notifications first, as when one topic is read before the other.
    take(journeys, *(notification(f"{n}.png", at=n, sequencer=str(n), trace_id=f"t{n}") for n in range(10)))
    kept = {one.place for one in all_of(journeys)}
    for n in range(10):
        take(journeys, result(f"t{n}", f"{n}.png", at=n, result_id=f"r{n}"))
    assert len(journeys) == 3
    assert {one.place for one in all_of(journeys)} == kept
    assert all(one.state == "filed" for one in all_of(journeys))


def test_changes_are_told_since_any_of_them_and_what_is_lost_is_known() -> None:
    journeys = Journeys(most=2)
    take(journeys, notification("a.png", trace_id="a"), notification("b.png", trace_id="b", sequencer="2"))
    assert [kept.journey.place for kept in journeys.changed_since(0, 10)] == ["mnist/a.png", "mnist/b.png"]
    before = journeys.change
    take(journeys, result("a", "a.png"))
    assert [kept.journey.place for kept in journeys.changed_since(before, 10)] == ["mnist/a.png"]
    assert [kept.journey.place for kept in journeys.changed_since(0, 1)] == ["mnist/b.png"]
    assert journeys.lost == 0
    take(journeys, notification("c.png", trace_id="c", sequencer="3"))
    assert journeys.lost == 3, "the oldest of them, which has changed last, had to go"
    assert [kept.journey.place for kept in journeys.changed_since(0, 10)] == ["mnist/b.png", "mnist/c.png"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"Records": 7}',
        b'{"Records": [7, null, {"s3": 1}]}',
        b"\xff\xfe",
        b"null",
    ],
)
def test_whatever_else_lies_on_the_topics_is_passed_over(value: bytes | None) -> None:
    for record in (notification("a.png"), result("t", "a.png")):
        other = replace(record, value=value)
        assert notified_in(other, SETTINGS) == []
        assert published_in(other, SETTINGS) is None


@pytest.mark.parametrize(
    "record",
    [
        notification("a.txt"),
        notification("a.png", event_name="s3:ObjectRemoved:Delete"),
        notification("a.png", event_name="s3:ObjectCreated:PutTagging"),
    ],
)
def test_a_notification_that_the_transformer_would_not_take_is_none_for_the_page(record: Record) -> None:
    assert notified_in(record, SETTINGS) == []


def test_a_trace_id_is_found_whatever_its_name_and_its_encoding_in_the_metadata() -> None:
    assert notified_in(notification("a b.png", trace_id="=?UTF-8?B?w6k=?="), SETTINGS)[0].trace_id == "é"
    assert notified_in(notification("a b.png", trace_id="x" * 300), SETTINGS)[0].trace_id is None
    assert notified_in(notification("a b.png"), SETTINGS)[0].place == "mnist/a b.png"


def test_somebody_s_huge_record_takes_no_room() -> None:
    huge = "x" * 5_000_000
    told: dict[str, Any] = {"reason": huge, "message": huge, "destination": huge, "predictions": [huge] * 3}
    journeys = Journeys()
    take(journeys, result("t", "a.png", rejected=True, **told), result("u" * 300, "b.png"))
    (kept,) = journeys.newest(10)
    assert len(kept.encoded) < 10_000
    assert kept.results == []


def test_a_record_is_shown_as_it_lies_on_kafka() -> None:
    record = result("t", headers=(("test-trace-id", b"t"), ("odd", b"\xff")), predictions=[2])
    shown = as_json(record)
    assert (shown["topic"], shown["partition"], shown["key"]) == ("mnist-predictions", 0, "t")
    assert shown["headers"] == {"test-trace-id": "t", "odd": "�"}
    assert orjson.loads(orjson.dumps(shown["value"]))["data"] == {"predictions": [2]}
    assert as_json(replace(record, key=None, value=b"\xffplain"))["value"] == "�plain"


def test_the_figures_count_each_journey_once() -> None:
    figures, journeys = Figures(), Journeys()
    now = int(time.time() * 1000)
    first = result("t", "a.png", at=now)
    for step in take(
        journeys, notification("a.png", **TRACED), first, first, result("old", result_id="r-2", predictions=[1])
    ):
        figures.take(step)
    told = figures.as_json()
    assert (told["count"], told["per_second"]) == (1, 0.1)
    assert told["p50"] == told["p99"] == now - 1000
    assert told["histogram"][-1] == {"to": None, "count": 1}
    assert sum(one["count"] for one in told["histogram"]) == 1


def test_figures_of_nothing_are_none() -> None:
    told = Figures().as_json()
    assert (told["count"], told["p50"], told["p99"], told["per_second"]) == (0, None, None, 0)


def test_half_of_the_latencies_are_not_above_p50() -> None:
    figures = Figures()
    for milliseconds in range(1, 101):
        after = Journey(id="1", trace_id=None, place="x", state="filed", uploaded=0, published=milliseconds)
        figures.take(Step(before=None, after=after))
    told = figures.as_json()
    assert (told["p50"], told["p99"]) == (50, 99)
    assert [one["count"] for one in told["histogram"]][:4] == [10, 10, 30, 50]


def test_the_etag_of_the_tests_is_that_of_the_builder() -> None:
    assert notified_in(notification("a.png"), SETTINGS)[0].object == {"etag": ETAG}


def test_a_record_is_shown_however_deep_it_is() -> None:
    deep = b"[" * 500 + b"]" * 500
    assert deep in orjson.dumps(as_json(replace(result("t"), value=deep)))


def test_what_has_a_time_to_come_does_not_keep_its_place_for_ever() -> None:
    journeys, now = Journeys(most=2), int(time.time() * 1000)
    take(journeys, *(result(f"t{n}", at=now + 10**9, result_id=str(n)) for n in range(2)))
    take(journeys, result("now", at=int(time.time() * 1000) + 1000, result_id="now"))
    assert [one.trace_id for one in all_of(journeys)] == ["t1", "now"]


def test_a_time_without_a_zone_is_one_too() -> None:
    record = result("t", "a.png", at=-1)
    event = {**orjson.loads(record.value or b""), "time": "0001-01-01T00:00:00"}
    seen = published_in(replace(record, value=orjson.dumps(event)), SETTINGS)
    assert seen is not None
    assert seen.at < 0
