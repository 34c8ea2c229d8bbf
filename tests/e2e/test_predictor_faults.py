"""Rows 24, 25 and 45: a transformer whose predictor refuses, fails, hangs, or answers in its own way or nonsense."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
import pytest
from kserve import InferOutput, InferResponse
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from numpy.typing import NDArray

from e2e.following import Answer, post, wait_until
from e2e.places import REJECTED_BUCKET, Place, Upload
from e2e.ways import ConsumeProcess, Way, deliver
from mnist_pipeline.local.processes import Part, answers_ok
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.testing import digit_png
from servers.proxy import Proxy

DEADLINE_SECONDS = 3
DIGIT = 7
JSON = {"content-type": "application/json"}
SEVEN = {"name": "classes", "datatype": "INT64", "shape": [1], "data": [DIGIT]}


class HttpPredictor(Part):
    """Answers V1 and V2 over REST: to whatever tensor as `answer` says, a status and a body; with sevens if it is
    None.
    """

    def __init__(self) -> None:
        predictor = self
        self.answer: tuple[int, bytes] | None = None

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                # Of V2: the model is ready, and has no metadata.
                self._reply(200 if self.path.endswith("/ready") else 404, b"{}")

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self._reply(*predictor.answer_to(asked))

            def _reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the overridden name
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def answer_to(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        return self.answer or (200, json.dumps(sevens(asked)).encode())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def sevens(asked: dict[str, Any]) -> dict[str, Any]:
    if "instances" in asked:
        return {"predictions": [DIGIT] * len(asked["instances"])}
    n = asked["inputs"][0]["shape"][0]
    return {"outputs": [{**SEVEN, "shape": [n], "data": [DIGIT] * n}]}


class GrpcPredictor(GRPCInferenceServiceServicer, Part):  # type: ignore[misc]  # generated code has no types
    """Answers V2 over gRPC: with this output, or with that status; with sevens if `answer` is None."""

    def __init__(self) -> None:
        self.answer: grpc.StatusCode | InferOutput | None = None
        self._server = grpc.server(ThreadPoolExecutor(8))
        add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        del request, context
        return pb.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        del request
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "no metadata")

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        if isinstance(self.answer, grpc.StatusCode):
            context.abort(self.answer, "says no")
        n = request.inputs[0].shape[0]
        output = self.answer or infer_output(np.full(n, DIGIT))
        return InferResponse("1", "mnist", [output]).to_grpc()

    def close(self) -> None:
        self._server.stop(None).wait()


def infer_output(data: NDArray[Any], datatype: str = "INT64") -> InferOutput:
    output = InferOutput("classes", list(data.shape), datatype)
    output.set_data_from_numpy(data, binary_data=True)
    return output


@dataclass(kw_only=True)
class Asking:
    """A transformer that asks a predictor over one protocol, and the proxy between them."""

    server: ModelServer
    predictor: HttpPredictor | GrpcPredictor
    proxy: Proxy

    def heal(self) -> None:
        self.predictor.answer = None
        self.proxy.heal()


@pytest.fixture(scope="module")
def started_asking(embedded_place: Place) -> Iterator[dict[str, Asking]]:
    """One for each protocol, started together."""
    with (
        HttpPredictor() as http,
        GrpcPredictor() as grpc_v2,
        Proxy(http.port) as v1_proxy,
        Proxy(http.port) as v2_proxy,
        Proxy(grpc_v2.port) as grpc_proxy,
    ):
        parts: dict[str, tuple[HttpPredictor | GrpcPredictor, Proxy]] = {
            "v1": (http, v1_proxy),
            "v2": (http, v2_proxy),
            "grpc-v2": (grpc_v2, grpc_proxy),
        }
        asking = {
            protocol: Asking(
                server=embedded_place.start(
                    settings={"EVENT_TIMEOUT_SECONDS": str(DEADLINE_SECONDS)},
                    args=("--predictor_protocol", protocol),
                    predictor_host=f"127.0.0.1:{proxy.port}",
                ),
                predictor=predictor,
                proxy=proxy,
            )
            for protocol, (predictor, proxy) in parts.items()
        }
        for one in asking.values():
            one.server.wait_ready()
        yield asking
        for one in asking.values():
            one.heal()
            one.server.close()


@pytest.fixture
def all_asking(started_asking: dict[str, Asking]) -> dict[str, Asking]:
    for asking in started_asking.values():
        asking.heal()
    return started_asking


@pytest.fixture(scope="module")
def consuming(embedded_place: Place) -> Iterator[Asking]:
    """One that is asked by Kafka, and asks over V1."""
    with HttpPredictor() as predictor, Proxy(predictor.port) as proxy:
        server = embedded_place.start(
            settings={"EVENT_TIMEOUT_SECONDS": str(DEADLINE_SECONDS)},
            predictor_host=f"127.0.0.1:{proxy.port}",
            way="kafka",
        )
        asking = Asking(server=server, predictor=predictor, proxy=proxy)
        server.wait_ready()
        yield asking
        asking.heal()
        server.close()


@pytest.fixture
def v1(request: pytest.FixtureRequest, way: Way) -> Asking:
    """By both ways in."""
    asking: Asking = (
        request.getfixturevalue("consuming") if way == "kafka" else request.getfixturevalue("all_asking")["v1"]
    )
    asking.heal()
    return asking


@pytest.fixture
def serving(all_asking: dict[str, Asking]) -> Asking:
    return all_asking["v1"]


def new_key() -> str:
    return f"{uuid.uuid4()}.png"


def ask(asking: Asking, event: dict[str, Any]) -> Answer:
    return deliver(asking.server, event, {"ce-id": "1"})


def deliver_until_done(asking: Asking, event: dict[str, Any]) -> None:
    """As a source does: a busy machine may pass the short deadline, and a gRPC channel that was refused waits for a
    second or two before it connects again.
    """
    wait_until(lambda: ask(asking, event).status == 200)


def ids_of(place: Place, upload: Upload) -> set[str]:
    return {event["id"] for event in place.results(upload)}


def stays_and_is_filed_once_the_predictor_is_well(place: Place, asking: Asking, says: str) -> None:
    """One object: refused now, with one line of the log that says so; filed and published once when it comes again."""
    upload = place.upload(new_key(), digit_png(DIGIT))
    started = time.monotonic()
    answer = ask(asking, upload.event)
    assert time.monotonic() - started < DEADLINE_SECONDS + 2
    assert (answer.status, answer.headers["kne-reason"]) == (503, "predictor")
    lines = [line for line in asking.server.child.log.read_text().splitlines() if upload.key in line]
    # A record is tried again by itself.
    assert len(lines) == 1 or isinstance(asking.server, ConsumeProcess)
    assert all(" ERROR " in line and says in line for line in lines)
    assert place.is_left(upload)
    assert place.copies(upload) == {}
    assert place.results(upload) == []

    asking.heal()
    deliver_until_done(asking, upload.event)
    assert not place.is_left(upload)
    assert place.copies(upload) == {f"digit-{DIGIT}/{upload.key}": upload.data}
    assert len(ids_of(place, upload)) == 1
    assert all(result["data"]["predictions"] == [DIGIT] for result in place.results(upload))


# --- what a predictor refuses, and one that is away ---


@pytest.mark.parametrize("status", [400, 422, 404, 429, 500, 503])
def test_row_24_a_predictor_that_refuses_the_tensor_of_an_object_leaves_it_in_the_source(
    embedded_place: Place, v1: Asking, status: int
) -> None:
    v1.predictor.answer = status, b'{"error": "not today"}'
    stays_and_is_filed_once_the_predictor_is_well(embedded_place, v1, f"the predictor answers {status}")


@pytest.mark.parametrize("status", [400, 404, 500])
def test_row_24_a_v2_predictor_s_refusal_leaves_the_object_in_the_source(
    embedded_place: Place, all_asking: dict[str, Asking], status: int
) -> None:
    v2 = all_asking["v2"]
    v2.predictor.answer = status, b'{"error": "not today"}'
    stays_and_is_filed_once_the_predictor_is_well(embedded_place, v2, f"the predictor answers {status}")


@pytest.mark.parametrize(
    "status", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE]
)
def test_row_24_a_grpc_predictor_s_refusal_leaves_the_object_in_the_source(
    embedded_place: Place, all_asking: dict[str, Asking], status: grpc.StatusCode
) -> None:
    grpc_v2 = all_asking["grpc-v2"]
    grpc_v2.predictor.answer = status
    stays_and_is_filed_once_the_predictor_is_well(embedded_place, grpc_v2, f"the predictor answers {status.name}")


@pytest.mark.parametrize(("protocol", "says"), [("v1", "is away"), ("v2", "is away"), ("grpc-v2", "UNAVAILABLE")])
def test_row_24_a_predictor_that_refuses_the_connection_leaves_the_object_in_the_source(
    embedded_place: Place, all_asking: dict[str, Asking], protocol: str, says: str
) -> None:
    asking = all_asking[protocol]
    asking.proxy.cut()
    stays_and_is_filed_once_the_predictor_is_well(embedded_place, asking, says)


@pytest.mark.parametrize("protocol", ["v1", "grpc-v2"])
def test_row_24_a_predictor_that_hangs_leaves_the_object_in_the_source_within_the_deadline(
    embedded_place: Place, all_asking: dict[str, Asking], protocol: str
) -> None:
    asking = all_asking[protocol]
    asking.proxy.freeze()
    stays_and_is_filed_once_the_predictor_is_well(embedded_place, asking, "the predictor did not answer in time")


def test_row_24_while_the_predictor_hangs_the_transformer_answers_others_at_once(
    embedded_place: Place, serving: Asking
) -> None:
    serving.proxy.freeze()
    upload = embedded_place.upload(new_key(), digit_png(DIGIT))
    looks = 0
    with ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(ask, serving, upload.event)
        while not wait([hanging], timeout=0.2).done:
            assert answers_ok(serving.server.http_port, "/v2/health/live", timeout_seconds=3)
            # A tombstone.
            assert post(serving.server.predict_url, b"").status == 200
            looks += 1
        assert hanging.result().status == 503
    assert looks > 0


def test_row_24_a_predictor_that_hangs_leaves_time_to_reject_what_is_no_image(
    embedded_place: Place, v1: Asking
) -> None:
    place = embedded_place
    image, text = place.upload(new_key(), digit_png(DIGIT)), place.upload(new_key(), b"no image")
    event = {"Records": image.event["Records"] + text.event["Records"]}
    v1.proxy.freeze()
    assert ask(v1, event).status == 503
    assert place.copies(text) == {f"{REJECTED_BUCKET}/{text.key}": b"no image"}
    assert [place.is_left(one) for one in (image, text)] == [True, False]
    v1.heal()
    deliver_until_done(v1, event)
    assert place.copies(image) == {f"digit-{DIGIT}/{image.key}": image.data}
    assert [len(ids_of(place, one)) for one in (image, text)] == [1, 1]


@dataclass(frozen=True)
class Inline:
    """An inline request under a trace id of its own."""

    instance: Any

    def ask(self, place: Place, asking: Asking) -> tuple[Answer, list[dict[str, Any]]]:
        """Its answer, and the events that were published about it."""
        trace_id = str(uuid.uuid4())
        request = {"instances": [self.instance], "test-trace-id": trace_id}
        answer = post(asking.server.predict_url, request, JSON)
        return answer, [event for event in place.all_results() if event.get("test-trace-id") == trace_id]


TENSOR = Inline([0.0] * 784)
IMAGE = Inline({"data": base64.b64encode(digit_png(DIGIT)).decode()})


def test_row_24_an_inline_tensor_that_the_predictor_refuses_is_rejected_and_announced_once(
    embedded_place: Place, all_asking: dict[str, Asking]
) -> None:
    all_asking["v1"].predictor.answer = 400, b'{"error": "not today"}'
    all_asking["grpc-v2"].predictor.answer = grpc.StatusCode.INVALID_ARGUMENT
    for asking in all_asking.values():
        answer, (event,) = TENSOR.ask(embedded_place, asking)
        assert (answer.status, answer.headers["kne-reason"]) == (422, "badtensor")
        assert event["type"].endswith(".rejected")
        assert event["data"]["reason"] == "badtensor"


def test_row_24_an_inline_image_that_the_predictor_refuses_is_not_the_image_s_fault(
    embedded_place: Place, all_asking: dict[str, Asking]
) -> None:
    all_asking["v1"].predictor.answer = 400, b'{"error": "not today"}'
    all_asking["grpc-v2"].predictor.answer = grpc.StatusCode.INVALID_ARGUMENT
    for asking in all_asking.values():
        answer, events = IMAGE.ask(embedded_place, asking)
        assert (answer.status, answer.headers["kne-reason"], events) == (503, "predictor", [])
    for asking in all_asking.values():
        asking.heal()
        answer, events = IMAGE.ask(embedded_place, asking)
        assert (answer.status, len(events)) == (200, 1)


# --- what a predictor may answer instead of digits ---

CONFUSED = {
    "HTML": (b"<html>welcome</html>", "is not JSON"),
    "nothing": (b"", "is not JSON"),
    "too few": (b'{"predictions": []}', "0 predictions for 1 tensors"),
    "too many": (b'{"predictions": [7, 7]}', "2 predictions for 1 tensors"),
    "NaN": (b'{"predictions": [NaN]}', "is not JSON"),
    "a null among scores": (b'{"predictions": [[0, 0, 0, 0, 0, 0, 0, 9, 0, null]]}', "not 10 finite numbers"),
    "class 10": (b'{"predictions": [10]}', "no digit: 10"),
    "a word": (b'{"predictions": ["seven"]}', "no digit: 'seven'"),
    "half a digit": (b'{"predictions": [7.5]}', "no digit: 7.5"),
    "not ASCII": ('{"predictions": ["\u0667"]}'.encode(), "no digit: '\u0667'"),
    "an object instead of a list": (b'{"predictions": {"0": 7}}', "no list of predictions"),
}


@pytest.mark.parametrize("confused", CONFUSED)
def test_row_25_an_object_whose_digit_the_predictor_does_not_tell_is_never_moved(
    embedded_place: Place, v1: Asking, confused: str
) -> None:
    body, says = CONFUSED[confused]
    v1.predictor.answer = 200, body
    stays_and_is_filed_once_the_predictor_is_well(embedded_place, v1, says)


CONFUSED_V2: dict[str, tuple[dict[str, Any], str]] = {
    "too few": ({**SEVEN, "shape": [0], "data": []}, "no output of the predictor"),
    "too many": ({**SEVEN, "shape": [2], "data": [7, 7]}, "no output of the predictor"),
    "NaN": ({**SEVEN, "data": [None]}, "no digit: None"),
    "class 10": ({**SEVEN, "data": [10]}, "no digit: 10"),
    "a word": ({**SEVEN, "datatype": "BYTES", "data": ["seven"]}, "no digit: 'seven'"),
    "half a digit": ({**SEVEN, "datatype": "FP32", "data": [7.5]}, "no digit: 7.5"),
}


@pytest.mark.parametrize("confused", CONFUSED_V2)
def test_row_25_an_object_whose_digit_a_v2_predictor_does_not_tell_is_never_moved(
    embedded_place: Place, all_asking: dict[str, Asking], confused: str
) -> None:
    output, says = CONFUSED_V2[confused]
    all_asking["v2"].predictor.answer = 200, json.dumps({"outputs": [output]}).encode()
    stays_and_is_filed_once_the_predictor_is_well(embedded_place, all_asking["v2"], says)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (infer_output(np.zeros(0, np.int64)), "no output of the predictor"),
        (infer_output(np.array([7, 7])), "no output of the predictor"),
        (infer_output(np.array([10])), "no digit: 10"),
        (infer_output(np.array([b"seven"], np.object_), "BYTES"), "no digit: b'seven'"),
        (infer_output(np.array([7.5], np.float32), "FP32"), "no digit: 7.5"),
    ],
)
def test_row_25_an_object_whose_digit_a_grpc_predictor_does_not_tell_is_never_moved(
    embedded_place: Place, all_asking: dict[str, Asking], answer: InferOutput, says: str
) -> None:
    all_asking["grpc-v2"].predictor.answer = answer
    stays_and_is_filed_once_the_predictor_is_well(embedded_place, all_asking["grpc-v2"], says)


@pytest.mark.parametrize(
    ("protocol", "answer"),
    [
        *(("v1", (200, b'{"predictions": [%b]}' % one)) for one in (b'"7"', b"[7]", b'["7"]', b"7.0")),
        ("v1", (200, b'{"predictions": [{"classes": "7", "predictions": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]}]}')),
        *(
            ("v2", (200, json.dumps({"outputs": [{**SEVEN, **one}]}).encode()))
            for one in (
                {"datatype": "BYTES", "data": ["7"]},
                {"datatype": "FP32", "data": [7.0]},
                {"datatype": "FP64", "shape": [1, 1], "data": [[7.0]]},
            )
        ),
        ("grpc-v2", infer_output(np.array([b"7"], np.object_), "BYTES")),
        ("grpc-v2", infer_output(np.array([[b"7"]], np.object_), "BYTES")),
        ("grpc-v2", infer_output(np.array([7], np.float16), "FP16")),
        ("grpc-v2", infer_output(np.array([[7]], np.float32), "FP32")),
    ],
)
def test_row_45_a_digit_as_text_as_a_whole_float_or_in_a_column_is_filed(
    embedded_place: Place, all_asking: dict[str, Asking], protocol: str, answer: Any
) -> None:
    asking = all_asking[protocol]
    asking.heal()
    asking.predictor.answer = answer
    upload = embedded_place.upload(new_key(), digit_png(DIGIT))
    deliver_until_done(asking, upload.event)
    assert embedded_place.copies(upload) == {f"digit-{DIGIT}/{upload.key}": upload.data}
    assert [result["data"]["predictions"] for result in embedded_place.results(upload)] == [[DIGIT]]
    asking.heal()


def test_row_25_of_several_objects_none_is_moved_where_one_digit_is_missing(embedded_place: Place, v1: Asking) -> None:
    place = embedded_place
    uploads: list[Upload] = [place.upload(new_key(), digit_png(DIGIT)) for _ in range(3)]
    event = {"Records": [record for upload in uploads for record in upload.event["Records"]]}
    v1.predictor.answer = 200, b'{"predictions": [7, 7]}'
    assert ask(v1, event).status == 503
    assert all(place.is_left(upload) and not place.copies(upload) for upload in uploads)
    assert not any(place.results(upload) for upload in uploads)
    v1.heal()
    deliver_until_done(v1, event)
    assert [list(place.copies(upload)) for upload in uploads] == [[f"digit-{DIGIT}/{one.key}"] for one in uploads]
    assert {len(ids_of(place, upload)) for upload in uploads} == {1}
