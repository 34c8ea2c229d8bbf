"""consuming/consumer.py: batches, retries, order, dead letters and the end, on the public fakes."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any

import pytest

from group import TOPIC, Group, failing, of_notification
from leaping import leaping, now
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.consuming import consumer as module
from mnist_pipeline.consuming.consumer import Manner
from mnist_pipeline.consuming.requests import request_of
from mnist_pipeline.pipeline.errors import KafkaUnavailable, MessageTooLarge, PredictorUnavailable, StoreUnavailable
from mnist_pipeline.pipeline.events import Request
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.task import Batch
from mnist_pipeline.testing import Call, digit_png, minio_event

AWAY = StoreUnavailable("away")
BROKEN_PNG = digit_png(7)[:100]
SEVEN = {"instances": [{"data": "iVBORw0KGgo="}]}
LARGE = {"padding": "x" * 100_000}


def numbered(count: int, *, start: int = 0) -> list[str]:
    return [f"{number}.png" for number in range(start, start + count)]


# --- batches ---


@leaping
async def test_records_that_are_there_together_go_together_at_once() -> None:
    async with Group() as group:
        group.give(*[group.upload(key) for key in numbered(5)])
        await asyncio.sleep(0.001)
        assert group.batches == [5]
        assert [len(call.versions) for call in group.calls("delete_all")] == [5]
        assert sorted(group.filed) == numbered(5)
        assert group.committed() == 5


@leaping
async def test_a_batch_that_is_full_goes_at_once_and_one_that_is_not_waits_a_moment_while_another_is_in_hand() -> None:
    gets: list[tuple[float, str]] = []
    async with Group(Manner(batch=2, linger_seconds=0.02)) as group:
        group.store.on_call = lambda call: gets.append((now(), call.key)) if call.method == "get" else None
        group.predicting.clear()
        group.give(*[group.upload(key) for key in numbered(4)])
        await asyncio.sleep(1)
        group.give(group.upload("4.png"))
        await asyncio.sleep(1)
        assert gets == [(0, "0.png"), (0, "1.png"), (0, "2.png"), (0, "3.png"), (1.02, "4.png")]
        group.predicting.set()
        await asyncio.sleep(1)
        assert group.batches == [2, 2, 1]


@leaping
async def test_a_batch_that_is_not_full_goes_as_soon_as_nothing_else_is_in_hand() -> None:
    async with Group(Manner(linger_seconds=3600)) as group:
        group.predicting.clear()
        group.give(group.upload("0.png"))
        await asyncio.sleep(1)
        group.give(*[group.upload(key) for key in numbered(3, start=1)])
        await asyncio.sleep(1)
        assert len(group.calls("get")) == 1
        group.predicting.set()
        await asyncio.sleep(1)
        assert group.batches == [1, 3]


@pytest.mark.parametrize("objects_each", [1, 3])
@leaping
async def test_no_more_objects_are_in_hand_than_max_in_flight(objects_each: int) -> None:
    async with Group(Manner(batch=3), max_in_flight=4) as group:
        keys = [[f"{number}/{one}.png" for one in range(objects_each)] for number in range(20)]
        group.predicting.clear()
        group.give(*[group.upload(*several) for several in keys])
        await asyncio.sleep(1)
        group.predicting.set()
        await asyncio.sleep(60)
        assert group.gauge.most == {1: 4, 3: 3}[objects_each]
        assert group.committed() == 20


@leaping
async def test_followers_of_a_key_take_no_slots_beyond_max_in_flight() -> None:
    async with Group(Manner(batch=2, linger_seconds=0), max_in_flight=2) as group:
        first = [group.upload("a.png"), group.upload("b.png")]
        followers = [group.upload("a.png", "c.png"), group.upload("b.png", "d.png")]
        group.give(*first, *followers)
        await asyncio.sleep(60)
        assert (group.gauge.most, group.committed()) == (2, 4)


@leaping
async def test_a_batch_is_never_larger_than_max_in_flight() -> None:
    async with Group(Manner(batch=32), max_in_flight=2) as group:
        group.give(*[group.upload(key) for key in numbered(4)], group.upload(*numbered(3, start=4)))
        await asyncio.sleep(60)
        assert (group.batches, group.committed()) == ([2, 2, 3], 5)


@leaping
async def test_a_batch_goes_without_the_objects_of_a_notification_that_do_not_fit_in() -> None:
    async with Group(Manner(batch=3)) as group:
        group.give(group.upload("a.png", "b.png"), group.upload("c.png", "d.png"))
        await asyncio.sleep(60)
        assert group.batches == [2, 2]


@leaping
async def test_a_notification_of_more_objects_than_a_batch_goes_alone_and_is_settled() -> None:
    async with Group(Manner(batch=2), max_in_flight=2) as group:
        group.give(group.upload("a.png"), group.upload(*numbered(20)), group.upload("b.png"))
        await asyncio.sleep(60)
        assert sorted(group.filed) == sorted(["a.png", "b.png", *numbered(20)])
        assert group.committed() == 3


# --- what comes ---


@leaping
async def test_an_inline_request_is_answered_and_one_that_is_refused_is_a_rejected_event_and_a_dead_letter() -> None:
    async with Group() as group:
        good = {"instances": [[[0.0] * 28] * 28], "trace-id": "a"}
        group.give(group.record(good), group.record({**SEVEN, "trace-id": "b"}))
        await asyncio.sleep(60)
        assert group.committed() == 2
        results = {result["trace-id"]: result for result in group.results}
        assert results["a"]["data"] == {"predictions": [1]}
        assert results["b"]["type"].endswith(".rejected")
        assert [dict(letter.headers)["ce_reason"] for letter in group.letters.messages] == [b"badimage"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "ignored"),
        (b"", "ignored"),
        ({"Records": []}, "ignored"),
        (minio_event("mnist", "7.png", event_name="s3:ObjectRemoved:Delete"), "ignored"),
        (minio_event("mnist", "7.png"), "gone"),
    ],
    ids=["a tombstone", "an empty value", "no records", "a removal", "an object that is gone"],
)
@leaping
async def test_a_record_with_nothing_to_do_is_told_and_settled(value: Any, kind: str) -> None:
    async with Group() as group:
        group.give(group.record(value))
        await asyncio.sleep(1)
        assert (group.committed(), group.gauge.kinds, group.letters.messages) == (1, [kind], [])


@leaping
async def test_an_object_that_can_never_be_classified_is_filed_as_rejected_and_its_record_is_a_dead_letter() -> None:
    async with Group() as group:
        group.give(group.upload("7.png", data=BROKEN_PNG), group.upload("8.png"))
        await asyncio.sleep(1)
        assert group.store.keys("mnist-rejected") == ["7.png"]
        assert group.store.keys("mnist") == []
        assert [letter.value for letter in group.letters.messages] == [group.topic[0][0].value]
        assert group.committed() == 2


@pytest.mark.parametrize("value", [b"no JSON", minio_event("other", "7.png"), b"[1]"])
@leaping
async def test_a_record_that_is_refused_is_told_and_becomes_a_dead_letter_at_once(value: Any) -> None:
    async with Group() as group:
        group.give(group.record(value))
        await asyncio.sleep(0.001)
        assert (group.gauge.kinds, len(group.letters.messages), group.committed()) == (["refused"], 1, 1)


@leaping
async def test_without_a_topic_of_dead_letters_what_is_refused_is_told_and_settled() -> None:
    async with Group(dead_letters=False) as group:
        group.give(group.record(b"no JSON"))
        await asyncio.sleep(0.001)
        assert (group.gauge.kinds, group.committed()) == (["refused"], 1)


@leaping
async def test_a_large_value_is_parsed_and_one_that_is_too_large_is_refused() -> None:
    async with Group(max_body_bytes=200_000) as group:
        large = group.record({**LARGE, "Records": group.uploaded("7.png")})
        group.give(large, group.record(b"x" * 300_000), group.record(b"y" * 100_000))
        await asyncio.sleep(60)
        assert group.filed == ["7.png"]
        assert sorted(dict(one.headers)["ce_reason"] for one in group.letters.messages) == [
            b"bodytoolarge",
            b"malformedbody",
        ]


# --- what fails ---


@leaping
async def test_what_failed_goes_alone_once_its_time_has_come_and_the_others_are_settled() -> None:
    gets: list[tuple[float, str]] = []
    async with Group() as group:

        def fail_twice(call: Call) -> None:
            if call.method == "get" and call.key in ("1.png", "2.png"):
                gets.append((now(), call.key))
                if len(gets) <= 2:
                    raise AWAY

        group.store.on_call = fail_twice
        group.give(*[group.upload(key) for key in numbered(4)])
        await asyncio.sleep(0.5)
        assert (sorted(group.filed), group.batches, group.committed()) == (["0.png", "3.png"], [2], 1)
        await asyncio.sleep(1)
        assert gets[2:] == [(0.6, "1.png"), (0.6, "2.png")]
        assert (group.batches, group.committed()) == ([2, 1, 1], 4)


@leaping
async def test_the_waits_double_up_to_a_minute_for_as_long_as_it_takes_where_there_are_no_dead_letters() -> None:
    asked: list[float] = []
    async with Group(Manner(retry=0), dead_letters=False) as group:
        group.store.on_call = lambda call: asked.append(now()) if call.method == "get" else None
        group.predictor.failures = [PredictorUnavailable("away")] * 40
        group.give(group.upload("7.png"))
        await asyncio.sleep(3600)
        waits = [round(later - earlier, 6) for earlier, later in itertools.pairwise(asked)]
        assert waits == [0.6, 1.2, 2.4, 4.8, 9.6, 19.2, 38.4, *[60] * 33]
        assert (group.filed, group.committed()) == (["7.png"], 1)


@leaping
async def test_a_record_is_given_up_after_so_many_attempts_and_the_others_go_on() -> None:
    async with Group(Manner(retry=2)) as group:
        failing(group.store, AWAY, "get", keys=["1.png"])
        group.give(*[group.upload(key) for key in numbered(3)])
        await asyncio.sleep(1)
        assert group.committed() == 1
        await asyncio.sleep(60)
        assert group.committed() == 3
        (letter,) = group.letters.messages
        headers = dict(letter.headers)
        assert letter.value == group.topic[0][1].value
        assert (headers["ce_knativeerrorcode"], headers["ce_reason"], group.given_up) == (b"503", b"store", ["store"])
        assert len([call for call in group.calls("get") if call.key == "1.png"]) == 3
        assert group.store.keys("mnist") == ["1.png"]


@pytest.mark.parametrize("away", ["the store", "Kafka", "the predictor"])
@leaping
async def test_nothing_is_given_up_as_long_as_something_is_away(away: str) -> None:
    async with Group(Manner(retry=1)) as group:
        match away:
            case "the store":
                failing(group.store, AWAY, "get", "check")
            case "Kafka":
                group.publisher.failures.before = {
                    "publish": [KafkaUnavailable("away")] * 20,
                    "check": [KafkaUnavailable("away")] * 19,
                }
            case _:
                group.predictor.failures = [PredictorUnavailable("away")] * 39
        group.give(group.upload("7.png"))
        await asyncio.sleep(600)
        assert (group.letters.messages, group.committed()) == ([], 0)
        group.store.on_call = None
        await asyncio.sleep(3600)
        assert (group.letters.messages, group.filed, group.committed()) == ([], ["7.png"], 1)


@leaping
async def test_that_nothing_was_away_before_a_record_failed_is_no_reason_to_give_it_up() -> None:
    async with Group(Manner(retry=0)) as group:
        failing(group.store, AWAY, "get", keys=["poison.png"])
        group.give(group.upload("poison.png"))
        await asyncio.sleep(1)
        assert len(group.letters.messages) == 1
        failing(group.store, AWAY, "get", "check")
        group.give(group.upload("7.png"))
        await asyncio.sleep(1)
        assert len(group.letters.messages) == 1


@leaping
async def test_those_that_fail_together_or_soon_after_look_once_whether_something_is_away() -> None:
    async with Group(Manner(retry=0), max_in_flight=20) as group:
        failing(group.store, AWAY, "get", "check")
        group.give(*[group.upload(key) for key in numbered(20)])
        await asyncio.sleep(0.1)
        group.give(group.upload("later.png"))
        await asyncio.sleep(0.1)
        assert (len(group.calls("get")), len(group.calls("check"))) == (21, 1)
        failing(group.store, AWAY, "get")
        await asyncio.sleep(60)
        assert len(group.letters.messages) == 21
        assert len(group.calls("check")) < 21


@pytest.mark.parametrize("back", range(5, 120, 5))
@leaping
async def test_nothing_is_given_up_for_an_attempt_that_began_before_all_were_back(back: int) -> None:
    async with Group(Manner(retry=1)) as group:
        group.predicting.clear()
        group.give(group.upload("7.png"))
        await asyncio.sleep(back)
        group.predicting.set()
        await asyncio.sleep(120)
        assert (group.letters.messages, group.filed, group.committed()) == ([], ["7.png"], 1)


@leaping
async def test_a_dead_letter_that_cannot_be_written_is_written_later_after_longer_and_longer_waits() -> None:
    async with Group() as group:
        failures = group.letters.failures.before["publish"] = [KafkaUnavailable("away")] * 9
        group.give(group.upload("7.png", data=BROKEN_PNG), group.record(b"no JSON"))
        # Both are tried at 0, 0.6, 1.8, 4.2 and 9 seconds.
        for until, left in ((0.5, 7), (1, 5), (4, 3), (9.5, 0)):
            await asyncio.sleep(until - now())
            assert (len(failures), group.committed()) == (left, 0)
        await asyncio.sleep(60)
        assert (len(group.letters.messages), group.committed(), len(group.calls("get"))) == (2, 2, 1)
        assert sorted(group.given_up) == ["badimage", "malformedbody"]


@leaping
async def test_what_is_refused_and_too_large_for_a_dead_letter_is_told_and_settled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Group() as group:
        group.letters.failures.before["publish"] = [MessageTooLarge("too large")]
        group.give(group.record(b"no JSON"))
        await asyncio.sleep(0.001)
        assert (group.letters.messages, group.committed()) == ([], 1)
        assert f"{TOPIC} partition 0 offset 0 is too large for a dead letter" in caplog.text


@leaping
async def test_what_may_succeed_later_and_is_too_large_for_a_dead_letter_is_tried_for_as_long_as_it_takes() -> None:
    async with Group(Manner(retry=0)) as group:
        group.letters.failures.before["publish"] = [MessageTooLarge("too large")]
        failing(group.store, AWAY, "get")
        group.give(group.upload("7.png"))
        await asyncio.sleep(0.1)
        assert group.committed() == 0
        group.store.on_call = None
        await asyncio.sleep(1)
        assert (group.filed, group.committed()) == (["7.png"], 1)


@leaping
async def test_what_was_away_and_is_back_is_waited_for_by_nobody() -> None:
    async with Group() as group:
        failing(group.store, AWAY, "get", "check")
        group.give(*[group.upload(key) for key in numbered(20)])
        await asyncio.sleep(100)
        assert group.committed() == 0
        waiting_until = now() + 40
        group.store.on_call = None
        group.give(group.upload("new.png"))
        await asyncio.sleep(1)
        assert now() < waiting_until
        assert group.committed() == 21


@leaping
async def test_a_few_failures_among_successes_are_no_outage_after_which_nobody_waits() -> None:
    async with Group() as group:
        failing(group.store, AWAY, "get", keys=numbered(4))
        group.give(*[group.upload(key) for key in numbered(4)])
        # Each time all four fail once more.
        for seconds in (0.1, 0.6, 1.2):
            await asyncio.sleep(seconds)
            group.give(group.upload("new.png"))
        await asyncio.sleep(1)
        assert [len([call for call in group.calls("get") if call.key == key]) for key in numbered(4)] == [3] * 4


# --- bugs ---


@leaping
async def test_a_bug_in_reading_a_record_leaves_the_others_alone_and_the_record_uncommitted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_there = True

    def read(record: Record, settings: Settings) -> Request:
        if is_there and record.offset in (1, 2):
            raise ZeroDivisionError
        return request_of(record, settings)

    monkeypatch.setattr(module, "request_of", read)
    async with Group(dead_letters=False) as group:
        large = {**LARGE, "Records": group.uploaded("0.png")}
        group.give(group.upload("a.png"), group.upload("b.png"), group.record(large), group.upload("c.png"))
        await asyncio.sleep(60)
        assert (sorted(group.filed), group.committed()) == (["a.png", "c.png"], 1)
        assert "mnist partition 0 offset 1 failed in a way that nobody foresaw" in caplog.messages
        is_there = False
        await asyncio.sleep(60)
        assert group.committed() == 4


@leaping
async def test_a_bug_in_the_task_for_one_object_leaves_the_others_of_its_batch_alone() -> None:
    async with Group(Manner(retry=1)) as group:
        predict = group.predictor

        def with_a_bug(tensors: Batch) -> list[Any]:
            found = predict(tensors)
            if 3 in found:
                raise ZeroDivisionError
            return found

        group.predictor = with_a_bug  # type: ignore[assignment]
        keys = numbered(4)
        group.give(*[group.upload(key, data=digit_png(digit)) for key, digit in zip(keys, (1, 2, 3, 4), strict=True)])
        await asyncio.sleep(60)
        assert sorted(group.filed) == ["0.png", "1.png", "3.png"]
        assert group.store.keys("mnist") == ["2.png"]
        (letter,) = group.letters.messages
        assert dict(letter.headers)["ce_knativeerrorcode"] == b"500"
        assert group.committed() == 4


@leaping
async def test_a_bug_beside_a_refused_record_of_the_same_notification_does_not_settle_its_object() -> None:
    async with Group(dead_letters=False) as group:
        group.predictor.failures = [ZeroDivisionError()]
        group.give(group.record({"Records": [of_notification("other", "x.png"), *group.uploaded("7.png")]}))
        await asyncio.sleep(0.1)
        assert group.committed() == 0
        await asyncio.sleep(60)
        assert (group.filed, group.committed()) == (["7.png"], 1)


@leaping
async def test_a_bug_that_keeps_us_from_knowing_whether_something_is_away_gives_nothing_up() -> None:
    async with Group(Manner(retry=0)) as group:
        group.predictor.failures = [PredictorUnavailable("away"), ZeroDivisionError()]
        group.give(group.upload("7.png"))
        await asyncio.sleep(60)
        assert (group.letters.messages, group.filed, group.committed()) == ([], ["7.png"], 1)


@leaping
async def test_a_record_of_a_time_that_no_calendar_has_is_settled_and_one_to_be_given_up_too() -> None:
    async with Group() as group:
        made = [group.record({"instances": [[[0.0] * 28] * 28]}), group.record(b"no JSON")]
        group.give(*[_at(record, timestamp_ms=1795322606302000) for record in made])
        await asyncio.sleep(1)
        assert (group.committed(), len(group.publisher.messages), len(group.letters.messages)) == (2, 1, 1)


def _at(record: Record, **changes: Any) -> Record:
    return Record(**{**record.__dict__, **changes})


# --- order ---


@leaping
async def test_a_later_version_of_a_key_waits_while_the_one_before_it_backs_off_and_other_keys_overtake() -> None:
    async with Group() as group:
        group.predictor.failures = [PredictorUnavailable("away")]
        group.give(group.upload("a.png", data=digit_png(1)))
        await asyncio.sleep(0.1)
        group.give(group.upload("a.png", data=digit_png(2)), group.upload("b.png"), group.upload("a.png"))
        await asyncio.sleep(0.1)
        assert group.filed == ["b.png"]
        await asyncio.sleep(60)
        assert group.filed == ["b.png", "a.png", "a.png", "a.png"]
        assert group.predictions == [7, 1, 2, 7]
        assert group.committed() == 4


@leaping
async def test_nobody_overtakes_a_notification_of_several_keys_by_one_of_them() -> None:
    async with Group() as group:
        failing(group.store, AWAY, "get", keys=["a.png"])
        group.give(group.upload("a.png"), group.upload("a.png", "b.png"), group.upload("b.png"), group.upload("c.png"))
        await asyncio.sleep(1)
        assert group.filed == ["c.png"]
        group.store.on_call = None
        await asyncio.sleep(60)
        versions = [result["data"]["object"] for result in group.results]
        of_b = [version["versionId"] for version in versions if version["key"] == "b.png"]
        assert of_b == sorted(of_b)
        assert (len(of_b), group.committed()) == (2, 4)


@leaping
async def test_notifications_of_the_same_keys_in_other_orders_do_not_wait_for_each_other_for_ever() -> None:
    async with Group() as group:
        names = [("a.png", "b.png"), ("b.png", "a.png"), ("b.png", "c.png", "b.png"), ("c.png", "a.png")]
        group.give(*[group.upload(*keys) for keys in names * 5])
        await asyncio.sleep(60)
        assert group.committed() == 20


@leaping
async def test_nobody_overtakes_a_large_record_while_it_is_read_but_other_partitions_go_on() -> None:
    async with Group() as group:
        group.assign(1)
        large = group.record({**LARGE, "Records": group.uploaded("a.png", data=digit_png(1))})
        group.give(large, group.upload("a.png"), group.upload("b.png", partition=1))
        await asyncio.sleep(60)
        assert group.filed == ["b.png", "a.png", "a.png"]
        assert group.predictions == [7, 1, 7]
        assert (group.committed(), group.committed(1)) == (2, 1)


# --- partitions that come and go ---


@leaping
async def test_what_is_in_hand_of_a_revoked_partition_is_not_committed_and_comes_again_when_it_is_ours_again() -> None:
    async with Group() as group:
        group.predicting.clear()
        record = group.upload("7.png")
        group.give(record)
        await asyncio.sleep(1)
        group.revoke(0)
        group.predicting.set()
        await asyncio.sleep(1)
        assert (group.filed, group.committed()) == (["7.png"], 0)
        group.assign(0)
        group.give(record)
        await asyncio.sleep(1)
        assert (group.filed, group.committed()) == (["7.png"], 1)


@leaping
async def test_what_waits_of_a_revoked_partition_is_not_begun() -> None:
    async with Group(Manner(batch=1), max_in_flight=1) as group:
        group.predicting.clear()
        group.give(*[group.upload(key) for key in ("a.png", "a.png", "b.png")])
        await asyncio.sleep(1)
        group.revoke(0)
        group.predicting.set()
        await asyncio.sleep(1)
        assert [call.key for call in group.calls("get")] == ["a.png"]


@leaping
async def test_what_failed_of_a_revoked_partition_is_neither_tried_again_nor_given_up_and_holds_no_key() -> None:
    async with Group(Manner(retry=0)) as group:
        group.assign(1)
        failing(group.store, AWAY, "get", "check")
        group.give(group.upload("a.png"))
        await asyncio.sleep(0.1)
        group.revoke(0)
        group.store.on_call = None
        group.give(group.upload("a.png", data=digit_png(1), partition=1))
        await asyncio.sleep(60)
        assert (len(group.calls("get")), group.store.keys("digit-1")) == (2, ["a.png"])
        assert (group.committed(1), group.letters.messages) == (1, [])


@leaping
async def test_what_is_refused_of_a_revoked_partition_is_a_dead_letter_of_whoever_has_it_now() -> None:
    async with Group() as group:
        group.predicting.clear()
        group.give(group.upload("6.png"), group.upload("7.png", data=BROKEN_PNG))
        await asyncio.sleep(1)
        group.revoke(0)
        group.predicting.set()
        await asyncio.sleep(1)
        assert (group.store.keys("mnist-rejected"), group.letters.messages) == (["7.png"], [])


# --- the end ---


@leaping
async def test_at_the_end_what_is_in_hand_is_finished_and_committed_and_nothing_else_is_begun() -> None:
    async with Group(Manner(batch=2, linger_seconds=3600), max_in_flight=3) as group:
        group.predicting.clear()
        group.give(*[group.upload(key) for key in numbered(9)])
        await asyncio.sleep(1)
        stopped = asyncio.create_task(group.stop())
        await asyncio.sleep(1)
        assert group.member.did == ["begin", "stop taking"]
        group.give(group.upload("late.png"))
        group.predicting.set()
        await stopped
        assert group.member.did == ["begin", "stop taking", "close"]
        assert sorted(group.filed) == numbered(3)
        assert group.committed() == 3


@leaping
async def test_at_the_end_what_waits_for_another_attempt_is_left_and_does_not_hold_us_up() -> None:
    async with Group() as group:
        failing(group.store, AWAY, "get", keys=["a.png"])
        group.give(group.upload("a.png"), group.upload("b.png"))
        await asyncio.sleep(0.1)
        await group.stop()
        assert now() == pytest.approx(0.1)
        await asyncio.sleep(60)
        assert (len(group.calls("get")), group.committed()) == (2, 0)


@leaping
async def test_at_the_end_what_fails_in_the_last_moment_is_left() -> None:
    async with Group() as group:
        group.predicting.clear()
        group.predictor.failures = [PredictorUnavailable("away")]
        group.give(group.upload("a.png"), group.upload("a.png"))
        await asyncio.sleep(1)
        group.consumer.stop()
        group.predicting.set()
        await group.stop()
        await asyncio.sleep(60)
        assert (len(group.calls("get")), group.committed()) == (1, 0)


@leaping
async def test_at_the_end_what_takes_too_long_is_cut_short_and_not_committed() -> None:
    async with Group(Manner(drain_seconds=25)) as group:
        group.give(group.upload("a.png"))
        await asyncio.sleep(1)

        async def answer_nothing(call: Call) -> None:
            if call.method == "put":
                await asyncio.sleep(3600)

        group.store.on_call = answer_nothing
        group.give(group.upload("b.png"), group.upload("c.png"))
        await asyncio.sleep(1)
        await group.stop()
        assert now() == pytest.approx(27)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert (group.committed(), group.store.keys("mnist")) == (1, ["b.png", "c.png"])
        assert [outcome.reason for outcome in group.gauge.outcomes] == ["filed", "cancelled", "cancelled"]


@leaping
async def test_a_consumer_whose_event_loop_has_ended_takes_records_without_a_word() -> None:
    group = Group()
    async with group:
        pass
    loop = asyncio.get_running_loop()

    def give() -> None:
        group.give(group.upload("a.png"))

    loop.call_later(1, give)
    await asyncio.sleep(2)
    assert group.calls("get") == []


@leaping
async def test_a_dead_letter_says_who_gave_the_record_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="mnist_pipeline.consuming")
    async with Group(Manner(destination="consumer-group:readers")) as group:
        group.give(group.record(b"no JSON"))
        await asyncio.sleep(1)
        (letter,) = group.letters.messages
        assert dict(letter.headers)["ce_knativeerrordest"] == b"consumer-group:readers"
        (line,) = [line for line in caplog.messages if line.startswith(TOPIC)]
        assert line.startswith("mnist partition 0 offset 0 is given up after 1 attempts: the body is not JSON")
