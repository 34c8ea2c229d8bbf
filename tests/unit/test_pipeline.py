"""path.py: the path of an object and of an inline request, on the public fakes."""

from __future__ import annotations

import asyncio
import base64
import functools
import gzip
import hashlib
import json
import logging
import pickle
import threading
import time
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from digits import digits_settings
from logged import by_us
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.cloud_events import CloudEvent
from mnist_pipeline.pipeline.errors import (
    BadImage,
    BadTensor,
    DeadlineExceeded,
    KafkaUnavailable,
    MessageTooLarge,
    MetadataTooLarge,
    Permanent,
    PredictorUnavailable,
    ResultTooLarge,
    Retryable,
    StoreUnavailable,
)
from mnist_pipeline.pipeline.events import Caller, Inline, Notification
from mnist_pipeline.pipeline.filing import PUBLISHED_AS
from mnist_pipeline.pipeline.interpretation import Prediction
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.objects import wanted_by
from mnist_pipeline.pipeline.outcomes import Outcome, verdict
from mnist_pipeline.pipeline.passage import Go, Passage
from mnist_pipeline.pipeline.path import Pipeline
from mnist_pipeline.pipeline.ports import CONTENT_HEADERS, Deadline
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.task import Batch, Destination
from mnist_pipeline.testing import Call, MemoryPublisher, MemoryStore, StubPredictor, digit_png

NOT_AN_IMAGE = b"plain text, named .png"

# A test is named after its bytes, and with the time in them it would have another name in each process.
gzipped = functools.partial(gzip.compress, mtime=0)


class Path:
    """A pipeline on fakes, and one way to send objects down it."""

    def __init__(self, *, versioned: bool = True, max_bytes: int = 1_000_000, **settings: Any) -> None:
        self.store = MemoryStore("mnist", versioned={"mnist"} if versioned else (), create_buckets=True)
        self.publisher = MemoryPublisher(max_bytes=max_bytes)
        self.predictor = StubPredictor()
        self.pipeline = Pipeline(digits_settings(**settings), self.store, self.publisher)

    async def send(self, *refs: ObjectRef, trace_id: str | None = None, seconds: float = 60) -> tuple[Outcome, ...]:
        request = Notification(objects=refs, trace_id=trace_id, caller=Caller(request_host="here"))
        return tuple(await self.pipeline.settle(request, self.go, Deadline(seconds)))

    async def predict(self, tensors: Batch, deadline: Deadline) -> list[int]:
        assert deadline.remaining() > 0
        return self.predictor(tensors)

    @property
    def go(self) -> Go:
        return self.pipeline.through(self.predict)

    async def prepare(self, request: Notification | Inline, deadline: Deadline | None = None) -> tuple[Passage, Batch]:
        deadline = deadline or Deadline(60)
        wanted = wanted_by(request, arrived=deadline.began) if isinstance(request, Notification) else []
        room = self.pipeline.settings.max_object_bytes
        passage = Passage(request=request, wanted=wanted, room=room, deadline=deadline)
        return passage, await self.pipeline.prepare(passage)

    def upload(self, key: str, data: bytes, **more: Any) -> ObjectRef:
        version = self.store.upload("mnist", key, data, **more)
        return ObjectRef(bucket="mnist", key=key, version_id=version.version_id)

    @property
    def results(self) -> list[dict[str, Any]]:
        return [json.loads(message.value) for message in self.publisher.messages]


def reasons(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.reason for outcome in outcomes]


@pytest.mark.parametrize("versioned", [True, False])
async def test_an_object_moves_into_the_bucket_of_its_digit_and_is_published(versioned: bool) -> None:
    path = Path(versioned=versioned)
    ref = path.upload("a/7.png", digit_png(7), metadata={"owner": "me"}, tags={"lot": "1"})
    assert await path.send(ref) == (Outcome(reason="filed"),)
    assert path.store.keys("mnist") == []
    assert path.store.data("digit-7", "a/7.png") == digit_png(7)
    filed = path.store.buckets["digit-7"]["a/7.png"][0].version
    (event,) = path.results
    metadata = {"owner": "me", "trace-id": event["trace-id"]}
    assert (filed.content_type, filed.metadata, filed.tags) == ("image/png", metadata, {"lot": "1"})
    assert event["type"] == "io.kserve.mnist.prediction"
    assert event["subject"] == "mnist/a/7.png"
    assert event["data"]["predictions"] == [7]
    assert event["data"]["destination"] == "digit-7/a/7.png"
    assert event["request-host"] == "here"


async def test_the_order_is_get_put_publish_delete() -> None:
    path = Path()
    ref = path.upload("7.png", digit_png(7))
    seen: list[tuple[str, int]] = []
    path.store.on_call = lambda call: seen.append((call.method, len(path.publisher.messages)))
    await path.send(ref)
    assert seen == [("get", 0), ("put", 0), ("delete", 1)]


async def test_row_19_exactly_the_version_of_the_event_is_fetched_filed_and_released() -> None:
    path = Path()
    old = path.upload("x.png", digit_png(1))
    new = path.upload("x.png", digit_png(2))
    assert reasons(await path.send(old)) == ["filed"]
    assert path.store.data("mnist", "x.png") == digit_png(2)
    assert reasons(await path.send(new)) == ["filed"]
    assert path.store.keys("mnist") == []
    assert path.store.data("digit-1", "x.png") == digit_png(1)
    assert path.store.data("digit-2", "x.png") == digit_png(2)


async def test_row_19_an_unversioned_object_that_changed_before_its_release_stays() -> None:
    path = Path(versioned=False)
    ref = path.upload("x.png", digit_png(1))

    async def overwrite(call: Call) -> None:
        if call.method == "delete":
            path.store.on_call = None
            path.store.upload("mnist", "x.png", digit_png(2))

    path.store.on_call = overwrite
    assert reasons(await path.send(ref)) == ["filed"]
    assert path.store.data("mnist", "x.png") == digit_png(2)
    assert path.store.data("digit-1", "x.png") == digit_png(1)


async def test_a_result_is_published_only_once_the_object_is_filed_and_released_only_once_it_is_acked() -> None:
    path = Path()
    ref = path.upload("x.png", digit_png(3))
    path.store.failures.before["put"] = [StoreUnavailable("away")]
    assert reasons(await path.send(ref)) == ["store"]
    assert path.publisher.messages == []
    path.publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    assert reasons(await path.send(ref)) == ["kafka"]
    assert path.store.keys("mnist") == ["x.png"]
    assert reasons(await path.send(ref)) == ["filed"]
    assert path.store.keys("mnist") == []
    assert path.store.keys("digit-3") == ["x.png"]
    assert len(path.results) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["get", "put", "publish", "delete"])
async def test_row_22_a_path_that_is_cut_at_any_step_converges_when_it_is_sent_again(step: str, when: str) -> None:
    path = Path()
    ref = path.upload("x.png", digit_png(4))
    fake = path.publisher if step == "publish" else path.store
    error = KafkaUnavailable("cut") if step == "publish" else StoreUnavailable("cut")
    getattr(fake.failures, when)[step] = [error]
    assert verdict(await path.send(ref)) is error
    assert reasons(await path.send(ref)) in (["filed"], ["gone"])
    assert path.store.keys("mnist") == []
    assert path.store.keys("digit-4") == ["x.png"]
    assert len({event["id"] for event in path.results}) == 1


async def test_row_28_a_result_whose_acknowledgement_was_lost_is_published_again_under_the_same_id() -> None:
    path = Path()
    ref = path.upload("x.png", digit_png(4))
    path.publisher.failures.after["publish"] = [KafkaUnavailable("the answer is lost")]
    assert reasons(await path.send(ref)) == ["kafka"]
    assert path.store.keys("mnist") == ["x.png"]
    assert reasons(await path.send(ref)) == ["filed"]
    assert (path.store.keys("mnist"), path.store.keys("digit-4")) == ([], ["x.png"])
    first, second = path.results
    assert first["id"] == second["id"]


async def test_row_17_an_object_that_is_gone_is_nothing_to_do() -> None:
    path = Path()
    ref = path.upload("x.png", digit_png(4))
    await path.send(ref)
    assert await path.send(ref) == (Outcome(reason="gone"),)
    assert len(path.results) == 1


async def test_a_version_that_no_store_can_have_means_the_latest() -> None:
    path = Path()
    path.upload("0.png", digit_png(0))
    assert reasons(await path.send(ObjectRef(bucket="mnist", key="0.png", version_id="1"))) == ["filed"]


async def test_row_23_the_same_bytes_under_the_same_name_are_filed_already() -> None:
    path = Path()
    path.store.upload("digit-5", "x.png", digit_png(5), metadata={"first": "1"})
    assert reasons(await path.send(path.upload("x.png", digit_png(5), metadata={"second": "2"}))) == ["filed"]
    assert path.store.keys("digit-5") == ["x.png"]
    assert path.store.buckets["digit-5"]["x.png"][0].version.metadata == {"first": "1"}


async def test_row_23_other_bytes_under_the_same_name_are_never_overwritten() -> None:
    path = Path()
    path.store.upload("digit-5", "a.b/x.png", b"other")
    await path.send(path.upload("a.b/x.png", digit_png(5)))
    digest = hashlib.sha256(digit_png(5)).hexdigest()
    assert path.store.keys("digit-5") == sorted(["a.b/x.png", f"a.b/x-{digest[:12]}.png"])
    assert path.store.data("digit-5", "a.b/x.png") == b"other"
    assert path.results[0]["data"]["destination"] == f"digit-5/a.b/x-{digest[:12]}.png"


async def test_a_taken_suffixed_name_becomes_the_whole_digest_and_that_taken_too_is_loud(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Path()
    digest = hashlib.sha256(digit_png(5)).hexdigest()
    for name in ("x.png", f"x-{digest[:12]}.png"):
        path.store.upload("digit-5", name, b"other")
    await path.send(path.upload("x.png", digit_png(5)))
    assert path.store.data("digit-5", f"x-{digest}.png") == digit_png(5)
    del path.store.buckets["digit-5"][f"x-{digest}.png"]
    path.store.upload("digit-5", f"x-{digest}.png", b"other")
    with caplog.at_level(logging.ERROR):
        assert reasons(await path.send(path.upload("x.png", digit_png(5)))) == ["store"]
    assert "digit-5" in caplog.text
    assert path.store.keys("mnist") == ["x.png"]


async def test_a_copy_that_vanishes_between_put_and_comparison_is_put_again() -> None:
    path = Path()
    path.store.upload("digit-5", "x.png", b"other")

    async def remove(call: Call) -> None:
        if call.method == "get" and call.bucket == "digit-5":
            path.store.on_call = None
            del path.store.buckets["digit-5"]["x.png"]

    path.store.on_call = remove
    await path.send(path.upload("x.png", digit_png(5)))
    assert path.store.data("digit-5", "x.png") == digit_png(5)


@pytest.mark.parametrize(
    "key",
    [
        "é" * 125 + ".png",  # 254 bytes: fits as it is, but not with a suffix
        "/".join(["d" * 250] * 4) + "/" + "é" * 7 + ".png",  # 1,022 bytes in all
        "/".join(["d" * 254] * 4) + "/.png",
        "x" * 255,
    ],
)
async def test_row_23_a_name_that_gets_too_long_is_cut_to_fit(key: str) -> None:
    path = Path(source_suffixes=("",), destination="digits/by-digit/{digit}")
    path.store.upload("digits", f"by-digit/5/{key}", b"other")
    assert reasons(await path.send(path.upload(key, digit_png(5)))) == ["filed"]
    destination = path.results[0]["data"]["destination"].removeprefix("digits/")
    assert path.store.data("digits", destination) == digit_png(5)
    assert len(destination.encode()) <= 1024
    assert all(len(segment.encode()) <= 255 for segment in destination.split("/"))
    assert hashlib.sha256(digit_png(5)).hexdigest()[:12] in destination


@pytest.mark.parametrize("data", [NOT_AN_IMAGE, b"", digit_png(1)[:60]])
async def test_row_13_what_can_never_be_classified_goes_the_same_way_into_the_rejected_bucket(data: bytes) -> None:
    path = Path()
    (outcome,) = await path.send(path.upload("a/x.png", data, metadata={"trace-id": "t-1", "owner": "me"}))
    assert isinstance(outcome.error, BadImage)
    assert path.store.keys("mnist") == []
    assert path.store.data("mnist-rejected", "a/x.png") == data
    metadata = path.store.buckets["mnist-rejected"]["a/x.png"][0].version.metadata
    assert metadata == {"trace-id": "t-1", "owner": "me", "rejected-reason": "badimage"}
    (event,) = path.results
    assert event["type"] == "io.kserve.mnist.prediction.rejected"
    assert event["trace-id"] == "t-1"
    assert event["data"]["reason"] == "badimage"
    assert event["data"]["destination"] == "mnist-rejected/a/x.png"
    assert event["data"]["object"]["key"] == "a/x.png"


async def test_a_rejected_object_stays_while_kafka_is_away() -> None:
    path = Path()
    ref = path.upload("x.png", NOT_AN_IMAGE)
    path.publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    assert reasons(await path.send(ref)) == ["kafka"]
    assert path.store.keys("mnist") == ["x.png"]
    assert reasons(await path.send(ref)) == ["badimage"]
    assert path.store.keys("mnist-rejected") == ["x.png"]
    assert len({event["id"] for event in path.results}) == 1


async def test_row_14_an_object_over_the_limit_is_copied_by_the_server_to_a_name_of_its_own() -> None:
    path = Path(max_object_bytes=100)
    ref = path.upload("big.png", b"x" * 101)
    assert reasons(await path.send(ref)) == ["objecttoolarge"]
    (key,) = path.store.keys("mnist-rejected")
    assert key.startswith("big-")
    assert len(key) == len("big-.png") + 12
    assert path.store.data("mnist-rejected", key) == b"x" * 101
    assert path.store.keys("mnist") == []
    # The second looks for a copy of an earlier delivery.
    assert [call.method for call in path.store.calls] == ["get", "get", "copy", "delete"]


async def test_an_object_over_the_limit_that_vanished_before_its_copy_is_nothing_to_reject() -> None:
    path = Path(max_object_bytes=100)
    ref = path.upload("big.png", b"x" * 101)

    async def remove(call: Call) -> None:
        if call.method == "copy":
            path.store.on_call = None
            path.store.buckets["mnist"].clear()

    path.store.on_call = remove
    assert await path.send(ref) == (Outcome(reason="gone"),)
    assert path.results == []


TRACE = {"trace-id": "t-1"}
# A user's client may send it raw, 1,800 bytes; ours sends 2,412.
LONG = "日本" * 300


def described(path: Path, bucket: str) -> tuple[dict[str, str], dict[str, str]]:
    """The metadata and the tags of the one object in a bucket."""
    (key,) = path.store.keys(bucket)
    version = path.store.buckets[bucket][key][0].version
    return dict(version.metadata), dict(version.tags)


async def test_an_image_with_more_metadata_than_the_store_takes_is_filed_with_its_trace_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Path()
    ref = path.upload("a b.png", digit_png(7), metadata={**TRACE, "note": LONG, "owner": "me"}, tags={"lot": "1"})
    assert reasons(await path.send(ref)) == ["filed"]
    assert path.store.data("digit-7", "a b.png") == digit_png(7)
    assert described(path, "digit-7") == (TRACE, {"lot": "1"})
    assert path.store.keys("mnist") == []
    assert path.results[0]["trace-id"] == "t-1"
    (line,) = (record.message for record in by_us(caplog) if record.levelno == logging.WARNING)
    assert line.startswith("mnist/'a b.png' ")
    assert "['note', 'owner']" in line


async def test_an_image_with_as_much_metadata_as_the_store_takes_keeps_all_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Path()
    metadata = {"note": "x" * 1992, **TRACE}
    assert reasons(await path.send(path.upload("x.png", digit_png(7), metadata=metadata))) == ["filed"]
    assert described(path, "digit-7") == (metadata, {})
    assert not [record for record in by_us(caplog) if record.levelno >= logging.WARNING]


async def test_an_object_whose_metadata_has_no_room_for_the_reason_is_rejected_with_it_all_the_same() -> None:
    path = Path()
    ref = path.upload("x.png", NOT_AN_IMAGE, metadata={**TRACE, "note": "x" * 2000})
    assert reasons(await path.send(ref)) == ["badimage"]
    assert path.store.data("mnist-rejected", "x.png") == NOT_AN_IMAGE
    assert described(path, "mnist-rejected") == ({**TRACE, "rejected-reason": "badimage"}, {})
    assert path.store.keys("mnist") == []
    assert path.results[0]["data"]["destination"] == "mnist-rejected/x.png"


async def test_an_object_over_the_limit_whose_metadata_has_no_room_for_the_reason_is_copied_with_it_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Path(max_object_bytes=100)
    ref = path.upload("big.png", b"x" * 101, metadata={**TRACE, "note": "x" * 2000}, tags={"lot": "1"})
    assert reasons(await path.send(ref)) == ["objecttoolarge"]
    assert described(path, "mnist-rejected") == ({**TRACE, "rejected-reason": "objecttoolarge"}, {"lot": "1"})
    assert path.store.keys("mnist") == []
    assert "takes: ['note'] are left out where it is now" in caplog.text


async def test_the_trace_id_is_kept_under_the_name_of_the_settings() -> None:
    path = Path(trace_key="Request-Id")
    ref = path.upload("x.png", digit_png(7), metadata={**TRACE, "request-id": "é" * 256, "note": "x" * 1400})
    assert reasons(await path.send(ref)) == ["filed"]
    assert described(path, "digit-7") == ({"request-id": "é" * 256}, {})


async def test_an_image_with_more_tags_than_a_header_holds_is_filed_with_its_metadata(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Path()
    tags = {f"{number}" + "日" * 100: "本" * 200 for number in range(10)}
    ref = path.upload("x.png", digit_png(7), metadata={**TRACE, "owner": "me"}, tags=tags)
    assert reasons(await path.send(ref)) == ["filed"]
    assert described(path, "digit-7") == ({**TRACE, "owner": "me"}, {})
    (line,) = (record.message for record in by_us(caplog) if record.levelno == logging.WARNING)
    assert "\\u65e5" in line
    assert line.isascii()
    assert len(line) < 300


async def test_an_image_with_too_much_of_both_is_filed_too() -> None:
    path = Path()
    tags = {f"{number}" + "日" * 100: "本" * 200 for number in range(10)}
    assert reasons(await path.send(path.upload("x.png", digit_png(7), metadata={"note": LONG}, tags=tags))) == ["filed"]
    assert described(path, "digit-7") == ({"trace-id": path.results[0]["trace-id"]}, {})


async def test_less_is_kept_under_the_same_name_when_the_event_comes_again() -> None:
    path = Path()
    ref = path.upload("x.png", digit_png(7), metadata={**TRACE, "note": LONG})
    path.publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    assert reasons(await path.send(ref)) == ["kafka"]
    assert reasons(await path.send(ref)) == ["filed"]
    assert described(path, "digit-7") == (TRACE, {})
    assert len({event["id"] for event in path.results}) == 1


async def test_content_headers_that_leave_no_room_for_the_trace_id_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Path()
    headers = dict.fromkeys(CONTENT_HEADERS, "x" * 2100)
    path.upload("x.png", digit_png(7), content_headers={**headers, "content-encoding": ""})
    assert reasons(await path.send(ObjectRef(bucket="mnist", key="x.png"))) == ["filed"]
    filed = path.store.buckets["digit-7"]["x.png"][0].version
    assert (filed.content_type, filed.content_headers) == ("image/png", {})
    assert filed.metadata == {"trace-id": path.results[0]["trace-id"]}
    assert "['cache-control', " in caplog.text


async def test_a_store_that_takes_no_metadata_at_all_is_worth_a_retry() -> None:
    path = Path()
    path.store.failures.before["put"] = [MetadataTooLarge("any")] * 4
    ref = path.upload("x.png", digit_png(7), metadata=TRACE, tags={"lot": "1"})
    assert reasons(await path.send(ref)) == ["store"]
    assert path.store.keys("mnist") == ["x.png"]
    assert path.results == []


KEPT = {
    "cache-control": "max-age=60",
    "content-disposition": 'attachment; filename="7.png"',
    "content-encoding": "gzip",
    "content-language": "de",
    "expires": "Thu, 01 Dec 2033 16:00:00 GMT",
}


@pytest.mark.parametrize(
    ("data", "bucket"),
    [(gzip.compress(digit_png(7)), "digit-7"), (NOT_AN_IMAGE, "mnist-rejected"), (b"x" * 2001, "mnist-rejected")],
    ids=["filed", "rejected", "copied by the server"],
)
async def test_row_48_an_object_moved_is_the_same_object_and_bears_its_trace_id(data: bytes, bucket: str) -> None:
    path = Path(max_object_bytes=2000, trace_key="Trace-Id")
    # A trace id that is none is replaced.
    await path.send(path.upload("x.png", data, content_headers=KEPT, metadata={"a": "b", "trace-id": "x" * 300}))
    (key,) = path.store.keys(bucket)
    version = path.store.buckets[bucket][key][0].version
    assert (path.store.data(bucket, key), path.store.keys("mnist")) == (data, [])
    assert (version.content_type, version.content_headers) == ("image/png", KEPT)
    metadata = {name: value for name, value in version.metadata.items() if name != "rejected-reason"}
    assert metadata == {"a": "b", "trace-id": path.results[0]["Trace-Id"]}


async def test_the_trace_id_that_an_event_gives_is_that_of_the_copy_too() -> None:
    path = Path()
    await path.send(path.upload("x.png", digit_png(7), metadata={"trace-id": "its own"}), trace_id="the event's")
    assert described(path, "digit-7") == ({"trace-id": "the event's"}, {})


@pytest.mark.parametrize(
    ("encoding", "data", "reason"),
    [
        ("gzip", gzipped(digit_png(7)), "filed"),
        ("aws-chunked,gzip", gzipped(digit_png(7)), "filed"),
        ("gzip", digit_png(7), "filed"),
        ("identity", digit_png(7), "filed"),
        ("br", digit_png(7), "badimage"),
        ("gzip", gzipped(digit_png(7))[:-9], "badimage"),
        ("gzip", gzipped(NOT_AN_IMAGE), "badimage"),
        ("gzip", gzipped(bytes(100_000)), "objecttoolarge"),
    ],
)
async def test_row_48_an_encoded_image_is_read_and_filed_as_it_is(encoding: str, data: bytes, reason: str) -> None:
    path = Path(max_object_bytes=50_000)
    assert reasons(await path.send(path.upload("x.png", data, content_headers={"content-encoding": encoding}))) == [
        reason
    ]
    assert path.store.data("digit-7" if reason == "filed" else "mnist-rejected", "x.png") == data
    assert path.store.keys("mnist") == []


class Retaining(Path):
    """A path whose store does not let the sources go: versions are locked, or their bucket is."""

    def __init__(self, *, versioned: bool = True) -> None:
        super().__init__(versioned=versioned, max_object_bytes=2000)
        self.versioned = versioned

    def retain(self, data: bytes, **more: Any) -> ObjectRef:
        ref = self.upload("x.png", data, **more)
        if ref.version_id is None:
            self.store.undeletable.add("mnist")
        else:
            self.store.locked.add(ref.version_id)
        return ref

    def let_go(self) -> None:
        self.store.locked.clear()
        self.store.undeletable.clear()


RETAINED = [(digit_png(7), "retained"), (NOT_AN_IMAGE, "badimage"), (b"x" * 2001, "objecttoolarge")]


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize(("data", "reason"), RETAINED, ids=["filed", "rejected", "copied by the server"])
async def test_row_44_what_cannot_be_released_is_published_once_until_it_can(
    data: bytes, reason: str, versioned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = Retaining(versioned=versioned)
    ref = path.retain(data, tags={"lot": "1"})
    for _ in range(3):
        (outcome,) = await path.send(ref)
        assert (outcome.reason, outcome.retained, outcome.stays) == (reason, True, False)
    assert "it stays, though all is done" in caplog.text
    assert (path.store.keys("mnist"), len(path.results)) == (["x.png"], 1)
    bucket, _, key = path.results[0]["data"]["destination"].partition("/")
    assert path.store.buckets[bucket][key][0].version.tags == {"lot": "1", PUBLISHED_AS: path.results[0]["id"]}
    path.let_go()
    (outcome,) = await path.send(ref)
    assert not outcome.retained
    assert (path.store.keys("mnist"), len(path.results)) == ([], 1)


@pytest.mark.parametrize("step", ["publish", "delete", "set_tags"])
@pytest.mark.parametrize(("data", "reason"), RETAINED, ids=["filed", "rejected", "copied by the server"])
async def test_row_44_a_retained_object_whose_way_is_cut_is_published_again_until_its_copy_is_marked(
    data: bytes, reason: str, step: str
) -> None:
    path = Retaining()
    ref = path.retain(data)
    failures = (path.publisher if step == "publish" else path.store).failures
    failures.before[step] = [KafkaUnavailable("cut") if step == "publish" else StoreUnavailable("cut")]
    await path.send(ref)
    await path.send(ref)
    published = len(path.results)
    assert published == (1 if step == "publish" else 2)
    assert reasons(await path.send(ref)) == [reason]
    assert len(path.results) == published
    assert len({event["id"] for event in path.results}) == 1


async def test_row_44_retained_objects_that_share_a_copy_are_published_once_each() -> None:
    path = Retaining()
    refs = [path.retain(digit_png(7)) for _ in range(3)]
    for _ in range(3):
        assert reasons(await path.send(*refs)) == ["retained"] * 3
    assert len(path.results) == len({event["id"] for event in path.results}) == 3
    assert path.store.keys("digit-7") == ["x.png"]


async def test_row_44_a_retained_object_with_as_many_tags_as_there_can_be_is_published_at_least_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Retaining()
    ref = path.retain(digit_png(7), tags={str(number): "x" for number in range(10)})
    assert reasons(await path.send(ref)) == ["retained"]
    assert "digit-7/'x.png' will be published again: 11 tags are too many" in caplog.text
    assert reasons(await path.send(ref)) == ["retained"]
    assert len({event["id"] for event in path.results}) == 1


async def test_where_nothing_is_published_nothing_is_marked_as_published() -> None:
    path = Retaining()
    ref = path.retain(digit_png(7))
    publishing, path.pipeline = path.pipeline, Pipeline(digits_settings(), path.store, None)
    assert reasons(await path.send(ref)) == ["retained"]
    path.pipeline = publishing
    assert reasons(await path.send(ref)) == ["retained"]
    assert len(path.results) == 1


PLUS, BLANK = "a+b.png", "a b.png"


def etag_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize(
    ("there", "etag", "taken"),
    [
        ({PLUS: 1, BLANK: 2}, 1, [PLUS]),
        ({PLUS: 1, BLANK: 2}, 2, [BLANK]),
        ({PLUS: 1, BLANK: 2}, 3, [PLUS]),  # overwritten since
        ({PLUS: 1}, 1, [PLUS]),
        ({PLUS: 1}, 2, [PLUS]),
        ({PLUS: 1}, None, [PLUS]),
        ({BLANK: 2}, 2, [BLANK]),
        ({BLANK: 2}, 1, [BLANK]),
        ({BLANK: 2}, None, [BLANK]),
        ({}, 1, []),
        # Not to be told apart, so both are due.
        ({PLUS: 1, BLANK: 1}, 1, [PLUS, BLANK]),
        ({PLUS: 1, BLANK: 2}, None, [PLUS, BLANK]),
    ],
)
async def test_row_42_of_two_readings_of_a_key_the_object_with_the_event_s_etag_is_taken_and_the_other_untouched(
    there: dict[str, int], etag: int | None, taken: list[str], versioned: bool
) -> None:
    path = Path(versioned=versioned)
    for key, digit in there.items():
        path.upload(key, digit_png(digit))
    digest = None if etag is None else etag_of(digit_png(etag)).upper()
    outcomes = await path.send(ObjectRef(bucket="mnist", key=PLUS, other_keys=(BLANK,), etag=digest))
    assert reasons(outcomes) == (["filed"] * len(taken) or ["gone"])
    assert path.store.keys("mnist") == sorted(there.keys() - {*taken})
    assert [event["subject"] for event in path.results] == [f"mnist/{key}" for key in taken]


async def test_row_42_of_a_store_that_is_known_the_first_reading_costs_no_look_at_the_other() -> None:
    path = Path()
    path.upload(PLUS, digit_png(1))
    ref = ObjectRef(bucket="mnist", key=PLUS, other_keys=(BLANK,), etag=etag_of(digit_png(1)), is_sure=True)
    assert reasons(await path.send(ref)) == ["filed"]
    assert [call.method for call in path.store.calls] == ["get", "put", "delete"]


async def test_row_42_a_version_is_looked_for_under_both_readings() -> None:
    path = Path()
    path.upload(PLUS, digit_png(1))
    meant = path.upload(BLANK, digit_png(1))
    path.upload(BLANK, digit_png(3))
    ref = replace(meant, key=PLUS, other_keys=(BLANK,), etag=etag_of(digit_png(1)))
    assert reasons(await path.send(ref)) == ["filed"]
    assert [event["subject"] for event in path.results] == [f"mnist/{BLANK}"]
    assert path.store.keys("mnist") == [BLANK, PLUS]


async def test_row_42_the_other_reading_that_another_replica_moves_meanwhile_is_gone() -> None:
    path = Path()
    path.upload(PLUS, digit_png(1))
    path.upload(BLANK, digit_png(2))
    ref = ObjectRef(bucket="mnist", key=PLUS, other_keys=(BLANK,), etag=etag_of(digit_png(2)))

    async def remove(call: Call) -> None:
        if [one.key for one in path.store.calls] == [PLUS, BLANK, BLANK]:
            path.store.buckets["mnist"].pop(call.key, None)

    path.store.on_call = remove
    assert await path.send(ref) == (Outcome(reason="gone"),)
    assert path.store.keys("mnist") == [PLUS]


@pytest.mark.parametrize(("there", "reason"), [(True, "filed"), (False, "badkey")])
async def test_row_42_a_reading_that_can_be_no_key_is_a_miss_where_the_other_one_is_there(
    there: bool, reason: str
) -> None:
    path = Path()
    if there:
        path.upload("a%2F%2Fb.png", digit_png(1))
    assert reasons(await path.send(ObjectRef(bucket="mnist", key="a//b.png", other_keys=("a%2F%2Fb.png",)))) == [reason]


async def test_row_42_an_ordinary_key_is_read_once_whatever_its_etag() -> None:
    path = Path()
    path.upload("x.png", digit_png(1))
    assert reasons(await path.send(ObjectRef(bucket="mnist", key="x.png", etag="overwritten since"))) == ["filed"]
    assert [call.method for call in path.store.calls] == ["get", "put", "delete"]


async def test_row_04_several_records_are_settled_each_and_answered_once() -> None:
    path = Path()
    good, bad = path.upload("1.png", digit_png(1)), path.upload("2.png", NOT_AN_IMAGE)
    also_good = path.upload("3.png", digit_png(3))
    outcomes = await path.send(good, bad, also_good)
    assert sorted(reasons(outcomes)) == ["badimage", "filed", "filed"]
    assert isinstance(verdict(outcomes), BadImage)
    assert path.store.keys("mnist") == []
    assert [batch.shape for batch in path.predictor.batches] == [(2, 28, 28)]


async def test_row_04_any_retryable_record_decides_the_answer_and_the_others_are_settled() -> None:
    path = Path()
    refs = [path.upload(f"{n}.png", digit_png(n)) for n in (1, 2)]
    bad = path.upload("bad.png", NOT_AN_IMAGE)
    path.store.failures.before["get"] = [StoreUnavailable("away")]
    outcomes = await path.send(refs[0], bad, refs[1])
    assert isinstance(verdict(outcomes), StoreUnavailable)
    assert path.store.keys("mnist") == ["1.png"]
    assert verdict(await path.send(refs[0], bad, refs[1])) is None
    assert path.store.keys("mnist") == []


async def test_a_failed_prediction_leaves_the_classifiable_and_still_rejects_the_rest() -> None:
    path = Path()
    good, bad = path.upload("1.png", digit_png(1)), path.upload("2.png", NOT_AN_IMAGE)
    passage, _ = await path.prepare(Notification(objects=(good, bad)))
    error = PredictorUnavailable("away")
    await path.pipeline.abandon(passage, error)
    assert verdict([outcome for one in passage.wanted for outcome in one.outcomes]) is error
    assert path.store.keys("mnist") == ["1.png"]
    assert path.store.keys("mnist-rejected") == ["2.png"]


@pytest.mark.parametrize("digits", [[], [1, 2], [10], [-1], [7.0], [True], ["7"], [None], [[7]]])
async def test_what_is_not_one_digit_an_image_files_nothing(digits: list[Any]) -> None:
    path = Path()
    ref = path.upload("1.png", digit_png(1))
    passage, _ = await path.prepare(Notification(objects=(ref,)))
    with pytest.raises(PredictorUnavailable):
        await path.pipeline.finish(passage, digits)
    with pytest.raises(PredictorUnavailable):
        await path.pipeline.finish(Passage(request=inline(1), deadline=Deadline(60)), digits)
    assert path.store.keys("mnist") == ["1.png"]
    assert path.results == []


class Watched(Path):
    """Notes what is in hand together: of each passage the keys, by their being fetched."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.passages: list[list[str]] = []

    @property
    def go(self) -> Go:
        async def go(passage: Passage) -> Any:
            tensors = await self.pipeline.prepare(passage)
            self.passages.append([one.stored.version.key for one in passage.fetched])
            return await self.pipeline.finish(passage, self.predictor(tensors) if len(tensors) else [])

        return go


async def test_at_most_eight_records_are_in_hand_at_once() -> None:
    path = Watched()
    refs = [path.upload(f"{n}.png", digit_png(n % 10)) for n in range(19)]
    assert reasons(await path.send(*refs)) == ["filed"] * 19
    assert [len(keys) for keys in path.passages] == [8, 8, 3]


async def test_as_many_are_in_hand_as_there_are_slots_for() -> None:
    path = Watched()
    refs = tuple(path.upload(f"{n}.png", digit_png(n % 10)) for n in range(19))
    wanted = wanted_by(Notification(objects=refs), arrived=0.0)
    await path.pipeline.settle_objects(wanted, path.go, Deadline(60), slots=16)
    assert [len(keys) for keys in path.passages] == [16, 3]
    assert [reasons(one.outcomes) for one in wanted] == [["filed"]] * 19


async def test_two_versions_of_one_key_are_settled_in_their_order() -> None:
    path = Watched()
    refs = [path.upload("x.png", digit_png(digit)) for digit in (1, 2)]
    refs.insert(1, path.upload("y.png", digit_png(3)))
    assert reasons(await path.send(*refs)) == ["filed"] * 3
    assert path.passages == [["x.png", "y.png"], ["x.png"]]


async def test_the_bytes_in_hand_are_never_more_than_one_object_may_have() -> None:
    size = len(digit_png(1))
    path = Watched(max_object_bytes=4 * size)
    refs = [path.upload(f"{n}.png", digit_png(1)) for n in range(2)]
    large, too_large = path.upload("large.png", b"x" * 2 * size), path.upload("too large.png", b"x" * 5 * size)
    assert reasons(await path.send(large, *refs, too_large)) == ["badimage", "filed", "filed", "objecttoolarge"]
    assert path.passages == [["0.png", "1.png"], ["large.png"], ["too large.png"]]


async def test_objects_that_are_in_hand_together_take_one_request_to_be_released() -> None:
    path = Path()
    refs = [path.upload(f"{n}.png", digit_png(n)) for n in range(3)]
    await path.send(*refs)
    (call,) = [call for call in path.store.calls if call.method not in ("get", "put")]
    assert [version.key for version in call.versions] == ["0.png", "1.png", "2.png"]


async def test_an_object_that_fails_is_not_released_with_the_others() -> None:
    path = Path()
    refs = [path.upload(f"{n}.png", digit_png(n)) for n in range(4)]
    path.store.failures.before["put"] = [StoreUnavailable("away")]
    path.publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    path.store.failures.before["delete"] = [StoreUnavailable("away")]
    assert sorted(reasons(await path.send(*refs))) == ["filed", "kafka", "store", "store"]
    assert len(path.store.keys("mnist")) == 3
    assert reasons(await path.send(*refs)).count("gone") == 1
    assert path.store.keys("mnist") == []


class Failing(Digits):
    """Fails in one of its parts for one picture, a digit 1."""

    def __init__(self, part: str, how: Any) -> None:
        self.part, self.how = part, how

    def _fail(self, part: str) -> None:
        if part == self.part and isinstance(self.how, Exception):
            raise self.how

    def decode(self, data: bytes) -> Any:
        if data == digit_png(1):
            self._fail("decode")
        return super().decode(data)

    def destination(self, prediction: Prediction) -> Destination | None:
        if prediction.label == 1:
            self._fail("destination")
        return None

    def data(self, predictions: Sequence[Prediction], *, inline: bool = False) -> dict[str, Any]:
        says = super().data(predictions, inline=inline)
        if self.part == "data" and predictions[0].label == 1:
            self._fail("data")
            return {**says, "more": self.how}
        return says


@pytest.mark.parametrize(
    ("part", "how"),
    [
        ("decode", ValueError("a bug of the other transformer's")),
        ("decode", NotImplementedError("a kind of picture that is not read")),
        ("data", ValueError("a bug")),
        ("data", np.float32(0.5)),
        ("data", {1: "a key that is no text"}),
        ("destination", KeyError("a bug")),
    ],
)
async def test_a_task_that_fails_in_a_way_of_its_own_is_retryable_and_the_other_records_are_settled(
    part: str, how: Any
) -> None:
    # Settings ask for all destinations.
    task = Failing("", how)
    path = Path(task=task)
    task.part = part
    outcomes = await path.send(path.upload("bug.png", digit_png(1)), path.upload("good.png", digit_png(2)))
    assert sorted(reasons(outcomes)) == ["filed", "retryable"]
    assert path.store.keys("mnist") == ["bug.png"]
    assert [event["data"]["predictions"] for event in path.results] == [[2]]
    assert path.store.keys("digit-1") == []


async def test_whatever_is_permanent_in_a_decode_rejects_the_object() -> None:
    path = Path(task=Failing("decode", Permanent("never")))
    outcomes = await path.send(path.upload("never.png", digit_png(1)))
    assert (reasons(outcomes), path.store.keys("mnist")) == (["permanent"], [])
    assert path.store.keys("mnist-rejected") == ["never.png"]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 17.3, -3, "0.2", pytest.param(10**400, id="huge")])
async def test_a_score_that_is_none_files_nothing(score: Any) -> None:
    path = Path()
    ref = path.upload("1.png", digit_png(1))
    passage, _ = await path.prepare(Notification(objects=(ref,)))
    with pytest.raises(PredictorUnavailable, match=r"a score is no number in 0\.\.1"):
        await path.pipeline.finish(passage, [Prediction(1, score)])
    assert path.store.keys("mnist") == ["1.png"]


async def test_a_score_that_was_rounded_a_little_over_one_is_one() -> None:
    path = Path()
    passage, _ = await path.prepare(Notification(objects=(path.upload("1.png", digit_png(1)),)))
    await path.pipeline.finish(passage, [Prediction(1, np.float32(1.0000001))])
    assert path.results[0]["data"]["scores"] == [1.0]


async def test_a_decode_that_hangs_is_given_up_at_the_deadline() -> None:
    goes_on = threading.Event()

    class Hanging(Digits):
        def decode(self, data: bytes) -> Any:
            goes_on.wait(10)
            return super().decode(data)

    path = Path(task=Hanging())
    started = time.monotonic()
    outcomes = await path.send(path.upload("1.png", digit_png(1) + bytes(5000)), seconds=0.3)
    goes_on.set()
    assert (reasons(outcomes), path.store.keys("mnist")) == (["deadline"], ["1.png"])
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("data", [b"RIFF, a picture of 7000 x 7000 in 34 bytes", b"1,2,3"])
async def test_what_may_be_much_more_than_its_bytes_is_not_decoded_on_the_event_loop(data: bytes) -> None:
    threads: list[int] = []

    class Any28(Digits):
        def decode(self, data: bytes) -> Any:
            del data
            threads.append(threading.get_ident())
            return np.zeros((28, 28), np.float32)

    path = Path(task=Any28())
    await path.prepare(Notification(objects=(path.upload("1.png", data),)))
    assert threads != [threading.get_ident()]
    assert len(threads) == 1


async def test_a_passed_deadline_leaves_everything_as_it_is() -> None:
    path = Path()
    ref = path.upload("x.png", digit_png(1))
    (outcome,) = await path.send(ref, seconds=-1)
    assert isinstance(outcome.error, DeadlineExceeded)
    assert path.store.keys("mnist") == ["x.png"]


async def test_a_slow_store_leaves_half_of_the_time_to_the_other_steps() -> None:
    path = Path()
    refs = [path.upload(f"{n}.png", digit_png(n)) for n in range(2)]
    deadlines: list[Deadline] = []
    get = path.store.get

    async def slow_get(*args: Any, deadline: Deadline, **more: Any) -> Any:
        deadlines.append(deadline)
        if args[1] == "0.png":
            await asyncio.sleep(0.3)
            deadline.remaining()
        return await get(*args, deadline=deadline, **more)

    path.store.get = slow_get  # type: ignore[method-assign]
    passage, tensors = await path.prepare(Notification(objects=tuple(refs)), Deadline(0.5))
    assert (len(tensors), reasons(passage.wanted[0].outcomes)) == (1, ["deadline"])
    outcomes = await path.pipeline.finish(passage, [1])
    assert isinstance(outcomes, list)
    assert reasons(outcomes) == ["deadline", "filed"]


@pytest.mark.parametrize(
    ("metadata", "given", "expected"),
    [({"trace-id": "m"}, None, "m"), ({"trace-id": "m"}, "event", "event"), ({"trace-id": "x" * 300}, None, None)],
)
async def test_an_object_s_trace_id_is_the_event_s_else_its_metadata_s_else_derived(
    metadata: dict[str, str], given: str | None, expected: str | None
) -> None:
    path = Path()
    await path.send(path.upload("x.png", digit_png(1), metadata=metadata), trace_id=given)
    trace_id = path.results[0]["trace-id"]
    assert path.publisher.messages[0].key == trace_id.encode()
    assert trace_id == expected if expected else len(trace_id) == 36


@pytest.mark.parametrize("value", ["x" * 257, "a\r\nb", "\u0085", "x" * 1_000_000])
async def test_row_11_a_bad_trace_id_in_an_object_s_metadata_is_ignored_logged_and_derived(
    value: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path()
    ref = path.upload("x.png", digit_png(1), metadata={"trace-id": value})
    with caplog.at_level(logging.WARNING):
        assert reasons(await path.send(ref)) == ["filed"]
    (event,) = path.results
    assert uuid.UUID(event["trace-id"]).version == 5
    assert event["trace-id"] != event["id"]
    line, *_ = caplog.messages
    assert line.startswith("mnist/'x.png': the object's metadata ")
    assert line.isprintable()
    assert len(line) < 200


async def test_without_a_store_an_object_is_retryable_and_without_kafka_nothing_is_published() -> None:
    path = Path()
    ref = path.upload("x.png", digit_png(1))
    without_store = Pipeline(digits_settings(), None, path.publisher)
    path.pipeline = without_store
    error = verdict(await path.send(ref))
    assert isinstance(error, StoreUnavailable)
    assert "MINIO_ACCESS_KEY" in str(error)
    path.pipeline = Pipeline(digits_settings(), path.store, None)
    assert reasons(await path.send(ref)) == ["filed"]
    assert path.store.keys("mnist") == []


# --- inline ---


def inline(*instances: Any, **more: Any) -> Inline:
    return Inline(instances=instances, trace_id="t-1", identity=("s", "1", "t-1"), **more)


def base64_png(digit: int) -> dict[str, str]:
    return {"data": base64.b64encode(digit_png(digit)).decode()}


async def test_inline_images_and_tensors_become_one_batch_in_order() -> None:
    path = Path()
    tensor = np.full((28, 28), 0.25, np.float32)
    instances = (base64_png(7), tensor.tolist(), tensor.reshape(784).tolist(), tensor.reshape(28, 28, 1).tolist())
    _, tensors = await path.prepare(inline(*instances, {"data": digit_png(1)}))
    assert tensors.shape == (5, 28, 28)
    assert tensors.dtype == np.float32
    assert path.predictor(tensors[[0, 4]]) == [7, 1]
    assert (tensors[1:4] == 0.25).all()


@pytest.mark.parametrize(
    ("instance", "error"),
    [
        ({"data": "???"}, BadImage),
        ({"data": "é"}, BadImage),
        ({"data": base64.b64encode(NOT_AN_IMAGE).decode()}, BadImage),
        ({"data": ""}, BadImage),
        ({"b64": [0.0] * 784}, BadTensor),
        ({"data": {"image": "x"}}, BadTensor),
        ({"image": "x"}, BadTensor),
        ([1, 2, 3], BadTensor),
        (["0"] * 784, BadTensor),
        ([True] * 784, BadTensor),
        ([[1.0] * 28] * 27, BadTensor),
        ([["x"] * 28] * 28, BadTensor),
        ([[1.0] * 28] * 27 + [[1.0]], BadTensor),
        ([None] * 784, BadTensor),
        ([1e999] * 784, BadTensor),
        (7, BadTensor),
        (None, BadTensor),
    ],
)
async def test_an_instance_that_is_neither_image_nor_digit_tensor_is_refused(
    instance: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await Path().prepare(inline(base64_png(1), instance))


async def test_an_inline_request_is_published_and_never_stored() -> None:
    path = Path()
    request = inline(base64_png(7), cloudevent=CloudEvent(id="1", source="s", type="t"))
    result = await path.pipeline.answer(request, path.go, Deadline(60))
    assert path.results[0]["data"] == {"predictions": [7]}
    assert path.results[0]["id"] == result.id
    assert path.store.calls == []


async def test_a_refused_inline_request_is_published_as_rejected_if_somebody_can_wait_for_it() -> None:
    path = Path()
    for request in (inline(1), Inline(instances=(1,))):
        with pytest.raises(BadImage):
            await path.pipeline.answer(replace(request, refusal=BadImage("no image")), path.go, Deadline(60))
    (event,) = path.results
    assert event["type"].endswith(".rejected")
    assert event["data"] == {"reason": "badimage", "message": "no image"}


async def test_a_result_that_kafka_finds_too_large_is_final_for_an_inline_request_and_not_for_an_object() -> None:
    path = Path(max_bytes=10)
    with pytest.raises(ResultTooLarge):
        await path.pipeline.finish(Passage(request=inline(1), deadline=Deadline(60)), [7])
    (outcome,) = await path.send(path.upload("x.png", digit_png(1)))
    assert isinstance(outcome.error, MessageTooLarge)
    assert path.store.keys("mnist") == ["x.png"]


class Ones(Digits):
    """Sees ink everywhere."""

    def decode(self, data: bytes) -> Any:
        del data
        return np.ones((28, 28), np.float32)


async def test_another_transformer_brings_its_own_task_and_may_be_pickled_with_it() -> None:
    path = Path()
    path.pipeline = pickle.loads(pickle.dumps(Pipeline(Settings(task=Ones()), None, None)))
    _, tensors = await path.prepare(Inline(instances=(b"anything",)))
    assert tensors.sum() == 784


async def test_closing_the_pipeline_closes_both_ports() -> None:
    path = Path()
    await path.pipeline.close()
    assert path.store.closed
    assert path.publisher.closed
    await Pipeline(digits_settings(), None, None).close()


class Pixels:
    """Stands for what an image takes while it is decoded."""


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"no image"], ids=["on the loop", "in a thread"])
async def test_row_18_nothing_of_an_image_that_was_refused_is_held_until_the_event_is_answered(data: bytes) -> None:
    decoded: list[weakref.ref[Pixels]] = []

    class Damaged(Digits):
        def decode(self, data: bytes) -> Any:
            pixels = Pixels()
            decoded.append(weakref.ref(pixels))
            try:
                int(data)
            except ValueError as exc:
                raise BadImage("damaged") from exc

    path = Path(task=Damaged())
    ref = path.upload("x.png", data)
    passage, _ = await path.prepare(Notification(objects=(ref,)))
    for _ in range(500):  # the thread tells its result before it lets it go
        if decoded[0]() is not None:
            await asyncio.sleep(0.01)
    assert [one() for one in decoded] == [None]
    path.publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    (outcome,) = await path.pipeline.finish(passage, [])  # type: ignore[misc]  # of objects
    assert outcome.error is not None
    assert (outcome.error.__traceback__, outcome.error.__cause__, outcome.error.__context__) == (None, None, None)


async def test_an_inline_request_of_more_images_than_can_be_read_in_time_is_given_up_at_the_deadline() -> None:
    read: list[bytes] = []

    class Slow(Digits):
        def decode(self, data: bytes) -> Any:
            read.append(data)
            time.sleep(0.01)
            return np.zeros((28, 28), np.float32)

    with pytest.raises(DeadlineExceeded):
        await Path(task=Slow()).prepare(Inline(instances=({"data": "aaaa"},) * 1000), Deadline(0.4))
    assert 0 < len(read) < 100


@pytest.mark.parametrize("wrong", [np.zeros((32, 32)), np.full((28, 28), np.nan), "text", None])
async def test_a_decode_that_gives_something_else_than_such_a_tensor_is_retryable(wrong: Any) -> None:
    class Wrong(Digits):
        def decode(self, data: bytes) -> Any:
            del data
            return wrong

    with pytest.raises(Retryable, match=r"Wrong.decode gave .* instead of \[28, 28\]"):
        await Path(task=Wrong()).prepare(Inline(instances=(b"anything",)))
