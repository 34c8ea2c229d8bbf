"""proxy.py: what each fault looks like to a client."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from e2e.following import post
from e2e.sinks import Sink, always
from servers.proxy import Proxy


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(always(200)) as sink:
        yield sink


@pytest.fixture
def proxy(sink: Sink) -> Iterator[Proxy]:
    with Proxy(sink.port) as proxy:
        yield proxy


def read_all(client: socket.socket) -> None:
    while client.recv(100):
        pass


def ask(proxy: Proxy) -> int:
    return post(f"http://127.0.0.1:{proxy.port}/", b"x").status


def test_it_passes_everything_on_and_forgets_what_is_closed(proxy: Proxy, sink: Sink) -> None:
    assert [ask(proxy) for _ in range(3)] == [200] * 3
    assert (len(sink.received), proxy.accepted) == (3, 3)
    give_up = time.monotonic() + 5
    while proxy.open_connections:
        assert time.monotonic() < give_up


def test_a_cut_resets_what_is_open_and_refuses_until_it_is_healed(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client:
        while not proxy.open_connections:
            time.sleep(0.01)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        ask(proxy)
    proxy.heal()
    assert ask(proxy) == 200


def test_a_freeze_accepts_and_answers_nothing_and_what_is_held_goes_on(proxy: Proxy, sink: Sink) -> None:
    proxy.freeze()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert sink.received == []
        proxy.heal()
        client.settimeout(5)
        assert client.recv(12) == b"HTTP/1.1 200"


def test_a_delay_is_waited_for(proxy: Proxy) -> None:
    proxy.delay(0.3)
    started = time.monotonic()
    assert ask(proxy) == 200
    assert time.monotonic() - started >= 0.3


def test_a_reset_comes_in_mid_answer_and_once(proxy: Proxy) -> None:
    proxy.reset_after(20)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            read_all(client)
    assert proxy.answered_bytes == 0
    assert ask(proxy) == 200
