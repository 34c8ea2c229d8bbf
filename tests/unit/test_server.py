"""server.py: KServe's flags, and what is mended of its workers."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from multiprocessing import Pipe
from typing import Any

import pytest
from kserve.protocol.grpc import server as grpc_server
from kserve.protocol.rest.multiprocess.server import RESTServerProcess
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mnist_pipeline.adapters.sockets import PortTaken, listen
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.serving import server
from mnist_pipeline.serving.grpc_servicer import PipelineServicer


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
    assert time.monotonic() - started < 5
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


def test_kserve_and_uvicorn_still_have_what_is_mended_by_name() -> None:
    assert callable(RESTServerProcess.ping)
    assert "_parent_conn" in RESTServerProcess.__init__.__code__.co_names
    assert issubclass(PipelineServicer, grpc_server.InferenceServicer)
    assert "InferenceServicer" in grpc_server.GRPCServer.start.__code__.co_names
    assert "auto" in HTTP_PROTOCOLS
    assert "_should_upgrade" in HttpToolsProtocol.on_headers_complete.__code__.co_names


@pytest.mark.parametrize("address", ["127.0.0.1", "", "::"])
def test_a_port_that_is_taken_is_told_in_one_line(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} cannot be listened on: Address already in use"):
            listen(None, port).close()
    listen(None, port).close()


@pytest.mark.parametrize(
    ("port", "host", "told"),
    [
        (99_999, None, "port 99999 cannot be listened on: ports are 0 to 65535"),
        (8080, "192.0.2.1", "192.0.2.1, port 8080, cannot be listened on: Cannot assign requested address"),
        (8080, "a..b", "a..b, port 8080, cannot be listened on: "),
    ],
)
def test_where_nothing_can_listen_is_told(port: int, host: str | None, told: str) -> None:
    with pytest.raises(PortTaken, match=re.escape(told)):
        listen(host, port)


# KServe's server as far as its event loop, which says what it is.
SERVE = """
import asyncio, sys, kserve
from kserve.model_server import ModelServer
from mnist_pipeline import Digits
from mnist_pipeline.serving import server

async def say(_):
    print(type(asyncio.get_running_loop()).__module__)

ModelServer._serve = say
args = server.argument_parser(Digits()).parse_args(sys.argv[1:])
model = kserve.Model("m")
model.ready, model.predictor, model.log_format = True, server.predictor_of(args), "console"
server.serve(model, args)
"""


@pytest.mark.parametrize(
    ("flags", "loop"),
    [
        ([], "uvloop"),
        (["--event-loop", "asyncio"], "asyncio"),
        # KServe sees to its workers' loops itself.
        (["--workers", "2"], "asyncio"),
    ],
)
def test_one_worker_gets_uvloop_unless_another_loop_is_asked_for(flags: list[str], loop: str) -> None:
    pytest.importorskip("uvloop")
    command = [sys.executable, "-c", SERVE, "--http_port", "0", "--enable_grpc", "false", *flags]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.stdout.split(".")[0].strip() == loop, ran.stderr


def test_every_flag_of_kserve_is_taken_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    parser = server.argument_parser(Digits())
    args = parser.parse_args(["--predictor_host", "p:80", "--predictor_protocol", "grpc-v2", "--workers", "3"])
    assert (args.model_name, args.workers, args.enable_latency_logging) == ("mnist", 3, False)
    predictor = server.predictor_of(args)
    assert (predictor.predictor_host, predictor.protocol, predictor.timeout) == ("p:80", "grpc-v2", 600)
    with pytest.raises(SystemExit) as exited:
        parser.parse_args(["--wokers", "3"])
    assert exited.value.code == 2
    assert "--wokers" in capsys.readouterr().err
