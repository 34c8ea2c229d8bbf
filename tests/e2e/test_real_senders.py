"""Rows 39 to 43, 47: what senders, SDKs and stores really send, to one worker, to two, and by Kafka."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import socket
import struct
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import grpc
import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from e2e.following import IMAGES, Answer, post
from e2e.places import Place, Upload
from e2e.test_workers import wait_for_workers
from e2e.watching import exchange
from e2e.ways import deliver, deliver_all
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.testing import digit_png, minio_event

PREDICT = "/v1/models/mnist:predict"
INFER = "/v2/models/mnist/infer"
REPORTS = Path(__file__).parent.parent / "data" / "reports"
JSON = {"Content-Type": "application/json"}
H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"
OFFERS = ["", H2C, "Connection: Upgrade\r\nUpgrade: TLS/1.2", "Connection: upgrade\r\nUpgrade: websocket"]


@pytest.fixture(scope="module")
def started(place: Place) -> Iterator[Callable[[str], ModelServer]]:
    """Starts each sort of server once."""
    servers: dict[str, ModelServer] = {}

    def start(sort: str) -> ModelServer:
        if sort not in servers:
            server = servers[sort] = (
                place.start(way="kafka") if sort == "kafka" else place.start(args=("--workers", sort[0]))
            )
            if sort == "2 workers":
                wait_for_workers(server, 2)
            else:
                server.wait_ready()
        return servers[sort]

    yield start
    for server in servers.values():
        server.close()


@pytest.fixture(params=["1 worker", "2 workers"])
def server(request: pytest.FixtureRequest, started: Callable[[str], ModelServer]) -> ModelServer:
    return started(request.param)


@pytest.fixture(params=["1 worker", "2 workers", "kafka"])
def fed(request: pytest.FixtureRequest, started: Callable[[str], ModelServer]) -> ModelServer:
    return started(request.param)


def seven(place: Place, key: str | None = None) -> Upload:
    return place.upload(key or f"{uuid.uuid4()}.png", digit_png(7))


def image(digit: int = 7) -> str:
    return base64.b64encode(digit_png(digit)).decode()


def talk(server: ModelServer, *segments: bytes, answers: int = 1, end: bool = False) -> bytes:
    """Send these over one connection, each on its own; give all that comes back, so many answers and what follows."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for segment in segments:
            client.sendall(segment)
            time.sleep(0.05)
        if end:
            client.shutdown(socket.SHUT_WR)
        came = b""
        with contextlib.suppress(TimeoutError):
            while chunk := client.recv(65536):
                came += chunk
                # What belongs to no answer would come right behind the last one.
                client.settimeout(0.3 if len([one for one in statuses(came) if one != 100]) >= answers else 30)
        return came


def head(body: bytes, *lines: str, version: str = "1.1", path: str = PREDICT) -> bytes:
    length = f"Content-Length: {len(body)}"
    return "\r\n".join([f"POST {path} HTTP/{version}", "Host: h", length, *filter(None, lines), "", ""]).encode()


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+)", answer)]


# --- row 39: whatever is acknowledged has arrived ---


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("split", [False, True])
def test_row_39_an_event_with_an_offered_upgrade_is_filed_once(
    place: Place, server: ModelServer, offer: str, split: bool
) -> None:
    upload = seven(place)
    body = json.dumps(upload.event).encode()
    request = head(body, offer) + body
    at = len(request) - len(body) if split else 0
    assert statuses(talk(server, request[:at], request[at:])) == [200]
    assert list(place.copies(upload)) == [f"digit-7/{upload.key}"]
    assert len(place.results(upload)) == 1


@pytest.mark.parametrize("offer", OFFERS)
def test_row_39_a_body_that_looks_like_a_request_is_no_second_one(
    place: Place, server: ModelServer, offer: str
) -> None:
    smuggled = seven(place)
    event = json.dumps(smuggled.event).encode()
    body = head(event) + event
    assert statuses(talk(server, head(body, offer), body)) == [400]
    assert place.is_left(smuggled)


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("chunked", [False, True])
def test_row_39_a_client_that_ends_in_mid_body_has_sent_nothing(
    place: Place, server: ModelServer, offer: str, chunked: bool
) -> None:
    upload = seven(place)
    event = json.dumps(upload.event).encode()
    if chunked:
        request = f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\n{offer}\r\nTransfer-Encoding: chunked\r\n\r\n".replace(
            "\r\n\r\nT", "\r\nT"
        ).encode()
        # All of the event, and no end.
        parts = [request, b"%x\r\n%b\r\n" % (len(event), event)]
    else:
        parts = [head(event + b" ", offer), event]
    assert 200 not in statuses(talk(server, *parts, end=True))
    time.sleep(0.2)
    assert place.is_left(upload)


def test_row_39_other_ways_to_send_a_body_are_ways_too(place: Place, server: ModelServer) -> None:
    uploads = [seven(place) for _ in range(5)]
    bodies = [json.dumps(upload.event).encode() for upload in uploads]
    http10 = head(bodies[0], version="1.0") + bodies[0]
    waiting = [head(bodies[1], "Expect: 100-continue"), bodies[1]]
    pipelined = head(bodies[2]) + bodies[2] + head(bodies[3], H2C) + bodies[3] + head(b"{}") + b"{}"
    assert statuses(talk(server, http10)) == [200]
    assert statuses(talk(server, *waiting)) == [100, 200]
    assert statuses(talk(server, pipelined, answers=3)) == [200, 200, 422]
    assert exchange(server, iter([bodies[4][:9], bodies[4][9:]]), JSON).status == 200
    assert [list(place.copies(upload)) for upload in uploads] == [[f"digit-7/{upload.key}"] for upload in uploads]
    without_length = f"POST {PREDICT} HTTP/1.0\r\nHost: h\r\n\r\n".encode() + bodies[0]
    assert statuses(talk(server, without_length))[0] == 411


def test_row_39_the_reported_request_is_filed(place: Place, server: ModelServer) -> None:
    upload = seven(place)
    reported_head, _, reported = (REPORTS / "upgrade-h2c.http").read_bytes().partition(b"\r\n\r\n")
    event = json.loads(reported)
    event["Records"][0]["s3"] = upload.event["Records"][0]["s3"]
    body = json.dumps(event).encode()
    request = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), reported_head) + b"\r\n\r\n" + body
    assert statuses(talk(server, request)) == [200]
    assert list(place.copies(upload)) == [f"digit-7/{upload.key}"]


# --- row 40: what KServe would decode is answered by us ---


def test_row_40_the_reported_image_by_the_binary_extension_is_predicted(server: ModelServer) -> None:
    answer = talk(server, (REPORTS / "v2-binary.http").read_bytes())
    assert statuses(answer) == [200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["outputs"][0]["data"] == [0]


def v2(server: ModelServer, message: Any, binary: bytes = b"", **headers: str) -> Answer:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    length = {"Inference-Header-Content-Length": str(len(body))} if binary else {}
    url = server.url + INFER
    return post(url, body + binary, {**length, **{name.replace("_", "-"): value for name, value in headers.items()}})


def in_bytes(*images: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in images)


def one_input(datatype: str, shape: list[Any], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": datatype, "shape": shape, **more}]}


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_row_40_two_images_in_one_input_are_two_predictions(server: ModelServer, shape: list[int]) -> None:
    binary = in_bytes(digit_png(7), digit_png(3))
    sized = one_input("BYTES", shape, parameters={"binary_data_size": len(binary)})
    answers = [
        v2(server, one_input("BYTES", shape, data=[image(7), image(3)])),
        v2(server, one_input("BYTES", shape, data=[[image(7)], [image(3)]])),
        v2(server, sized, binary),
        v2(server, sized, binary, Content_Type="application/octet-stream"),
    ]
    assert [(answer.status, json.loads(answer.body)["outputs"][0]["data"]) for answer in answers] == [(200, [7, 3])] * 4
    with grpc.insecure_channel(server.grpc_address) as channel:
        for raw in (False, True):
            request = pb.ModelInferRequest(model_name="mnist")
            tensor = request.inputs.add(name="x", datatype="BYTES", shape=shape)
            if raw:
                request.raw_input_contents.append(binary)
            else:
                tensor.contents.bytes_contents.extend([digit_png(7), digit_png(3)])
            reply = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
            assert list(reply.outputs[0].contents.int64_contents) == [7, 3]


SECRET = "c2VjcmV0LWJ5dGVz"
NONSENSE: dict[str, Any] = {
    "not JSON": b'{"inputs": ' + SECRET.encode(),
    "not UTF-8": b"\xff\xfe" + SECRET.encode(),
    "a list": [SECRET],
    "a string": SECRET,
    "null": b"null",
    "nothing": b"",
    "no inputs": {"x": SECRET},
    "inputs of another type": {"inputs": {"x": SECRET}},
    "no input": {"inputs": []},
    "two inputs": {"inputs": one_input("BYTES", [1], data=[SECRET])["inputs"] * 2},
    "an input of another type": {"inputs": [SECRET]},
    "no datatype": {"inputs": [{"name": "x", "shape": [1], "data": [SECRET]}]},
    "an unknown datatype": one_input(SECRET, [1], data=[1]),
    "no shape": {"inputs": [{"name": "x", "datatype": "BYTES", "data": [SECRET]}]},
    "a shape of text": one_input("FP32", [SECRET], data=[0.0] * 784),
    "too short": one_input("FP32", [1, 784], data=[0.0] * 783),
    "a wrong shape": one_input("FP32", [1, 28, 27], data=[0.0] * 756),
    "a negative shape": one_input("FP32", [-1, 784], data=[0.0] * 784),
    "a huge shape": one_input("FP32", [2**62, 784], data=[0.0] * 784),
    "text for numbers": one_input("FP32", [1, 784], data=[SECRET] * 784),
    "nulls for numbers": one_input("FP32", [1, 784], data=[None] * 784),
    "ragged": one_input("FP32", [1, 784], data=[[0.0] * 700, [0.0] * 84]),
    "no data": one_input("BYTES", [1]),
    "numbers for images": one_input("BYTES", [1], data=[7]),
    "fewer images than its shape": one_input("BYTES", [2], data=[image()]),
    "no image": one_input("BYTES", [1], data=[SECRET]),
    "parameters of another type": {"parameters": SECRET, **one_input("FP32", [1], data=[1])},
}


@pytest.mark.parametrize("name", NONSENSE)
def test_row_40_nonsense_is_a_4xx_with_its_reason_and_a_rejected_event(
    place: Place, server: ModelServer, name: str
) -> None:
    before = server.child.log.stat().st_size
    trace_id = f"t-{uuid.uuid4()}"
    for content_type in ("application/json", "application/octet-stream"):
        assert_refused(v2(server, NONSENSE[name], test_trace_id=trace_id, Content_Type=content_type))
    assert "Traceback" not in server.child.log.read_text()[before:]
    if name == "nothing":
        return
    told = [one for one in place.all_results() if one.get("test-trace-id") == trace_id]
    assert {one["type"] for one in told} == {"io.kserve.mnist.prediction.rejected"}
    assert len({one["id"] for one in told}) == 1


def assert_refused(answer: Answer) -> None:
    assert answer.status in (400, 422), answer
    assert re.fullmatch("[a-z]{1,20}", answer.headers["kne-reason"])
    assert SECRET.encode() not in answer.body
    assert b"Traceback" not in answer.body


@pytest.mark.parametrize("length", ["x", "-1", "1e3", "99999", "0", "10"])
def test_row_40_a_header_of_nonsense_is_a_4xx(server: ModelServer, length: str) -> None:
    message = json.dumps(one_input("BYTES", [1], data=[image()])).encode()
    assert_refused(v2(server, message, Inference_Header_Content_Length=length))


@pytest.mark.parametrize("size", [None, -1, 0, 3, 10**9, "8"])
@pytest.mark.parametrize("binary", [in_bytes(b"abc"), struct.pack("<I", 2**32 - 1) + b"abc", b"\x01"])
def test_row_40_binary_data_that_are_not_what_they_say_are_a_4xx(server: ModelServer, size: Any, binary: bytes) -> None:
    assert_refused(v2(server, one_input("BYTES", [1], parameters={"binary_data_size": size}), binary))
    assert_refused(v2(server, one_input("FP32", [1, 784], parameters={"binary_data_size": len(binary)}), binary))


def test_row_40_nonsense_over_grpc_is_invalid_and_an_unknown_model_is_not_found(
    place: Place, server: ModelServer
) -> None:
    before = server.child.log.stat().st_size
    trace_id = f"t-{uuid.uuid4()}"
    wrong = []
    for datatype, shape, raw in [
        ("BYTES", [1], [b"\xff\xff\xff\xff" + SECRET.encode()]),
        ("FP32", [1, 784], [b"\0" * 3135]),
        ("FP32", [1, 784], [b"\0" * 3136] * 2),
        (SECRET, [1], []),
        ("INT64", [1], []),
        ("FP32", [1, 784], []),
        ("FP32", [-1, 784], [b"\0" * 3136]),
    ]:
        request = pb.ModelInferRequest(model_name="mnist", raw_input_contents=raw)
        request.inputs.add(name="x", datatype=datatype, shape=shape)
        wrong.append(request)
    wrong.append(pb.ModelInferRequest(model_name="mnist"))
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for request, code in [
            *((request, grpc.StatusCode.INVALID_ARGUMENT) for request in wrong),
            (pb.ModelInferRequest(model_name="other"), grpc.StatusCode.NOT_FOUND),
            (pb.ModelInferRequest(model_name="mnist", model_version="2"), grpc.StatusCode.NOT_FOUND),
        ]:
            with pytest.raises(grpc.RpcError) as raised:
                stub.ModelInfer(request, metadata=(("test-trace-id", trace_id),), timeout=30)
            error: Any = raised.value
            assert error.code() == code, error
            assert SECRET not in error.details()
            assert re.fullmatch("[a-z]{1,20}", dict(error.trailing_metadata())["kne-reason"])
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelReady(pb.ModelReadyRequest(name="other"), timeout=30)
        error = raised.value
        assert error.code() == grpc.StatusCode.NOT_FOUND
        unknown = channel.unary_unary("/inference.GRPCInferenceService/NoSuchMethod")
        with pytest.raises(grpc.RpcError) as raised:
            unknown(b"", timeout=30)
        error = raised.value
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "Traceback" not in server.child.log.read_text()[before:]
    told = {one["id"] for one in place.all_results() if one.get("test-trace-id") == trace_id}
    assert len(told) == len(wrong)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/mnist/versions/1/infer", 404),
        ("POST", "/v1/models/mnist:explain", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", "/v2/models/other", 404),
        ("POST", "/nowhere", 404),
        ("GET", PREDICT, 405),
        ("PUT", INFER, 405),
        ("PUT", "/", 405),
    ],
)
def test_row_40_what_is_not_there_is_a_4xx_with_its_reason_and_no_stack(
    server: ModelServer, method: str, path: str, status: int
) -> None:
    before = server.child.log.stat().st_size
    sent = exchange(server, b"{}", JSON, method=method, path=path)
    assert sent.status == status
    assert re.fullmatch("[a-z]{1,20}", sent.reason or "")
    assert "Traceback" not in server.child.log.read_text()[before:]


# --- the way in ---


@pytest.mark.parametrize("path", ["/", PREDICT + "/", "/" + PREDICT, "/v1//models/mnist:predict"])
def test_row_40_an_event_arrives_whatever_slashes_its_sink_has(place: Place, server: ModelServer, path: str) -> None:
    upload = seven(place)
    headers, body = to_binary(
        CloudEvent({"source": "s", "type": "t"}, upload.event), data_marshaller=lambda data: json.dumps(data).encode()
    )
    answer = post(server.url + path, body, headers)
    assert (answer.status, answer.body) == (200, b"")
    assert list(place.copies(upload)) == [f"digit-7/{upload.key}"]


@pytest.mark.parametrize(
    "content_type", ["image/png", "image/jpeg", "Image/PNG; q=1", "application/octet-stream", None]
)
def test_row_47_an_image_itself_is_an_inline_request(
    place: Place, server: ModelServer, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    trace_id = str(uuid.uuid4())
    answer = post(server.predict_url, IMAGES["3-0018.png"], {**headers, "test-trace-id": trace_id})
    assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [3]})
    (told,) = [one for one in place.all_results() if one.get("test-trace-id") == trace_id]
    assert told["data"] == {"predictions": [3]}
    event = {"ce-specversion": "1.0", "ce-id": trace_id, "ce-source": "s", "ce-type": "t"}
    assert post(server.predict_url, IMAGES["3-0018.png"], {**headers, **event}).body == b""


def test_row_47_what_is_called_an_image_and_is_none_is_rejected(place: Place, server: ModelServer) -> None:
    trace_id = str(uuid.uuid4())
    answer = post(server.predict_url, b"GIF89a", {"Content-Type": "image/gif", "test-trace-id": trace_id})
    assert (answer.status, answer.headers["kne-reason"]) == (422, "badimage")
    (told,) = [one for one in place.all_results() if one.get("test-trace-id") == trace_id]
    assert told["type"].endswith(".rejected")


@pytest.mark.parametrize("key", ["data", "b64"])
@pytest.mark.parametrize(
    "written",
    [
        lambda text: text,
        lambda text: "\n".join(textwrap.wrap(text, 76)),
        lambda text: "\r\n".join(textwrap.wrap(text, 64)) + "\r\n",
        lambda text: text.rstrip("="),
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
        lambda text: "data:image/png;base64," + text,
    ],
    ids=["plain", "lines", "mime", "no-padding", "url-safe", "url-safe-no-padding", "data-url"],
)
def test_row_47_base64_is_read_as_people_write_it(server: ModelServer, key: str, written: Any) -> None:
    text = written(base64.b64encode(IMAGES["3-0018.png"]).decode())
    answer = post(server.predict_url, {"instances": [{key: text}]}, JSON)
    assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [3]})
    answer = v2(server, one_input("BYTES", [1], data=[text]))
    assert answer.status == 200
    assert json.loads(answer.body)["outputs"][0]["data"] == [3]


# --- rows 41 to 43: envelopes and keys ---


def test_row_41_data_in_base64_are_data(place: Place, fed: ModelServer) -> None:
    reported = json.loads((REPORTS / "structured-base64.json").read_text())
    event = json.loads(base64.b64decode(reported["data_base64"]))
    upload = seven(place)
    event["Records"][0]["s3"] = upload.event["Records"][0]["s3"]
    reported["data_base64"] = base64.b64encode(json.dumps(event).encode()).decode()
    structured = {"Content-Type": "application/cloudevents+json"}
    assert deliver(fed, reported, structured).status == 200
    assert list(place.copies(upload)) == [f"digit-7/{upload.key}"]
    # As the SDK writes bytes.
    trace_id = str(uuid.uuid4())
    headers, body = to_structured(CloudEvent({"source": "s", "type": "t", "testtraceid": trace_id}, digit_png(7)))
    assert deliver(fed, body, headers).status == 200
    (told,) = [one for one in place.all_results() if one.get("test-trace-id") == trace_id]
    assert told["data"] == {"predictions": [7]}
    answer = deliver(fed, {**reported, "data_base64": "no base64!"}, structured)
    assert (answer.status, answer.headers["kne-reason"]) == (400, "malformedbody")


@pytest.mark.parametrize("source", ["noobaa:s3", "minio:s3", "aws:s3", "ceph:s3", "", None])
@pytest.mark.parametrize("escapes", [True, False])
def test_row_42_the_object_with_the_event_s_etag_is_meant_however_its_key_is_written(
    place: Place, fed: ModelServer, source: str | None, escapes: bool
) -> None:
    folder = str(uuid.uuid4())
    plus, blank = seven(place, f"{folder}/a+b.png"), place.upload(f"{folder}/a b.png", digit_png(3))
    meant, other = (blank, plus) if escapes else (plus, blank)
    (record,) = meant.event["Records"]
    record["eventSource"] = source
    record["s3"]["object"]["key"] = quote_plus(meant.key) if escapes else meant.key
    assert deliver(fed, {"Records": [record]}, JSON).status == 200
    assert not place.is_left(meant)
    assert place.is_left(other)
    assert len(place.results(meant)) == 1
    assert place.results(other) == []


def test_row_42_the_reported_event_of_noobaa_is_filed(place: Place, fed: ModelServer) -> None:
    event = json.loads((REPORTS / "noobaa-plus.json").read_text())
    upload = seven(place, f"{uuid.uuid4()}/a+b.png")
    (record,) = event["Records"]
    record["s3"]["bucket"]["name"] = upload.bucket
    record["s3"]["object"] |= {"key": upload.key, "eTag": upload.event["Records"][0]["s3"]["object"]["eTag"]}
    assert deliver(fed, event, JSON).status == 200
    assert not place.is_left(upload)


def test_row_42_an_object_is_gone_only_when_it_is_gone_under_both_names(place: Place, fed: ModelServer) -> None:
    event = minio_event(place.bucket, f"{uuid.uuid4()}/a+b.png")
    assert deliver(fed, event, JSON).status == 200


def sns(message: Any) -> dict[str, Any]:
    return {"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:x", "Message": json.dumps(message)}


def sqs(message: Any) -> dict[str, Any]:
    return {"messageId": "1", "receiptHandle": "x", "body": json.dumps(message), "eventSource": "aws:sqs"}


def event_bridge(record: dict[str, Any]) -> dict[str, Any]:
    s3 = record["s3"]
    named = {"key": s3["object"]["key"], "etag": s3["object"]["eTag"]}
    if "versionId" in s3["object"]:
        named["version-id"] = s3["object"]["versionId"]
    detail = {"version": "0", "bucket": {"name": s3["bucket"]["name"]}, "object": named, "reason": "PutObject"}
    return {"version": "0", "id": "1", "detail-type": "Object Created", "source": "aws.s3", "detail": detail}


ENVELOPES: dict[str, Any] = {
    "Records": lambda record: {"Records": [record]},
    "an array": lambda record: [record],
    "alone": lambda record: record,
    "SNS": lambda record: sns({"Records": [record]}),
    "SNS in SQS": lambda record: sqs(sns({"Records": [record]})),
    "SNS for Lambda": lambda record: {"Records": [{"EventSource": "aws:sns", "Sns": sns({"Records": [record]})}]},
    "SQS": lambda record: sqs({"Records": [record]}),
    "SQS for Lambda": lambda record: {"Records": [sqs({"Records": [record]})]},
    "SQS in an array": lambda record: [sqs({"Records": [record]})],
    "SQS as received": lambda record: {"Messages": [{"MessageId": "1", "Body": json.dumps({"Records": [record]})}]},
    "EventBridge": event_bridge,
    "EventBridge in SQS": lambda record: sqs(event_bridge(record)),
}


@pytest.mark.parametrize("name", ENVELOPES)
def test_row_43_a_record_is_found_in_every_envelope(place: Place, fed: ModelServer, name: str) -> None:
    wrap = ENVELOPES[name]
    upload, again = seven(place), seven(place)
    assert deliver(fed, wrap(upload.event["Records"][0]), JSON).status == 200
    headers, body = to_structured(CloudEvent({"source": "s", "type": "t"}, wrap(again.event["Records"][0])))
    assert deliver(fed, body, headers).status == 200
    for one in (upload, again):
        assert list(place.copies(one)) == [f"digit-7/{one.key}"]
        assert len(place.results(one)) == 1


@pytest.mark.parametrize("name", ["ceph-source", "sqs-body"])
def test_row_43_the_reported_events_are_filed(place: Place, fed: ModelServer, name: str) -> None:
    upload = seven(place)
    event = json.loads((REPORTS / f"{name}.json").read_text())
    meant = upload.event["Records"][0]["s3"]
    if name == "sqs-body":
        body = json.loads(event["body"])
        body["Records"][0]["s3"] = meant
        event["body"] = json.dumps(body)
    else:
        event["s3"] = meant
    assert deliver(fed, event, JSON).status == 200
    assert list(place.copies(upload)) == [f"digit-7/{upload.key}"]


@pytest.mark.parametrize(
    "message",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "mnist"},
        {"Type": "SubscriptionConfirmation", "Message": "You have chosen", "SubscribeURL": "http://127.0.0.1:1/"},
        {"Type": "UnsubscribeConfirmation", "Message": "You have chosen", "SubscribeURL": "http://127.0.0.1:1/"},
    ],
)
def test_row_43_the_test_messages_of_services_are_acknowledged(fed: ModelServer, message: dict[str, Any]) -> None:
    for answer in deliver_all(fed, [message, [message], sns(message), sqs(sns(message))], JSON):
        assert (answer.status, answer.body) == (200, b"")


def test_row_43_what_is_wrong_in_one_message_of_several_is_refused_alone(place: Place, fed: ModelServer) -> None:
    upload = seven(place)
    good = sqs(upload.event)
    bad = ({**good, "body": "no JSON"}, sqs({"a": 1}), sqs([1]), sqs(minio_event("other", "x.png")), "x", 7)
    for answer in deliver_all(fed, [[one, good] for one in bad], JSON):
        assert (answer.status, answer.headers["kne-reason"]) in [(422, "badevent"), (422, "notallowed")]
    assert not place.is_left(upload)


def test_a_body_that_is_compressed_is_read(place: Place, server: ModelServer) -> None:
    upload = seven(place)
    body = gzip.compress(json.dumps(upload.event).encode())
    assert post(server.predict_url, body, {**JSON, "Content-Encoding": "gzip"}).status == 200
    assert list(place.copies(upload)) == [f"digit-7/{upload.key}"]
    answer = post(server.predict_url, b"no gzip", {**JSON, "Content-Encoding": "gzip"})
    assert (answer.status, answer.headers["kne-reason"]) == (400, "malformedbody")
