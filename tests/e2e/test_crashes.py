"""Rows 22 and 30: a transformer that is killed after any step of the path, or told to end in the middle of one."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.following import wait_until
from e2e.places import Place, Upload
from e2e.stepping import WAIT_SECONDS
from e2e.ways import Way, deliver, deliver_all
from mnist_pipeline.local.processes import answers_ok
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.testing import digit_png

STEPS = ("get", "predict", "put", "publish", "delete")
NOT_AN_IMAGE = b"plain text, named .png"
LARGE = b"x" * 200_001
SETTINGS = {"MAX_OBJECT_BYTES": "200000"}


@dataclass(frozen=True)
class Stepping:
    """A transformer that kills itself after a step, or waits there."""

    server: ModelServer
    directory: Path

    @property
    def reached(self) -> bool:
        return (self.directory / "reached").exists()


@dataclass(frozen=True)
class Replicas:
    """One transformer that works, and as many that do something at a step as are wanted."""

    place: Place
    way: Way
    whole: ModelServer

    def stepping(self, step: str, then: str) -> Stepping:
        directory = self.place.sandbox.directory / str(uuid.uuid4())
        directory.mkdir()
        settings = {**SETTINGS, "STEP": step, "THEN": then, "STEP_DIR": str(directory)}
        return Stepping(self.place.start(program="e2e.stepping", settings=settings, way=self.way), directory)


@pytest.fixture(scope="module")
def replicas(place: Place, way: Way) -> Iterator[Replicas]:
    whole = place.start(settings=SETTINGS, way=way)
    whole.wait_ready()
    yield Replicas(place, way, whole)
    whole.close()


def status_of(server: ModelServer, event: dict[str, Any]) -> int | None:
    """The answer's status; None where the connection, or the member of the group, ends without one."""
    try:
        return deliver(server, event, {"ce-id": "1"}).status
    except (ConnectionError, http.client.HTTPException):
        return None


def killed_by(stepping: Stepping, event: dict[str, Any]) -> None:
    """Deliver to one that must die of it."""
    stepping.server.wait_ready()
    assert status_of(stepping.server, event) is None
    wait_until(lambda: not stepping.server.child.running)
    assert stepping.reached
    assert stepping.server.child.kill() == -signal.SIGKILL


def assert_converged(place: Place, upload: Upload, bucket: str, *, rejected: bool = False) -> None:
    """Exactly one object, in the right place, byte for byte; at least one result; one id."""
    copies = place.copies(upload)
    assert [name.partition("/")[0] for name in copies] == [bucket]
    assert set(copies.values()) == {upload.data}
    assert not place.is_left(upload)
    results = place.results(upload)
    assert len({event["id"] for event in results}) == 1
    assert all(event["type"].endswith(".rejected") is rejected for event in results)


@pytest.mark.parametrize("step", STEPS)
def test_row_30_a_transformer_that_is_killed_after_a_step_leaves_what_converges(replicas: Replicas, step: str) -> None:
    place, number = replicas.place, STEPS.index(step)
    upload = place.upload(f"{uuid.uuid4()}.png", digit_png(number))
    killed_by(replicas.stepping(step, "kill"), upload.event)
    # The source goes last, after the result, after the copy.
    assert place.is_left(upload) is (step != "delete")
    assert len(place.results(upload)) == int(step in ("publish", "delete"))
    assert len(place.copies(upload)) == int(step not in ("get", "predict"))
    for _ in range(2):
        assert status_of(replicas.whole, upload.event) == 200
        assert_converged(place, upload, f"digit-{number}")


@pytest.mark.parametrize("steps", [STEPS, ("publish", "put", "publish")])
def test_row_22_an_event_whose_every_delivery_is_cut_at_another_step_converges(
    replicas: Replicas, steps: tuple[str, ...]
) -> None:
    place = replicas.place
    upload = place.upload(f"{uuid.uuid4()}.png", digit_png(7))
    for stepping in [replicas.stepping(step, "kill") for step in steps]:
        killed_by(stepping, upload.event)
    assert status_of(replicas.whole, upload.event) == 200
    assert_converged(place, upload, "digit-7")
    assert len(place.results(upload)) == sum(step in ("publish", "delete") for step in steps) + ("delete" not in steps)


@pytest.mark.parametrize(
    ("data", "step"), [(NOT_AN_IMAGE, "put"), (NOT_AN_IMAGE, "publish"), (LARGE, "copy"), (LARGE, "publish")]
)
def test_row_22_a_rejection_that_is_cut_after_a_step_converges(replicas: Replicas, data: bytes, step: str) -> None:
    place = replicas.place
    upload = place.upload(f"{uuid.uuid4()}.png", data)
    killed_by(replicas.stepping(step, "kill"), upload.event)
    assert place.is_left(upload)
    assert status_of(replicas.whole, upload.event) == 422
    assert_converged(place, upload, "mnist-rejected", rejected=True)


@pytest.mark.parametrize("step", ["get", "put", "publish", "delete"])
def test_row_53_a_batch_that_is_cut_after_a_step_of_one_of_its_objects_converges(place: Place, step: str) -> None:
    whole = place.consume(settings=SETTINGS)
    replicas = Replicas(place, "kafka", whole)
    uploads = [place.upload(f"{uuid.uuid4()}.png", digit_png(number)) for number in range(8)]
    events = [upload.event for upload in uploads]
    stepping = replicas.stepping(step, "kill")
    stepping.server.wait_ready()
    with pytest.raises(ConnectionError):
        deliver_all(stepping.server, events)
    assert stepping.reached
    assert stepping.server.child.kill() == -signal.SIGKILL
    # What is released is filed and published.
    assert all(place.is_left(upload) or place.results(upload) for upload in uploads)
    whole.wait_ready()
    assert {answer.status for answer in deliver_all(whole, events)} == {200}
    for number, upload in enumerate(uploads):
        assert_converged(place, upload, f"digit-{number}")
    whole.close()


def test_row_22_an_inline_request_whose_answer_is_lost_gets_the_same_id_again(replicas: Replicas) -> None:
    trace_id = str(uuid.uuid4())
    request = {"instances": [{"data": base64.b64encode(digit_png(2)).decode()}], "test-trace-id": trace_id}
    killed_by(replicas.stepping("publish", "kill"), request)
    assert status_of(replicas.whole, request) == 200
    ids = [event["id"] for event in replicas.place.all_results() if event.get("test-trace-id") == trace_id]
    assert len(ids) == 2
    assert len(set(ids)) == 1


@pytest.mark.parametrize("step", STEPS)
def test_row_30_a_transformer_that_is_told_to_end_in_a_step_finishes_and_answers_first(
    replicas: Replicas, step: str
) -> None:
    place, number = replicas.place, STEPS.index(step)
    upload = place.upload(f"{uuid.uuid4()}.png", digit_png(number))
    stepping = replicas.stepping(step, "wait")
    stepping.server.wait_ready()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(status_of, stepping.server, upload.event)
        wait_until(lambda: stepping.reached)
        told = threading.Timer(WAIT_SECONDS / 4, os.kill, (stepping.server.child.pid, signal.SIGTERM))
        told.start()
        assert answer.result(30) == 200
    wait_until(lambda: not stepping.server.child.running, seconds=30)
    assert stepping.server.child.kill() == 0
    assert not answers_ok(stepping.server.http_port, "/v2/health/live")
    assert_converged(place, upload, f"digit-{number}")
