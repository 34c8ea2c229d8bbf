"""middleware.py: which requests reach the model, which KServe, and how each is answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mnist_pipeline.pipeline.errors import BadImage, PipelineError
from mnist_pipeline.serving.bodies import BodyLimits
from mnist_pipeline.serving.inference_v2 import RestRequest
from mnist_pipeline.serving.middleware import PipelineMiddleware

V1 = "/v1/models/mnist:predict"
V2 = "/v2/models/mnist/infer"


class Model:
    """A model that keeps what it is asked."""

    name = "mnist"
    body_limits = BodyLimits(each=100, together=1000, wait_seconds=0.05, read_seconds=5)

    def __init__(self, answer: Any = b"") -> None:
        self.answer = answer
        self.is_healthy = True
        self.asked: list[tuple[bytes | RestRequest, dict[str, str]]] = []
        self.told: list[str] = []

    async def healthy(self) -> bool:
        return self.is_healthy

    async def handle(self, request: bytes | RestRequest, headers: dict[str, str]) -> tuple[Any, dict[str, str]]:
        self.asked.append((request, headers))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, {"x-answer": "1"}

    def refused(self, error: PipelineError) -> None:
        self.told.append(error.reason)

    async def close_clients(self) -> None:
        """There are none."""


class Exchange:
    """One request through the middleware: the answer, and the path by which KServe's application was asked."""

    def __init__(
        self,
        path: str = V1,
        body: bytes = b"{}",
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        model: Model | None = None,
        kserve_answers: int = 200,
    ) -> None:
        self.model = model or Model()
        self.kserve_answers = kserve_answers
        self.passed_on: str | None = None
        self.sent: list[dict[str, Any]] = []
        pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "headers": pairs}

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            self.sent.append(message)

        asyncio.run(PipelineMiddleware(self.app, model=self.model)(scope, receive, send))
        self.status = self.sent[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}
        self.reason = self.headers.get("kne-reason")

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        del receive
        self.passed_on = scope["path"]
        await send({"type": "http.response.start", "status": self.kserve_answers, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("path", [V1, f"{V1}/", f"/{V1}", "/v1//models///mnist:predict//", "/", "//"])
def test_a_v1_request_reaches_the_model_as_it_came_however_its_slashes_are_written(path: str) -> None:
    given = {"content-type": "application/json", "ce-id": "1", "ce-specversion": "1.0", "host": "h", "traceparent": "t"}
    for body in (b"", b"[1]", b'{"a": 1}'):
        exchange = Exchange(path, body, headers=given)
        assert exchange.model.asked == [(body, given)]
        assert (exchange.status, exchange.headers) == (200, {"x-answer": "1", "content-length": "0"})
        assert exchange.passed_on is None


@pytest.mark.parametrize("path", [V2, f"{V2}/", "/v2//models/mnist/infer"])
def test_a_v2_request_reaches_the_model_as_one(path: str) -> None:
    assert Exchange(path, b"x").model.asked == [(RestRequest(b"x"), {})]


def test_an_answer_that_is_not_bytes_already_is_json() -> None:
    exchange = Exchange(model=Model({"predictions": [2]}))
    assert exchange.headers["content-type"] == "application/json"
    assert exchange.sent[1]["body"] == b'{"predictions":[2]}'
    assert exchange.headers["content-length"] == "19"


@pytest.mark.parametrize("error", [BadImage("no image"), PipelineError("internal error")])
def test_a_refusal_is_answered_with_its_status_its_reason_and_its_sentence(error: PipelineError) -> None:
    exchange = Exchange(model=Model(error))
    assert (exchange.status, exchange.reason) == (error.status, error.reason)
    assert json.loads(exchange.sent[1]["body"]) == {"detail": str(error)}


def test_a_model_that_is_not_ready_is_not_asked() -> None:
    model = Model()
    model.is_healthy = False
    exchange = Exchange(model=model)
    assert (exchange.status, exchange.reason, model.asked) == (503, "notready", [])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/other:predict",
        "/v2/models/other/infer",
        "/v1/models/mnist:explain",
        "/v1/models/mnist:",
        "/v2/models/mnist/versions/1/infer",
    ],
)
def test_row_40_an_unknown_model_version_or_verb_is_not_found_and_says_so_in_one_word(path: str) -> None:
    exchange = Exchange(path, kserve_answers=404)
    assert (exchange.status, exchange.model.asked) == (404, [])
    assert exchange.reason in ("unknownpath", "notfound")


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_row_40_inference_by_another_method_is_not_allowed(path: str, method: str) -> None:
    exchange = Exchange(path, method=method)
    assert (exchange.status, exchange.reason, exchange.headers["allow"]) == (405, "methodnotallowed", "POST")


@pytest.mark.parametrize(
    ("method", "path", "seen"),
    [
        ("GET", "/", "/"),
        ("GET", "/metrics", "/metrics"),
        ("GET", "/v1/models/mnist/", "/v1/models/mnist"),
        ("GET", "//v2/health//live", "/v2/health/live"),
        ("POST", "/v2/repository/models/mnist/load", "/v2/repository/models/mnist/load"),
    ],
)
def test_everything_else_is_kserve_s(method: str, path: str, seen: str) -> None:
    exchange = Exchange(path, method=method)
    assert (exchange.passed_on, exchange.model.asked, exchange.reason) == (seen, [], None)


@pytest.mark.parametrize(("status", "reason"), [(404, "notfound"), (405, "methodnotallowed"), (501, "notimplemented")])
def test_row_37_kserve_s_own_refusals_have_a_reason_too(status: int, reason: str) -> None:
    assert Exchange("/v9", kserve_answers=status).reason == reason


@pytest.mark.parametrize(("method", "told"), [("POST", ["notfound"]), ("GET", [])])
def test_what_is_posted_where_nothing_is_is_told_of_and_a_probe_is_not(method: str, told: list[str]) -> None:
    assert Exchange("/v1/models/mnist/predict", method=method, kserve_answers=404).model.told == told


def test_the_clients_are_closed_once_the_server_has_shut_down() -> None:
    happened: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, send
        happened.append((await receive())["type"])
        happened.append((await receive())["type"])

    class Closing(Model):
        async def close_clients(self) -> None:
            happened.append("closed")

    async def run() -> None:
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            raise AssertionError(message)

        await PipelineMiddleware(app, model=Closing())({"type": "lifespan"}, receive, send)

    asyncio.run(run())
    assert happened == ["lifespan.startup", "closed", "lifespan.shutdown"]
