"""The page's HTTP API as a FastAPI application, on the parts that `server` puts together."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mnist_pipeline.client.errors import KeyTaken
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline import notifications
from mnist_pipeline.pipeline.errors import ObjectGone, PipelineError
from mnist_pipeline.pipeline.pictures import is_picture
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.web.answers import Answers
from mnist_pipeline.web.history import History
from mnist_pipeline.web.inputs import picture_of
from mnist_pipeline.web.live import MOST_STREAMS, Live
from mnist_pipeline.web.objects import NotShown, Objects, picture_type
from mnist_pipeline.web.shelves import Shelves
from mnist_pipeline.web.uploads import Uploads

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
"""The page's files."""

_NOT_KEPT = {"cache-control": "no-store"}
# What is filed keeps its name and its bytes.
_KEPT = {"cache-control": "private, max-age=600"}
_STREAM = {**_NOT_KEPT, "x-accel-buffering": "no"}  # nginx would hold it back

Place = Annotated[str, Query(max_length=1200)]
"""`bucket/key`; S3 takes no longer ones."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the application answers from.

    Attributes:
        settings: the site's.
        uploads: None: the page only shows; then `why_read_only` says why.
        ask_scores: gives a score of each label for a tensor; None: there is no predictor to be asked.
    """

    settings: Settings
    live: Live
    objects: Objects
    shelves: Shelves
    history: History
    uploads: Uploads | None
    why_read_only: str | None
    ask_scores: Callable[[NDArray[Any]], Awaitable[list[dict[str, Any]]]] | None


def make_app(parts: Parts) -> FastAPI:
    """The application, without its guard."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _add_live(app, parts)
    _add_objects(app, parts)
    _add_shelves(app, parts)
    _add_uploads(app, parts)
    _add_errors(app)
    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


def site_of(parts: Parts) -> dict[str, Any]:
    """What the page has to know of the site before it shows anything."""
    settings = parts.settings
    task = settings.task
    return {
        "name": task.name,
        "called": task.called,
        "labels": list(task.labels),
        "is_drawable": isinstance(task, Digits),
        "may_upload": parts.uploads is not None,
        "why_read_only": parts.why_read_only,
        "suffixes": list(settings.source_suffixes),
        "max_object_bytes": settings.max_object_bytes,
        "input_shape": list(task.input.shape),
        "shows_input": is_picture(task.input.shape),
        "has_scores": parts.ask_scores is not None,
        "source_bucket": settings.source_buckets[0],
        "trace_key": settings.trace_key,
        "shelves": [asdict(shelf) for shelf in parts.shelves.all],
    }


def _add_live(app: FastAPI, parts: Parts) -> None:
    live = parts.live
    site = site_of(parts)
    histories: Answers[dict[str, Any] | None] = Answers(seconds=2, most=50, at_once=2)

    @app.get("/api/site")
    async def get_site() -> Response:
        return _json(site)

    @app.get("/api/live")
    async def get_live(request: Request) -> Response:
        if live.streams >= MOST_STREAMS:
            raise HTTPException(503, f"{MOST_STREAMS} browsers watch this page already.")
        stream = live.stream(request.headers.get("last-event-id", ""))
        return StreamingResponse(stream, media_type="text/event-stream", headers=_STREAM)

    @app.get("/api/journeys/{trace_id:path}")
    async def get_journeys(trace_id: str) -> Response:
        async def told() -> dict[str, Any] | None:
            return await parts.history.of(trace_id, live.journeys)

        found = await histories.get(trace_id, told)
        if found is None:
            raise HTTPException(404, "Nothing on Kafka has this trace id.")
        return _json(found)


def _add_objects(app: FastAPI, parts: Parts) -> None:
    objects, task = parts.objects, parts.settings.task
    inputs: Answers[bytes] = Answers(seconds=30, most=100, at_once=4)
    scores: Answers[list[dict[str, Any]]] = Answers(seconds=30, most=500, at_once=4)

    @app.get("/api/pictures")
    async def get_picture(place: Place) -> Response:
        data = await objects.content(place)
        kind = picture_type(data)
        headers = {"content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'"}
        if kind is None:
            headers["content-disposition"] = _attachment(place)
        return Response(data, media_type=kind or "application/octet-stream", headers=headers | _caching(place, parts))

    @app.get("/api/input")
    async def get_input(place: Place) -> Response:
        if not is_picture(task.input.shape):
            raise HTTPException(404, f"What the network sees of {task.name} is no picture.")

        async def seen() -> bytes:
            tensor = await objects.tensor(place)
            return await asyncio.to_thread(picture_of, tensor, task.input)

        return Response(await inputs.get(place, seen), media_type="image/png", headers=_caching(place, parts))

    @app.get("/api/scores")
    async def get_scores(place: Place) -> Response:
        ask = parts.ask_scores
        if ask is None:
            raise HTTPException(404, "There is no predictor to be asked (--predictor_host).")

        async def asked() -> list[dict[str, Any]]:
            return await ask(await objects.tensor(place))

        return _json({"scores": await scores.get(place, asked)})


def _add_shelves(app: FastAPI, parts: Parts) -> None:
    shelves: Answers[dict[str, Any]] = Answers(seconds=2, most=1000, at_once=4)

    @app.get("/api/shelves/{number}")
    async def get_shelf(number: int, limit: Annotated[int, Query(ge=1, le=100)] = 24) -> Response:
        if not 0 <= number < len(parts.shelves.all):
            raise HTTPException(404, f"There is no shelf {number}.")
        shelf = parts.shelves.all[number]
        return _json(await shelves.get((number, limit), lambda: parts.shelves.newest(shelf, limit)))


def _add_uploads(app: FastAPI, parts: Parts) -> None:
    @app.post("/api/uploads")
    async def post_upload(request: Request, name: Annotated[str | None, Query(max_length=1024)] = None) -> Response:
        if parts.uploads is None:
            raise HTTPException(403, parts.why_read_only)
        length = request.headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,18}", length):
            raise HTTPException(400, "The Content-Length is no number.")
        sent = await parts.uploads.take(name, request.stream(), announced=int(length))
        return _json(sent, status=201)


def _add_errors(app: FastAPI) -> None:
    """Every error as one sentence in JSON."""

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, exc: HTTPException) -> Response:
        return _json({"detail": exc.detail}, status=exc.status_code, headers=exc.headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, exc: RequestValidationError) -> Response:
        told = (f"{one['loc'][-1]}: {one['msg']}" for one in exc.errors())
        return _json({"detail": "; ".join(told)}, status=422)

    @app.exception_handler(PipelineError)
    async def on_pipeline_error(_: Request, exc: PipelineError) -> Response:
        return _json({"detail": _sentence(exc)}, status=404 if isinstance(exc, ObjectGone) else exc.status)

    @app.exception_handler(NotShown)
    async def on_not_shown(_: Request, exc: NotShown) -> Response:
        return _json({"detail": _sentence(exc)}, status=404)

    @app.exception_handler(KeyTaken)
    async def on_taken(_: Request, exc: KeyTaken) -> Response:
        return _json({"detail": _sentence(exc)}, status=409)

    @app.exception_handler(asyncio.TimeoutError)
    async def on_timeout(_: Request, __: asyncio.TimeoutError) -> Response:
        return _json({"detail": "It did not come to its end in time."}, status=408)

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(Exception)
    async def on_bug(_: Request, __: Exception) -> Response:
        return _json({"detail": "Internal error; the log has more."}, status=500)


def _json(content: object, *, status: int = 200, headers: Any = None) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, status, {**_NOT_KEPT, **(headers or {})}, "application/json")


def _sentence(exc: Exception) -> str:
    said = str(exc)
    # A name stays as it is.
    return f"{said[:1].upper()}{said[1:]}." if said.partition(" ")[0].isalpha() else f"{said}."


def _caching(place: str, parts: Parts) -> dict[str, str]:
    bucket, _, key = place.partition("/")
    return _KEPT if notifications.is_output(bucket, key, parts.settings) else _NOT_KEPT


def _attachment(place: str) -> str:
    """As a file to be saved, under its own name (RFC 6266)."""
    return f"attachment; filename*=UTF-8''{quote(place.rpartition('/')[2], safe='')}"
