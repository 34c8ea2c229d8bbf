"""What type checkers tell somebody who uses the package: read by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

from mnist_pipeline import (
    AsyncPredictionClient,
    Deadline,
    Destination,
    KafkaUnavailable,
    Message,
    MinioObjectStore,
    ObjectStore,
    Output,
    PipelineError,
    Prediction,
    PredictionClient,
    PredictionRejected,
    PredictionResult,
    Publisher,
    Reject,
    Settings,
    Submission,
    Task,
    Tensor,
    main,
)
from mnist_pipeline.local.stack import Stack
from mnist_pipeline.testing import Harness, MemoryPublisher, MemoryStore, Sent, StubPredictor, digit_png, minio_event


class Photos(Task):
    """One's own task, with all that may be overridden."""

    name, buckets, suffixes = "photos", ("photos",), (".jpg",)
    input = Tensor((3, 64, 64), "float32", name="image", pixels=True)
    labels = ("day", "night")
    review_below = 0.5

    def decode(self, data: bytes) -> NDArray[np.float32]:
        if not data:
            raise Reject("empty", "there is nothing in it")
        return np.asarray(self.open_picture(data, "RGB"), np.float32)

    def interpret(self, outputs: Mapping[str, Output], n: int) -> Sequence[Prediction]:
        assert_type(outputs["scores"].name, str)
        return [Prediction("day", 0.9)] * n

    def destination(self, prediction: Prediction) -> Destination | None:
        assert_type(prediction.score, float | None)
        return Destination("photos-sorted", str(prediction.label))

    def data(self, predictions: Sequence[Prediction], *, inline: bool = False) -> dict[str, Any]:
        return {"labels": [prediction.label for prediction in predictions], "inline": inline}


class Printer:
    """A publisher of one's own."""

    async def publish(self, message: Message, *, deadline: Deadline) -> None:
        assert_type(message.value, bytes)
        if deadline.remaining() < 1:
            raise KafkaUnavailable("too late")

    async def check(self, *, deadline: Deadline) -> None: ...

    async def close(self) -> None: ...


def ports(settings: Settings) -> None:
    publisher: Publisher = Printer()
    fake: Publisher = MemoryPublisher()
    stores: list[ObjectStore] = [MemoryStore("photos")]
    if settings.minio is not None:
        stores.append(MinioObjectStore(settings.minio))
    del publisher, fake


def commands() -> None:
    assert_type(main(Photos), int)
    assert_type(main(Photos(), ["serve", "--predictor_host", "predictor"]), int)


def fakes() -> None:
    harness = Harness(Photos, StubPredictor("day"), protocol="v2", review_below=0.1)
    sent = harness.send_object(digit_png(7), key="a.jpg")
    assert_type(sent, Sent)
    assert_type(sent.results, tuple[dict[str, Any], ...])
    assert_type(sent.error, PipelineError | None)
    assert_type(harness.store, MemoryStore)
    assert_type(harness.store.keys("photos"), list[str])
    assert_type(harness.send(minio_event("photos", "a.jpg")), Sent)


def client() -> None:
    with PredictionClient.from_environ(Photos, url="http://transformer/") as client:
        sent = client.upload(b"", key="a.jpg", trace_id="mine")
        assert_type(sent, Submission)
        assert_type(client.ask(b"", b"", timeout=3), Submission)
        try:
            result = client.result(sent, timeout=10)
        except PredictionRejected as rejected:
            assert_type(rejected.result, PredictionResult)
        else:
            assert_type(result, PredictionResult)
            assert_type(result.time, datetime)
        assert_type(client.results(follow=True), Iterator[PredictionResult])


async def async_client(settings: Settings) -> None:
    async with AsyncPredictionClient(settings) as client:
        assert_type(await client.upload(b"", key="a.jpg"), Submission)
        assert_type(await client.result("mine"), PredictionResult)
        async for result in client.results():
            assert_type(result.scores, Sequence[float])


def fixtures(
    *,
    pipeline_task: Task,
    object_store: MemoryStore,
    publisher: MemoryPublisher,
    stub_predictor: StubPredictor,
    harness: Harness,
    local_stack: Stack,
) -> None:
    """What the pytest plugin gives."""
    assert_type(Settings(task=pipeline_task).source_buckets, tuple[str, ...])
    assert_type(stub_predictor.answers, Sequence[Any])
    assert_type(harness.publisher.messages, list[Message])
    assert_type(local_stack.source_bucket, str)
    del object_store, publisher
