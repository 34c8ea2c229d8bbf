"""The public fakes beyond the ports' contract, and the builders."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mnist_pipeline import Destination, Digits, Prediction, SettingsError
from mnist_pipeline.local.network import Network
from mnist_pipeline.mnist.images import to_tensor
from mnist_pipeline.pipeline.errors import KafkaUnavailable, MessageTooLarge, ObjectRetained, StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline, Message
from mnist_pipeline.testing import Call, Harness, MemoryPublisher, MemoryStore, StubPredictor, digit_png, minio_event

EVENTS = Path(__file__).parents[1] / "data" / "minio-events"
MESSAGE = Message(key=b"k", value=b"v")


def soon() -> Deadline:
    return Deadline(20)


async def put(store: MemoryStore, bucket: str, key: str, data: bytes = b"x") -> bool:
    return await store.put(
        bucket, key, data, content_type="image/png", content_headers={}, metadata={}, tags={}, deadline=soon()
    )


def pixels(png: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def test_the_fakes_import_no_server_and_no_client() -> None:
    program = (
        "import sys, mnist_pipeline.testing; "
        "print([name for name in ('kserve', 'minio', 'kafka', 'urllib3', 'grpc') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The store.


def test_what_is_stored_can_be_looked_at() -> None:
    store = MemoryStore("mnist", versioned={"kept"})
    store.upload("mnist", "b.png", b"1")
    store.upload("mnist", "a.png", b"2")
    store.upload("kept", "a.png", b"old")
    new = store.upload("kept", "a.png", b"new", metadata={"trace-id": "t"})
    assert store.keys("mnist") == ["a.png", "b.png"]
    assert store.keys("no-such-bucket") == []
    assert store.data("kept", "a.png") == b"new"
    assert [found.data for found in store.buckets["kept"]["a.png"]] == [b"old", b"new"]
    assert store.buckets["kept"]["a.png"][-1].version is new
    assert store.calls == []


async def test_every_call_is_noted_in_order_even_one_that_fails() -> None:
    store = MemoryStore("mnist", "digit-7")
    version = store.upload("mnist", "7.png", b"x")
    await store.get("mnist", "7.png", "null", limit=10, deadline=soon())
    await put(store, "digit-7", "7.png")
    store.failures.before["delete"] = [StoreUnavailable("away")]
    with pytest.raises(StoreUnavailable):
        await store.delete(version, deadline=soon())
    await store.check("mnist", deadline=soon())
    assert store.calls == [
        Call(method="get", bucket="mnist", key="7.png", version_id="null"),
        Call(method="put", bucket="digit-7", key="7.png"),
        Call(method="delete", bucket="mnist", key="7.png"),
        Call(method="check", bucket="mnist"),
    ]


async def test_a_failure_before_does_nothing_and_one_after_comes_when_all_is_done() -> None:
    store = MemoryStore("digit-7")
    store.failures.before["put"] = [StoreUnavailable("first"), StoreUnavailable("second")]
    for text in ("first", "second"):
        with pytest.raises(StoreUnavailable, match=text):
            await put(store, "digit-7", "7.png")
    assert store.keys("digit-7") == []
    store.failures.after["put"] = [StoreUnavailable("the answer was lost")]
    with pytest.raises(StoreUnavailable, match="lost"):
        await put(store, "digit-7", "7.png")
    assert store.keys("digit-7") == ["7.png"]
    assert not await put(store, "digit-7", "7.png")


async def test_of_many_deletes_one_call_is_noted_and_all_or_some_of_them_fail_as_told() -> None:
    store = MemoryStore(versioned={"mnist"})
    a, b, c = versions = [store.upload("mnist", key, b"x") for key in ("a.png", "b.png", "c.png")]
    away = StoreUnavailable("away")
    store.failures.before["delete_all"] = [away]
    with pytest.raises(StoreUnavailable, match="away"):
        await store.delete_all(versions, deadline=soon())
    assert store.keys("mnist") == ["a.png", "b.png", "c.png"]
    store.failures.before["delete"] = [away]
    store.locked.add(str(c.version_id))
    outcomes = await store.delete_all(versions, deadline=soon())
    assert (outcomes[:2], type(outcomes[2])) == ([away, True], ObjectRetained)
    assert store.keys("mnist") == ["a.png", "c.png"]
    store.failures.after["delete_all"] = [StoreUnavailable("the answer was lost")]
    with pytest.raises(StoreUnavailable, match="lost"):
        await store.delete_all([a, b], deadline=soon())
    assert store.keys("mnist") == ["c.png"]
    assert store.calls == [
        *[Call(method="delete_all", versions=(a, b, c))] * 2,
        Call(method="delete_all", versions=(a, b)),
    ]


async def test_others_can_act_in_the_middle_of_a_call() -> None:
    store = MemoryStore("mnist")
    version = store.upload("mnist", "7.png", b"first")

    def overwrite(call: Call) -> None:
        if call.method == "delete":
            store.upload(call.bucket, call.key, b"second")

    store.on_call = overwrite
    assert not await store.delete(version, deadline=soon())
    assert store.data("mnist", "7.png") == b"second"

    async def file(call: Call) -> None:
        store.on_call = None
        assert await put(store, call.bucket, "8.png")

    store.on_call = file
    assert not await put(store, "mnist", "8.png")


async def test_buckets_come_into_being_where_that_is_wanted() -> None:
    with pytest.raises(StoreUnavailable, match="digit-7"):
        await put(MemoryStore(), "digit-7", "7.png")
    store = MemoryStore(create_buckets=True)
    assert await put(store, "digit-7", "7.png")
    with pytest.raises(StoreUnavailable, match="mnist"):
        await store.get("mnist", "7.png", None, limit=10, deadline=soon())


def test_the_same_writes_give_the_same_versions() -> None:
    def written() -> list[object]:
        store = MemoryStore(versioned={"mnist"})
        return [store.upload("mnist", "7.png", b"x") for _ in range(3)]

    assert written() == written()
    assert len({str(version) for version in written()}) == 3


async def test_an_upload_that_is_the_same_but_for_its_time_is_another_object() -> None:
    store = MemoryStore("mnist")
    version = store.upload("mnist", "7.png", b"x")
    store.upload("mnist", "7.png", b"x")
    assert not await store.delete(version, deadline=soon())


async def test_many_tasks_can_share_a_store() -> None:
    store = MemoryStore(versioned={"mnist"})

    async def way(number: int) -> bool:
        version = store.upload("mnist", f"{number % 3}.png", b"%d" % number)
        return await store.delete(version, deadline=soon())

    assert all(await asyncio.gather(*map(way, range(300))))
    assert store.keys("mnist") == []
    assert len(store.calls) == 300


# The publisher.


async def test_a_publisher_fails_as_told_before_or_after_the_message_is_there() -> None:
    publisher = MemoryPublisher()
    publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    publisher.failures.after["publish"] = [KafkaUnavailable("the acknowledgement was lost")]
    with pytest.raises(KafkaUnavailable, match="away"):
        await publisher.publish(MESSAGE, deadline=soon())
    assert publisher.messages == []
    with pytest.raises(KafkaUnavailable, match="lost"):
        await publisher.publish(MESSAGE, deadline=soon())
    assert publisher.messages == [MESSAGE]


async def test_a_publisher_has_a_size_limit_of_choice_and_counts_checks() -> None:
    publisher = MemoryPublisher(max_bytes=1)
    await publisher.publish(MESSAGE, deadline=soon())
    with pytest.raises(MessageTooLarge):
        await publisher.publish(Message(key=b"k", value=b"vv"), deadline=soon())
    publisher.failures.before["check"] = [KafkaUnavailable("away")]
    with pytest.raises(KafkaUnavailable):
        await publisher.check(deadline=soon())
    await publisher.check(deadline=soon())
    assert (publisher.checks, len(publisher.messages), publisher.closed) == (2, 1, False)
    await publisher.close()
    assert publisher.closed


async def test_a_frozen_publisher_answers_nobody_until_it_thaws() -> None:
    publisher = MemoryPublisher()
    publisher.freeze()
    with pytest.raises(KafkaUnavailable, match="in time"):
        await publisher.publish(MESSAGE, deadline=Deadline(0.01))
    waiting = asyncio.create_task(publisher.publish(MESSAGE, deadline=soon()))
    await asyncio.sleep(0)
    assert publisher.messages == []
    publisher.thaw()
    await waiting
    assert publisher.messages == [MESSAGE]


# The predictor.


def test_a_predictor_gives_its_answers_in_turn_and_keeps_what_it_was_asked() -> None:
    predictor = StubPredictor("cat", [0.1, 0.9])
    tensors = np.zeros((3, 2, 5), np.float32)
    assert predictor(tensors) == ["cat", [0.1, 0.9], "cat"]
    assert predictor(tensors[:1]) == [[0.1, 0.9]]
    predictor.answers = ("dog", "tree")
    assert predictor(tensors[:2]) == ["dog", "tree"]
    assert [batch.shape for batch in predictor.batches] == [(3, 2, 5), (1, 2, 5), (2, 2, 5)]


def test_a_predictor_without_answers_says_that_it_needs_some_for_what_is_no_digit() -> None:
    with pytest.raises(ValueError, match=r"stub_predictor\.answers"):
        StubPredictor()(np.zeros((1, 16), np.float32))


def test_a_predictor_fails_as_told() -> None:
    predictor = StubPredictor(3)
    predictor.failures = [TimeoutError()]
    with pytest.raises(TimeoutError):
        predictor(np.zeros((1, 28, 28), np.float32))
    assert predictor(np.zeros((1, 28, 28), np.float32)) == [3]


def test_a_predictor_without_digits_recognises_the_drawn_ones() -> None:
    drawn = np.stack([to_tensor(digit_png(digit)) for digit in (7, 0, 3, 9, 8, 6, 5, 4, 2, 1)])
    assert StubPredictor()(drawn) == [7, 0, 3, 9, 8, 6, 5, 4, 2, 1]


# The harness.


@pytest.mark.parametrize("protocol", ["v1", "v2"])
@pytest.mark.parametrize(
    "answer",
    [np.eye(10, dtype=np.float32)[7], list(np.eye(10, dtype=np.float32)[7]), np.eye(20)[14][::2], np.int64(7)],
    ids=["an array", "a list of numpy's numbers", "an array that is not contiguous", "a number"],
)
def test_a_network_may_answer_in_numpy_s_types(protocol: str, answer: Any) -> None:
    harness = Harness(Digits, lambda batch: [answer] * len(batch), protocol=protocol)
    assert harness.send_object(digit_png(1)).results[0]["data"]["predictions"] == [7]


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_a_network_may_answer_with_a_class_and_scores_beside_it(protocol: str) -> None:
    answer = {"classes": 1, "predictions": [0.0, 0.75, 0.25, *[0.0] * 7]}
    harness = Harness(Digits, StubPredictor(answer), protocol=protocol)
    data = harness.send_object(digit_png(1)).results[0]["data"]
    assert (data["predictions"], data["scores"]) == ([1], [0.75])


def test_a_harness_has_the_buckets_that_setup_makes_and_no_other() -> None:
    harness = Harness(Digits, StubPredictor())
    assert set(harness.store.buckets) == {"mnist", "mnist-rejected", *(f"digit-{digit}" for digit in range(10))}
    assert harness.store.versioned == {"mnist"}
    with pytest.raises(StoreUnavailable, match="there is no bucket 'mnits'"):
        harness.send_object(digit_png(7), bucket="mnits")


def test_a_harness_refuses_a_task_with_which_no_transformer_would_start() -> None:
    class Alike(Digits):
        labels, filed_in = ("Seven", "seven"), "is-{label}"

    with pytest.raises(SettingsError, match="gives no places of their own"):
        Harness(Alike, StubPredictor())
    with pytest.raises(ValueError, match="'V2' is none of v1, v2"):
        Harness(Digits, StubPredictor(), protocol="V2")
    assert Harness(Digits, StubPredictor(), review_below=0.5).settings.review_below == 0.5


def test_what_a_task_files_where_setup_makes_no_bucket_stays_in_its_source() -> None:
    class Elsewhere(Digits):
        def destination(self, prediction: Prediction) -> Destination:
            del prediction
            return Destination("elsewhere")

        def destinations(self) -> list[Destination]:
            return [Destination("somewhere-else")]

    harness = Harness(Elsewhere, StubPredictor())
    assert harness.send_object(digit_png(7), key="7.png").reasons == ("store",)
    assert harness.store.keys("mnist") == ["7.png"]


def test_a_harness_uploads_an_object_as_what_its_key_says() -> None:
    harness = Harness(Digits, StubPredictor(), source_suffixes=("",))
    for key, kind in (("a.png", "image/png"), ("a.csv", "text/csv"), ("a", "application/octet-stream")):
        harness.send_object(digit_png(7), key=key)
        assert harness.store.buckets["digit-7"][key][-1].version.content_type == kind
    harness.send_object(digit_png(7), key="b.png", content_type="image/x")
    assert harness.store.buckets["digit-7"]["b.png"][-1].version.content_type == "image/x"


def test_a_harness_takes_a_store_and_a_publisher_of_the_test_s_own() -> None:
    store, publisher = MemoryStore("mnist", "digit-7"), MemoryPublisher()
    harness = Harness(Digits, StubPredictor(), store=store, publisher=publisher)
    harness.send_object(digit_png(7), key="7.png")
    assert (harness.store, store.keys("digit-7"), len(publisher.messages)) == (store, ["7.png"], 1)


# The images.


@pytest.mark.parametrize("digit", range(10))
def test_a_drawn_digit_is_in_mnists_convention(digit: int) -> None:
    image = pixels(digit_png(digit))
    assert image.shape == (28, 28)
    assert image.dtype == np.uint8
    rows, columns = np.nonzero(image)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
    weights = image[rows, columns]
    centre = np.average(rows, weights=weights), np.average(columns, weights=weights)
    assert centre == pytest.approx((13.5, 13.5), abs=0.05)
    np.testing.assert_array_equal(to_tensor(digit_png(digit)), image.astype(np.float32) / 255)


@pytest.mark.parametrize("digit", range(10))
def test_a_drawn_digit_is_recognised_by_a_real_network(digit: int) -> None:
    probabilities = Network().probabilities(to_tensor(digit_png(digit)).reshape(1, 784))
    assert probabilities.argmax() == digit
    assert probabilities.max() > 0.8


def test_a_digit_is_drawn_the_same_way_each_time() -> None:
    assert digit_png(7) == digit_png(7)
    assert len({digit_png(digit) for digit in range(10)}) == 10


# The events.


def timeless(event: dict[str, Any]) -> dict[str, Any]:
    """The event without what tells when, where and by whom it was made."""
    made = json.loads(json.dumps(event))
    record = made["Records"][0]
    for name in ("eventTime", "responseElements", "source"):
        record[name] = sorted(record[name]) if isinstance(record[name], dict) else None
    record["s3"]["object"]["sequencer"] = None
    return made  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "built"),
    [
        ("put-first", minio_event("mnist", "first.png", size=5, content_type="application/octet-stream")),
        ("put-space", minio_event("mnist", "with space.png", size=5, content_type="application/octet-stream")),
        (
            "put-special",
            minio_event("mnist", "s!*'()~;:@&=$,?#[]\\|\"<>^`{}.png", size=5, content_type="application/octet-stream"),
        ),
        (
            "put-empty",
            minio_event(
                "mnist",
                "empty.png",
                size=0,
                etag="d41d8cd98f00b204e9800998ecf8427e",
                content_type="application/octet-stream",
            ),
        ),
        (
            "versioned-put",
            minio_event(
                "versioned",
                "v.png",
                version_id="73662bd7-fd57-4dac-b44a-30a18fd2ad73",
                size=5,
                content_type="application/octet-stream",
            ),
        ),
        (
            "versioned-delete-marker",
            minio_event(
                "versioned",
                "v.png",
                version_id="6566a404-7b80-4f22-a9ba-2521e8d4e797",
                event_name="s3:ObjectRemoved:DeleteMarkerCreated",
            ),
        ),
    ],
)
def test_a_built_event_is_what_a_real_minio_wrote(name: str, built: dict[str, Any]) -> None:
    real = timeless(json.loads((EVENTS / f"{name}.json").read_text())["value"])
    made = timeless(built)
    # A removal's answer has a length, and some have no body to measure.
    real["Records"][0].pop("responseElements")
    made["Records"][0].pop("responseElements")
    assert made == real


def test_a_built_event_carries_the_trace_id_as_minio_does() -> None:
    real = json.loads((EVENTS / "put-plain-usermeta.json").read_text())["value"]["Records"][0]["s3"]["object"]
    made = minio_event("mnist", "plain.png", trace_id="abc")["Records"][0]["s3"]["object"]
    real["userMetadata"].pop("X-Amz-Meta-Camelcase")
    assert made["userMetadata"] == real["userMetadata"]
