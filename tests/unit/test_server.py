"""server.py: KServe's flags, and what is mended of its workers."""

from __future__ import annotations

import time
from multiprocessing import Pipe
from typing import Any

import pytest
from kserve.protocol.rest.multiprocess.server import RESTServerProcess

from mnist_pipeline import server


class Worker:
    """The ends of a worker's pipe, as KServe's RESTServerProcess has them."""

    def __init__(self) -> None:
        self._parent_conn, self._child_conn = Pipe()

    def pings(self) -> int:
        count = 0
        while self._child_conn.poll(0):
            self._child_conn.recv()
            count += 1
        return count

    def pong(self) -> None:
        self._child_conn.send(b"pong")

    def close(self) -> None:
        self._parent_conn.close()
        self._child_conn.close()


@pytest.fixture
def worker() -> Any:
    worker = Worker()
    yield worker
    worker.close()


def test_a_worker_that_still_imports_is_asked_once_not_waited_for_and_taken_for_alive(worker: Worker) -> None:
    started = time.monotonic()
    assert all(server._patient_ping(worker, 5) for _ in range(20))  # noqa: SLF001 - what KServe's ping becomes
    assert time.monotonic() - started < 1
    assert worker.pings() == 1


def test_a_worker_that_has_answered_once_has_five_seconds_from_then_on(worker: Worker) -> None:
    assert server._patient_ping(worker)  # noqa: SLF001 - what KServe's ping becomes
    worker.pong()
    assert server._patient_ping(worker)  # noqa: SLF001 - the same
    assert not server._patient_ping(worker, 0.05)  # noqa: SLF001 - the same


def test_a_worker_that_never_answers_is_given_up_in_the_end(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server._patient_ping(worker)  # noqa: SLF001 - what KServe's ping becomes
    monkeypatch.setattr(server, "_FIRST_PONG_SECONDS", 0.0)
    assert not server._patient_ping(worker)  # noqa: SLF001 - the same


def test_kserve_still_has_what_is_mended_by_name() -> None:
    assert callable(RESTServerProcess.ping)
    assert "_parent_conn" in RESTServerProcess.__init__.__code__.co_names


def test_every_flag_of_kserve_is_taken_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    parser = server.argument_parser("mnist-pipeline serve")
    args = parser.parse_args(["--predictor_host", "p:80", "--predictor_protocol", "grpc-v2", "--workers", "3"])
    assert (args.model_name, args.workers, args.enable_latency_logging) == ("mnist", 3, False)
    predictor = server.predictor_of(args)
    assert (predictor.predictor_host, predictor.protocol, predictor.timeout) == ("p:80", "grpc-v2", 600)
    with pytest.raises(SystemExit) as exited:
        parser.parse_args(["--wokers", "3"])
    assert exited.value.code == 2
    assert "--wokers" in capsys.readouterr().err
