"""reconcile.py: finding what was missed, and settling it, on the public fakes."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from digits import digits_settings
from mnist_pipeline import Pipeline
from mnist_pipeline.pipeline.errors import KafkaUnavailable, PredictorUnavailable, StoreUnavailable
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.task import Batch
from mnist_pipeline.site import reconcile
from mnist_pipeline.site.reconcile import AT_ONCE, Reconciler, missed
from mnist_pipeline.testing import Call, MemoryPublisher, MemoryStore, StubPredictor, digit_png


class Site:
    """A pipeline on fakes, and a reconciler for it."""

    def __init__(self, *, versioned: bool = True, rate: float | None = None, **settings: Any) -> None:
        self.store = MemoryStore("mnist", versioned={"mnist"} if versioned else (), create_buckets=True)
        self.publisher = MemoryPublisher()
        self.predictor = StubPredictor()
        self.settings = digits_settings(**settings)
        self.reconciler = Reconciler(Pipeline(self.settings, self.store, self.publisher), self.predict, rate=rate)

    async def predict(self, images: Batch, deadline: Deadline) -> list[int]:
        assert deadline.remaining() > 0
        return self.predictor(images)

    async def run(self, *, older_than_seconds: float = 0) -> dict[str, int]:
        await self.reconciler.run(self.store, older_than_seconds=older_than_seconds)
        return dict(self.reconciler.outcomes)


async def keys_of(found: Any) -> list[str]:
    return [ref.key async for ref in found]


async def test_what_lies_in_a_source_bucket_is_filed_and_published_as_if_its_event_had_come() -> None:
    site = Site()
    for n in range(30):
        site.store.upload("mnist", f"{n}.png", digit_png(n % 10))
    assert await site.run() == {"filed": 30}
    assert site.store.keys("mnist") == []
    for digit in range(10):
        assert site.store.keys(f"digit-{digit}") == sorted(f"{n}.png" for n in range(30) if n % 10 == digit)
    assert len(site.publisher.messages) == 30
    assert site.reconciler.left == 0


async def test_only_what_an_event_could_name_and_what_is_old_enough_is_found() -> None:
    store = MemoryStore("mnist", "other", create_buckets=True)
    settings = digits_settings(destination="mnist/digits/{digit}")
    names = ("a.png", "b.txt", "digits/7/c.png", "a\x07.png", "new.png")
    for name in names:
        store.upload("mnist", name, b"x")
    store.upload("other", "z.png", b"x")
    assert await keys_of(missed(store, settings, older_than_seconds=2)) == ["a.png"]
    assert await keys_of(missed(store, settings, older_than_seconds=0)) == ["a.png", "new.png"]


async def test_every_source_bucket_is_listed_a_thousand_names_at_a_time() -> None:
    store = MemoryStore("a-bucket", "b-bucket")
    for n in range(2500):
        store.upload("a-bucket", f"{n:04}é.png", b"")
    store.upload("b-bucket", "x.png", b"")
    settings = digits_settings(source_buckets=("a-bucket", "b-bucket"))
    found = [ref async for ref in missed(store, settings, older_than_seconds=0)]
    assert len(found) == len(set(found)) == 2501
    assert found[-1] == ObjectRef(bucket="b-bucket", key="x.png")
    assert len(store.calls) == 3 + 1 + 1 + 1


async def test_an_older_version_is_found_once_the_one_above_it_is_released() -> None:
    site = Site()
    for digit in (1, 2, 3):
        site.store.upload("mnist", "x.png", digit_png(digit))
    assert await site.run() == {"filed": 3}
    assert [site.store.keys(f"digit-{digit}") for digit in (1, 2, 3)] == [["x.png"]] * 3
    assert site.store.keys("mnist") == []


async def test_what_can_never_be_classified_is_rejected_and_leaves_nothing_behind() -> None:
    site = Site()
    site.store.upload("mnist", "x.png", b"no image")
    assert await site.run() == {"badimage": 1}
    assert site.store.keys("mnist-rejected") == ["x.png"]
    assert (site.reconciler.left, site.store.keys("mnist")) == (0, [])


async def test_row_44_what_is_retained_is_published_once_and_not_left_and_let_go_by_a_later_run() -> None:
    site = Site()
    for key, data in (("1.png", digit_png(1)), ("bad.png", b"no image"), ("2.png", digit_png(2))):
        site.store.locked.add(str(site.store.upload("mnist", key, data).version_id))
    site.store.upload("mnist", "2.png", digit_png(2))  # under which the locked one comes to light
    assert await site.run() == {"retained": 2, "badimage": 1, "filed": 1}
    for _ in range(2):
        again = Reconciler(Pipeline(site.settings, site.store, site.publisher), site.predict)
        site.store.calls.clear()
        await again.run(site.store, older_than_seconds=0)
        assert (again.outcomes, again.left, again.gave_up) == ({"retained": 2, "badimage": 1}, 0, False)
        # To its end, and not once more.
        assert [call.key for call in site.store.calls if call.method == "list_after"] == ["", "bad.png"]
    assert len(site.publisher.messages) == 4
    site.store.locked.clear()
    assert (await site.run())["filed"] == 3
    assert (site.store.keys("mnist"), len(site.publisher.messages)) == ([], 4)


async def test_an_object_that_fails_is_tried_alone_and_then_left_for_the_next_run() -> None:
    site = Site()
    for n in range(3):
        site.store.upload("mnist", f"{n}.png", digit_png(n))

    def refuse(call: Call) -> None:
        if call.method == "put" and call.key == "1.png":
            raise StoreUnavailable("this one")

    site.store.on_call = refuse
    assert await site.run() == {"filed": 2, "store": 1}
    site.store.on_call = None
    assert (site.reconciler.left, len(site.store.keys("mnist"))) == (1, 1)
    again = Reconciler(Pipeline(site.settings, site.store, site.publisher), site.predict)
    await again.run(site.store, older_than_seconds=0)
    assert (again.outcomes, again.left, site.store.keys("mnist")) == ({"filed": 1}, 0, [])
    assert len({message.key for message in site.publisher.messages}) == 3


async def test_a_predictor_that_is_away_leaves_what_can_be_classified_and_not_the_rest() -> None:
    site = Site()
    site.store.upload("mnist", "1.png", digit_png(1))
    site.store.upload("mnist", "2.png", b"no image")
    site.predictor.failures = [PredictorUnavailable("away"), PredictorUnavailable("away")]
    assert await site.run() == {"predictor": 1, "badimage": 1}
    assert site.store.keys("mnist") == ["1.png"]


@pytest.mark.parametrize("away", ["predictor", "store", "kafka"])
async def test_it_gives_up_once_something_is_away(away: str, caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    for n in range(200):
        site.store.upload("mnist", f"{n}.png", digit_png(1))
    if away == "predictor":
        site.predictor.failures = [PredictorUnavailable("it is away") for _ in range(200)]
    elif away == "store":
        for method in ("get", "check"):
            site.store.failures.before[method] = [StoreUnavailable("it is away") for _ in range(200)]
    else:
        for method in ("publish", "check"):
            site.publisher.failures.before[method] = [KafkaUnavailable("it is away") for _ in range(200)]
    outcomes = await site.run()
    assert site.reconciler.gave_up
    assert "giving up: it is away" in caplog.text
    assert outcomes == {away: AT_ONCE}
    assert len(site.store.keys("mnist")) == 200
    assert len([call for call in site.store.calls if call.method == "list_after"]) == 1


async def test_objects_that_fail_by_themselves_do_not_keep_those_behind_them_from_being_filed() -> None:
    site = Site()
    for n in range(2 * AT_ONCE):
        site.store.upload("mnist", f"a{n:03}.png", digit_png(1))
        site.store.upload("mnist", f"b{n:03}.png", digit_png(2))

    def refuse(call: Call) -> None:
        if call.method == "get" and call.key.startswith("a"):
            raise StoreUnavailable("this one is locked")

    site.store.on_call = refuse
    assert await site.run() == {"filed": 2 * AT_ONCE, "store": 2 * AT_ONCE}
    assert not site.reconciler.gave_up
    assert len(site.store.keys("digit-2")) == 2 * AT_ONCE


async def test_the_progress_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "PROGRESS_SECONDS", 0.0)
    site = Site()
    for n in range(3):
        site.store.upload("mnist", f"{n}.png", digit_png(n))
    with caplog.at_level(logging.INFO):
        await site.run()
    assert "so far: 3 filed; 0 left unsettled" in caplog.text


async def test_a_bug_for_one_object_does_not_keep_the_others_from_being_settled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site()
    for n in range(3):
        site.store.upload("mnist", f"{n}.png", digit_png(n))

    def fail(call: Call) -> None:
        if call.method == "put" and call.key == "1.png":
            raise RuntimeError("a bug")

    site.store.on_call = fail
    assert await site.run() == {"filed": 2, "error": 1}
    assert (site.reconciler.left, "a bug" in caplog.text) == (1, True)


async def test_a_listing_that_is_cut_short_is_an_error_after_what_was_found_is_settled() -> None:
    site = Site()
    for n in range(1001):
        site.store.upload("mnist", f"{n:04}.png", digit_png(1))

    def cut(call: Call) -> None:
        if call.method == "list_after" and call.key:
            site.store.failures.before["list_after"] = [StoreUnavailable("away")]

    site.store.on_call = cut
    with pytest.raises(StoreUnavailable):
        await site.run()
    assert site.store.keys("mnist") == ["1000.png"]


async def test_a_stop_finishes_what_is_in_hand_and_begins_nothing_else() -> None:
    site = Site()
    for n in range(100):
        site.store.upload("mnist", f"{n}.png", digit_png(1))

    def stop(call: Call) -> None:
        if call.method == "delete_all":
            site.reconciler.stop()

    site.store.on_call = stop
    settled = sum((await site.run()).values())
    assert settled == AT_ONCE
    assert len([call for call in site.store.calls if call.method == "list_after"]) == 1
    assert len(site.store.keys("mnist")) == 100 - settled
    assert len(site.publisher.messages) == settled


async def test_the_rate_is_kept() -> None:
    site = Site(rate=50)
    for n in range(11):
        site.store.upload("mnist", f"{n}.png", digit_png(1))
    started = time.monotonic()
    await site.run()
    assert time.monotonic() - started >= 0.2


async def test_objects_go_together_with_one_request_to_the_predictor_and_one_to_be_released() -> None:
    site = Site()
    for n in range(2 * AT_ONCE):
        site.store.upload("mnist", f"{n}.png", digit_png(1))
    await site.run()
    assert [len(tensors) for tensors in site.predictor.batches] == [AT_ONCE, AT_ONCE]
    assert [len(call.versions) for call in site.store.calls if call.method == "delete_all"] == [AT_ONCE, AT_ONCE]


async def test_a_live_event_for_the_same_object_at_the_same_time_does_no_harm() -> None:
    site = Site()
    for n in range(20):
        site.store.upload("mnist", f"{n}.png", digit_png(n % 10))
    other = Reconciler(Pipeline(site.settings, site.store, site.publisher), site.predict)
    await asyncio.gather(other.run(site.store, older_than_seconds=0), site.run())
    assert site.store.keys("mnist") == []
    assert sum(len(site.store.keys(f"digit-{digit}")) for digit in range(10)) == 20
    assert len({message.key for message in site.publisher.messages}) == 20


async def test_the_summary_tells_what_became_of_how_many() -> None:
    site = Site()
    assert site.reconciler.summary() == "nothing was missed; 0 left unsettled"
    site.store.upload("mnist", "1.png", digit_png(1))
    await site.run()
    assert site.reconciler.summary() == "1 filed; 0 left unsettled"
