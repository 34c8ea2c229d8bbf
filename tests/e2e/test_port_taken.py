"""A transformer whose port is another's says so in one line and ends with exit code 2."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from mnist_pipeline.local.processes import free_port


@pytest.mark.parametrize("flag", ["--http_port", "--grpc_port"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_ends_it_with_one_line(flag: str, workers: str) -> None:
    ports = {"--http_port": str(free_port()), "--grpc_port": str(free_port())}
    command = [sys.executable, "-m", "mnist_pipeline", "--predictor_host", "predictor:8080", "--workers", workers]
    command += [part for pair in ports.items() for part in pair]
    # As gRPC's servers do, which share a port where they are let.
    with socket.create_server(("127.0.0.1", int(ports[flag])), reuse_port=True):
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    told = [line for line in ran.stderr.splitlines() if "port" in line]
    assert (ran.returncode, told) == (2, [f"port {ports[flag]} cannot be listened on: Address already in use"])
    assert "Traceback" not in ran.stderr
