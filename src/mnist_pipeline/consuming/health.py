"""Health and metrics on a port, at the paths that KServe's server has them: the same probes and monitors serve both."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mnist_pipeline.telemetry.metrics import registry

_SHUTDOWN_SECONDS = 1.0


@asynccontextmanager
async def answering(
    listener: socket.socket, model_name: str, is_ready: Callable[[], Awaitable[bool]]
) -> AsyncIterator[None]:
    """Answer probes and scrapes there, for as long as the block lasts."""

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def ready(_: web.Request) -> web.Response:
        is_so = await is_ready()
        return web.json_response({"name": model_name, "ready": is_so}, status=200 if is_so else 503)

    async def metrics(_: web.Request) -> web.Response:
        text = await asyncio.to_thread(generate_latest, registry())
        return web.Response(body=text, headers={"content-type": CONTENT_TYPE_LATEST})

    app = web.Application()
    for path in ("/", "/v2/health/live"):
        app.router.add_get(path, live)
    for path in ("/v2/health/ready", f"/v1/models/{model_name}", f"/v2/models/{model_name}/ready"):
        app.router.add_get(path, ready)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()
