"""What is seen of a transformer while it runs: one trace from upload to result, the metrics of all workers, the log."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.collector import Collector, collecting
from e2e.following import Answer, post, wait_until
from e2e.metrics import Metrics
from e2e.places import Place
from mnist_pipeline import PredictionClient
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.testing import digit_png, minio_event
from spans import Spans, id_of, parts, trace_of

STAGES = {"wait", "fetch", "decode", "predict", "file", "publish", "release"}
WORKERS = 3


def inline(trace_id: str) -> dict[str, object]:
    return {"instances": [{"data": base64.b64encode(digit_png(7)).decode()}], "test-trace-id": trace_id}


# --- traces ---


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module", params=["v1", "grpc-v2"])
def traced(request: pytest.FixtureRequest, place: Place, collector: Collector) -> Iterator[ModelServer]:
    port = place.predictor.grpc_port if request.param == "grpc-v2" else place.predictor.http_port
    server = place.start(
        settings={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"},
        predictor_host=f"127.0.0.1:{port}",
        args=("--predictor_protocol", request.param),
    )
    server.wait_ready()
    yield server
    server.close()


def published_headers(place: Place, trace_id: str) -> dict[str, bytes]:
    (record,) = (record for record in place.read_results() if record.key == trace_id.encode())
    return dict(record.headers)


def test_one_trace_leads_from_an_upload_to_its_result(place: Place, traced: ModelServer, collector: Collector) -> None:
    user = Spans()
    environ = {**place.settings, **place.owner, "SOURCE_BUCKETS": place.bucket}
    key = f"traced-{traced.http_port}.png"
    with PredictionClient.from_environ(environ=environ) as client:
        with user.provider.get_tracer("user").start_as_current_span("upload"):
            sent = client.upload(digit_png(7), key=key)
        stat = place.client().stat_object(bucket_name=place.bucket, object_name=key)
        event = minio_event(place.bucket, key, version_id=stat.version_id, etag=stat.etag or "")
        assert post(traced.predict_url, event).status == 200
        result = client.result(sent)
    trace = trace_of(user["upload"])
    process = f"process {place.bucket}"
    wait_until(lambda: process in collector.of(trace))
    spans = collector.of(trace)
    assert set(spans) >= STAGES | {process}
    assert spans[process].parent == id_of(user["upload"])
    assert {spans[stage].parent for stage in STAGES} == {spans[process].id}
    assert spans["predict"].id in {span.parent for span in collector.spans}, "the predictor's request is no span"
    assert {span.service for span in spans.values()} == {"test-transformer"}
    assert parts(published_headers(place, sent.trace_id)["traceparent"]) == (trace, spans["publish"].id)
    assert list(result.stages) == ["wait", "fetch", "decode", "predict", "file"]


def test_an_inline_request_s_trace_leads_to_its_result(place: Place, traced: ModelServer, collector: Collector) -> None:
    trace, span = f"{traced.http_port:032x}", "b7ad6b7169203331"
    trace_id = f"inline-{traced.http_port}"
    assert post(traced.predict_url, inline(trace_id), {"traceparent": f"00-{trace}-{span}-01"}).status == 200
    wait_until(lambda: "process inline request" in collector.of(trace))
    assert collector.of(trace)["process inline request"].parent == span
    assert parts(published_headers(place, trace_id)["traceparent"])[0] == trace


# --- metrics and the log ---


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[ModelServer]:
    server = place.start(args=("--workers", str(WORKERS)), settings={"LOG_FORMAT": "json"})
    server.wait_ready()
    yield server
    server.close()


def logged(server: ModelServer) -> list[dict[str, object]]:
    """The lines of its log, each of them JSON."""
    return [json.loads(line) for line in server.child.log.read_text().splitlines()]


def processes_of(lines: list[dict[str, object]], message: str) -> set[object]:
    return {line["process"] for line in lines if re.search(message, str(line["message"]))}


def test_row_52_the_metrics_are_the_sums_of_all_workers(place: Place, server: ModelServer) -> None:
    wait_until(lambda: len(processes_of(logged(server), "^Application startup complete")) == WORKERS)
    before = Metrics.of(server)
    good = place.upload("seen.png", digit_png(7), metadata={"test-trace-id": "seen-1"})
    bad = place.upload("no-picture.png", b"no picture")
    assert post(server.predict_url, good.event).status == 200
    assert post(server.predict_url, bad.event).status == 422

    def ask(number: int) -> Answer:
        return post(server.predict_url, inline(f"seen-{number}"))

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, range(100)))
    assert {answer.status for answer in answers} == {200}
    # Every scrape meets one worker; whichever it is, it tells the same.
    for after in [Metrics.of(server) for _ in range(8)]:
        assert after.grown(before, "events_total", outcome="filed", reason="") == 1
        assert after.grown(before, "events_total", outcome="rejected", reason="badimage") == 1
        assert after.grown(before, "events_total", outcome="predicted", reason="") == 100
        assert after.grown(before, "predictions_total", label="7") == 101
        assert after.grown(before, "stage_duration_seconds_count", stage="predict") == 101
        assert after.grown(before, "stage_duration_seconds_count", stage="fetch") == 2
        assert after.grown(before, "event_age_seconds_count") == 2
        assert after.grown(before, "fetched_bytes_total") == len(digit_png(7)) + len(b"no picture")
        assert after.value("in_flight") == 0
    asked = [line for line in logged(server) if line.get("outcome") == "predicted"]
    assert len({line["process"] for line in asked}) > 1, "one worker has answered everything: nothing was added up"


def test_the_log_is_json_with_a_line_for_each_event_and_libraries_speak_the_same(
    place: Place, server: ModelServer
) -> None:
    upload = place.upload("logged.png", digit_png(3), metadata={"test-trace-id": "logged-1"})
    assert post(server.predict_url, upload.event).status == 200
    assert post(server.predict_url, b"{").status == 400
    assert post(f"{server.url}/v1/models/other:predict", b"{}").status == 404
    lines = logged(server)
    (line,) = (line for line in lines if line.get("trace_id") == "logged-1")
    assert (line["level"], line["outcome"], line["labels"]) == ("INFO", "filed", [3])
    assert line["object"] == f"{place.bucket}/logged.png"
    assert line["destination"] == "digit-3/logged.png"
    assert set(line["milliseconds"]) == STAGES  # type: ignore[call-overload]
    assert {"kserve", "uvicorn.error", "mnist_pipeline.events"} <= {str(line["logger"]) for line in lines}
    assert {"malformedbody", "unknownpath"} <= {
        line.get("reason") for line in lines if line.get("outcome") == "refused"
    }
