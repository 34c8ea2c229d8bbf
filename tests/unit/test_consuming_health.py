"""consuming/health.py: probes and scrapes where KServe's server has them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from mnist_pipeline.consuming.health import answering
from mnist_pipeline.telemetry.metrics import DEAD_LETTERS


@asynccontextmanager
async def health(*, ready: bool) -> AsyncIterator[aiohttp.ClientSession]:
    async def is_ready() -> bool:
        return ready

    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with answering(listener, "digits", is_ready), aiohttp.ClientSession(url) as session:
        yield session


async def answer(session: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with session.get(path) as response:
        return response.status, await response.text()


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
@pytest.mark.parametrize("path", ["/v2/health/ready", "/v1/models/digits", "/v2/models/digits/ready"])
async def test_it_is_ready_where_kserve_is_asked_whether_a_model_is(path: str, ready: bool, status: int) -> None:
    async with health(ready=ready) as session:
        answered, body = await answer(session, path)
    assert (answered, json.loads(body)) == (status, {"name": "digits", "ready": ready})


@pytest.mark.parametrize("path", ["/", "/v2/health/live"])
async def test_it_is_alive_whatever_is_away(path: str) -> None:
    async with health(ready=False) as session:
        answered, body = await answer(session, path)
    assert (answered, json.loads(body)) == (200, {"live": True})


async def test_the_metrics_are_those_of_this_process() -> None:
    DEAD_LETTERS.labels("digits", "ofthistest").inc()
    async with health(ready=True) as session, session.get("/metrics") as response:
        text = await response.text()
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert 'mnist_pipeline_dead_letters_total{model_name="digits",reason="ofthistest"} 1.0' in text


async def test_nobody_is_answered_once_it_has_ended_and_it_ends_although_somebody_is_connected() -> None:
    async def is_ready() -> bool:
        return True

    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    async with answering(listener, "digits", is_ready):
        idle = await asyncio.open_connection(*address)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    assert await idle[0].read() == b""
    idle[1].close()
    await idle[1].wait_closed()
