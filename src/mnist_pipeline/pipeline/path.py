"""The path of an event: fetch, decode, ask the predictor, file, publish, release; on the two ports.

The order is what keeps the promise that nothing is lost or misfiled: the bytes in hand are filed before the result is
published, and the source is released only after the broker's acknowledgement. Whatever is cut short leaves the
source, and the same event delivered again converges: the copy is found to be there, the result gets the same id.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from mnist_pipeline.pipeline import instances
from mnist_pipeline.pipeline.decoding import Decoder
from mnist_pipeline.pipeline.errors import (
    BadTensor,
    BadTraceId,
    DeadlineExceeded,
    MessageTooLarge,
    ObjectGone,
    ObjectTooLarge,
    Permanent,
    PipelineError,
    PredictorUnavailable,
    ResultTooLarge,
    Retryable,
    TensorRefused,
    without_frames,
)
from mnist_pipeline.pipeline.events import Inline, Notification, trace_id_in
from mnist_pipeline.pipeline.fetching import fetch
from mnist_pipeline.pipeline.interpretation import Label, Prediction
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.ports import Deadline, ObjectStore, ObjectVersion, Publisher, StoredObject
from mnist_pipeline.pipeline.results import (
    Result,
    inline_result,
    object_identity,
    rejected_data,
    trace_id_of,
)
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.settlement import Fetched, Outcome, Settlement, failed, stored_in
from mnist_pipeline.pipeline.task import Batch

log = logging.getLogger(__name__)

RECORDS_AT_ONCE = 8
"""Records of one event that are in hand together, as long as their bytes are not more than one object may have."""

FETCH_SHARE = 0.5
"""What of an event's time its objects may take to be fetched, and its instances to be decoded."""

PREDICT_SHARE = 0.5
"""What of the time that is then left the predictor may take; filing, publishing and releasing have the rest."""

_ROUNDING = 1e-3
"""So much may a score lie outside 0..1."""


@dataclass(kw_only=True)
class Passage:
    """One pass along the path: what `prepare` was given, and what it leaves for `finish`.

    `fetched` are the objects in hand that are not settled yet, `outcomes` what became of the others.
    `later` are the objects of a notification that are still to be prepared, in a pass of their own; None until then.
    `result` is that of an inline request, once it is published.
    """

    request: Notification | Inline
    deadline: Deadline
    fetched: list[Fetched] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    later: tuple[ObjectRef, ...] | None = None
    result: Result | None = None


Go: TypeAlias = Callable[[Passage], Awaitable[Any]]
"""Takes a passage through `prepare`, the predictor and `finish`; what counts is what it then holds."""

Predict: TypeAlias = Callable[[Batch, Deadline], Awaitable[Sequence[Prediction | Label]]]
"""Tensors `(N, …)`, and by when → N predictions; raises Retryable."""


class Pipeline:
    """The path, on a store and a publisher; `settings` says for which task. It belongs to one event loop.

    `store` is None: requests that name objects are answered as if the store were away. `publisher` is None: nothing is
    published. It may be pickled as long as its parts can be.
    """

    def __init__(self, settings: Settings, store: ObjectStore | None, publisher: Publisher | None) -> None:
        self.settings = settings
        self.store = store
        self.publisher = publisher
        self._decoder = Decoder(settings)
        self._settlement = Settlement(settings, store, publisher)

    # --- a request ---

    async def settle(self, request: Notification, go: Go, deadline: Deadline) -> list[Outcome]:
        """Settle every record of a notification, a few at a time; nothing is begun after the deadline."""
        outcomes = [Outcome(reason=refusal.reason, error=refusal) for refusal in request.refused]
        outcomes += [Outcome(reason="ignored")] * request.ignored
        while request.objects:
            try:
                deadline.remaining()
            except DeadlineExceeded as exc:
                log.error("%d objects of one event are not begun: %s", len(request.objects), exc)
                outcomes.append(Outcome(reason=exc.reason, error=without_frames(exc), stays=True))
                break
            passage = Passage(request=request, deadline=deadline)
            try:
                await go(passage)
                if passage.later is None or passage.fetched:
                    raise Retryable("preprocess and postprocess have to call their super's")
            except PipelineError as exc:
                # What never came to `prepare` has nothing of its own to settle.
                if passage.later is None:
                    raise
                if not passage.fetched:
                    outcomes.append(Outcome(reason=exc.reason, error=without_frames(exc)))
                await self.abandon(passage, exc)
            outcomes += passage.outcomes
            request = replace(request, objects=passage.later)
        return outcomes

    async def answer(self, request: Inline, go: Go, deadline: Deadline) -> Result:
        """Classify and publish an inline request; what can never be classified is published as rejected.

        Raises:
            Permanent: why it can never be classified.
            Retryable: the predictor or Kafka is away, slow or confused.
        """
        passage = Passage(request=request, deadline=deadline)
        try:
            given = await go(passage)
        except TensorRefused as exc:
            if all(instances.is_image(instance) for instance in request.instances):
                raise
            refusal: Permanent = BadTensor(str(exc))
        except Permanent as exc:
            refusal = without_frames(exc)
        else:
            # A hook may answer with a result of its own, once ours is published.
            if passage.result is None:
                raise Retryable("postprocess has to call its super's")
            return given if isinstance(given, Result) else passage.result
        await self._reject_inline(request, refusal, deadline)
        raise refusal

    def through(self, predict: Predict) -> Go:
        """The way of a passage where nobody stands between the steps, as KServe does."""

        async def go(passage: Passage) -> Any:
            tensors = await self.prepare(passage)
            predictions = await predict(tensors, passage.deadline.share(PREDICT_SHARE)) if len(tensors) else []
            return await self.finish(passage, predictions)

        return go

    # --- its steps ---

    async def prepare(self, passage: Passage) -> Batch:
        """Fetch and decode what the request names, a few objects at a time, or decode what it brings: `(N, …)`.

        A record that fails is an outcome of its own and does not raise; an inline request that cannot be read does.

        Raises:
            Permanent: an inline request that can never be classified.
            DeadlineExceeded: an inline request has more instances than can be decoded in the time.
        """
        deadline = passage.deadline.share(FETCH_SHARE)
        if isinstance(passage.request, Inline):
            if passage.request.refusal is not None:
                raise passage.request.refusal
            return await self._decoder.decode_all(passage.request.instances, deadline)
        await self._fetch_some(passage, passage.request, deadline)
        tensors = [one.tensor for one in passage.fetched if one.tensor is not None]
        wanted = self.settings.task.input
        return np.stack(tensors) if tensors else np.empty((0, *wanted.shape), wanted.datatype)

    async def finish(self, passage: Passage, predictions: Sequence[Prediction | Label]) -> Sequence[Outcome] | Result:
        """Settle every object: file and publish the classified ones, reject the others, release both. Or publish the
        result of an inline request.

        Args:
            passage: as `prepare` left it.
            predictions: those of its tensors, in their order.

        Raises:
            PredictorUnavailable: there is not one prediction a tensor; nothing is settled.
            ResultTooLarge, KafkaUnavailable, DeadlineExceeded: the result of an inline request is not published.
        """
        if isinstance(passage.request, Inline):
            checked = self._checked(predictions, len(passage.request.instances))
            passage.result = await self._publish_inline(passage.request, checked, passage.deadline)
            return passage.result
        caller = passage.request.caller
        tensors = sum(item.tensor is not None for item in passage.fetched)
        waiting = iter(self._checked(predictions, tensors))
        while passage.fetched:
            item = passage.fetched.pop(0)
            prediction = next(waiting) if item.tensor is not None else None
            passage.outcomes.append(await self._settlement.settle(item, prediction, caller, passage.deadline))
        return passage.outcomes

    async def abandon(self, passage: Passage, error: PipelineError) -> Sequence[Outcome]:
        """Settle objects whose prediction failed: what can never be classified is rejected all the same."""
        for item in passage.fetched:
            if item.refusal is not None:
                outcome = await self._settlement.settle(item, None, passage.request.caller, passage.deadline)
            else:
                outcome = failed(item.stored.version, error)
            passage.outcomes.append(outcome)
        return passage.outcomes

    # --- objects ---

    async def _fetch_some(self, passage: Passage, request: Notification, deadline: Deadline) -> None:
        limit = room = self.settings.max_object_bytes
        also_meant: list[ObjectRef] = []
        begun = 0
        for ref in request.objects[:RECORDS_AT_ONCE]:
            try:
                stored, others = await fetch(stored_in(self.store), ref, room, deadline)
                if stored.data is None and room < limit:
                    break  # there is no room for it beside the others: it is fetched again with the next ones
                also_meant += others
                room -= len(stored.data or b"")
                passage.fetched.append(await self._decoded(stored, request.trace_id, passage.deadline))
            except ObjectGone as exc:
                log.info("%s/%s is gone: %s", ref.bucket, ascii(ref.key), exc)
                passage.outcomes.append(Outcome(reason=exc.reason))
            except PipelineError as exc:
                passage.outcomes.append(failed(ref, exc))
            begun += 1
        passage.later = (*also_meant, *request.objects[begun:])

    async def _decoded(self, stored: StoredObject, trace_id: str | None, deadline: Deadline) -> Fetched:
        version = stored.version
        trace_id = trace_id or self._trace_id_of(version)
        if stored.data is None:
            refusal = ObjectTooLarge(f"the object is larger than {self.settings.max_object_bytes:,} bytes")
            return Fetched(stored=stored, trace_id=trace_id, refusal=refusal)
        encoding = version.content_headers.get("content-encoding", "")
        try:
            tensor = await self._decoder.decode(stored.data, deadline, encoding=encoding)
        except Permanent as exc:
            return Fetched(stored=stored, trace_id=trace_id, refusal=without_frames(exc))
        return Fetched(stored=stored, trace_id=trace_id, tensor=tensor)

    def _trace_id_of(self, version: ObjectVersion) -> str:
        try:
            given = trace_id_in(version.metadata, self.settings)
        except BadTraceId as exc:
            log.warning("%s/%s: %s; it is ignored", version.bucket, ascii(version.key), exc)
            given = None
        return given or trace_id_of(object_identity(version))

    # --- inline requests ---

    async def _publish_inline(self, request: Inline, predictions: Sequence[Prediction], deadline: Deadline) -> Result:
        settings = self.settings
        data = settings.task.data(predictions, inline=True)
        labels = [prediction.label for prediction in predictions]
        result = inline_result(request, data, type=settings.event_type, source=settings.event_source, labels=labels)
        try:
            await self._settlement.publish(result, deadline)
        except MessageTooLarge as exc:
            raise ResultTooLarge(str(exc)) from exc
        return result

    async def _reject_inline(self, request: Inline, refusal: Permanent, deadline: Deadline) -> None:
        """Publish why an inline request is refused, where it has an identity under which somebody may wait for it."""
        if request.identity is None:
            return
        settings = self.settings
        data = rejected_data(refusal)
        result = inline_result(request, data, type=settings.rejected_type, source=settings.event_source)
        await self._settlement.publish(result, deadline)

    # --- both ---

    def _checked(self, predictions: Sequence[Prediction | Label], n: int) -> list[Prediction]:
        """Nothing is filed by a guess, whoever has made the prediction: a label each, or a prediction with one."""
        labels = self.settings.task.labels
        checked = [_plain(one) for one in predictions]
        if len(checked) != n or not all(_is_one_of(labels, one.label) for one in checked):
            called = self.settings.task.called
            raise PredictorUnavailable(
                f"{n} tensors were predicted as {[one.label for one in checked]!r:.100}, which is not one {called} each"
            )
        return checked

    async def check(self, deadline: Deadline) -> None:
        """Ask the store and Kafka for something small, to know that they answer us.

        Raises:
            Retryable: one of them does not.
        """
        if self.store is not None:
            await self.store.check(self.settings.source_buckets[0], deadline=deadline)
        if self.publisher is not None:
            await self.publisher.check(deadline=deadline)

    async def close(self) -> None:
        """Release the connections of both ports, and the threads; a later call may open new ones."""
        self._decoder.close()
        for port in (self.store, self.publisher):
            if port is not None:
                await port.close()


def verdict(outcomes: Sequence[Outcome]) -> PipelineError | None:
    """The one answer to an event: the first retryable error, else the first permanent one, else None."""
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    retryable = (error for error in errors if isinstance(error, Retryable))
    return next(retryable, errors[0] if errors else None)


def _is_one_of(labels: Sequence[Label], given: object) -> bool:
    """Whether it is a label: 7.0 and True are equal to some, but none."""
    return type(given) in (str, int) and given in labels


def _plain(given: Any) -> Prediction:
    """A label, or a prediction, with Python's own types: numpy's are what networks give."""
    score: Any
    label, score = (given.label, given.score) if isinstance(given, Prediction) else (given, None)
    label = label.item() if isinstance(label, np.generic) else label
    if score is None:
        return Prediction(label)
    # NaN is in no range.
    if isinstance(score, str) or not -_ROUNDING <= score <= 1 + _ROUNDING:
        raise PredictorUnavailable(f"a score is no number in 0..1: {score!r:.20}")
    return Prediction(label, float(min(max(score, 0.0), 1.0)))
