"""The demo's predictor as a process of its own, asked in every form by the pipeline's own predictor formats."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import urllib3
from kserve import InferInput, InferRequest, InferResponse
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelMetadataRequest
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from numpy.typing import NDArray
from PIL import Image

from mnist_pipeline import Digits
from mnist_pipeline.local.processes import Sandbox
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.pipeline.interpretation import Output
from mnist_pipeline.pipeline.predictor_formats import InputSpec, OpenInference, Outputs, Tensorflow, TorchServe, by_name

DIGITS = Digits()
SPEC = InputSpec.of(DIGITS.input)


def told(outputs: Outputs) -> list[Any]:
    """The digits of twenty images."""
    return [prediction.label for prediction in DIGITS.interpret(outputs, 20)]


@dataclass(frozen=True)
class Server:
    """The predictor's two addresses and its log."""

    url: str
    grpc_target: str
    log: Path

    def get(self, path: str) -> Any:
        """What the server tells there, parsed."""
        return urllib3.request("GET", self.url + path, retries=False, timeout=10).json()

    def post(self, path: str, body: object) -> tuple[int, bytes]:
        """Post bytes as they are, anything else as JSON; the status and the body of the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = urllib3.request(
            "POST", self.url + path, body=data, headers={"content-type": "application/json"}, retries=False, timeout=10
        )
        return answer.status, answer.data


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # FastAPI warns once a place about what KServe calls; that is no line a request.
    environment = {"PYTHONWARNINGS": "ignore"}
    with Sandbox() as sandbox:
        server = ModelServer(
            sandbox, "predictor", "mnist_pipeline.local.predictor", model_name="mnist", env=environment
        )
        server.wait_ready()
        yield Server(server.url, server.grpc_address, server.child.log)
        assert server.child.stop(grace_seconds=20) == 0, server.child.log_tail()


@pytest.fixture(scope="module")
def stub(server: Server) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc_target) as channel:
        yield GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def digits() -> list[int]:
    return [int(name[0]) for name in shipped()]


@pytest.fixture(scope="module")
def batch() -> NDArray[np.float32]:
    """The demo's images, shape (20, 28, 28)."""
    return np.stack([np.asarray(image, dtype=np.float32) / np.float32(255) for image in shipped().values()])


def shipped() -> dict[str, Image.Image]:
    folder = resources.files("mnist_pipeline.local").joinpath("digits")
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".png"))
    images = {}
    for name in names:
        with folder.joinpath(name).open("rb") as stream, Image.open(stream) as image:
            images[name] = image.copy()
    return images


def test_tensorflows_form_is_answered_with_classes_and_probabilities(
    server: Server, batch: NDArray[np.float32], digits: list[int]
) -> None:
    status, answer = server.post("/v1/models/mnist:predict", Tensorflow().request(batch, DIGITS.input))
    assert status == 200
    assert told(Tensorflow().outputs(answer, 20)) == digits
    for prediction, digit in zip(json.loads(answer)["predictions"], digits, strict=True):
        assert list(prediction) == ["classes", "predictions"]
        assert prediction["classes"] == digit
        assert len(prediction["predictions"]) == 10
        assert sum(prediction["predictions"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", [(784,), (28, 28), (28, 28, 1)])
def test_an_image_of_v1_may_have_any_of_three_shapes(
    server: Server, batch: NDArray[np.float32], digits: list[int], shape: tuple[int, ...]
) -> None:
    body = {"instances": batch.reshape(20, *shape).tolist()}
    status, answer = server.post("/v1/models/mnist:predict", body)
    assert (status, told(Tensorflow().outputs(answer, 20))) == (200, digits)


def test_torchserves_form_is_answered_with_the_digits(
    server: Server, batch: NDArray[np.float32], digits: list[int]
) -> None:
    status, answer = server.post("/v1/models/mnist:predict", TorchServe().request(batch, DIGITS.input))
    assert (status, json.loads(answer)) == (200, {"predictions": digits})
    assert told(TorchServe().outputs(answer, 20)) == digits


def test_v2_tells_its_metadata_and_answers_a_tensor_made_from_it(
    server: Server, batch: NDArray[np.float32], digits: list[int]
) -> None:
    metadata = server.get("/v2/models/mnist")
    assert [(o["name"], o["datatype"], o["shape"]) for o in metadata["outputs"]] == [
        ("probabilities", "FP32", [-1, 10]),
        ("classes", "INT64", [-1]),
    ]
    spec = InputSpec.from_metadata(metadata, DIGITS.input)
    assert spec == InputSpec(name="input-0", shape=(-1, 784), datatype="FP32")
    status, answer = server.post("/v2/models/mnist/infer", OpenInference().request(batch, spec, DIGITS.input))
    assert status == 200
    assert [(o["name"], o["shape"]) for o in json.loads(answer)["outputs"]] == [
        ("probabilities", [20, 10]),
        ("classes", [20]),
    ]
    assert told(OpenInference().outputs(answer)) == digits


def test_v2_takes_images_as_squares_and_echoes_the_requests_id(
    server: Server, batch: NDArray[np.float32], digits: list[int]
) -> None:
    body = json.loads(OpenInference().request(batch, replace(SPEC, shape=(-1, 28, 28)), DIGITS.input))
    status, answer = server.post("/v2/models/mnist/infer", {"id": "seven", **body})
    assert (status, told(OpenInference().outputs(answer))) == (200, digits)
    assert json.loads(answer)["id"] == "seven"


@pytest.mark.parametrize("raw", [True, False])
def test_grpc_answers_raw_and_typed_contents(
    stub: Any, batch: NDArray[np.float32], digits: list[int], *, raw: bool
) -> None:
    described = stub.ModelMetadata(ModelMetadataRequest(name="mnist"), timeout=10).inputs[0]
    spec = InputSpec(name=described.name, shape=tuple(described.shape), datatype=described.datatype)
    assert spec == SPEC
    tensor = InferInput(spec.name, [20, 784], spec.datatype)
    tensor.set_data_from_numpy(OpenInference().tensor(batch, spec, DIGITS.input), binary_data=raw)
    answer = stub.ModelInfer(InferRequest("mnist", [tensor]).to_grpc(), timeout=10)
    outputs = [
        Output(name=o.name, datatype=o.datatype, shape=tuple(o.shape), data=o.as_numpy())
        for o in InferResponse.from_grpc(answer).outputs
    ]
    assert [output.name for output in outputs] == ["probabilities", "classes"]
    assert told(by_name(outputs)) == digits
    assert told(by_name(outputs[:1])) == digits


BLACK = [0.0] * 784
PNG_WITHOUT_CHUNKS = base64.b64encode(bytes.fromhex("89504e470d0a1a0a")).decode()
TRUNCATED_PNG = base64.b64encode(
    resources.files("mnist_pipeline.local").joinpath("digits").joinpath("2-0001.png").read_bytes()[:200]
).decode()


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        [BLACK],
        {},
        {"inputs": [BLACK]},
        {"instances": BLACK},
        {"instances": []},
        {"instances": {"data": ""}},
        {"instances": "x"},
        {"instances": [[]]},
        {"instances": [BLACK, BLACK[1:]]},
        {"instances": [[BLACK]]},
        {"instances": [["x"] * 784]},
        {"instances": [[None] * 784]},
        {"instances": [[255.0] * 784]},
        {"instances": [[-0.5] * 784]},
        {"instances": [BLACK, {"data": ""}]},
        {"instances": [{}]},
        {"instances": [{"data": ""}]},
        {"instances": [{"data": None}]},
        {"instances": [{"data": 7}]},
        {"instances": [{"data": "!!!"}]},
        {"instances": [{"data": "é"}]},
        {"instances": [{"data": PNG_WITHOUT_CHUNKS}]},
        {"instances": [{"data": TRUNCATED_PNG}]},
    ],
)
def test_bad_v1_input_is_answered_400(server: Server, body: object) -> None:
    status, answer = server.post("/v1/models/mnist:predict", body)
    assert status == 400, answer
    assert json.loads(answer)["error"]


def test_an_image_of_another_size_is_answered_400(server: Server, tmp_path: Path) -> None:
    Image.new("L", (27, 28)).save(tmp_path / "small.png")
    data = base64.b64encode((tmp_path / "small.png").read_bytes()).decode()
    status, answer = server.post("/v1/models/mnist:predict", {"instances": [{"data": data}]})
    assert (status, json.loads(answer)) == (400, {"error": "the image is 28x28, not 27x28"})


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "images"},
        {"datatype": "FP64"},
        {"datatype": "NONSENSE"},
        {"shape": [2, 784]},
        {"shape": [784]},
        {"shape": [1, 1, 784]},
        {"shape": [0, 784], "data": []},
        {"data": BLACK[1:]},
        {"data": ["x"] * 784},
        {"data": [2.0] * 784},
    ],
)
def test_a_bad_v2_tensor_is_answered_400(server: Server, changes: dict[str, object]) -> None:
    tensor = {"name": "input-0", "shape": [1, 784], "datatype": "FP32", "data": BLACK, **changes}
    status, answer = server.post("/v2/models/mnist/infer", {"inputs": [tensor]})
    assert status == 400, answer


@pytest.mark.parametrize("tensors", [0, 2])
def test_another_number_of_v2_inputs_than_one_is_answered_400(server: Server, tensors: int) -> None:
    tensor = {"name": "input-0", "shape": [1, 784], "datatype": "FP32", "data": BLACK}
    status, answer = server.post("/v2/models/mnist/infer", {"inputs": [tensor] * tensors})
    assert status == 400, answer


def test_a_bad_tensor_over_grpc_is_an_invalid_argument(stub: Any) -> None:
    tensor = InferInput("input-0", [1, 783], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 783), np.float32))
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(InferRequest("mnist", [tensor]).to_grpc(), timeout=10)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_request_that_goes_well_leaves_no_line_in_the_log(
    server: Server, stub: Any, batch: NDArray[np.float32]
) -> None:
    before = server.log.read_text()
    for _ in range(3):
        assert server.post("/v1/models/mnist:predict", Tensorflow().request(batch, DIGITS.input))[0] == 200
        assert server.post("/v2/models/mnist/infer", OpenInference().request(batch, SPEC, DIGITS.input))[0] == 200
        stub.ModelMetadata(ModelMetadataRequest(name="mnist"), timeout=10)
    assert server.log.read_text() == before
    assert "Uvicorn running" in before
