"""The local stack is nobody's business but this machine's."""

from __future__ import annotations

import contextlib
import http.client
import socket
import urllib.request
from ipaddress import ip_address

import psutil

from mnist_pipeline.local.stack import Stack


def listening() -> set[tuple[str, int]]:
    """Address and port of whatever this process and those that it has started listen on."""
    ours = psutil.Process()
    pids = {ours.pid, *(child.pid for child in ours.children(recursive=True))}
    return {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for connection in psutil.net_connections("inet")
        if connection.pid in pids and (connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM)
    }


def test_every_part_listens_on_loopback_only(stack: Stack) -> None:
    with stack.start_transformer(name="two-workers", workers=2) as two:
        found = listening()
    servers = (stack.transformer, stack.predictor, two)
    ports = {port for server in servers for port in (server.http_port, server.grpc_port)} | {stack.gateway.port}
    assert ports <= {port for _, port in found}
    assert [place for place in found if not ip_address(place[0]).is_loopback] == []


def test_no_port_tells_about_the_process_behind_it(stack: Stack) -> None:
    assert stack.gateway.port in {port for _, port in listening()}
    told = []
    for address, port in listening():
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = urllib.request.urlopen(f"http://{address}:{port}/debug/pprof/", timeout=1)
            told.append((port, answer.read()))
    assert told == []
