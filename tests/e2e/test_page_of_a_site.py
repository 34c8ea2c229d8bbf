"""`mnist-pipeline web` beside the local stack, and `demo --web`: what a browser sees and may do."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import orjson
import psutil
import pytest
from kafka import KafkaProducer
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from e2e.following import IMAGES, wait_until
from e2e.live_page import WEB, LivePage, Watcher, running
from e2e.places import search_path
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.adapters.sockets import PortTaken, listen
from mnist_pipeline.commands.demo_page import LivePage as LivePageOfTheDemo
from mnist_pipeline.local.broker import API_VERSION
from mnist_pipeline.local.stack import Stack
from mnist_pipeline.testing import digit_png
from mnist_pipeline.web import server

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "examples" / "samples"
PATH = os.pathsep.join((str(ROOT / "examples"), str(ROOT / "examples" / "thumbnails" / "src"), search_path()))


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[LivePage]:
    predictor = stack.predictor_address("v1")
    with running((*WEB, "--port", "0", "--allow-upload", "--predictor_host", predictor), stack.environ) as page:
        yield page


@pytest.fixture
def watcher(page: LivePage) -> Watcher:
    return Watcher(page.url)


def seven() -> bytes:
    """A seven whose bytes no other has."""
    with io.BytesIO() as file:
        own = PngInfo()
        own.add_text("id", str(uuid.uuid4()))
        Image.open(io.BytesIO(IMAGES["7-0000.png"])).save(file, "PNG", pnginfo=own)
        return file.getvalue()


def blank() -> bytes:
    with io.BytesIO() as file:
        Image.new("L", (280, 280), 255).save(file, "PNG")
        return file.getvalue()


def upload(page: LivePage, watcher: Watcher, data: bytes, name: str | None = None) -> str:
    """Upload as a browser does, and give the trace id once all is told that both topics tell."""
    answer = page.upload(data, name)
    assert answer.status_code == 201, answer.text
    trace_id: str = answer.json()["trace_id"]
    wait_until(lambda: any(one["published"] and one["notified"] for one in watcher.journeys(trace_id)))
    return trace_id


def header_of(stack: Stack, trace_id: str) -> tuple[Record, str]:
    (record,) = [record for record in stack.results() if record.key == trace_id.encode()]
    return record, dict(record.headers).get("server-timing", b"").decode()


def test_an_upload_is_followed_from_step_to_step_with_the_time_of_each(
    page: LivePage, watcher: Watcher, stack: Stack
) -> None:
    trace_id = upload(page, watcher, seven())
    told = watcher.journeys(trace_id)
    states = ["uploaded", "notified", "filed"]
    assert [state for state in states if state in {one["state"] for one in told}][-1] == "filed"
    assert [states.index(one["state"]) for one in told] == sorted(states.index(one["state"]) for one in told)
    assert len({one["id"] for one in told}) == 1
    last = told[-1]
    assert (last["label"], last["destination"]) == (7, f"digit-7/{last['place'].partition('/')[2]}")
    assert last["uploaded"] - 1000 < last["notified"] <= last["published"]
    assert last["score"] > 0.9
    record, timing = header_of(stack, trace_id)
    assert record.timestamp_ms == last["published"]
    assert last["stages"] == {name: float(took) for name, took in re.findall(r"(\w+);dur=([\d.]+)", timing)}


def test_the_picture_what_the_network_saw_and_all_scores_are_shown(page: LivePage, watcher: Watcher) -> None:
    data = seven()
    trace_id = upload(page, watcher, data)
    journey = watcher.journeys(trace_id)[-1]
    place = journey["destination"]
    assert page.get("api/pictures", place=place).content == data
    assert Image.open(io.BytesIO(page.get("api/input", place=place).content)).size == (28, 28)
    scores = page.get("api/scores", place=place).json()["scores"]
    assert [one["label"] for one in scores] == list(range(10))
    assert scores[7]["score"] == pytest.approx(journey["score"], abs=1e-6)
    assert sum(one["score"] for one in scores) == pytest.approx(1, abs=0.02)
    shelf = page.get("api/shelves/7", limit=100).json()
    assert (place, trace_id) in [(one["place"], one["trace_id"]) for one in shelf["objects"]]


def test_a_blank_drawing_is_rejected_with_its_reason_on_its_shelf(page: LivePage, watcher: Watcher) -> None:
    trace_id = upload(page, watcher, blank())
    journey = watcher.journeys(trace_id)[-1]
    assert (journey["state"], journey["reason"]) == ("rejected", "nodigit")
    assert journey["message"].startswith("there is no digit")
    found = page.get("api/shelves/10", limit=100).json()["objects"]
    assert [one["reason"] for one in found if one["trace_id"] == trace_id] == ["nodigit"]
    answer = page.get("api/input", place=journey["destination"])
    assert (answer.status_code, "digit" in answer.json()["detail"]) == (422, True)


def test_a_page_that_is_called_a_picture_does_not_run(page: LivePage, watcher: Watcher) -> None:
    html = b"<!doctype html><script>alert(document.domain)</script>"
    trace_id = upload(page, watcher, html, f"{uuid.uuid4()}.png")
    answer = page.get("api/pictures", place=watcher.journeys(trace_id)[-1]["destination"])
    assert (answer.status_code, answer.content) == (200, html)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_raw_records_of_a_trace_id_are_a_click_away(page: LivePage, watcher: Watcher, stack: Stack) -> None:
    trace_id = upload(page, watcher, seven())
    told = page.get(f"api/journeys/{trace_id}").json()
    (journey,) = told["journeys"]
    (notification,) = told["notifications"]
    (result,) = told["results"]
    assert notification["value"]["Key"] == journey["place"]
    record, _ = header_of(stack, trace_id)
    assert (result["partition"], result["offset"], result["key"]) == (record.partition, record.offset, trace_id)
    assert result["headers"]["test-trace-id"] == trace_id
    assert result["value"] == orjson.loads(record.value or b"")


def test_a_trace_id_from_before_the_page_is_found_on_the_topic(page: LivePage, watcher: Watcher, stack: Stack) -> None:
    old = f"old {uuid.uuid4()}/é"
    event = {"specversion": "1.0", "id": old, "type": "prediction", "time": "2026-01-01T00:00:00+00:00"}
    producer = KafkaProducer(bootstrap_servers=stack.broker.bootstrap_servers, api_version=API_VERSION)
    hours_ago = int((time.time() - 7200) * 1000)
    value = orjson.dumps({**event, "data": {"predictions": [3]}})
    producer.send(stack.results_topic, key=old.encode(), value=value, timestamp_ms=hours_ago).get(timeout=10)
    producer.close()
    upload(page, watcher, seven())  # what lay there before is read by now
    assert watcher.journeys(old) == []
    told = page.get(f"api/journeys/{quote(old, safe='')}").json()
    assert [(one["trace_id"], one["label"]) for one in told["journeys"]] == [(old, 3)]
    assert page.get("api/journeys/never").status_code == 404


def test_the_inline_requests_of_others_are_seen_too(watcher: Watcher, stack: Stack) -> None:
    trace_id = str(uuid.uuid4())
    body = {"instances": [[[0.0] * 28] * 28], "test-trace-id": trace_id}
    assert httpx.post(stack.transformer.predict_url, json=body, trust_env=False, timeout=30).status_code == 200
    wait_until(lambda: bool(watcher.journeys(trace_id)))
    journey = watcher.journeys(trace_id)[-1]
    assert (journey["state"], journey["place"], len(journey["labels"])) == ("predicted", None, 1)


def test_whoever_is_not_the_page_itself_uploads_nothing(page: LivePage) -> None:
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert page.upload(digit_png(7), **headers).status_code == 403
    assert page.upload(digit_png(7), host="evil.example", origin="http://evil.example").status_code == 421


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_read_only_page_says_so_and_ends_at_once_with_browsers_watching(number: signal.Signals, stack: Stack) -> None:
    with running((*WEB, "--port", "0"), stack.environ) as page:
        site = page.get("api/site").json()
        assert (site["may_upload"], site["why_read_only"], site["has_scores"]) == (False, server.READ_ONLY, False)
        assert page.upload(digit_png(7)).status_code == 403
        assert page.get("api/scores", place="digit-7/a.png").status_code == 404
        watchers = [Watcher(page.url) for _ in range(5)]
        begun = time.monotonic()
        assert page.stop(number)[0] == 0
        assert time.monotonic() - begun < 5
        wait_until(lambda: all(watcher.has_ended for watcher in watchers))


def test_nothing_of_a_secret_is_in_any_answer(page: LivePage, watcher: Watcher, stack: Stack) -> None:
    trace_id = upload(page, watcher, seven())
    answers = [page.get(path) for path in ("", "api/site", f"api/journeys/{trace_id}", "api/shelves/7", "api/x")]
    told = "".join(f"{answer.headers}{answer.text}" for answer in answers) + repr(watcher.events)
    assert stack.gateway.secret_key not in told


def test_a_port_that_is_taken_ends_it_with_one_line(stack: Stack) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        ran = subprocess.run(
            [*WEB, "--port", port], env={**os.environ, **stack.environ}, capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr == f"127.0.0.1, port {port}, cannot be listened on: Address already in use\n"
        demo = [sys.executable, "-m", "mnist_pipeline", "demo", "--web", "--web-port", port]
        ran = subprocess.run(demo, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "Address already in use" in ran.stderr


def test_the_demo_takes_a_free_port_where_its_usual_one_is_taken_and_none_was_asked_for() -> None:
    with contextlib.ExitStack() as taken:
        # By us, or by somebody else.
        with contextlib.suppress(PortTaken):
            taken.enter_context(listen("127.0.0.1", server.PORT))
        page = LivePageOfTheDemo(None)
        taken.enter_context(page.listener)
        assert page.listener.getsockname()[1] not in (0, server.PORT)
        assert page.url.startswith("http://127.0.0.1:")


def test_without_a_store_or_kafka_it_says_what_is_missing() -> None:
    ran = subprocess.run(WEB, capture_output=True, text=True, check=False)
    assert (ran.returncode, [line.split()[0] for line in ran.stderr.splitlines()]) == (
        2,
        ["MINIO_ACCESS_KEY", "KAFKA_BOOTSTRAP_SERVERS"],
    )


def test_the_demo_leaves_its_page_up_until_ctrl_c_and_then_nothing() -> None:
    command = (sys.executable, "-m", "mnist_pipeline", "demo", "--web", "--web-port", "0", "--count", "4")
    with running(command, {}) as page:
        children = psutil.Process(page.process.pid).children(recursive=True)
        assert children
        watcher = Watcher(page.url)
        assert page.get("api/site").json()["may_upload"] is True
        wait_until(lambda: len({one["id"] for one in watcher.of("journey") if one["state"] == "filed"}) >= 4)
        trace_id = upload(page, watcher, seven())
        place = watcher.journeys(trace_id)[-1]["destination"]
        assert len(page.get("api/scores", place=place).json()["scores"]) == 10
        code, said = page.stop()
    assert (code, said) == (0, "")
    wait_until(lambda: not any(child.is_running() for child in children), "programs are left")


@dataclass(frozen=True, kw_only=True)
class Example:
    """One of the examples' transformers, and what its page has."""

    module: str
    samples: str
    labels: int
    pixels: tuple[int, int] | None
    scores: int
    flags: tuple[str, ...] = ()


EXAMPLES = [
    Example(module="thumbnails", samples="photos", labels=5, pixels=(64, 64), scores=5),
    Example(
        module="fashion",
        samples="fashion",
        labels=10,
        pixels=(28, 28),
        scores=10,
        flags=("--predictor_protocol", "v2"),
    ),
    Example(module="readings", samples="readings", labels=2, pixels=None, scores=1),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.module)
def test_the_page_of_another_task_has_its_labels_and_its_pictures(example: Example) -> None:
    demo = (sys.executable, "-m", example.module, "demo", "--images", str(SAMPLES / example.samples))
    with running((*demo, "--web", "--web-port", "0", *example.flags), {"PYTHONPATH": PATH}) as page:
        site = page.get("api/site").json()
        assert (len(site["labels"]), site["is_drawable"]) == (example.labels, False)
        assert site["shows_input"] is (example.pixels is not None)
        watcher = Watcher(page.url)
        wait_until(lambda: any(one["destination"] for one in watcher.of("journey")))
        place = next(one["destination"] for one in watcher.of("journey") if one["destination"])
        assert page.get("api/pictures", place=place).status_code == 200
        answer = page.get("api/input", place=place)
        assert answer.status_code == (404 if example.pixels is None else 200)
        if example.pixels is not None:
            assert Image.open(io.BytesIO(answer.content)).size == example.pixels
        told = page.get("api/scores", place=place).json()["scores"]
        assert len(told) == example.scores
        assert {one["label"] for one in told} <= set(site["labels"])
        assert page.stop()[0] == 0
