"""A task on fakes: objects and requests go down the real path, and the predictor is asked in its real format."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import orjson

from mnist_pipeline.pipeline import events
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.events import Inline, Notification
from mnist_pipeline.pipeline.interpretation import Prediction
from mnist_pipeline.pipeline.outcomes import verdict
from mnist_pipeline.pipeline.path import Pipeline
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.predictor_formats import InputSpec, OpenInference, format_named
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.task import PROTOCOLS, Batch, Task
from mnist_pipeline.testing.events import minio_event
from mnist_pipeline.testing.predictor import v2_outputs
from mnist_pipeline.testing.publisher import MemoryPublisher
from mnist_pipeline.testing.store import MemoryStore

_Result = TypeVar("_Result")

Answers = Callable[[Batch], Sequence[Any]]
"""Stands for a network: tensors `(N, …)` → for each a class number, a label's text, or a list of scores."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of an object or a request.

    Attributes:
        reasons: a word for each record: `filed`, `review`, `gone`, or why it is rejected or not settled.
        results: the events that were published for it, their data under `data`.
        answer: what a plain inline request is answered with.
        error: why it was refused, or not settled.
    """

    reasons: tuple[str, ...] = ()
    results: tuple[dict[str, Any], ...] = ()
    answer: dict[str, Any] | None = None
    error: PipelineError | None = None


class Harness:
    """Sends what a test gives it through a task, on a store and a publisher in memory.

        harness = Harness(Thumbnails(), lambda batch: [[0.9, 0.1]] * len(batch))
        sent = harness.send_object(jpeg)
        assert sent.results[0]["data"]["predictions"] == ["cat"]
        assert harness.store.keys("photos-cat") == ["1.jpg"]

    Args:
        task: an instance, or its class.
        predictor: stands for the network: it is given tensors `(N, …)`, and answers each with a class number, a
            label's text, or a list of scores.
        protocol: how the predictor is asked, `v1`, `v2` or `grpc-v2`, which is tested as `v2`; None: as the task says.
        store: None: one with the buckets that `setup` makes for the task.
        publisher: None: one of its own.
        settings: what is changed of them, by the names of `Settings`.

    Raises:
        SettingsError: with this task no transformer would start.
        ValueError: there is no such protocol.

    Attributes:
        store, publisher: the fakes, to be looked at and to be made to fail.
        asked: the tensors of each request to the predictor, as it has read them.
        settings, pipeline: the real ones.
    """

    def __init__(
        self,
        task: Task | type[Task],
        predictor: Answers,
        *,
        protocol: str | None = None,
        store: MemoryStore | None = None,
        publisher: MemoryPublisher | None = None,
        **settings: Any,
    ) -> None:
        task = task() if isinstance(task, type) else task
        if protocol not in (None, *PROTOCOLS):
            raise ValueError(f"the protocol {protocol!r} is none of {', '.join(PROTOCOLS)}")
        # Read as at the start of a transformer, which finds labels that have no places of their own.
        self.settings = replace(Settings.from_environ({}, task, predictor_protocol=protocol), **settings)
        self.store = store or MemoryStore.of(self.settings)
        self.publisher = publisher or MemoryPublisher()
        self.asked: list[Batch] = []
        self.pipeline = Pipeline(self.settings, self.store, self.publisher)
        self._predictor = predictor
        self._uploads = 0

    def send_object(self, data: bytes, *, key: str | None = None, bucket: str | None = None, **described: Any) -> Sent:
        """Upload an object and send its notification; `described` are further arguments of `MemoryStore.upload`.

        Raises:
            StoreUnavailable: there is no such bucket.
        """
        self._uploads += 1
        bucket = bucket or self.settings.source_buckets[0]
        key = key or f"{self._uploads}{self.settings.source_suffixes[0]}"
        described.setdefault("content_type", mimetypes.guess_type(key)[0] or "application/octet-stream")
        version = self.store.upload(bucket, key, data, **described)
        event = minio_event(
            bucket,
            key,
            version_id=version.version_id,
            size=len(data),
            etag=version.etag,
            content_type=version.content_type,
        )
        return self.send(event)

    def send(self, request: bytes | Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Sent:
        """Send the body of a V1 request: a notification, `instances`, or an image itself."""
        body = request if isinstance(request, bytes) else orjson.dumps(request)
        before = len(self.publisher.messages)
        sent = _run(self._send(body, {name.lower(): value for name, value in (headers or {}).items()}))
        results = tuple(orjson.loads(message.value) for message in self.publisher.messages[before:])
        return Sent(reasons=sent.reasons, results=results, answer=sent.answer, error=sent.error)

    async def _send(self, body: bytes, headers: Mapping[str, str]) -> Sent:
        deadline = Deadline(self.settings.event_timeout_seconds)
        go = self.pipeline.through(self._predict)
        try:
            request = events.parse(body, headers, self.settings)
            if isinstance(request, Inline):
                result = await self.pipeline.answer(request, go, deadline)
                return Sent(reasons=("predicted",), answer=dict(result.data))
        except PipelineError as exc:
            return Sent(reasons=(exc.reason,), error=exc)
        if not isinstance(request, Notification):
            return Sent(reasons=(request.reason,))
        outcomes = await self.pipeline.settle(request, go, deadline)
        return Sent(reasons=tuple(outcome.reason for outcome in outcomes), error=verdict(outcomes))

    async def _predict(self, tensors: Batch, deadline: Deadline) -> Sequence[Prediction]:
        """Ask in the format's own bytes, and read the answer from bytes."""
        deadline.remaining()
        task, count = self.settings.task, len(tensors)
        wanted = format_named(self.settings.predictor_format)
        if isinstance(wanted, OpenInference):
            spec = InputSpec.of(task.input)
            (given,) = orjson.loads(wanted.request(tensors, spec, task.input))["inputs"]
            self._note(given["data"], count)
            outputs = wanted.outputs(orjson.dumps({"outputs": v2_outputs(self._answers())}))
        else:
            instances = orjson.loads(wanted.request(tensors, task.input))["instances"]
            self._note(instances, count)
            outputs = wanted.outputs(orjson.dumps({"predictions": self._answers()}), count)
        return task.interpret(outputs, count)

    def _answers(self) -> Any:
        """What the network says of the last tensors, in Python's own types, whatever numpy's are among them."""
        given = self._predictor(self.asked[-1])
        return orjson.loads(orjson.dumps(given, lambda array: array.tolist(), orjson.OPT_SERIALIZE_NUMPY))

    def _note(self, numbers: Any, count: int) -> None:
        wanted = self.settings.task.input
        self.asked.append(np.array(numbers, wanted.datatype).reshape(count, *wanted.shape))


def _run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run it to its end, also where the test itself runs on an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
