"""`mnist-pipeline setup` of other tasks than digits, and what it sends to a store; on one in memory."""

from __future__ import annotations

import asyncio
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from digits import digits_settings
from fashion import Fashion
from mnist_pipeline import Destination, Digits, ObjectTransformer, Prediction, Settings, Task
from mnist_pipeline.adapters.kafka_topics import Topics
from mnist_pipeline.adapters.refusals import Away
from mnist_pipeline.commands import setup
from mnist_pipeline.pipeline.errors import PredictorUnavailable
from mnist_pipeline.pipeline.settings import Kafka
from mnist_pipeline.site.buckets import notified_suffixes
from thumbnails import Thumbnails
from unit.memory_s3 import MemoryS3, memory_s3, set_up_on

FASHION_BUCKETS = [
    *("fashion", "fashion-t-shirt-top", "fashion-trouser", "fashion-pullover", "fashion-dress", "fashion-coat"),
    *("fashion-sandal", "fashion-shirt", "fashion-sneaker", "fashion-bag", "fashion-ankle-boot", "fashion-rejected"),
]


@pytest.fixture
def store() -> Iterator[MemoryS3]:
    with memory_s3() as server:
        yield server


# --- buckets ---


def test_labels_with_spaces_and_slashes_get_buckets_and_so_does_what_is_doubtful(store: MemoryS3) -> None:
    code, lines = set_up_on(store, task=Fashion, REVIEW_BELOW="0.5")
    assert code == 0
    made = [line.removeprefix("made: bucket ") for line in lines if line.startswith("made: bucket ")]
    assert made == list(store.configs) == [*FASHION_BUCKETS, "fashion-review"]
    code, lines = set_up_on(store, "--check", task=Fashion, REVIEW_BELOW="0.5")
    assert code == 0
    for bucket in ("fashion-rejected", "fashion-review"):
        assert f"there: If-None-Match in bucket {bucket}" in lines


def test_no_bucket_is_made_for_what_is_doubtful_where_nothing_is(store: MemoryS3) -> None:
    set_up_on(store, task=Fashion)
    assert list(store.configs) == FASHION_BUCKETS


def test_a_review_bucket_that_is_missing_is_a_problem(store: MemoryS3) -> None:
    set_up_on(store, task=Fashion)
    code, lines = set_up_on(store, "--check", task=Fashion, REVIEW_BELOW="0.5", REVIEW_BUCKET="for-people")
    problems = [line for line in lines if line.startswith("problem")]
    assert (code, problems) == (1, ["problem: bucket for-people: is not there; mnist-pipeline setup mends it"])


def test_a_task_s_own_destinations_are_made(store: MemoryS3) -> None:
    class Sorted(Thumbnails):
        def destination(self, prediction: Prediction) -> Destination:
            return Destination("animals" if prediction.label in ("cat", "dog") else "things")

    set_up_on(store, task=Sorted)
    assert list(store.configs) == ["photos", "animals", "things", "photos-rejected", "photos-review"]


# --- suffixes ---


def suffixes_in(config: bytes) -> list[str | None]:
    return [found.text for found in ET.fromstring(config).iterfind("{*}QueueConfiguration/{*}Filter//{*}Value")]  # noqa: S314 - our own


def test_a_task_that_takes_suffixes_of_any_case_is_notified_of_small_and_of_capital_ones(store: MemoryS3) -> None:
    assert set_up_on(store, task=Thumbnails)[0] == 0
    assert suffixes_in(store.configs["photos"]["notification"]) == [".jpg", ".JPG", ".jpeg", ".JPEG"]
    code, lines = set_up_on(store, task=Thumbnails)
    assert (code, "there: notification of bucket photos" in lines) == (0, True)


def test_digits_are_notified_of_the_suffixes_as_they_stand(store: MemoryS3) -> None:
    set_up_on(store, SOURCE_SUFFIXES=".png,.Jpg")
    assert suffixes_in(store.configs["mnist"]["notification"]) == [".png", ".Jpg"]


@pytest.mark.parametrize(
    ("given", "notified"), [((".Tif",), (".Tif", ".tif", ".TIF")), (("_1",), ("_1",)), ((".a", ".A"), (".a", ".A"))]
)
def test_what_is_notified_is_what_is_taken_and_nothing_twice(given: tuple[str, ...], notified: tuple[str, ...]) -> None:
    settings = Settings(task=Thumbnails(), source_suffixes=given)
    assert notified_suffixes(settings) == notified
    assert all(settings.is_wanted("a" + suffix) for suffix in notified)
    assert notified_suffixes(digits_settings(source_suffixes=given)) == given


# --- topics ---


def test_the_topic_of_the_notifications_is_named_as_the_task_is(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": "b", "KAFKA_BOOTSTRAP_SERVERS": "k"}
    assert setup.main([], {**environ, "KAFKA_TOPIC": "fashion"}, task=Fashion) == 2
    assert capsys.readouterr().err.startswith("KAFKA_TOPIC is fashion, which is --topic: ")


@pytest.mark.usefixtures("collected_sockets")
async def test_connecting_to_a_kafka_that_says_nothing_is_given_up_where_it_is_cut_short(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_pipeline.adapters.kafka_topics._SECONDS", 30.0)
    connecting = asyncio.create_task(Topics.connect(Kafka(bootstrap_servers=silent, topic="t")))
    await asyncio.sleep(0.3)
    started = time.monotonic()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await asyncio.get_running_loop().shutdown_default_executor()  # which waits for the thread
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("collected_sockets")
async def test_the_event_loop_goes_on_while_kafka_is_waited_for(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_pipeline.adapters.kafka_topics._SECONDS", 0.5)
    connecting = asyncio.create_task(Topics.connect(Kafka(bootstrap_servers=silent, topic="t")))
    turns = 0
    while not connecting.done():
        await asyncio.sleep(0.01)
        turns += 1
    with pytest.raises(Away, match="KAFKA_BOOTSTRAP_SERVERS"):
        await connecting
    assert turns > 10


# --- the predictor ---


class Guessing(ObjectTransformer):
    """Answers what it is told, and remembers what it was asked."""

    answers: ClassVar[list[Prediction | str | int]]
    asked: ClassVar[list[Any]]

    async def predict(self, payload: Any, *_: Any) -> list[Prediction | str | int]:
        self.asked.append(payload)
        return self.answers


@pytest.mark.parametrize(
    ("task", "answer", "says"),
    [
        (Digits, 3, "a blank image is a 3"),
        (Digits, Prediction(1, 0.4), "a blank image is a 1"),
        (Fashion, Prediction("Bag", 0.9), "zeros are a Bag"),
        (Thumbnails, "cat", "zeros are a cat"),
    ],
)
def test_the_predictor_is_asked_about_one_tensor_of_the_task_by_way_of_its_model(
    store: MemoryS3, task: type[Task], answer: Prediction | str | int, says: str
) -> None:
    set_up_on(store, task=task)
    Guessing.answers, Guessing.asked = [answer], []
    code, lines = set_up_on(store, "--check", "--predictor_host", "p:1", task=task, model=Guessing)
    assert (code, lines[-1]) == (0, f"there: predictor p:1 ({says})")
    (tensor,) = Guessing.asked
    assert (tensor.shape, tensor.dtype, tensor.any()) == ((1, *task.input.shape), task.input.datatype, False)


def test_a_model_that_cannot_tell_is_a_problem(store: MemoryS3) -> None:
    class Confused(ObjectTransformer):
        async def predict(self, *_: Any) -> Any:
            raise PredictorUnavailable("it mumbles")

    set_up_on(store, task=Fashion)
    code, lines = set_up_on(store, "--check", "--predictor_host", "p:1", task=Fashion, model=Confused)
    assert code == 1
    assert lines[-1].startswith("problem: predictor p:1: it mumbles; check --predictor_host, ")


# --- what is sent to make a bucket ---


def test_a_bucket_is_made_in_the_region_that_is_set_and_the_default_one_is_not_named(store: MemoryS3) -> None:
    set_up_on(store)
    assert set(store.locations.values()) == {b""}
    store.configs.clear()
    assert set_up_on(store, MINIO_REGION="eu-central-1")[0] == 0
    root = ET.fromstring(store.locations["mnist"])  # noqa: S314 - our own
    assert root.tag == "{http://s3.amazonaws.com/doc/2006-03-01/}CreateBucketConfiguration"
    assert root.findtext("{*}LocationConstraint") == "eu-central-1"


def test_a_bucket_that_somebody_of_ours_makes_at_the_same_moment_will_do(store: MemoryS3) -> None:
    store.taken = {"mnist-rejected": "BucketAlreadyOwnedByYou"}
    code, lines = set_up_on(store)
    assert (code, lines[-2]) == (0, "made: bucket mnist-rejected")


def test_a_bucket_s_name_that_somebody_else_has_is_not_ours(store: MemoryS3) -> None:
    store.taken = {"mnist-rejected": "BucketAlreadyExists"}
    code, lines = set_up_on(store)
    assert (code, lines[-2]) == (1, "not done: bucket mnist-rejected: the store answered 'BucketAlreadyExists'")
