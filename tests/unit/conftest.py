"""What several of the unit tests share."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loops on which each test runs."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.SelectorEventLoop}
    return loops | {"uvloop": uvloop.new_event_loop} if item.get_closest_marker("both_loops") else loops


@pytest.fixture
def collected_sockets(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Have the sockets collected here that kafka-python leaves to the garbage collector, and not in the middle of
    another test: captured records would keep them.
    """
    caplog.set_level(logging.CRITICAL, logger="kafka")
    yield
    gc.collect()


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name has an address, and that is known at once; a resolver that is away would take seconds to say so."""
    resolve = socket.getaddrinfo

    def numbers_only(host: str, port: int, family: int = 0, kind: int = 0, *_: int) -> Any:
        return resolve(host, port, family, kind, flags=socket.AI_NUMERICHOST)

    monkeypatch.setattr(socket, "getaddrinfo", numbers_only)


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
