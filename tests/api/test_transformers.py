"""The three transformers on the public fakes: by object and inline, V1 and V2, with a score in the result."""

from __future__ import annotations

import asyncio
import base64
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest
from kserve import InferInput, InferRequest, InferResponse
from kserve.predictor_config import PredictorConfig
from PIL import Image

from fashion import Fashion
from mnist_pipeline import ObjectTransformer, Reject, Task
from mnist_pipeline.serving import inference_v2
from mnist_pipeline.serving.inference_v2 import RestRequest
from mnist_pipeline.testing import Harness, StubPredictor
from readings import Readings
from thumbnails import Thumbnails


def picture(kind: str, grey: int) -> bytes:
    """A picture of one grey all over, 90 by 70."""
    stream = io.BytesIO()
    Image.new("RGB", (90, 70), (grey, grey, grey)).save(stream, kind)
    return stream.getvalue()


@dataclass(frozen=True)
class Case:
    """One transformer with an object of its own, what its network answers to it, and what is then known."""

    task: type[Task]
    data: bytes
    answer: Any
    label: str
    score: float
    filed: str
    mean: float


CASES = [
    Case(Fashion, picture("PNG", 51), [0.0] * 7 + [0.75, 0.25, 0.0], "Sneaker", 0.75, "fashion-sneaker/1.png", 0.2),
    Case(Thumbnails, picture("JPEG", 51), [0.0, 0.0, 1.0, 0.0, 0.0], "car", 1.0, "photos-car/1.jpg", 0.2),
    # Logits are softmaxed.
    Case(Thumbnails, picture("JPEG", 51), [-1, -1, -1, 9, -1], "boat", 0.999818, "photos-boat/1.jpg", 0.2),
    Case(Readings, b",".join([b"0.5"] * 16), 0.9, "anomaly", 0.9, "sorted/anomaly/1.csv", 0.5),
    Case(Readings, b",".join([b"0.5"] * 16), 0.2, "normal", 0.8, "sorted/normal/1.csv", 0.5),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.task.name}-{case.label}")
protocols = pytest.mark.parametrize("protocol", ["v1", "v2"])


def harness_of(case: Case, protocol: str, **settings: Any) -> Harness:
    return Harness(case.task, lambda batch: [case.answer] * len(batch), protocol=protocol, **settings)


@cases
@protocols
def test_an_object_is_filed_by_its_label_and_its_result_has_the_score(case: Case, protocol: str) -> None:
    harness = harness_of(case, protocol)
    sent = harness.send_object(case.data)
    (result,) = sent.results
    bucket, _, key = case.filed.partition("/")
    assert (sent.reasons, sent.error) == (("filed",), None)
    assert result["type"] == f"io.kserve.{case.task.name}.prediction"
    assert result["data"]["predictions"] == [case.label]
    assert result["data"]["scores"] == pytest.approx([case.score], abs=1e-6)
    assert result["data"]["destination"] == case.filed
    assert harness.store.data(bucket, key) == case.data
    assert harness.store.keys(harness.settings.source_buckets[0]) == []
    assert harness.asked[0].shape == (1, *case.task.input.shape)
    assert harness.asked[0].mean() == pytest.approx(case.mean, abs=0.01)


@cases
@protocols
def test_what_is_none_of_its_objects_is_rejected_with_the_task_s_own_word(case: Case, protocol: str) -> None:
    harness = harness_of(case, protocol)
    sent = harness.send_object(b"something else")
    (result,) = sent.results
    assert sent.reasons[0].startswith("bad")
    assert result["type"].endswith(".rejected")
    assert result["data"]["reason"] == sent.reasons[0]
    assert harness.store.keys(f"{case.task.name}-rejected") == [case.filed.rpartition("/")[2]]
    assert harness.asked == []


@pytest.mark.parametrize("task", [Fashion, Thumbnails])
def test_a_picture_with_too_many_pixels_is_rejected_before_they_are_decoded(task: type[Task]) -> None:
    bomb = bytearray(picture("PNG", 0))
    bomb[16:24] = (20_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with pytest.raises(Reject, match="20000x20000, more than 16,000,000 pixels"):
        task().decode(bytes(bomb))
    harness = Harness(task, StubPredictor(0), max_image_pixels=90 * 70 - 1)
    assert harness.send_object(picture("PNG", 0)).reasons == ("badimage",)


@pytest.mark.parametrize("number", [b"nan", b"-inf"])
def test_readings_that_are_not_finite_are_rejected(number: bytes) -> None:
    with pytest.raises(Reject):
        Readings().decode(b",".join([number] * 16))


@cases
@protocols
def test_a_low_score_is_filed_for_people_to_look_at(case: Case, protocol: str) -> None:
    harness = harness_of(case, protocol, review_below=case.score + 1e-3)
    (result,) = harness.send_object(case.data).results
    assert (result["data"]["review"], result["data"]["predictions"]) == (True, [case.label])
    assert harness.store.keys(f"{case.task.name}-review") == [case.filed.rpartition("/")[2]]
    # Where it lies now it is not taken again.
    assert harness.send_object(case.data, bucket=f"{case.task.name}-review").reasons == ("ignored",)


@cases
@protocols
def test_inline_it_is_answered_with_its_label_as_an_image_and_as_a_tensor(case: Case, protocol: str) -> None:
    harness = harness_of(case, protocol)
    encoded = {"data": base64.b64encode(case.data).decode()}
    tensor = np.full(case.task.input.shape, case.mean).tolist()
    sent = harness.send({"trace-id": "t-1", "instances": [encoded, tensor]})
    assert sent.answer == {"predictions": [case.label] * 2}
    assert [result["trace-id"] for result in sent.results] == ["t-1"]
    assert harness.asked[0].shape == (2, *case.task.input.shape)
    assert harness.send({"trace-id": "t-1", "instances": [[1.0, 2.0]]}).reasons == ("badtensor",)


class Served(ObjectTransformer):
    """The model that KServe serves, its predictor a constant."""

    answer: Any

    async def predict(self, payload: Any, *_args: Any, **_more: Any) -> Sequence[str]:
        return [self.answer] * len(payload)


def ask_v2(case: Case, tensor: dict[str, Any]) -> dict[str, Any]:
    served = Served(case.task.name, harness_of(case, "v1").pipeline, PredictorConfig("nowhere"))
    served.answer = case.label
    request = RestRequest(orjson.dumps({"inputs": [{"name": "anything", **tensor}]}))
    answer, _ = asyncio.run(served.handle(request, {}))
    outputs: dict[str, Any] = answer["outputs"][0]
    return outputs


@cases
def test_over_v2_it_takes_its_own_tensors_and_objects_and_answers_with_texts(case: Case) -> None:
    shape = [2, *case.task.input.shape]
    numbers = {"shape": shape, "datatype": case.task.input.v2_datatype, "data": [case.mean] * int(np.prod(shape))}
    texts = {"shape": [2], "datatype": "BYTES", "data": [base64.b64encode(case.data).decode()] * 2}
    for tensor in (numbers, texts):
        output = ask_v2(case, tensor)
        assert (output["name"], output["datatype"], output["shape"]) == ("predictions", "BYTES", [2])
        assert output["data"] == [case.label] * 2


@cases
def test_its_v2_metadata_are_those_of_its_tensor_and_labels(case: Case) -> None:
    served = Served(case.task.name, harness_of(case, "v1").pipeline, PredictorConfig("nowhere"))
    (given,) = served.get_input_types()
    assert given["shape"] == [-1, *case.task.input.shape]
    assert (given["name"], given["datatype"]) == (case.task.input.name, case.task.input.v2_datatype)
    assert served.get_output_types() == [{"name": "predictions", "datatype": "BYTES", "shape": [-1]}]


@cases
def test_over_grpc_texts_are_answered_raw(case: Case) -> None:
    served = Served(case.task.name, harness_of(case, "v1").pipeline, PredictorConfig("nowhere"))
    served.answer = case.label
    tensor = InferInput("anything", [1, *case.task.input.shape], case.task.input.v2_datatype)
    tensor.set_data_from_numpy(np.full((1, *case.task.input.shape), case.mean, case.task.input.datatype))
    message = InferRequest(case.task.name, [tensor]).to_grpc()
    reply, _ = asyncio.run(served.handle(inference_v2.of_grpc(message), {}))
    (output,) = InferResponse.from_grpc(reply.to_grpc()).outputs
    assert [text.decode() for text in output.as_numpy()] == [case.label]
