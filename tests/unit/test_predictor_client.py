"""predictor_client.py: what is sent to a predictor, and what its answers mean; on real HTTP and gRPC servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
from aiohttp import web
from kserve.predictor_config import PredictorConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from logged import by_us
from mnist_pipeline.adapters.predictor_client import TENSORS_AT_ONCE, PredictorClient
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import PredictorUnavailable, TensorRefused
from mnist_pipeline.pipeline.interpretation import Label, Prediction
from mnist_pipeline.pipeline.predictor_formats import Outputs, format_named
from mnist_pipeline.pipeline.task import Batch, Task

T = TypeVar("T")
Handler = Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]

TWO: Batch = np.zeros((2, 28, 28), np.float32)
DIGITS = Digits()


async def digits(
    client: PredictorClient, tensors: Batch = TWO, headers: dict[str, str] | None = None, *, seconds: float = 5
) -> list[Label]:
    return [one.label for one in await client.predictions(tensors, headers or {}, timeout=seconds)]


class Predictor:
    """An HTTP server that answers what it is told to, and remembers what it was asked."""

    def __init__(self, *answers: tuple[int, bytes], delay: float = 0, task: Task = DIGITS) -> None:
        self.answers = list(answers)
        self.task = task
        self.delay = delay
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.host = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.method, request.path, headers, await request.read()))
        await asyncio.sleep(self.delay)
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, body=body, headers={"location": "/elsewhere"})

    @asynccontextmanager
    async def client(
        self, predictor_format: str = "tensorflow", protocol: str = "v1", **config: Any
    ) -> AsyncIterator[PredictorClient]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server = site._server  # noqa: SLF001 - aiohttp has no other way to a port that was chosen
        assert isinstance(server, asyncio.Server)
        self.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = PredictorClient(
            "mnist",
            PredictorConfig(self.host, protocol, **config),
            format_named(predictor_format),
            self.task,
            connections=4,
        )
        try:
            yield client
        finally:
            await client.close()
            await runner.cleanup()

    def ask(
        self,
        *args: Any,
        images: Batch = TWO,
        headers: dict[str, str] | None = None,
        seconds: float = 5,
        **kw: Any,
    ) -> list[Label]:
        async def go() -> list[Label]:
            async with self.client(*args, **kw) as client:
                return await digits(client, images, headers, seconds=seconds)

        return asyncio.run(go())


def predictions(*digits: int) -> tuple[int, bytes]:
    return 200, json.dumps({"predictions": digits}).encode()


def v2_outputs(*digits: int) -> tuple[int, bytes]:
    output = {"name": "classes", "datatype": "INT64", "shape": [len(digits)], "data": digits}
    return 200, json.dumps({"outputs": [output]}).encode()


METADATA = {"name": "mnist", "inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 28, 28]}], "outputs": []}


def test_a_v1_predictor_is_asked_at_kserve_s_path_in_its_format() -> None:
    predictor = Predictor(predictions(3, 8))
    assert predictor.ask("torchserve") == [3, 8]
    ((method, path, headers, body),) = predictor.asked
    assert (method, path, headers["content-type"]) == ("POST", "/v1/models/mnist:predict", "application/json")
    assert [list(instance) for instance in json.loads(body)["instances"]] == [["data"], ["data"]]


def test_only_headers_that_belong_to_a_trace_or_to_access_are_sent_on() -> None:
    predictor = Predictor(predictions(1, 2))
    forwarded = {"x-request-id": "r", "x-b3-traceid": "b", "authorization": "a", "traceparent": "t", "tracestate": "s"}
    predictor.ask(headers={**forwarded, "host": "other", "cookie": "c", "content-length": "3", "ce-id": "1"})
    sent = predictor.asked[0][2]
    assert {name: sent[name] for name in forwarded} == forwarded
    assert "cookie" not in sent
    assert "ce-id" not in sent
    assert sent["host"] == predictor.host


def test_row_46_no_password_of_a_netrc_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password hidden\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    predictor = Predictor(predictions(1, 2))
    predictor.ask()
    assert "authorization" not in predictor.asked[0][2]


@pytest.mark.parametrize("status", [400, 422])
def test_row_24_a_refused_tensor_is_told_apart(status: int) -> None:
    with pytest.raises(TensorRefused, match=str(status)):
        Predictor((status, b'{"error": "bad input"}')).ask()


def test_metadata_that_is_known_is_not_asked_for_by_requests_at_once() -> None:
    predictor = Predictor((200, json.dumps(METADATA).encode()), v2_outputs(1, 2), delay=0.02)

    async def many() -> None:
        async with predictor.client("openinference", "v2") as client:
            await digits(client)
            await asyncio.gather(*(digits(client) for _ in range(20)))

    asyncio.run(many())
    assert [path for _, path, _, _ in predictor.asked].count("/v2/models/mnist") == 1


@pytest.mark.parametrize(
    ("ready", "error"),
    [(200, TensorRefused), (404, TensorRefused), (400, PredictorUnavailable), (503, PredictorUnavailable)],
)
def test_row_24_a_v2_predictor_s_refusal_counts_only_from_a_model_that_is_ready(
    ready: int, error: type[Exception]
) -> None:
    predictor = Predictor((404, b""), (400, b"no"), (ready, b""))
    with pytest.raises(PredictorUnavailable, match="400") as raised:
        predictor.ask("openinference", "v2")
    assert type(raised.value) is error
    assert [path for _, path, _, _ in predictor.asked] == [
        "/v2/models/mnist",
        "/v2/models/mnist/infer",
        "/v2/models/mnist/ready",
    ]


@pytest.mark.parametrize("status", [301, 303, 401, 403, 404, 408, 413, 429, 500, 501, 502, 503, 504])
def test_row_24_any_other_status_is_worth_a_retry(status: int) -> None:
    with pytest.raises(PredictorUnavailable, match=str(status)) as raised:
        Predictor((status, b"no")).ask()
    assert not isinstance(raised.value, TensorRefused)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>not found</html>",
        b"",
        b"[]",
        b'{"predictions": {"0": 1}}',
        b'{"predictions": [1]}',
        b'{"predictions": [1, 2, 3]}',
        b'{"predictions": [1, 10]}',
        b'{"predictions": [1, NaN]}',
        b'{"predictions": [1, -1]}',
    ],
)
def test_row_25_a_confused_answer_is_worth_a_retry(body: bytes) -> None:
    with pytest.raises(PredictorUnavailable):
        Predictor((200, body)).ask()


def test_row_24_a_predictor_that_refuses_the_connection_is_away() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{bound.getsockname()[1]}"  # bound and not listening

        async def go() -> None:
            client = PredictorClient("mnist", PredictorConfig(host), format_named("tensorflow"), DIGITS, connections=1)
            try:
                await digits(client)
            finally:
                await client.close()

        with pytest.raises(PredictorUnavailable, match=host):
            asyncio.run(go())


def test_row_24_a_slow_predictor_is_given_up_at_the_deadline_or_at_kserve_s_own_timeout() -> None:
    with pytest.raises(PredictorUnavailable, match="in time"):
        Predictor(predictions(1, 2), delay=1).ask(seconds=0.05)
    with pytest.raises(PredictorUnavailable, match="in time"):
        Predictor(predictions(1, 2), delay=2).ask(predictor_request_timeout_seconds=1)


def test_connections_are_kept_and_one_that_broke_is_made_anew() -> None:
    predictor = Predictor(predictions(1, 2))

    async def go() -> list[list[Label]]:
        async with predictor.client() as client:
            first = await digits(client)
            await client.close()
            return [first, await digits(client)]

    assert asyncio.run(go()) == [[1, 2], [1, 2]]


KINDS: dict[str, list[Prediction]] = {}


class Wrong(Digits):
    """A task whose `interpret` does what it is told, whatever the answer."""

    def __init__(self, does: Callable[[], Sequence[Prediction]]) -> None:
        self.does = does

    def interpret(self, outputs: Outputs, n: int) -> Sequence[Prediction]:
        assert (list(outputs), n) == (["predictions"], 2)
        return self.does()


def test_an_interpret_that_fails_in_its_own_way_is_worth_a_retry_and_one_entry_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(PredictorUnavailable, match="KeyError"):
        Predictor(predictions(1, 2), task=Wrong(lambda: KINDS["digit"])).ask()
    (entry,) = by_us(caplog)
    assert entry.getMessage() == "Wrong.interpret raised something else than PredictorUnavailable"
    assert entry.exc_info


def test_an_interpret_that_refuses_is_believed_and_one_that_miscounts_is_not(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> Sequence[Prediction]:
        raise PredictorUnavailable("the wrong model is loaded")

    with pytest.raises(PredictorUnavailable, match="the wrong model"):
        Predictor(predictions(1, 2), task=Wrong(refuse)).ask()
    with pytest.raises(PredictorUnavailable, match="1 predictions for 2 tensors"):
        Predictor(predictions(1, 2), task=Wrong(lambda: [Prediction(1)])).ask()
    assert by_us(caplog) == []


# --- V2 ---


def test_a_v2_predictor_is_asked_for_its_metadata_once_and_then_in_its_shape() -> None:
    predictor = Predictor((200, json.dumps(METADATA).encode()), v2_outputs(4, 5))

    async def go() -> list[list[Label]]:
        async with predictor.client("openinference", "v2") as client:
            return [await digits(client) for _ in range(3)]

    assert asyncio.run(go()) == [[4, 5]] * 3
    assert [(method, path) for method, path, _, _ in predictor.asked] == [
        ("GET", "/v2/models/mnist"),
        *[("POST", "/v2/models/mnist/infer")] * 3,
    ]
    (tensor,) = json.loads(predictor.asked[1][3])["inputs"]
    assert (tensor["name"], tensor["shape"], tensor["datatype"]) == ("images", [2, 28, 28], "FP32")


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_v2_predictor_without_metadata_gets_the_default_input(status: int) -> None:
    predictor = Predictor((status, b""), v2_outputs(4, 5))
    assert predictor.ask("openinference", "v2") == [4, 5]
    (tensor,) = json.loads(predictor.asked[1][3])["inputs"]
    assert (tensor["name"], tensor["shape"]) == ("input-0", [2, 784])


@pytest.mark.parametrize("answer", [(503, b""), (200, b"<html>"), (200, b'{"inputs": [{"name": 1}]}')])
def test_metadata_that_cannot_be_had_now_is_worth_a_retry_and_not_remembered(answer: tuple[int, bytes]) -> None:
    predictor = Predictor(answer, (200, json.dumps(METADATA).encode()), v2_outputs(4, 5))

    async def go() -> list[Label]:
        async with predictor.client("openinference", "v2") as client:
            with pytest.raises(PredictorUnavailable):
                await digits(client)
            return await digits(client)

    assert asyncio.run(go()) == [4, 5]


def test_metadata_that_has_not_worked_yet_is_asked_for_again() -> None:
    metadata = json.dumps(METADATA).encode()
    predictor = Predictor((404, b"loading"), (500, b"no such input"), (200, metadata), v2_outputs(4, 5))

    async def go() -> list[Label]:
        async with predictor.client("openinference", "v2") as client:
            with pytest.raises(PredictorUnavailable):
                await digits(client)
            return await digits(client)

    assert asyncio.run(go()) == [4, 5]


@pytest.mark.parametrize(
    ("predictor_format", "protocol", "path"),
    [("tensorflow", "v1", "/v1/models/mnist"), ("openinference", "v2", "/v2/models/mnist/ready")],
)
def test_readiness_is_the_predictor_s_own_word_and_is_not_asked_at_every_turn(
    predictor_format: str, protocol: str, path: str
) -> None:
    predictor = Predictor((200, b"{}"), (503, b""))

    async def go() -> list[bool]:
        async with predictor.client(predictor_format, protocol) as client:
            seen = [await client.ready(), await client.ready()]
            await asyncio.sleep(2.1)
            return [*seen, await client.ready()]

    assert asyncio.run(go()) == [True, True, False]
    assert [asked[:2] for asked in predictor.asked] == [("GET", path)] * 2


def test_a_model_for_one_image_at_a_time_gets_one_at_a_time() -> None:
    fixed = {**METADATA, "inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 784]}]}
    predictor = Predictor((200, json.dumps(fixed).encode()), v2_outputs(4), v2_outputs(5))
    assert predictor.ask("openinference", "v2") == [4, 5]
    assert [json.loads(body)["inputs"][0]["shape"] for *_, body in predictor.asked[1:]] == [[1, 784]] * 2


def test_many_images_go_out_in_several_requests() -> None:
    images = np.zeros((2 * TENSORS_AT_ONCE + 1, 28, 28), np.float32)
    predictor = Predictor(predictions(*[1] * TENSORS_AT_ONCE), predictions(*[2] * TENSORS_AT_ONCE), predictions(3))
    assert predictor.ask(images=images) == [1] * TENSORS_AT_ONCE + [2] * TENSORS_AT_ONCE + [3]
    assert [len(json.loads(body)["instances"]) for *_, body in predictor.asked] == [TENSORS_AT_ONCE, TENSORS_AT_ONCE, 1]


# --- gRPC ---


class Servicer(GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated code has no types
    """A gRPC predictor: answers with these digits, or with this status."""

    def __init__(
        self,
        *digits: int,
        status: grpc.StatusCode | None = None,
        metadata: bool = True,
        ready: bool | grpc.StatusCode = grpc.StatusCode.UNIMPLEMENTED,
    ) -> None:
        self.digits = digits
        self.status = status
        self.metadata = metadata
        self.ready = ready
        self.asked: list[Any] = []
        self.sent: dict[str, str] = {}

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        if not self.metadata:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no metadata")
        reply = pb.ModelMetadataResponse(name=request.name)
        reply.inputs.add(name="images", datatype="FP32", shape=[-1, 784])
        return reply

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        del request
        if isinstance(self.ready, grpc.StatusCode):
            await context.abort(self.ready, "does not tell")
        return pb.ModelReadyResponse(ready=self.ready)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.asked.append(request)
        self.sent = dict(context.invocation_metadata())
        if self.status:
            await context.abort(self.status, "says no")
        reply = pb.ModelInferResponse(model_name="mnist")
        output = reply.outputs.add(name="classes", datatype="INT64", shape=[len(self.digits)])
        output.contents.int64_contents.extend(self.digits)
        return reply


def ask_grpc(servicer: Servicer, headers: dict[str, str] | None = None) -> list[Label]:
    async def go() -> list[Label]:
        server = grpc.aio.server()
        add_GRPCInferenceServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        config = PredictorConfig(f"127.0.0.1:{port}", "grpc-v2")
        client = PredictorClient("mnist", config, format_named("openinference"), DIGITS, connections=4)
        try:
            return await digits(client, headers=headers)
        finally:
            await client.close()
            await server.stop(None)

    return asyncio.run(go())


@pytest.mark.parametrize(("metadata", "name"), [(True, "images"), (False, "input-0")])
def test_a_grpc_predictor_is_asked_in_its_shape_with_the_trace_s_headers(metadata: bool, name: str) -> None:
    servicer = Servicer(6, 7, metadata=metadata)
    assert ask_grpc(servicer, {"traceparent": "t", "cookie": "c", "tracestate": "é=1"}) == [6, 7]
    tensor = servicer.asked[0].inputs[0]
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == (name, "FP32", [2, 784])
    assert servicer.sent["traceparent"] == "t"
    assert "cookie" not in servicer.sent


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, TensorRefused),
        (grpc.StatusCode.UNAVAILABLE, PredictorUnavailable),
        (grpc.StatusCode.NOT_FOUND, PredictorUnavailable),
        (grpc.StatusCode.INTERNAL, PredictorUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, PredictorUnavailable),
    ],
)
def test_row_24_a_grpc_status_means_what_its_http_sibling_means(
    status: grpc.StatusCode, error: type[Exception]
) -> None:
    with pytest.raises(error, match=status.name) as raised:
        ask_grpc(Servicer(status=status))
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("ready", "error"),
    [
        (True, TensorRefused),
        (False, PredictorUnavailable),
        (grpc.StatusCode.UNIMPLEMENTED, TensorRefused),
        (grpc.StatusCode.UNAVAILABLE, PredictorUnavailable),
    ],
)
def test_row_24_a_refusal_over_grpc_counts_only_from_a_model_that_is_ready(
    ready: bool | grpc.StatusCode, error: type[Exception]
) -> None:
    with pytest.raises(PredictorUnavailable) as raised:
        ask_grpc(Servicer(status=grpc.StatusCode.INVALID_ARGUMENT, ready=ready))
    assert type(raised.value) is error


def test_row_25_a_grpc_answer_that_is_confused_is_worth_a_retry() -> None:
    for digits in ((), (1,), (1, 10), (1, 2, 3)):
        with pytest.raises(PredictorUnavailable):
            ask_grpc(Servicer(*digits))


def test_row_24_a_grpc_predictor_that_was_away_for_long_is_asked_again_soon_after_its_return() -> None:
    async def go() -> float:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        client = PredictorClient(
            "mnist",
            PredictorConfig(f"127.0.0.1:{port}", "grpc-v2"),
            format_named("openinference"),
            DIGITS,
            connections=4,
        )
        # By itself gRPC pauses for 1, 1.6, 2.6 and 4.1 seconds, and so on.
        gone_until = time.monotonic() + 9
        while time.monotonic() < gone_until:
            with pytest.raises(PredictorUnavailable):
                await digits(client)
            await asyncio.sleep(0.2)
        server = grpc.aio.server()
        add_GRPCInferenceServiceServicer_to_server(Servicer(4, 5), server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        returned = time.monotonic()
        try:
            while True:
                with contextlib.suppress(PredictorUnavailable):
                    assert await digits(client) == [4, 5]
                    return time.monotonic() - returned
                await asyncio.sleep(0.1)
        finally:
            await client.close()
            await server.stop(None)

    assert asyncio.run(go()) < 3
