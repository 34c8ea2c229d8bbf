"""Pure ASGI middleware in front of KServe's routes: every inference request goes to the model as it came, and every
refusal has its reason.

KServe 0.21 decodes requests before a model sees them, and loses what we need: a CloudEvent without a body (a Kafka
tombstone) is a 500, the attributes of a structured one are thrown away, whatever was a CloudEvent gets one as its
reply, and V2 input that is not well formed is a 500 with the input in its text. So the paths of inference end
here; all the others (health, metadata, metrics, model repository) are KServe's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mnist_pipeline.pipeline.errors import MethodNotAllowed, NotReady, PipelineError, UnknownPath
from mnist_pipeline.serving.bodies import Bodies, BodyLimits, BodyRefused, ClientGone
from mnist_pipeline.serving.inference_v2 import RestRequest

_V1 = re.compile(r"/v1/models/(?P<model>[^/]+):(?P<verb>[^/:]+)")
_V2 = re.compile(r"/v2/models/(?P<model>[^/]+)(?P<version>/versions/[^/]+)?/infer")


class InferenceModel(Protocol):
    """What the middleware asks of a model."""

    name: str
    body_limits: BodyLimits

    async def healthy(self) -> bool:
        """Whether it can answer."""

    async def handle(self, request: bytes | RestRequest, headers: dict[str, str]) -> tuple[Any, dict[str, str]]:
        """Payload and headers of the answer to one request; raises PipelineError for every other."""

    def refused(self, error: PipelineError) -> None:
        """Tell of a request that is refused without it."""

    async def close_clients(self) -> None:
        """Close the clients of this process."""


class PipelineMiddleware:
    """Hands inference requests to `model`, and the others to `app`.

    The model's clients are closed once in every process, when its server has answered what was in flight.
    """

    def __init__(self, app: ASGIApp, *, model: InferenceModel) -> None:
        self._app = app
        self._model = model
        self._bodies = Bodies(model.body_limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, self._watching(receive), send)
            return
        try:
            # A sink's URL is often put together by hand.
            path = re.sub("//+", "/", scope["path"]).rstrip("/") or "/"
            is_v2 = _is_v2(scope["method"], path, self._model.name)
            if is_v2 is None:
                await self._app({**scope, "path": path}, receive, self._with_reason(send, scope["method"]))
            else:
                await self._infer(scope, receive, send, is_v2=is_v2)
        except PipelineError as error:
            self._model.refused(error)
            await _refuse(send, error)
        except BodyRefused as refused:
            self._model.refused(refused.error)
            await _refuse(send, refused.error, close=refused.close)
        except ClientGone:
            pass

    async def _infer(self, scope: Scope, receive: Receive, send: Send, *, is_v2: bool) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        async with self._bodies.read(scope, receive) as body:
            if not await self._model.healthy():
                raise NotReady("the store, Kafka or the predictor has not answered yet")
            try:
                payload, answer_headers = await self._model.handle(RestRequest(body) if is_v2 else body, headers)
            except PipelineError as error:
                await _refuse(send, error)
                return
        await _answer(send, HTTPStatus.OK, payload, answer_headers)

    def _with_reason(self, send: Send, method: str) -> Send:
        """Sends KServe's own refusals with a reason too: the status in one word, as HTTP calls it.

        They are told of where something was posted: it may be events, to a wrong URL.
        """

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                status = HTTPStatus(message["status"])
                error = PipelineError(f"KServe answers {status.value} {status.phrase}")
                error.status = status.value
                error.reason = "".join(letter for letter in status.phrase.lower() if letter.isalpha())[:20]
                message = {**message, "headers": [*message["headers"], (b"kne-reason", error.reason.encode())]}
                if method == "POST":
                    self._model.refused(error)
            await send(message)

        return sent

    def _watching(self, receive: Receive) -> Receive:
        async def watched() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._model.close_clients()
            return message

        return watched


def _is_v2(method: str, path: str, model_name: str) -> bool | None:
    """Whether an inference request is one of V2; None where it is none, and KServe has the path.

    Raises:
        UnknownPath: there is no such model, version or verb.
        MethodNotAllowed: inference is a POST.
    """
    v1, v2 = _V1.fullmatch(path), _V2.fullmatch(path)
    if not (v1 or v2):
        # A sink without a path; with GET it is KServe's liveness.
        return False if path == "/" and method == "POST" else None
    named = v1 or v2
    if named is not None and named["model"] != model_name:
        raise UnknownPath("there is no model of this name here")
    if v1 and v1["verb"] != "predict":
        raise UnknownPath("a model can be asked for :predict only")
    if v2 and v2["version"]:
        raise UnknownPath("models have no versions here")
    if method != "POST":
        raise MethodNotAllowed("inference takes a POST")
    return v2 is not None


async def _refuse(send: Send, error: PipelineError, *, close: bool = False) -> None:
    headers = {"kne-reason": error.reason}
    if close:
        headers["connection"] = "close"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = "POST"
    await _answer(send, error.status, {"detail": str(error)}, headers)


async def _answer(send: Send, status: int, payload: Any, headers: Mapping[str, str]) -> None:
    """Send bytes as they are, all else as JSON."""
    body = payload if isinstance(payload, bytes) else orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY)
    if not isinstance(payload, bytes):
        headers = {"content-type": "application/json", **headers}
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": int(status), "headers": pairs})
    await send({"type": "http.response.body", "body": body})
