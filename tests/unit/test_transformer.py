"""transformer.py: the model on the public fakes, called as KServe calls it; no server, no predictor."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
import pickle
import random
import re
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException
from kserve import InferInput, InferRequest, ModelRepository
from kserve.model import InferenceVerb
from kserve.predictor_config import PredictorConfig
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest
from PIL import Image
from prometheus_client import REGISTRY
from starlette.exceptions import HTTPException

from digits import digits_settings
from mnist_pipeline import Digits, MnistTransformer, Pipeline
from mnist_pipeline.pipeline.errors import (
    KafkaUnavailable,
    Permanent,
    PipelineError,
    PredictorUnavailable,
    Retryable,
    StoreUnavailable,
    TensorRefused,
)
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.serving.grpc_servicer import PipelineServicer
from mnist_pipeline.telemetry.metrics import Metrics
from mnist_pipeline.testing import Call, MemoryPublisher, MemoryStore, StubPredictor, digit_png, minio_event

T = TypeVar("T")

EXAMPLE = {"test-trace-id": "16ec3446-48d6-422e-9926-8224853e84a7", "instances": [{"data": ""}]}
BINARY = {"ce-specversion": "1.0", "ce-id": "7", "ce-source": "event-producer", "ce-type": "prediction-request"}


class Transformer(MnistTransformer):
    """The transformer with a stub in the predictor's place: as a test of another transformer would have it."""

    def __init__(self, pipeline: Pipeline, predictor: StubPredictor) -> None:
        super().__init__("mnist", pipeline, PredictorConfig("nowhere"))
        self.stub = predictor

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> list[int]:
        del headers, response_headers
        # As a real predictor does: others get their turn meanwhile, and answers come in another order.
        await asyncio.sleep(0.002 * (len(self.stub.batches) % 5))
        return self.stub(payload) if len(payload) else []


def counted(outcome: str, reason: str = "") -> float:
    labels = {"model_name": "mnist", "outcome": outcome, "reason": reason}
    return REGISTRY.get_sample_value("mnist_pipeline_events_total", labels) or 0.0


class Served:
    """A transformer with its fakes."""

    def __init__(self, *, kafka: bool = True, **settings: Any) -> None:
        self.store = MemoryStore(versioned={"mnist"}, create_buckets=True)
        self.publisher = MemoryPublisher()
        self.predictor = StubPredictor()
        pipeline = Pipeline(
            digits_settings(trace_key="test-trace-id", **settings),
            self.store,
            self.publisher if kafka else None,
            observer=Metrics("mnist"),
        )
        self.model = Transformer(pipeline, self.predictor)

    def event(self, key: str, data: bytes) -> dict[str, Any]:
        version = self.store.upload("mnist", key, data)
        return minio_event("mnist", key, version_id=version.version_id)

    def hold_at(self, method: str) -> tuple[asyncio.Event, asyncio.Event]:
        """Hold the store's calls of this method: the first event says that one is held, the second lets it go."""
        held, release = asyncio.Event(), asyncio.Event()

        async def hold(call: Call) -> None:
            if call.method == method:
                held.set()
                await asyncio.wait_for(release.wait(), 10)

        self.store.on_call = hold
        return held, release

    async def ask(self, payload: Any, headers: dict[str, str] | None = None) -> tuple[Any, dict[str, str]]:
        body = payload if isinstance(payload, bytes | InferRequest) else json.dumps(payload).encode()
        return await self.model(body, headers or {})

    @property
    def results(self) -> list[dict[str, Any]]:
        return [json.loads(message.value) for message in self.publisher.messages]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def image(data: bytes) -> dict[str, str]:
    import base64  # noqa: PLC0415 - nowhere else needed

    return {"data": base64.b64encode(data).decode()}


def refused(coroutine: Coroutine[Any, Any, Any]) -> HTTPException:
    with pytest.raises(HTTPException) as raised:
        run(coroutine)
    return raised.value


def test_a_notification_is_filed_published_and_answered_with_an_empty_body() -> None:
    served = Served()
    assert run(served.ask(served.event("7.png", digit_png(7)), BINARY)) == (b"", {})
    assert served.store.keys("digit-7") == ["7.png"]
    assert served.results[0]["data"]["predictions"] == [7]


def test_a_plain_notification_is_answered_with_an_empty_body_too() -> None:
    served = Served()
    assert run(served.ask(served.event("7.png", digit_png(7)))) == (b"", {})


def test_a_plain_inline_request_is_answered_with_its_predictions_and_published() -> None:
    served = Served()
    request = {**EXAMPLE, "instances": [image(digit_png(2)), image(digit_png(9))]}
    assert run(served.ask(request)) == ({"predictions": [2, 9]}, {})
    assert served.results[0]["data"] == {"predictions": [2, 9]}
    assert served.results[0]["test-trace-id"] == EXAMPLE["test-trace-id"]


def test_an_inline_cloudevent_is_answered_with_an_empty_body_and_published() -> None:
    served = Served()
    assert run(served.ask({**EXAMPLE, "instances": [image(digit_png(2))]}, BINARY)) == (b"", {})
    assert len(served.results) == 1


def test_without_kafka_an_inline_cloudevent_is_answered_with_its_result_event() -> None:
    served = Served(kafka=False)
    headers = {**BINARY, "host": "h"}
    body, reply_headers = run(served.ask({**EXAMPLE, "instances": [image(digit_png(2))]}, headers))
    assert json.loads(body) == {"predictions": [2]}
    assert reply_headers["ce-type"] == "io.kserve.mnist.prediction"
    assert reply_headers["ce-testtraceid"] == EXAMPLE["test-trace-id"]
    assert reply_headers["ce-requesthost"] == "h"


@pytest.mark.parametrize("body", [b"", json.dumps({"Event": "s3:TestEvent"}).encode()])
def test_nothing_to_do_is_success(body: bytes) -> None:
    served = Served()
    assert run(served.ask(body, BINARY)) == (b"", {})
    assert served.store.calls == []


@pytest.mark.parametrize(
    ("payload", "status", "reason"),
    [
        (b"{", 400, "malformedbody"),
        (b"[1]", 400, "malformedbody"),
        ({"Records": None}, 422, "badevent"),
        (minio_event("other", "x.png"), 422, "notallowed"),
        (minio_event("mnist", "x.txt"), 422, "notallowed"),
        (minio_event("mnist", "../x.png"), 422, "badkey"),
        ({**EXAMPLE, "test-trace-id": ["x"]}, 422, "badtraceid"),
        ({**EXAMPLE, "instances": [[1, 2]]}, 422, "badtensor"),
        ({**EXAMPLE, "instances": [image(b"no image")]}, 422, "badimage"),
    ],
)
def test_what_is_permanent_is_a_4xx_with_its_reason_in_one_word(payload: Any, status: int, reason: str) -> None:
    served = Served()
    error = refused(served.ask(payload))
    assert (error.status_code, error.headers) == (status, {"kne-reason": reason})
    assert error.detail
    assert served.store.calls == []


@pytest.mark.parametrize("headers", [{}, BINARY])
@pytest.mark.parametrize("value", [["x"], {"x": 1}, True, "x" * 1_000_000, "a\r\nb"])
def test_row_11_a_bad_trace_id_is_a_422_and_neither_store_nor_kafka_is_touched(
    value: object, headers: dict[str, str]
) -> None:
    served = Served()
    event = served.event("7.png", digit_png(7))
    for payload in (event, {"instances": [image(digit_png(7))]}):
        error = refused(served.ask({**payload, "test-trace-id": value}, headers))
        assert (error.status_code, error.headers) == (422, {"kne-reason": "badtraceid"})
        assert len(error.detail) < 200
    assert served.store.calls == []
    assert served.publisher.messages == []


def test_row_37_every_reason_is_one_word_that_knative_can_make_an_attribute_of() -> None:
    kinds: list[type[PipelineError]] = [PipelineError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert len(kinds) > 15
    assert [kind for kind in kinds if not re.fullmatch("[a-z]{1,20}", kind.reason)] == []
    # Those that Knative's dispatcher sends again; every other 4xx is final to it.
    again = {404, 408, 409, 429, *range(500, 600)}
    for kind in kinds:
        if issubclass(kind, Permanent):
            assert kind.status in set(range(400, 500)) - again
        elif issubclass(kind, Retryable):
            assert kind.status in (429, 503, 504)


def test_a_rejected_object_is_a_422() -> None:
    served = Served()
    error = refused(served.ask(served.event("x.png", b"no image")))
    assert (error.status_code, error.headers) == (422, {"kne-reason": "badimage"})
    assert served.store.keys("mnist-rejected") == ["x.png"]


@pytest.mark.parametrize(
    ("error", "status"), [(PredictorUnavailable("away"), 503), (TensorRefused("400 to our tensor"), 503)]
)
def test_a_predictor_that_fails_on_our_tensor_is_retryable_and_the_source_stays(error: Exception, status: int) -> None:
    served = Served()
    served.predictor.failures = [error]
    assert refused(served.ask(served.event("7.png", digit_png(7)))).status_code == status
    assert served.store.keys("mnist") == ["7.png"]
    assert served.results == []


def test_a_predictor_that_refuses_an_inline_tensor_makes_it_rejected_but_not_an_image() -> None:
    served = Served()
    served.predictor.failures = [TensorRefused("400") for _ in range(4)]
    assert refused(served.ask({**EXAMPLE, "instances": [[0.0] * 784]})).status_code == 422
    assert served.results[0]["type"].endswith(".rejected")
    in_base64 = image(digit_png(1))["data"]
    for one in ({"data": in_base64}, {"b64": in_base64}, {"image": {"b64": in_base64}}):
        assert refused(served.ask({**EXAMPLE, "instances": [one]})).status_code == 503
    assert len(served.results) == 1


def test_store_and_kafka_away_are_503() -> None:
    served = Served()
    event = served.event("7.png", digit_png(7))
    served.store.failures.before["get"] = [StoreUnavailable("away")]
    assert refused(served.ask(event)).status_code == 503
    served.publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    assert refused(served.ask(event)).headers == {"kne-reason": "kafka"}
    assert run(served.ask(event)) == (b"", {})


def test_a_bug_is_a_500_that_shows_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    served = Served()
    served.predictor.failures = [RuntimeError("secret detail")]
    with caplog.at_level(logging.ERROR):
        error = refused(served.ask({**EXAMPLE, "instances": [image(digit_png(1))]}))
    assert error.status_code == 500
    assert "secret" not in error.detail
    assert "secret detail" in caplog.text


def test_many_records_are_predicted_eight_at_a_time_and_each_is_settled() -> None:
    served = Served()
    events = [served.event(f"{n}.png", digit_png(n % 10)) for n in range(20)]
    assert run(served.ask({"Records": [event["Records"][0] for event in events]})) == (b"", {})
    assert [len(batch) for batch in served.predictor.batches] == [8, 8, 4]
    assert served.store.keys("mnist") == []
    assert len(served.results) == 20


def test_row_04_one_record_that_is_refused_does_not_keep_the_others_from_being_filed() -> None:
    served = Served()
    good = served.event("1.png", digit_png(1))["Records"][0]
    error = refused(served.ask({"Records": [minio_event("other", "x.png")["Records"][0], good]}))
    assert (error.status_code, error.headers) == (422, {"kne-reason": "notallowed"})
    assert served.store.keys("digit-1") == ["1.png"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize(("fetched", "again"), [(True, 200), (False, 422)])
def test_row_04_a_good_a_retryable_and_a_bad_record_are_503_and_after_a_redelivery_nothing_is_left(
    order: tuple[int, ...], fetched: bool, again: int
) -> None:
    """A bad record that was fetched is gone the second time; one that never is stays what it is."""
    served = Served()
    good = served.event("1.png", digit_png(1))["Records"][0]
    retryable = served.event("2.png", digit_png(2))["Records"][0]
    bad = (served.event("bad.png", b"no image") if fetched else minio_event("mnist", "../x.png"))["Records"][0]
    records = [(good, retryable, bad)[place] for place in order]

    def away(call: Call) -> None:
        if call.key == "2.png":
            raise StoreUnavailable("away")

    served.store.on_call = away
    error = refused(served.ask({"Records": records}))
    assert (error.status_code, error.headers) == (503, {"kne-reason": "store"})
    assert served.store.keys("mnist") == ["2.png"]
    assert served.store.keys("digit-1") == ["1.png"]
    assert served.store.keys("mnist-rejected") == (["bad.png"] if fetched else [])

    served.store.on_call = None
    if again == 200:
        assert run(served.ask({"Records": records})) == (b"", {})
    else:
        assert refused(served.ask({"Records": records})).status_code == again
    assert served.store.keys("mnist") == []
    assert served.store.keys("digit-2") == ["2.png"]
    assert sorted(event["subject"] for event in served.results) == sorted(
        ["mnist/1.png", "mnist/2.png", *(["mnist/bad.png"] if fetched else [])]
    )


@pytest.mark.parametrize(
    "name",
    [
        "s3:ObjectRemoved:Delete",
        "s3:ObjectRemoved:DeleteMarkerCreated",
        "s3:ObjectRemoved:NoOP",
        "s3:ObjectAccessed:Get",
        "s3:ObjectAccessed:Head",
        "s3:ObjectCreated:PutTagging",
        "s3:ObjectCreated:DeleteTagging",
        "s3:ObjectCreated:PutRetention",
        "s3:ObjectAccessed:GetRetention",
        "s3:ObjectCreated:PutLegalHold",
        "s3:ObjectAccessed:GetLegalHold",
        "s3:Replication:OperationCompletedReplication",
    ],
)
def test_row_05_what_creates_no_object_is_success_without_a_call_to_store_kafka_or_predictor(name: str) -> None:
    served = Served()
    served.store.upload("mnist", "7.png", digit_png(7))
    assert run(served.ask(minio_event("mnist", "7.png", event_name=name), BINARY)) == (b"", {})
    assert served.store.calls == []
    assert served.publisher.messages == []
    assert served.predictor.batches == []


def test_row_29_two_hundred_events_at_once_do_not_see_each_other() -> None:
    served = Served(max_in_flight=32)
    events = {n: served.event(f"{n}.png", digit_png(n % 10)) for n in range(200)}
    shuffled = list(events.items())
    random.Random(29).shuffle(shuffled)  # noqa: S311 - the same order each time

    async def all_of_them() -> None:
        await asyncio.gather(*(served.ask({**event, "test-trace-id": str(n)}) for n, event in shuffled))

    run(all_of_them())
    for digit in range(10):
        assert served.store.keys(f"digit-{digit}") == sorted(f"{n}.png" for n in range(200) if n % 10 == digit)
    by_trace = {event["test-trace-id"]: event for event in served.results}
    assert len(by_trace) == len(served.results) == 200
    assert all(event["subject"] == f"mnist/{n}.png" for n, event in by_trace.items())


def test_a_request_that_finds_no_slot_within_a_quarter_of_its_deadline_is_told_to_come_again() -> None:
    served = Served(max_in_flight=1, event_timeout_seconds=4)
    event = served.event("7.png", digit_png(7))
    held, release = served.hold_at("get")

    async def both() -> tuple[Any, float]:
        first = asyncio.create_task(served.ask(event))
        await asyncio.wait_for(held.wait(), 10)
        started = time.monotonic()
        with pytest.raises(HTTPException) as raised:
            await served.ask({**EXAMPLE, "instances": [image(digit_png(1))]})
        waited = time.monotonic() - started
        release.set()
        await asyncio.gather(first, return_exceptions=True)
        return raised.value, waited

    error, waited = run(both())
    assert (error.status_code, error.headers) == (429, {"kne-reason": "busy"})
    assert 0.9 < waited < 3


def test_of_an_event_whose_time_is_over_no_more_objects_are_begun_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    served = Served(event_timeout_seconds=0.5)
    records = [served.event(f"{n}.png", digit_png(1))["Records"][0] for n in range(100)]
    served.store.on_call = lambda call: asyncio.sleep(0.2 if call.method == "get" else 0)
    assert refused(served.ask({"Records": records})).status_code == 504
    assert sum(call.method == "get" for call in served.store.calls) < 50
    assert caplog.text.count("objects of one event are not begun") == 1
    served.store.on_call = None
    served.model.pipeline.settings = replace(served.model.pipeline.settings, event_timeout_seconds=60)
    assert run(served.ask({"Records": records})) == (b"", {})
    assert served.store.keys("digit-1") == sorted(f"{n}.png" for n in range(100))


class Slow(Digits):
    """Takes its time for each image."""

    def decode(self, data: bytes) -> Any:
        time.sleep(0.3)
        return super().decode(data)


def test_the_event_loop_stays_free_while_a_large_image_is_decoded() -> None:
    served = Served(task=Slow())
    large = io.BytesIO()
    Image.open(io.BytesIO(digit_png(7))).resize((280, 280)).save(large, "PNG")
    event = served.event("7.png", large.getvalue())

    async def ticks() -> int:
        request = asyncio.create_task(served.ask(event))
        count = 0
        while not request.done():
            await asyncio.sleep(0.005)
            count += 1
        return count

    assert run(ticks()) > 10


# --- hooks that are overridden ---


class Forgetful(Transformer):
    """Its postprocess neither calls its super's nor gives what KServe may want."""

    async def postprocess(self, result: Any, headers: Any = None, response_headers: Any = None) -> Any:
        del result, headers, response_headers
        return []


class Guessing(Transformer):
    """Its preprocess does not call its super's."""

    async def preprocess(self, payload: Any, headers: Any = None) -> Any:
        del payload, headers
        return np.zeros((1, 28, 28), np.float32)


class Silent(Transformer):
    """Its postprocess gives nothing, though all is done."""

    async def postprocess(self, result: Any, headers: Any = None, response_headers: Any = None) -> Any:
        await super().postprocess(result, headers, response_headers)


class Hiding(Transformer):
    """Its postprocess leaves out what failed."""

    async def postprocess(self, result: Any, headers: Any = None, response_headers: Any = None) -> Any:
        outcomes: Any = await super().postprocess(result, headers, response_headers)
        return [outcome for outcome in outcomes if outcome.error is None]


class Objecting(Transformer):
    """Its postprocess fails once all is done."""

    async def postprocess(self, result: Any, headers: Any = None, response_headers: Any = None) -> Any:
        await super().postprocess(result, headers, response_headers)
        raise Retryable("a side effect failed")


def served_by(model: type[Transformer]) -> Served:
    served = Served()
    served.model = model(served.model.pipeline, served.predictor)
    return served


@pytest.mark.parametrize("model", [Forgetful, Guessing])
def test_nothing_is_acknowledged_that_a_hook_has_left_undone(model: type[Transformer]) -> None:
    served = served_by(model)
    event = served.event("7.png", digit_png(7))
    error = refused(served.ask(event))
    assert (error.status_code, served.store.keys("mnist"), served.results) == (503, ["7.png"], [])
    inline = {**EXAMPLE, "instances": [image(digit_png(7))]}
    if model is Forgetful:
        assert refused(served.ask(inline)).status_code == 503


def test_what_a_hook_leaves_out_of_its_answer_is_answered_all_the_same() -> None:
    served = served_by(Hiding)
    event = served.event("7.png", digit_png(7))
    served.publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    assert refused(served.ask(event)).headers == {"kne-reason": "kafka"}
    assert served.store.keys("mnist") == ["7.png"]


def test_a_hook_that_forgets_its_answer_has_done_its_work() -> None:
    served = served_by(Silent)
    assert run(served.ask(served.event("7.png", digit_png(7)))) == (b"", {})
    answer, _ = run(served.ask({**EXAMPLE, "instances": [image(digit_png(7))]}))
    assert answer == {"predictions": [7]}


def test_what_fails_in_a_hook_once_all_is_settled_is_the_answer() -> None:
    served = served_by(Objecting)
    assert refused(served.ask(served.event("7.png", digit_png(7)))).status_code == 503
    assert served.store.keys("digit-7") == ["7.png"]


def test_a_predict_that_is_no_coroutine_serves_the_commands_too() -> None:
    class Plain(MnistTransformer):
        def predict(self, payload: Any, headers: Any, response_headers: Any) -> Any:  # type: ignore[override]
            del headers, response_headers
            return [4] * len(payload)

    model = Plain("mnist", Served().model.pipeline, PredictorConfig("nowhere"))
    assert run(model.classify(np.zeros((2, 28, 28), np.float32), Deadline(5))) == [4, 4]


# --- V2 ---


def test_a_v2_request_is_answered_whatever_a_task_says_in_its_results() -> None:
    class Wordy(Digits):
        def data(self, predictions: Any, *, inline: bool = False) -> dict[str, Any]:
            del inline
            return {"class": f"class {predictions[0].label}"}

    served = Served(task=Wordy())
    tensor = InferInput("x", [1], "BYTES", data=[image(digit_png(4))["data"]])
    response, _ = run(served.ask(v2(tensor)))
    assert response.outputs[0].data == [4]
    assert served.results[0]["data"] == {"class": "class 4"}


def test_raw_bytes_of_a_picture_are_the_picture_whatever_its_format() -> None:
    seen: list[bytes] = []

    class AnyFormat(Digits):
        def decode(self, data: bytes) -> Any:
            seen.append(data)
            return np.zeros((28, 28), np.float32)

    webp = b"RIFF\x1a\x00\x00\x00WEBPVP8L"
    run(Served(task=AnyFormat()).ask(v2(InferInput("x", [1], "BYTES", data=[webp]))))
    assert seen == [webp]


def v2(tensor: InferInput, *, grpc: bool = False, **more: Any) -> InferRequest:
    return InferRequest("mnist", [tensor], request_id="r-1", from_grpc=grpc, **more)


def tensor_of(*digits: int, shape: tuple[int, ...] = (784,)) -> InferInput:
    array = np.stack([Digits().decode(digit_png(digit)).reshape(shape) for digit in digits])
    tensor = InferInput("anything", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array, binary_data=False)
    return tensor


@pytest.mark.parametrize("shape", [(784,), (28, 28)])
def test_a_v2_tensor_is_answered_with_one_int64_output(shape: tuple[int, ...]) -> None:
    served = Served()
    response, _ = run(served.ask(v2(tensor_of(3, 8, shape=shape)), {"test-trace-id": "h"}))
    rest, _ = response.to_rest()
    assert rest["id"] == "r-1"
    (output,) = rest["outputs"]
    assert (output["name"], output["datatype"], output["shape"], output["data"]) == (
        "predictions",
        "INT64",
        [2],
        [3, 8],
    )
    assert served.results[0]["data"] == {"predictions": [3, 8]}
    assert served.results[0]["test-trace-id"] == "h"


def test_a_v2_request_that_is_a_cloudevent_is_answered_as_one_and_keeps_its_identity() -> None:
    served = Served()
    for _ in range(2):
        assert run(served.ask(v2(tensor_of(3)), BINARY)) == (b"", {})
    assert [event["data"] for event in served.results] == [{"predictions": [3]}] * 2
    assert len({event["id"] for event in served.results}) == 1
    assert served.results[0]["test-trace-id"] == BINARY["ce-id"]
    bare = Served(kafka=False)
    reply, headers = run(bare.ask(v2(tensor_of(3)), BINARY))
    assert json.loads(reply) == {"predictions": [3]}
    assert headers["ce-type"] == "io.kserve.mnist.prediction"
    # gRPC has no such binding.
    response, _ = run(served.ask(v2(tensor_of(3), grpc=True), BINARY))
    assert response.outputs[0].data == [3]


def test_refused_v2_requests_of_one_trace_id_that_differ_have_results_of_different_ids() -> None:
    served = Served()
    for shape in ([1, 10], [1, 20], [1, 20]):
        refused(
            served.ask(v2(InferInput("x", shape, "FP32", data=[0.0] * shape[1]), parameters={"test-trace-id": "t"}))
        )
    first, second, again = (event["id"] for event in served.results)
    assert first != second == again


def test_v2_bytes_are_base64_images() -> None:
    served = Served()
    tensor = InferInput("x", [2], "BYTES", data=[image(digit_png(4))["data"], image(digit_png(5))["data"]])
    response, _ = run(served.ask(v2(tensor, parameters={"test-trace-id": "p"})))
    assert response.outputs[0].data == [4, 5]
    assert served.results[0]["test-trace-id"] == "p"


@pytest.mark.parametrize(
    "tensor",
    [
        InferInput("x", [1, 783], "FP32", data=[0.0] * 783),
        InferInput("x", [784], "FP32", data=[0.0] * 784),
        InferInput("x", [1, 784], "FP64", data=[0.0] * 784),
        InferInput("x", [1, 784], "FP32", data=[0.0] * 3),
        InferInput("x", [0, 784], "FP32", data=[]),
        InferInput("x", [1], "BYTES", data=["???"]),
        InferInput("x", [1], "BYTES", data=["é"]),
        InferInput("x", [1], "BYTES", data=[5]),
        InferInput("x", [1], "BYTES", data=[None]),
        InferInput("x", [0], "BYTES", data=[]),
        InferInput("x", [1], "BYTES", data=[b"GIF89a\xff"]),
        InferInput("x", [], "FP32", data=[0.0]),
        InferInput("x", [1], "INT64", data=[1]),
    ],
)
def test_a_v2_input_that_is_no_digit_is_refused_and_who_waits_for_it_is_told(tensor: InferInput) -> None:
    served = Served()
    error = refused(served.ask(v2(tensor, parameters={"test-trace-id": "p"})))
    assert error.status_code == 422
    assert [(event["type"], event["test-trace-id"]) for event in served.results] == [
        ("io.kserve.mnist.prediction.rejected", "p")
    ]


def test_grpc_gets_grpc_s_own_statuses() -> None:
    served = Served()
    with pytest.raises(GrpcException) as bad:
        run(served.ask(v2(InferInput("x", [1, 3], "FP32", data=[0.0] * 3), grpc=True)))
    assert bad.value.status_code == StatusCode.INVALID_ARGUMENT
    served.publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    with pytest.raises(GrpcException) as away:
        run(served.ask(v2(tensor_of(1), grpc=True)))
    assert (away.value.status_code, away.value.details) == (StatusCode.UNAVAILABLE, "away")


class GrpcCall:
    """A call of gRPC."""

    def __init__(self) -> None:
        self.trailing: tuple[tuple[str, str], ...] = ()

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self.trailing = metadata


@pytest.mark.parametrize(
    "request_", [ModelInferRequest(model_name="other"), ModelInferRequest(model_name="mnist", model_version="2")]
)
def test_what_grpc_refuses_before_it_comes_to_the_model_is_counted_too(request_: ModelInferRequest) -> None:
    models = ModelRepository()
    models.update(Served().model)
    call, before = GrpcCall(), counted("refused", "unknownpath")
    with pytest.raises(GrpcException):
        run(PipelineServicer(DataPlane(models), None).ModelInfer(request_, call))
    assert call.trailing == (("kne-reason", "unknownpath"),)
    assert counted("refused", "unknownpath") == before + 1


# --- around ---


def test_explaining_is_not_implemented() -> None:
    with pytest.raises(NotImplementedError):
        run(Served().model(b"{}", {}, InferenceVerb.EXPLAIN))


def test_ready_is_once_the_store_and_kafka_have_answered_and_stays_so(caplog: pytest.LogCaptureFixture) -> None:
    served = Served()
    served.publisher.failures.before["check"] = [KafkaUnavailable("KAFKA_BOOTSTRAP_SERVERS: nobody is there")]

    async def looks() -> list[bool]:
        seen = [await served.model.healthy(), await served.model.healthy()]
        await asyncio.sleep(1.1)
        seen.append(await served.model.healthy())
        served.publisher.failures.before["check"] = [KafkaUnavailable("away")]
        served.store.failures.before["check"] = [StoreUnavailable("away")]
        await asyncio.sleep(1.1)
        return [*seen, await served.model.healthy()]

    with caplog.at_level(logging.INFO):
        assert run(looks()) == [False, False, True, True]
    assert caplog.text.count("not ready: KAFKA_BOOTSTRAP_SERVERS") == 1
    assert served.publisher.checks == 2


def test_without_a_store_readiness_asks_kafka_only() -> None:
    served = Served()
    served.model.pipeline = Pipeline(digits_settings(), None, served.publisher)
    assert run(served.model.healthy())
    assert served.store.calls == []


def test_closing_closes_the_ports_and_the_next_request_works_again() -> None:
    served = Served()

    async def close_and_ask() -> tuple[Any, Any]:
        await served.ask({**EXAMPLE, "instances": [image(digit_png(1))]})
        await served.model.close_clients()
        assert served.publisher.closed
        return await served.ask({**EXAMPLE, "instances": [image(digit_png(2))]})

    assert run(close_and_ask()) == ({"predictions": [2]}, {})


def test_closing_waits_for_what_is_in_hand() -> None:
    served = Served(event_timeout_seconds=4)
    event = served.event("7.png", digit_png(7))
    held, release = served.hold_at("get")

    async def close_meanwhile() -> Any:
        request = asyncio.create_task(served.ask(event))
        await asyncio.wait_for(held.wait(), 10)
        closing = asyncio.create_task(served.model.close_clients())
        await asyncio.sleep(0.05)
        assert not closing.done()
        # What comes over gRPC meanwhile finds no clients that nobody would close.
        with pytest.raises(HTTPException) as raised:
            await served.ask({**EXAMPLE, "instances": [image(digit_png(1))]})
        assert raised.value.status_code == 429
        release.set()
        answer = await request
        await closing
        return answer

    assert run(close_meanwhile()) == (b"", {})
    assert served.publisher.closed


def test_each_outcome_is_counted_once() -> None:
    served = Served()
    kinds = (
        ("filed",),
        ("rejected", "badimage"),
        ("predicted",),
        ("refused", "malformedbody"),
        ("ignored",),
        ("ignored", "empty"),
    )
    before = [counted(*kind) for kind in kinds]
    good, bad = served.event("1.png", digit_png(1)), served.event("2.png", b"no image")
    removed = minio_event("mnist", "3.png", event_name="s3:ObjectRemoved:Delete")
    refused(served.ask({"Records": [event["Records"][0] for event in (good, bad, removed)]}))
    run(served.ask({**EXAMPLE, "instances": [image(digit_png(1))]}))
    refused(served.ask(b"{"))
    run(served.ask(b""))
    assert [counted(*kind) - was for kind, was in zip(kinds, before, strict=True)] == [1.0] * 6


def test_a_model_that_has_served_can_be_pickled_into_a_worker() -> None:
    model = MnistTransformer("mnist", Pipeline(digits_settings(), None, None), PredictorConfig("nowhere", "v2"))
    assert run(model.healthy())
    copied: MnistTransformer = pickle.loads(pickle.dumps(model))
    assert copied.predictor.predictor_protocol == "v2"
    assert run(copied.healthy())
