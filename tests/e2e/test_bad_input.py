"""Rows 1 to 3, 5, 7 to 9, 11 to 14 and 37: what a transformer's process makes of input that is none."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import socket
import struct
import threading
import uuid
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from e2e.following import post
from e2e.places import REJECTED_BUCKET, Place
from e2e.sinks import Sink, always
from e2e.watching import PREDICT, Sent, Watched, exchange, peak_memory, watched_transformer
from e2e.ways import Way, deliver_all
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.serving.bodies import DRAIN
from mnist_pipeline.testing import digit_png, minio_event

LIMIT = 2_000_000
MEBIBYTE = 1024 * 1024
JSON = {"Content-Type": "application/json"}
# What a KafkaSource sends: no content type.
KNATIVE = {
    "Prefer": "reply",
    "ce-specversion": "1.0",
    "ce-id": "partition:0/offset:17",
    "ce-source": "/apis/v1/namespaces/ns/kafkasources/source#mnist",
    "ce-type": "dev.knative.kafka.event",
    "ce-subject": "partition:0#17",
}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
# An inline request whose answer would be a digit.
SEVEN = {"instances": [{"data": base64.b64encode(digit_png(7)).decode()}]}


@pytest.fixture(scope="module")
def watched(embedded_place: Place, way: Way) -> Iterator[Watched]:
    with watched_transformer(embedded_place, way, MAX_BODY_BYTES=str(LIMIT)) as watched:
        yield watched


@pytest.fixture(scope="module")
def serving(embedded_place: Place) -> Iterator[Watched]:
    """For what only HTTP has."""
    with watched_transformer(embedded_place, "http", MAX_BODY_BYTES=str(LIMIT)) as watched:
        yield watched


def in_envelope(data: object, **attributes: object) -> dict[str, object]:
    return {"specversion": "1.0", "id": "7", "source": "s", "type": "t", **attributes, "data": data}


# --- bodies ---


def test_row_01_a_tombstone_is_success_whatever_envelope_it_has(watched: Watched) -> None:
    watched.assert_acked("empty", (b"", {}), (b"", JSON), (b"", KNATIVE), (b"", {**KNATIVE, **JSON}))
    watched.assert_acked("empty", (b"", STRUCTURED), (in_envelope(None), STRUCTURED))


def test_row_01_an_empty_body_is_success_however_http_writes_it(serving: Watched) -> None:
    chunked = exchange(serving.server, [], KNATIVE)
    without_length = exchange(serving.server, headers=KNATIVE, content_length=False)
    for sent in (chunked, without_length):
        assert (sent.status, sent.body) == (200, b"")


def test_row_02_what_is_no_json_object_is_a_400(watched: Watched) -> None:
    bodies = [b"nope", b"{", b"[1]", b"null", b'"x"', b"3", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000]
    bodies += [b'{"Records":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"instances":' * 5000 + b"1" + b"}" * 5000]
    for headers in ({}, JSON, KNATIVE):
        watched.assert_refused(400, "malformedbody", *((body, headers) for body in bodies))
    watched.assert_refused(400, "malformedbody", *((in_envelope(data), STRUCTURED) for data in ([1], "x", 3)))


def test_row_03_no_records_are_refused_and_a_test_event_is_success(watched: Watched) -> None:
    bad: list[Any] = [{}, {"Records": None}, {"Records": "x"}, {"Records": {}}, {"Records": [None]}]
    bad += [{"Records": [{"eventName": "s3:ObjectCreated:Put"}]}]
    for headers in ({}, JSON, KNATIVE):
        watched.assert_refused(422, "badevent", *((payload, headers) for payload in bad))
        watched.assert_acked("testevent", ({"Service": "Amazon S3", "Event": "s3:TestEvent"}, headers))
        watched.assert_acked("empty", ({"Records": []}, headers))
    watched.assert_refused(422, "badevent", *((in_envelope(payload), STRUCTURED) for payload in bad))


def test_row_12_a_body_over_the_limit_is_a_413_that_the_client_sees_and_takes_no_memory(serving: Watched) -> None:
    fits = json.dumps({**SEVEN, "padding": "x" * (LIMIT - 1000)}).encode()
    assert exchange(serving.server, fits, JSON).status == 200
    before = peak_memory(serving.server)
    part = b"x" * MEBIBYTE
    whole = b"x" * (DRAIN * LIMIT)
    in_parts = [part] * (DRAIN * LIMIT // MEBIBYTE)

    def oversized(number: int) -> Sent:
        return exchange(serving.server, whole if number % 2 else iter(in_parts), KNATIVE if number % 3 else JSON)

    with serving.untouched(), ThreadPoolExecutor(4) as threads:
        for sent in threads.map(oversized, range(12)):
            assert (sent.status, sent.reason) == (413, "bodytoolarge")
    assert peak_memory(serving.server) - before < 8 * MEBIBYTE


def test_row_12_a_body_without_end_is_cut_off_and_takes_no_memory(serving: Watched) -> None:
    before = peak_memory(serving.server)
    part = b"%x\r\n%b\r\n" % (MEBIBYTE, b"x" * MEBIBYTE)
    sent, most = 0, 20 * DRAIN * LIMIT
    with serving.untouched(), socket.create_connection(("127.0.0.1", serving.server.http_port), timeout=30) as client:
        client.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            while sent < most:
                client.sendall(part)
                sent += MEBIBYTE
    # What lies in the sockets' buffers has not been read; they may grow to tens of megabytes.
    assert DRAIN * LIMIT <= sent < most / 2
    assert peak_memory(serving.server) - before < 8 * MEBIBYTE
    assert serving.send(SEVEN, JSON).status == 200


# --- events ---


@pytest.mark.parametrize("bucket", ["mnist", "other"])
def test_row_05_what_creates_no_object_is_success(watched: Watched, bucket: str) -> None:
    names = [f"s3:ObjectRemoved:{what}" for what in ("Delete", "DeleteMarkerCreated", "NoOP")]
    names += [f"s3:ObjectAccessed:{what}" for what in ("Get", "Head", "GetRetention", "GetLegalHold")]
    names += [f"s3:ObjectCreated:{what}" for what in ("PutTagging", "DeleteTagging", "PutRetention", "PutLegalHold")]
    names += ["s3:Replication:OperationCompletedReplication", "s3:Replication:OperationFailedReplication"]
    bucket = watched.place.bucket if bucket == "mnist" else bucket
    watched.assert_acked("ignored", *((minio_event(bucket, "7.png", event_name=name), KNATIVE) for name in names))


NO_KEYS = (
    "../x.png",
    "a/../../x.png",
    "a\r\n2026-01-01 forged: all is well.png",
    "a\x1b[2J\x1b[31mred.png",
    "a\0b.png",
    "\x7f.png",
    "a\x85b.png",
    "x" * 1021 + ".png",
    "é" * 511 + ".png",
)


def test_row_07_a_key_that_no_object_can_have_is_refused_and_forges_no_line_of_the_log(watched: Watched) -> None:
    bucket = watched.place.bucket
    requests = [(minio_event(bucket, key), KNATIVE) for key in NO_KEYS]
    with watched.logged() as lines:
        watched.assert_refused(422, "badkey", *requests)
        for sent in watched.send_all(requests):
            detail = json.loads(sent.body)["detail"]
            assert detail.isprintable()
            assert len(detail) < 400
        # No object that is there has one of these keys, but one could.
        odd = ("\u202egnp.exe.png", "a\u2028b.png", "日本\u200d.png")
        assert {sent.status for sent in watched.send_all([(minio_event(bucket, key), KNATIVE) for key in odd])} == {200}
    assert len(lines) >= 3
    assert all(line.isprintable() for line in lines), lines


@pytest.mark.real
@pytest.mark.parametrize("key", ["a//b.png", "x" * 252 + ".png", "é" * 126 + ".png"])
def test_row_07_a_key_that_the_store_calls_invalid_is_refused(
    real_server: ModelServer, real_place: Place, key: str
) -> None:
    results = len(real_place.read_results())
    answer = post(real_server.predict_url, minio_event(real_place.bucket, key), KNATIVE)
    assert (answer.status, answer.headers["kne-reason"]) == (422, "badkey")
    assert len(real_place.read_results()) == results


def test_row_08_what_is_not_listed_is_refused(watched: Watched) -> None:
    bucket = watched.place.bucket
    watched.assert_refused(
        422,
        "notallowed",
        *((minio_event("mnist", key), KNATIVE) for key in ("0.png", "../0.png")),
        *((minio_event(other, "0.png"), KNATIVE) for other in (bucket.upper(), bucket + "x", "", "digit-", "../x")),
        *((minio_event(bucket, key), KNATIVE) for key in ("0.txt", "0.PNG", "0", "", "0.png/", "0.png ")),
    )


def test_row_08_an_endpoint_that_an_event_names_is_never_asked(watched: Watched) -> None:
    upload = watched.place.upload(f"{uuid.uuid4()}.png", digit_png(7))
    (record,) = upload.event["Records"]
    with Sink(always(200)) as elsewhere:
        origin = f"http://127.0.0.1:{elsewhere.port}"
        record["responseElements"] = {"x-minio-origin-endpoint": origin, "x-amz-id-2": origin}
        record["source"] = {"host": "127.0.0.1", "port": str(elsewhere.port), "userAgent": origin}
        record["awsRegion"] = record["s3"]["configurationId"] = record["s3"]["endpoint"] = origin
        record["s3"]["bucket"]["arn"] = f"arn:aws:s3:::{origin}"
        event = {**upload.event, "endpoint": origin, "EndpointUrl": origin}
        assert watched.send(event, {**KNATIVE, "ce-endpoint": origin, "x-minio-endpoint": origin}).status == 200
        assert elsewhere.connections == 0
    assert list(watched.place.copies(upload)) == [f"digit-7/{upload.key}"]


def test_row_09_what_we_filed_rejected_or_said_ourselves_is_success(watched: Watched) -> None:
    ours = [(f"digit-{digit}", "0.png") for digit in range(10)]
    # These would be refused if they were not recognised first.
    ours += [(REJECTED_BUCKET, "0.png"), (REJECTED_BUCKET, "0.txt"), ("digit-0", "../x"), ("digit-0", "a\nb")]
    watched.assert_acked("ignored", *((minio_event(bucket, key), KNATIVE) for bucket, key in ours))
    said = {"source": "mnist-pipeline/mnist", "type": "io.kserve.mnist.prediction"}
    for kind in (said["type"], said["type"] + ".rejected"):
        binary = {"ce-specversion": "1.0", "ce-id": "7", "ce-source": said["source"], "ce-type": kind, **JSON}
        envelope = in_envelope({"predictions": [2]}, source=said["source"], type=kind)
        # Even one that names an object.
        event = minio_event("other", "0.png")
        watched.assert_acked("ownreply", ({"predictions": [2]}, binary), (envelope, STRUCTURED), (event, binary))


@pytest.mark.parametrize("bad", [["x"], {"x": 1}, True, 1.5, "x" * 257, "x" * 1_000_000, "a\r\nX-Injected: 1"])
def test_row_11_a_bad_trace_id_in_a_payload_or_an_attribute_is_refused(watched: Watched, bad: object) -> None:
    payloads = [SEVEN, minio_event(watched.place.bucket, "7.png")]
    watched.assert_refused(
        422,
        "badtraceid",
        *(({**payload, "test-trace-id": bad}, headers) for payload in payloads for headers in (JSON, KNATIVE)),
        *((in_envelope(payload, testtraceid=bad), STRUCTURED) for payload in payloads),
        *((in_envelope({**payload, "test-trace-id": bad}), STRUCTURED) for payload in payloads),
    )


@pytest.mark.parametrize("name", ["test-trace-id", "ce-testtraceid", "ce-test-trace-id", "ce-kafkaheadertest-trace-id"])
def test_row_11_a_bad_trace_id_in_a_header_is_refused(serving: Watched, name: str) -> None:
    payloads = [SEVEN, minio_event(serving.place.bucket, "7.png")]
    # A control character that HTTP allows, and one as Latin-1.
    for bad in ("x" * 257, "x" * 30_000, "a\tb", b"a\x85b"):
        headers = [{**JSON, name: bad}, {**KNATIVE, name: bad}]
        serving.assert_refused(422, "badtraceid", *((payload, one) for payload in payloads for one in headers))


@pytest.mark.parametrize("value", ["x" * MEBIBYTE, "a\r\n b", "a\x00b", "a\x1bb"])
def test_row_11_a_header_that_http_forbids_gets_no_further_than_the_server(serving: Watched, value: str) -> None:
    with serving.untouched(), socket.create_connection(("127.0.0.1", serving.server.http_port), timeout=30) as client:
        body = json.dumps(SEVEN)
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\ntest-trace-id: {value}\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            client.sendall((head + body).encode("latin-1"))
            answered = client.recv(65536)
            assert 400 <= int(answered.split()[1]) < 500, answered


def test_row_11_a_missing_trace_id_is_derived_and_an_integer_becomes_its_digits(watched: Watched) -> None:
    place = watched.place
    uploads = {
        case: place.upload(f"{uuid.uuid4()}.png", digit_png(7), metadata=metadata)
        for case, metadata in [("missing", {}), ("integer", {}), ("bad", {"test-trace-id": "x" * 257})]
    }
    events = {case: dict(upload.event) for case, upload in uploads.items()}
    events["integer"]["test-trace-id"] = 20261122
    with watched.logged() as lines:
        assert {sent.status for sent in watched.send_all([(event, KNATIVE) for event in events.values()])} == {200}
    results = {case: place.results(upload)[0] for case, upload in uploads.items()}
    assert results["integer"]["test-trace-id"] == "20261122"
    for case in ("missing", "bad"):
        assert uuid.UUID(results[case]["test-trace-id"]).version == 5
        assert results[case]["test-trace-id"] != results[case]["id"]
    assert [line for line in lines if uploads["bad"].key in line and "longer than 256" in line]


# --- objects ---


@pytest.fixture(scope="module")
def real_server(real_place: Place) -> Iterator[ModelServer]:
    server = real_place.start()
    server.wait_ready()
    yield server
    server.close()


@pytest.fixture(scope="module")
def server(place: Place, way: Way) -> Iterator[ModelServer]:
    server = place.start(settings={"MAX_OBJECT_BYTES": "300000"}, way=way)
    server.wait_ready()
    yield server
    server.close()


def png(width: int, height: int, pixels: bytes, *, bits: int = 8) -> bytes:
    """A PNG of one grey channel that says this of itself, whatever its pixels are."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def gif() -> bytes:
    with Image.open(io.BytesIO(digit_png(7))) as image, io.BytesIO() as file:
        image.save(file, "GIF")
        return file.getvalue()


def assert_rejected(place: Place, server: ModelServer, files: Mapping[str, bytes], reason: str = "badimage") -> None:
    """Upload and deliver each; see that it lies in the rejected bucket as it was, with its reason and its event."""
    uploads = {}
    for name, data in files.items():
        upload = place.upload(f"{uuid.uuid4()}/{name}.png", data, metadata={"test-trace-id": f"{name} {uuid.uuid4()}"})
        uploads[name] = upload
    answers = deliver_all(server, [upload.event for upload in uploads.values()], KNATIVE)
    for name, answer in zip(uploads, answers, strict=True):
        assert (answer.status, answer.headers.get("kne-reason")) == (422, reason), name
    for name, upload in uploads.items():
        ((where, copied),) = place.copies(upload).items()
        assert copied == upload.data
        assert not place.is_left(upload)
        bucket, _, key = where.partition("/")
        assert bucket == REJECTED_BUCKET
        metadata = place.client().stat_object(bucket_name=bucket, object_name=key).metadata or {}
        assert metadata["x-amz-meta-rejected-reason"] == reason
        (event,) = place.results(upload)
        assert event["type"] == "io.kserve.mnist.prediction.rejected"
        assert event["test-trace-id"] == metadata["x-amz-meta-test-trace-id"]
        assert event["test-trace-id"].startswith(name)
        assert (event["data"]["reason"], event["data"]["destination"]) == (reason, where)


def test_row_13_what_is_no_picture_goes_into_the_rejected_bucket_as_it_is(place: Place, server: ModelServer) -> None:
    files = {
        "empty": b"",
        "truncated": digit_png(7)[:-40],
        "text": b"plain text, named .png",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='28' height='28'><text>7</text></svg>",
        "gif": gif(),
    }
    assert_rejected(place, server, files)


def test_row_14_a_bomb_and_an_object_over_the_limit_are_rejected_with_bounded_memory(
    place: Place, server: ModelServer
) -> None:
    assert_rejected(place, server, {"warm": b"no image"})
    before = peak_memory(server)
    gibibyte = zlib.compressobj(9)
    zeros = bytes(MEBIBYTE)
    inflates = b"".join(gibibyte.compress(zeros) for _ in range(200)) + gibibyte.flush()
    bombs = {
        "claims-much": png(60_000, 60_000, zlib.compress(b"")),
        "claims-most": png(2**31 - 1, 2**31 - 1, inflates, bits=1),
    }
    assert_rejected(place, server, bombs)
    assert_rejected(place, server, {"claims-little": png(28, 28, inflates)}, "nodigit")
    assert_rejected(place, server, {"large": os.urandom(300_001)}, "objecttoolarge")
    assert peak_memory(server) - before < 30 * MEBIBYTE


class LyingStore(ThreadingHTTPServer):
    """An S3 server whose every object lies about its length; `asked` has what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _LyingHandler)
        self.asked: list[tuple[str, str]] = []


class _LyingHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LyingStore

    def do_GET(self) -> None:
        self._note()
        if "list-type" in self.path:
            self._answer(b"<ListBucketResult></ListBucketResult>")
            return
        self.close_connection = True
        self.send_response(200)
        for name, value in (("ETag", '"abc"'), ("x-amz-version-id", "v1"), ("Content-Type", "image/png")):
            self.send_header(name, value)
        self.send_header("Last-Modified", "Sun, 22 Nov 2026 04:44:26 GMT")
        if "too-long" in self.path:
            self.send_header("Content-Length", str(5 * 1024**3))
        elif "broken-off" in self.path:
            self.send_header("Content-Length", "250000")
        elif "nonsense" in self.path:
            self.send_header("Content-Length", "many")
        elif "negative" in self.path:
            self.send_header("Content-Length", "-1")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(3 if "broken-off" in self.path else 500):
                self.wfile.write(b"x" * 65_536)

    def do_PUT(self) -> None:
        self._note()
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(b"<CopyObjectResult></CopyObjectResult>")

    def do_DELETE(self) -> None:
        self._note()
        self._answer(b"")

    def _note(self) -> None:
        self.server.asked.append((self.command, self.path))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the overridden name
        pass


@pytest.fixture(scope="module")
def lying_store() -> Iterator[LyingStore]:
    store = LyingStore()
    thread = threading.Thread(target=store.serve_forever, args=(0.05,))
    thread.start()
    yield store
    store.shutdown()
    store.server_close()
    thread.join()


@pytest.fixture(scope="module")
def lied_to(embedded_place: Place, lying_store: LyingStore) -> Iterator[ModelServer]:
    endpoint = f"http://127.0.0.1:{lying_store.server_address[1]}"
    server = embedded_place.start(settings={"MINIO_ENDPOINT": endpoint, "MAX_OBJECT_BYTES": "300000"})
    server.wait_ready()
    yield server
    server.close()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("too-long", (422, "objecttoolarge")),
        ("endless", (422, "objecttoolarge")),
        ("negative", (503, "store")),
        ("broken-off", (503, "store")),
        ("nonsense", (503, "store")),
    ],
)
def test_row_14_a_store_that_lies_about_a_length_cannot_make_us_read_more_than_the_limit(
    embedded_place: Place, lying_store: LyingStore, lied_to: ModelServer, name: str, expected: tuple[int, str]
) -> None:
    key, before = f"{uuid.uuid4()}/{name}.png", peak_memory(lied_to)
    lying_store.asked.clear()
    answer = post(lied_to.predict_url, minio_event(embedded_place.bucket, key, etag="abc"), KNATIVE)
    assert (answer.status, answer.headers["kne-reason"]) == expected
    assert peak_memory(lied_to) - before < 4 * MEBIBYTE
    methods = [method for method, path in lying_store.asked if "list-type" not in path]
    # The second GET looks whether the copy is there and marked already.
    assert methods == ["GET", "GET", "PUT", "DELETE"] if answer.status == 422 else set(methods) == {"GET"}


# --- headers ---


def test_row_37_no_answer_has_a_header_that_would_hang_knative(serving: Watched) -> None:
    server, bucket = serving.server, serving.place.bucket
    good = serving.place.upload(f"{uuid.uuid4()}.png", digit_png(7))
    bad = serving.place.upload(f"{uuid.uuid4()}.png", b"no image")
    large = b"x" * (LIMIT + 1)
    infer = "/v2/models/mnist/infer"
    tensor = {"name": "x", "shape": [1, 784], "datatype": "FP32", "data": [0.0] * 784}
    v2 = (json.dumps({"inputs": [tensor]}).encode(), b"{}", b'{"inputs": []}', b"{")
    predicted = [
        serving.send(good.event, KNATIVE),
        serving.send(bad.event, KNATIVE),
        serving.send(minio_event(bucket, "gone.png"), KNATIVE),
        *(serving.send(payload, KNATIVE) for payload in (b"", b"{", {}, {"Event": "s3:TestEvent"}, SEVEN, large)),
        *(serving.send(payload, JSON) for payload in (SEVEN, {"instances": [[1]]}, {"instances": [{"data": "?"}]})),
        serving.send({**SEVEN, "test-trace-id": []}, JSON),
        serving.send(minio_event("other", "../x.txt"), JSON),
    ]
    serving.store.cut()
    predicted.append(serving.send(minio_event(bucket, "away.png"), KNATIVE))
    serving.store.heal()
    others = [
        exchange(server, large, KNATIVE, path=infer),
        *(exchange(server, body, JSON, path=infer) for body in v2),
        exchange(server, json.dumps(SEVEN).encode(), KNATIVE, path="/v1/models/other:predict"),
        exchange(server, json.dumps(SEVEN).encode(), KNATIVE, path="/v1/models/mnist:explain"),
        exchange(server, b"{}", KNATIVE, path="/nowhere"),
        *(exchange(server, method=method) for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS")),
        *(
            exchange(server, method="GET", path=path)
            for path in ("/", "/metrics", "/v2/health/live", "/v1/models/mnist")
        ),
    ]
    answers = predicted + others
    assert {200, 400, 404, 405, 413, 422, 503} <= {sent.status for sent in answers}
    names = {name for sent in answers for name, _ in sent.headers if name.lower().startswith("kne")}
    assert names == {"kne-reason"}
    assert all(re.fullmatch("kne-[a-z0-9]{1,20}", name) for name in names)
    reasons = {sent.reason for sent in answers if sent.reason}
    assert all(re.fullmatch("[a-z]{1,20}", reason) for reason in reasons)
    assert {"badevent", "badimage", "badtensor", "badtraceid", "bodytoolarge", "malformedbody", "store"} <= reasons
    # A dead letter says why.
    assert all(sent.reason for sent in predicted if sent.status != 200)
