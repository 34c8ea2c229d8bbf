"""Both stories end to end, on the local stack, through real HTTP: what is uploaded or sent, and what arrives."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from e2e.following import EXAMPLE, IMAGES, Answer, keys, post, results_with, upload, wait_until_empty
from mnist_pipeline.local.servers import ModelServer, start_transformer
from mnist_pipeline.local.stack import REJECTED_BUCKET, Stack
from mnist_pipeline.testing import digit_png, minio_event

DATA = Path(__file__).parent.parent / "data"
CURL = {
    "Ce-Id": "1751444412",
    "Ce-Specversion": "1.0",
    "Ce-Type": "prediction-request-udf-attr",
    "Ce-Source": "event-producer",
    "Content-Type": "application/json",
}


def example_request() -> tuple[dict[str, Any], str]:
    """The request of the second story with a trace id that nobody else uses."""
    trace_id = str(uuid.uuid4())
    return {**EXAMPLE, "test-trace-id": trace_id}, trace_id


# --- the first story: an upload ---


def test_an_uploaded_digit_moves_into_its_bucket_and_is_published_with_its_trace_id(stack: Stack) -> None:
    prefix, trace_id = f"one-{uuid.uuid4()}/", str(uuid.uuid4())
    key = prefix + "with space+é.png"
    upload(stack, {key: IMAGES["7-0000.png"]}, metadata={"test-trace-id": trace_id, "owner": "me"})
    wait_until_empty(stack, prefix)
    filed = stack.minio().stat_object(bucket_name="digit-7", object_name=key)
    assert filed.content_type == "image/png"
    assert filed.metadata is not None
    assert filed.metadata["x-amz-meta-owner"] == "me"
    ((record, event),) = results_with(stack, test_trace_id=trace_id)
    assert record.key == trace_id.encode()
    assert ("test-trace-id", trace_id.encode()) in record.headers
    assert event["subject"] == f"mnist/{key}"
    assert event["data"]["predictions"] == [7]
    assert event["data"]["destination"] == f"digit-7/{key}"
    assert event["kserve-isvc-name"] == "test-transformer"


def test_row_06_objects_are_filed_under_their_keys_as_the_store_itself_escapes_them(stack: Stack) -> None:
    prefix = f"odd +%2B%2F é-{uuid.uuid4()}/"
    names = ("a b.png", "a+b.png", "a%2Bb.png", "a%2Fb.png", "größe-数字.png", "s!*'()~;:@&=$,?#[]|\"<>^`{}.png")
    upload(stack, {f"{prefix}{name}": digit_png(digit) for digit, name in enumerate(names)})
    wait_until_empty(stack, prefix)
    assert [keys(stack, f"digit-{digit}", prefix) for digit in range(len(names))] == [[prefix + name] for name in names]


def test_the_image_of_the_kserve_sample_is_a_zero(stack: Stack) -> None:
    prefix = f"sample-{uuid.uuid4()}/"
    upload(stack, {prefix + "0.png": (DATA / "kserve-sample-0.png").read_bytes()})
    wait_until_empty(stack, prefix)
    assert keys(stack, "digit-0", prefix) == [prefix + "0.png"]


def test_row_13_what_is_no_image_goes_into_the_rejected_bucket_with_its_reason(stack: Stack) -> None:
    prefix, trace_id = f"bad-{uuid.uuid4()}/", str(uuid.uuid4())
    upload(stack, {prefix + "text.png": b"plain text"}, metadata={"test-trace-id": trace_id})
    wait_until_empty(stack, prefix)
    rejected = stack.minio().stat_object(bucket_name=REJECTED_BUCKET, object_name=prefix + "text.png")
    assert rejected.metadata is not None
    assert rejected.metadata["x-amz-meta-rejected-reason"] == "badimage"
    ((_, event),) = results_with(stack, test_trace_id=trace_id)
    assert event["type"] == "io.kserve.mnist.prediction.rejected"
    assert event["data"]["reason"] == "badimage"


def assert_all_are_filed(stack: Stack, prefix: str, count: int) -> None:
    """Upload so many objects of ten classes at once, and see each in the right bucket, with one result id each."""
    digits = [data for _, data in sorted(IMAGES.items())]
    labels = [int(name[0]) for name in sorted(IMAGES)]
    upload(stack, {f"{prefix}{labels[n % 20]}-{n:04}.png": digits[n % 20] for n in range(count)})
    wait_until_empty(stack, prefix, seconds=120)
    for digit in range(10):
        expected = sorted(f"{prefix}{digit}-{n:04}.png" for n in range(count) if labels[n % 20] == digit)
        assert keys(stack, f"digit-{digit}", prefix) == expected
    results = [event for _, event in results_with(stack) if event.get("subject", "").startswith(f"mnist/{prefix}")]
    # Pairs, so that neither an object has several ids nor an id several objects.
    pairs = {(event["subject"], event["id"]) for event in results}
    assert len(pairs) == len({subject for subject, _ in pairs}) == len({one_id for _, one_id in pairs}) == count
    assert all(event["subject"][len(f"mnist/{prefix}")] == str(event["data"]["predictions"][0]) for event in results)


def test_three_hundred_objects_with_32_in_flight_all_lie_in_the_right_bucket(stack: Stack) -> None:
    assert_all_are_filed(stack, f"many-{uuid.uuid4()}/", 300)


def test_the_same_three_hundred_with_two_workers() -> None:
    with Stack(workers=2) as stack:
        assert_all_are_filed(stack, "many/", 300)


def test_zero_workers_as_kserve_passes_for_no_limit_means_one(stack: Stack) -> None:
    server = stack.start_transformer(name="zero", workers=0)
    server.wait_ready()
    answer = post(server.predict_url, EXAMPLE)
    server.close()
    assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [2]})


@pytest.mark.parametrize("protocol", ["v2", "grpc-v2"])
def test_a_predictor_of_the_open_inference_protocol_does_it_too(protocol: str) -> None:
    with Stack(predictor_protocol=protocol, ordered=True) as stack:
        assert_all_are_filed(stack, "many/", 40)


# --- the second story: a request ---


def answer_to(stack: Stack, body: Any, headers: dict[str, str] | None = None) -> Answer:
    return post(stack.transformer.predict_url, body, headers)


def test_the_example_s_request_gives_the_example_s_event_with_the_same_fields(stack: Stack) -> None:
    request, trace_id = example_request()
    answer = answer_to(stack, request, {**CURL, "Host": "test-transformer-transformer.kserve-test.svc.cluster.local"})
    assert (answer.status, answer.body) == (200, b"")
    ((record, event),) = results_with(stack, test_trace_id=trace_id)
    assert record.key == trace_id.encode()
    time_of, id_of = event.pop("time"), event.pop("id")
    assert event == {
        "specversion": "1.0",
        "source": "mnist-pipeline/mnist",
        "type": "io.kserve.mnist.prediction",
        "data": {"predictions": [2]},
        "request-host": "test-transformer-transformer.kserve-test.svc.cluster.local",
        "kserve-isvc-name": "test-transformer",
        "kserve-isvc-namespace": "kserve-test",
        "test-trace-id": trace_id,
    }
    assert uuid.UUID(id_of).version == 5
    assert time_of.endswith("+00:00")


def test_the_same_event_twice_has_the_same_id(stack: Stack) -> None:
    request, trace_id = example_request()
    for _ in range(2):
        assert answer_to(stack, request, CURL).status == 200
    events = [event for _, event in results_with(stack, test_trace_id=trace_id)]
    assert len(events) == 2
    assert events[0]["id"] == events[1]["id"]


def test_a_plain_request_is_answered_with_its_predictions_and_published(stack: Stack) -> None:
    request, trace_id = example_request()
    answer = answer_to(stack, request, {"Content-Type": "application/json"})
    assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [2]})
    assert len(results_with(stack, test_trace_id=trace_id)) == 1


@pytest.mark.parametrize(
    "content_type", ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8"]
)
@pytest.mark.parametrize("timed", [True, False])
def test_row_10_a_structured_event_is_handled_like_a_binary_one(stack: Stack, content_type: str, timed: bool) -> None:
    request, trace_id = example_request()
    del request["test-trace-id"]
    attributes = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "testtraceid": trace_id}
    if timed:
        attributes["time"] = "2026-11-22T00:00:00Z"
    binary = {f"ce-{name}": value for name, value in attributes.items()}
    # As an ingress adds them.
    isvc = {"KServe-Isvc-Name": "other-transformer", "KServe-Isvc-Namespace": "other"}
    answers = (
        answer_to(stack, {**attributes, "data": request}, {"Content-Type": content_type, **isvc}),
        answer_to(stack, request, {**binary, "Content-Type": "application/json; charset=utf-8", **isvc}),
    )
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"")] * 2
    structured, of_binary = (event for _, event in results_with(stack, test_trace_id=trace_id))
    assert structured["data"] == {"predictions": [2]}
    assert structured["kserve-isvc-name"] == "other-transformer"
    assert {**structured, "time": ""} == {**of_binary, "time": ""}


def test_an_event_without_a_content_type_is_handled_as_knative_sends_it(stack: Stack) -> None:
    request, trace_id = example_request()
    headers = {name: value for name, value in CURL.items() if name != "Content-Type"}
    assert answer_to(stack, request, headers).status == 200
    assert len(results_with(stack, test_trace_id=trace_id)) == 1


def test_tensors_pass_through(stack: Stack) -> None:
    pixels = np.zeros((28, 28))
    answer = answer_to(stack, {"instances": [pixels.tolist(), pixels.reshape(784).tolist()]})
    assert answer.status == 200
    assert len(json.loads(answer.body)["predictions"]) == 2


def test_row_09_our_own_reply_that_comes_back_is_dropped(stack: Stack) -> None:
    request, trace_id = example_request()
    answer_to(stack, request, CURL)
    ((record, _),) = results_with(stack, test_trace_id=trace_id)
    back = answer_to(stack, record.value, {"Content-Type": "application/cloudevents+json"})
    assert (back.status, back.body) == (200, b"")
    assert len(results_with(stack, test_trace_id=trace_id)) == 1


@pytest.mark.parametrize("headers", [{}, CURL, {name: value for name, value in CURL.items() if "Content" not in name}])
def test_row_01_a_tombstone_is_success(stack: Stack, headers: dict[str, str]) -> None:
    answer = answer_to(stack, b"", headers)
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"[1]", 400, "malformedbody"),
        (b"null", 400, "malformedbody"),
        (b"{", 400, "malformedbody"),
        (b"[" * 10_000, 400, "malformedbody"),
        (b"{}", 422, "badevent"),
        (b'{"Records": null}', 422, "badevent"),
        (b'{"instances": [{"data": "AAAA"}]}', 422, "badimage"),
        (b'{"instances": [[1, 2]]}', 422, "badtensor"),
        (b'{"instances": [[1]], "test-trace-id": ["x"]}', 422, "badtraceid"),
        (b"x" * 1_000_001, 413, "bodytoolarge"),
    ],
)
@pytest.mark.parametrize("headers", [{"Content-Type": "application/json"}, CURL])
def test_bad_input_is_a_4xx_with_its_reason_and_no_header_that_hangs_knative(
    stack: Stack, body: bytes, status: int, reason: str, headers: dict[str, str]
) -> None:
    answer = answer_to(stack, body, headers)
    assert (answer.status, answer.headers["kne-reason"]) == (status, reason)
    kne = [name.removeprefix("kne-") for name in answer.headers if name.startswith("kne-")]
    assert all(name.isalnum() and name.islower() and len(name) <= 20 for name in kne)
    assert b"Traceback" not in answer.body


def test_a_refused_event_is_published_as_rejected(stack: Stack) -> None:
    trace_id = str(uuid.uuid4())
    answer_to(stack, {"instances": [{"data": "AAAA"}], "test-trace-id": trace_id}, CURL)
    assert results_with(stack, test_trace_id=trace_id)[0][1]["type"].endswith(".rejected")


# --- V2 ---


def test_v2_rest_takes_tensors_and_images(stack: Stack) -> None:
    trace_id = str(uuid.uuid4())
    image = base64.b64encode(IMAGES["3-0018.png"]).decode()
    url = f"{stack.transformer.url}/v2/models/mnist/infer"
    request = {
        "id": "r-1",
        "parameters": {"test-trace-id": trace_id},
        "inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": [image]}],
    }
    answer = post(url, request, {"Content-Type": "application/json"})
    assert answer.status == 200
    (output,) = json.loads(answer.body)["outputs"]
    assert (output["name"], output["datatype"], output["shape"], output["data"]) == ("predictions", "INT64", [1], [3])
    assert results_with(stack, test_trace_id=trace_id)[0][1]["data"] == {"predictions": [3]}
    zeros = {"name": "x", "shape": [2, 28, 28], "datatype": "FP32", "data": [0.0] * 1568}
    answer = post(url, {"inputs": [zeros]}, {"Content-Type": "application/json"})
    assert answer.status == 200, answer
    assert json.loads(answer.body)["outputs"][0]["shape"] == [2]
    bad = post(url, {"inputs": [{**zeros, "shape": [1568]}]}, {"Content-Type": "application/json"})
    assert (bad.status, bad.headers["kne-reason"]) == (422, "badtensor")


def test_an_event_on_the_v2_path_is_answered_with_nothing_that_knative_would_take_for_a_failure(stack: Stack) -> None:
    event_id = str(uuid.uuid4())
    zeros = {"name": "x", "shape": [1, 784], "datatype": "FP32", "data": [0.0] * 784}
    for _ in range(2):
        answer = post(
            f"{stack.transformer.url}/v2/models/mnist/infer", {"inputs": [zeros]}, {**CURL, "Ce-Id": event_id}
        )
        assert (answer.status, answer.body) == (200, b"")
    assert len({record["id"] for _, record in results_with(stack, test_trace_id=event_id)}) == 1


def test_grpc_takes_tensors_and_images_and_refuses_with_its_own_status(stack: Stack) -> None:
    trace_id = str(uuid.uuid4())
    with grpc.insecure_channel(stack.transformer.grpc_address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        request = pb.ModelInferRequest(model_name="mnist")
        request.parameters["test-trace-id"].string_param = trace_id
        request.inputs.add(name="x", datatype="BYTES", shape=[1]).contents.bytes_contents.append(IMAGES["8-0061.png"])
        reply = stub.ModelInfer(request, timeout=30)
        assert list(reply.outputs[0].contents.int64_contents) == [8]
        assert results_with(stack, test_trace_id=trace_id)[0][1]["data"] == {"predictions": [8]}

        tensor = pb.ModelInferRequest(model_name="mnist")
        tensor.inputs.add(name="x", datatype="FP32", shape=[2, 784])
        tensor.raw_input_contents.append(np.zeros((2, 784), np.float32).tobytes())
        metadata_id = str(uuid.uuid4())
        reply = stub.ModelInfer(tensor, metadata=(("test-trace-id", metadata_id),), timeout=30)
        assert list(reply.outputs[0].shape) == [2]
        assert len(results_with(stack, test_trace_id=metadata_id)) == 1

        tensor.inputs[0].shape[1] = 392
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(tensor, timeout=30)
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


# --- other settings ---


@pytest.fixture(scope="module")
def bare(stack: Stack) -> Iterator[ModelServer]:
    """A transformer of the TorchServe format with neither store nor Kafka; the second story's has no store either."""
    server = start_transformer(
        stack.sandbox,
        predictor_host=f"127.0.0.1:{stack.predictor.http_port}",
        env={"PREDICTOR_FORMAT": "torchserve", "REQUEST_TRACE_KEY": "test-trace-id"},
        name="bare",
    )
    server.wait_ready()
    yield server
    server.close()


def test_torchserve_s_form_gives_the_same_digit(bare: ModelServer) -> None:
    answer = post(bare.predict_url, EXAMPLE)
    assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [2]})


def test_without_kafka_an_event_is_answered_with_its_result_as_a_binary_event(bare: ModelServer) -> None:
    request, trace_id = example_request()
    answer = post(bare.predict_url, request, CURL)
    assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [2]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["ce-type"] == "io.kserve.mnist.prediction"
    assert answer.headers["ce-testtraceid"] == trace_id


def test_row_09_the_event_that_answers_an_event_is_dropped_when_it_comes_back(bare: ModelServer) -> None:
    request, _ = example_request()
    answer = post(bare.predict_url, request, CURL)
    reply = {name: value for name, value in answer.headers.items() if name.startswith(("ce-", "content-type"))}
    back = post(bare.predict_url, answer.body, reply)
    assert (back.status, back.body) == (200, b"")


def test_without_a_store_an_object_s_event_is_retryable(bare: ModelServer) -> None:
    answer = post(bare.predict_url, minio_event("mnist", "0.png"), CURL)
    assert (answer.status, answer.headers["kne-reason"]) == (503, "store")


def test_the_fake_s_digits_are_digits_to_the_network_too(stack: Stack) -> None:
    images = [{"data": base64.b64encode(digit_png(digit)).decode()} for digit in range(10)]
    assert json.loads(answer_to(stack, {"instances": images}).body) == {"predictions": list(range(10))}


def test_wrong_settings_are_all_named_at_once_and_the_exit_code_is_2() -> None:
    exited = subprocess.run(
        [sys.executable, "-m", "mnist_pipeline", "--model_name", "mnist"],
        env={**os.environ, "MAX_IN_FLIGHT": "none", "MINIO_ACCESS_KEY": "a", "KAFKA_SSL_CAFILE": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert exited.returncode == 2
    names = [line.split()[0] for line in exited.stderr.splitlines()]
    assert names == ["--predictor_host", "MINIO_SECRET_KEY", "KAFKA_SSL_CAFILE", "MAX_IN_FLIGHT"]
