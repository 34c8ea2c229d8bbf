"""Row 31: several workers, on the embedded servers: all of them work, and what is killed is replaced."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from e2e.following import post, wait_until
from e2e.places import Place, Upload
from mnist_pipeline.local.processes import answers_ok
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.testing import digit_png

WORKERS = 4


@pytest.fixture(scope="module")
def server(embedded_place: Place) -> Iterator[ModelServer]:
    server = embedded_place.start(args=("--workers", str(WORKERS)))
    wait_for_workers(server, WORKERS)
    yield server
    server.close()


def workers(server: ModelServer) -> dict[int, float]:
    """The processes that answer requests: pid → CPU seconds."""
    found = {}
    for child in psutil.Process(server.child.pid).children():
        try:
            if any("spawn_main" in part for part in child.cmdline()):
                found[child.pid] = sum(child.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for_workers(server: ModelServer, number: int) -> None:
    """Ask for readiness until so many workers have found themselves ready."""
    server.wait_ready()
    path = f"/v1/models/{server.model_name}"
    wait_until(lambda: answers_ok(server.http_port, path) and len(ready(server)) == number, seconds=120)


def ready(server: ModelServer) -> set[int]:
    """The workers that have said in the log that they are ready."""
    lines = server.child.log.read_text().splitlines()
    return {int(line.split()[2]) for line in lines if "readiness INFO ready" in line} & workers(server).keys()


def classify(server: ModelServer, digit: int) -> int | None:
    """The digit that is answered; None where the connection ends without an answer."""
    request = {"instances": [{"data": base64.b64encode(digit_png(digit)).decode()}]}
    try:
        answer = post(server.predict_url, request, {"content-type": "application/json"})
    except (ConnectionError, http.client.HTTPException):
        return None
    assert answer.status == 200, answer
    (predicted,) = json.loads(answer.body)["predictions"]
    return int(predicted)


def test_row_31_every_request_to_four_workers_is_answered_rightly_and_all_of_them_work(server: ModelServer) -> None:
    before = workers(server)
    with ThreadPoolExecutor(16) as threads:
        digits = [n % 10 for n in range(200)]
        assert list(threads.map(lambda digit: classify(server, digit), digits)) == digits
    worked = [pid for pid, seconds in workers(server).items() if seconds > before[pid]]
    assert len(worked) > 1


def test_row_31_a_killed_worker_is_replaced_and_only_what_it_had_in_hand_is_not_answered(server: ModelServer) -> None:
    before = set(workers(server))
    victim = min(before)
    digits = [n % 10 for n in range(300)]
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(classify, server, digit) for digit in digits]
        wait_until(lambda: sum(answer.done() for answer in answers) > 50)
        os.kill(victim, signal.SIGKILL)
        answered = [answer.result() for answer in answers]
    lost = [number for number, digit in enumerate(digits) if answered[number] != digit]
    assert all(answered[number] is None for number in lost)
    assert len(lost) <= 8
    wait_for_workers(server, WORKERS)
    after = set(workers(server))
    assert before - after == {victim}
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda digit: classify(server, digit), digits)) == digits
    (replacement,) = after - before
    assert workers(server).keys() == after, "the replacement and the others are still there"
    assert replacement in ready(server)


def test_row_31_events_converge_although_workers_are_killed_in_the_middle(
    server: ModelServer, embedded_place: Place
) -> None:
    place = embedded_place
    uploads = [place.upload(f"{uuid.uuid4()}.png", digit_png(n % 10)) for n in range(60)]

    def deliver(upload: Upload) -> None:
        """As Knative does: again, until it is answered."""
        for _ in range(20):
            try:
                if post(server.predict_url, upload.event, {"ce-id": upload.key}).status == 200:
                    return
            except (ConnectionError, http.client.HTTPException):
                time.sleep(0.2)
        raise AssertionError(f"{upload.key} was never answered")

    with ThreadPoolExecutor(8) as threads:
        delivered = [threads.submit(deliver, upload) for upload in uploads]
        for part in (10, 30):
            wait_until(lambda part=part: sum(one.done() for one in delivered) > part)  # type: ignore[misc]
            os.kill(min(workers(server)), signal.SIGKILL)
        for one in delivered:
            one.result()
    wait_for_workers(server, WORKERS)
    for number, upload in enumerate(uploads):
        assert list(place.copies(upload)) == [f"digit-{number % 10}/{upload.key}"]
        assert not place.is_left(upload)
    ids = place.ids_by_subject()
    assert {len(ids[f"{place.bucket}/{upload.key}"]) for upload in uploads} == {1}


def test_row_31_no_worker_is_killed_while_it_still_imports(embedded_place: Place) -> None:
    # KServe gives up on a worker that has not answered for 5 s.
    server = embedded_place.start(program="e2e.slow_import", args=("--workers", "2"), settings={"IMPORT_SECONDS": "8"})
    try:
        wait_until(lambda: len(workers(server)) == 2, seconds=60)
        first = set(workers(server))
        wait_for_workers(server, 2)
        assert set(workers(server)) == first
        assert classify(server, 3) == 3
    finally:
        server.close()
