"""Puts the page together for one site, and serves it until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Collection, Generator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.client import topics
from mnist_pipeline.client.client import AsyncPredictionClient
from mnist_pipeline.pipeline.settings import Kafka, Settings, SettingsError
from mnist_pipeline.web.app import Parts, make_app
from mnist_pipeline.web.feed import Feed, Source
from mnist_pipeline.web.guard import Guard
from mnist_pipeline.web.history import History
from mnist_pipeline.web.live import MOST_STREAMS, Live
from mnist_pipeline.web.objects import Objects
from mnist_pipeline.web.shelves import Shelves
from mnist_pipeline.web.uploads import Uploads

if TYPE_CHECKING:
    from kserve.predictor_config import PredictorConfig

PORT = 8090
"""Where the page is, unless it is told."""

READ_ONLY = "This page only shows: whoever has started it did not let it upload (--allow-upload)."
"""Why there are no uploads."""

_BACK = timedelta(minutes=10)
# Less than others take: it is tried again, and why it fails is told meanwhile.
_CONNECT_SECONDS = 5.0
_STORE_CONNECTIONS = 16
# Requests beside the streams.
_MOST_OTHERS = 250
_GRACE_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class Site:
    """What the page is about, and what it may do there.

    Attributes:
        settings: of the transformer.
        topic: of the notifications.
        model_name: the predictor's.
        predictor: where it is; None: nobody is asked for scores.
        may_upload: whether it only shows.
        hosts: by which names browsers may reach it, beside addresses and `localhost`.
    """

    settings: Settings
    topic: str
    model_name: str
    predictor: PredictorConfig | None = None
    may_upload: bool = False
    hosts: Collection[str] = ()


def url_of(listener: socket.socket) -> str:
    """Where a browser on this machine finds the page."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - looked for, not listened on
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def serve(site: Site, listener: socket.socket, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Serve the page until SIGTERM or Ctrl-C; open streams end at once.

    Raises:
        SettingsError: the site has no store, or no Kafka.
    """
    asyncio.run(_serve(site, listener, on_ready))


async def _serve(site: Site, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    async with parts_of(site) as parts:
        app = Guard(make_app(parts), hosts=site.hosts)
        await PageServer(app, parts.live, on_ready).serve(sockets=[listener])


class PageServer(uvicorn.Server):
    """uvicorn, whose streams have an end, and which ends as a command does: by a return, not by its signal again.

    Args:
        app: what is served.
        live: whose streams end with it.
        on_ready: called once it listens.
    """

    def __init__(self, app: ASGIApp, live: Live, on_ready: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MOST_STREAMS + _MOST_OTHERS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._live = live
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, and let everything else finish for a moment."""
        self._live.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop at SIGINT and SIGTERM; afterwards they are handled as before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.asynccontextmanager
async def parts_of(site: Site) -> AsyncIterator[Parts]:
    """The parts of a site's page on the real adapters, which read its topics as long as they are in use.

    Raises:
        SettingsError: the site has no store, or no Kafka.
    """
    settings = site.settings
    if settings.minio is None or settings.kafka is None:
        raise SettingsError(problems_of(settings))
    notifications, results = replace(settings.kafka, topic=site.topic), settings.kafka
    live = Live((notifications.topic, results.topic))
    since = datetime.now(timezone.utc) - _BACK
    feed = Feed(
        live,
        settings,
        notifications=Source(
            topic=notifications.topic, named_by="--topic", open=partial(_opened, notifications, since)
        ),
        results=Source(topic=results.topic, named_by="KAFKA_TOPIC", open=partial(_opened, results, since)),
    )
    async with contextlib.AsyncExitStack() as closing:
        store = MinioObjectStore(settings.minio, connections=_STORE_CONNECTIONS)
        closing.push_async_callback(store.close)
        client = AsyncPredictionClient(settings)
        closing.push_async_callback(client.close)
        ask_scores = None
        if site.predictor is not None:
            from mnist_pipeline.web.scores import Scorer  # noqa: PLC0415 - KServe takes seconds to import

            scorer = Scorer(settings, site.model_name, site.predictor)
            closing.push_async_callback(scorer.close)
            ask_scores = scorer.scores
        objects = Objects(settings, store)
        closing.callback(objects.close)
        shelves = Shelves(settings, store, objects)
        closing.push_async_callback(shelves.close)
        for running in (feed.run(), live.run()):
            closing.push_async_callback(_cancel, asyncio.create_task(running))
        yield Parts(
            settings=settings,
            live=live,
            objects=objects,
            shelves=shelves,
            history=History(
                settings=settings,
                results=lambda key: topics.records(results, key=key),
                notifications=lambda since: topics.records(notifications, since=since),
            ),
            uploads=Uploads(settings, client, live) if site.may_upload else None,
            why_read_only=None if site.may_upload else READ_ONLY,
            ask_scores=ask_scores,
        )


def problems_of(settings: Settings) -> list[str]:
    """What a page cannot be without, a line each."""
    problems = []
    if settings.minio is None:
        problems.append("MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set: there are no objects to be shown")
    if settings.kafka is None:
        problems.append("KAFKA_BOOTSTRAP_SERVERS is not set: there is nothing to be followed")
    return problems


def _opened(kafka: Kafka, since: datetime, after: Mapping[int, int]) -> AbstractAsyncContextManager[topics.OpenTopic]:
    return topics.opened(kafka, since=since, after=after, timeout=_CONNECT_SECONDS)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
