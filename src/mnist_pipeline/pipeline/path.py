"""The path of an event: fetch, decode, ask the predictor, file, publish, release; on the two ports.

The order is what keeps the promise that nothing is lost or misfiled: the bytes in hand are filed before the result is
published, and the source is released only after the broker's acknowledgement. Whatever is cut short leaves the
source, and the same event delivered again converges: the copy is found to be there, the result gets the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from mnist_pipeline.pipeline import instances
from mnist_pipeline.pipeline.concurrently import concurrently
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
from mnist_pipeline.pipeline.event_log import EventLog
from mnist_pipeline.pipeline.events import Inline, Notification, trace_id_in
from mnist_pipeline.pipeline.fetching import fetch
from mnist_pipeline.pipeline.interpretation import Label, Prediction
from mnist_pipeline.pipeline.objects import Fetched, Wanted, object_outcome, wanted_by
from mnist_pipeline.pipeline.outcomes import Nobody, Observer, Outcome
from mnist_pipeline.pipeline.passage import Go, Passage, Predict
from mnist_pipeline.pipeline.ports import Deadline, ObjectStore, ObjectVersion, Publisher, StoredObject
from mnist_pipeline.pipeline.results import (
    Result,
    inline_result,
    object_identity,
    rejected_data,
    trace_id_of,
)
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.settlement import Settlement, stored_in
from mnist_pipeline.pipeline.stages import NO_TRACE, Journey, Tracer, trace_context
from mnist_pipeline.pipeline.task import Batch

log = logging.getLogger(__name__)

RECORDS_AT_ONCE = 8
"""Records of one event that are in hand together; their bytes are together not more than one object may have."""

FETCH_SHARE = 0.5
"""What of an event's time its objects may take to be fetched, and its instances to be decoded."""

PREDICT_SHARE = 0.5
"""What of the time that is then left the predictor may take; filing, publishing and releasing have the rest."""

_CANCELLED = "cancelled"
_HUNG_UP = "the caller has hung up, or we are to stop"
_BUG = Outcome(reason=PipelineError.reason, error=PipelineError("internal error"))

_ROUNDING = 1e-3
"""So much may a score lie outside 0..1."""


class Pipeline:
    """The path, on a store and a publisher; `settings` says for which task. It belongs to one event loop.

    `store` is None: requests that name objects are answered as if the store were away. `publisher` is None: nothing is
    published. `observer` is told what becomes of each object and request, beside the log; `tracer` makes a trace of it.
    It may be pickled as long as its parts can be.
    """

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore | None,
        publisher: Publisher | None,
        *,
        observer: Observer | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.publisher = publisher
        self._observer = observer or Nobody()
        self.tracer = tracer
        self._log = EventLog()
        self._decoder = Decoder(settings)
        self._settlement = Settlement(settings, store, publisher)

    # --- a request ---

    async def settle(self, request: Notification, go: Go, deadline: Deadline) -> list[Outcome]:
        """Settle every record of a notification, a few at a time; nothing is begun after the deadline."""
        outcomes = self.tell_of_records(request)
        wanted = wanted_by(request, arrived=deadline.began)
        await self.settle_objects(wanted, go, deadline)
        return outcomes + [outcome for one in wanted for outcome in one.outcomes]

    async def settle_objects(self, wanted: Sequence[Wanted], go: Go, deadline: Deadline, *, slots: int = 1) -> None:
        """Settle objects, several at a time, and note what became of each; nothing is begun after the deadline.

        Args:
            wanted: in the order of their events; two of one key are not in hand together.
            go: the way of a passage.
            deadline: of all.
            slots: as many of `MAX_IN_FLIGHT` they take, and so how often the bytes that one object may have.
        """
        pending = deque(wanted)
        with self._in_hand(len(wanted)):
            while pending:
                try:
                    deadline.remaining()
                except DeadlineExceeded as exc:
                    self._fail(pending, exc, f"{len(pending)} objects of one event are not begun")
                    break
                passage = self._next_passage(pending, slots, deadline)
                try:
                    await self._pass(passage, go)
                except BaseException as exc:
                    self._cut_short(passage, exc)
                    raise
                pending.extendleft(reversed(passage.again))

    async def answer(self, request: Inline, go: Go, deadline: Deadline) -> Result:
        """Classify and publish an inline request; what can never be classified is published as rejected.

        Raises:
            Permanent: why it can never be classified.
            Retryable: the predictor or Kafka is away, slow or confused.
        """
        journey = Journey("process inline request", deadline.began, request.caller.trace, self.tracer)
        journey.found(NO_TRACE)
        passage = Passage(request=request, deadline=deadline, journey=journey)
        outcome = Outcome(reason="predicted", trace_id=request.trace_id, seconds=journey.seconds)
        with self._in_hand(1):
            try:
                result = await self._answered(passage, request, go)
            except PipelineError as exc:
                rejected = isinstance(exc, Permanent) and request.identity is not None
                self._end(replace(outcome, reason=exc.reason, error=exc, rejected=rejected), journey)
                raise
            except asyncio.CancelledError:
                self._end(replace(outcome, reason=_CANCELLED, error=Retryable(_HUNG_UP)), journey)
                raise
            except BaseException:
                journey.end(_BUG)
                raise
            self._end(replace(outcome, predictions=passage.predictions, trace_id=result.trace_id), journey)
            return result

    def tell_of_records(self, request: Notification) -> list[Outcome]:
        """Tell of a notification's records that are refused, or are nothing to us; and give what became of them."""
        refused = [Outcome(reason=refusal.reason, error=refusal) for refusal in request.refused]
        return [self.tell(outcome) for outcome in refused + [Outcome(reason="ignored")] * request.ignored]

    def tell(self, outcome: Outcome) -> Outcome:
        """Tell the log and the observer what became of a request that has not come as far as here."""
        self._log.tell(outcome)
        self._observer.settled(outcome)
        return outcome

    def through(self, predict: Predict) -> Go:
        """The way of a passage where nobody stands between the steps, as KServe does."""

        async def go(passage: Passage) -> Any:
            tensors = await self.prepare(passage)
            predictions: Sequence[Prediction | Label] = []
            if len(tensors):
                with passage.predicting():
                    predictions = await predict(tensors, passage.deadline.share(PREDICT_SHARE))
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
            with passage.journey.stage("decode"):
                tensors = await self._decoder.decode_all(passage.request.instances, deadline)
            passage.prepared()
            return tensors
        fetched = await concurrently([self._fetched(one, passage, deadline) for one in passage.wanted])
        passage.fetched = [one for one in fetched if one is not None]
        given = [one.tensor for one in passage.fetched if one.tensor is not None]
        wanted = self.settings.task.input
        passage.prepared()
        return np.stack(given) if given else np.empty((0, *wanted.shape), wanted.datatype)

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
        passage.predicted()
        if isinstance(passage.request, Inline):
            passage.predictions = self._checked(predictions, len(passage.request.instances))
            passage.result = await self._publish_inline(passage.request, passage)
            return passage.result
        tensors = sum(item.tensor is not None for item in passage.fetched)
        given = iter(self._checked(predictions, tensors))
        objects = [(item, next(given) if item.tensor is not None else None) for item in passage.fetched]
        for item, outcome in await self._settlement.settle(objects, passage.deadline):
            self._ended(item, outcome)
        passage.fetched.clear()
        passage.is_finished = True
        return [outcome for one in passage.wanted for outcome in one.outcomes]

    async def abandon(self, passage: Passage, error: PipelineError) -> None:
        """Settle objects whose prediction failed: what can never be classified is rejected all the same."""
        refused = [(item, None) for item in passage.fetched if item.refusal is not None]
        for item in passage.fetched:
            if item.refusal is None:
                self._ended(item, item.outcome(error.reason, error=without_frames(error), stays=True))
        for item, outcome in await self._settlement.settle(refused, passage.deadline):
            self._ended(item, outcome)

    # --- objects ---

    def _next_passage(self, pending: deque[Wanted], slots: int, deadline: Deadline) -> Passage:
        """Those of the pending ones that may be in hand together."""
        group = [pending.popleft()]
        keys = {(group[0].ref.bucket, group[0].ref.key)}
        while pending and len(group) < max(slots, RECORDS_AT_ONCE) and not (group[0].is_alone or pending[0].is_alone):
            ref = pending[0].ref
            if (ref.bucket, ref.key) in keys:
                break
            keys.add((ref.bucket, ref.key))
            group.append(pending.popleft())
        limit = self.settings.max_object_bytes
        first = group[0]
        request = Notification(objects=tuple(one.ref for one in group), trace_id=first.trace_id, caller=first.caller)
        room = min(limit, slots * limit // len(group))
        return Passage(request=request, wanted=group, room=room, deadline=deadline)

    async def _fetched(self, wanted: Wanted, passage: Passage, deadline: Deadline) -> Fetched | None:
        """The object in hand; None where what became of it is known, or where it is to be fetched again, alone."""
        ref, room = wanted.ref, passage.room
        journey = Journey(f"process {ref.bucket}", wanted.arrived, wanted.caller.trace, self.tracer)
        try:
            with journey.stage("fetch"):
                stored, others = await fetch(stored_in(self.store), ref, room, deadline)
            if stored.data is None and room < self.settings.max_object_bytes:
                wanted.is_alone = True
                passage.again.append(wanted)
                return None
            passage.journeys.append(journey)
            passage.again += [replace(wanted, ref=other) for other in others]
            return await self._decoded(stored, wanted, journey, passage.deadline)
        except ObjectGone as exc:
            outcome = object_outcome(ref, exc.reason, journey, created=ref.created, says=str(exc))
        except PipelineError as exc:
            error = without_frames(exc)
            outcome = object_outcome(ref, exc.reason, journey, created=ref.created, error=error, stays=True)
        wanted.outcomes.append(self._end(outcome, journey))
        return None

    async def _decoded(self, stored: StoredObject, wanted: Wanted, journey: Journey, deadline: Deadline) -> Fetched:
        version = stored.version
        journey.found(trace_context(version.metadata))
        trace_id = wanted.trace_id or self._trace_id_of(version)
        fetched = Fetched(wanted=wanted, stored=stored, journey=journey, trace_id=trace_id)
        if stored.data is None:
            refusal = ObjectTooLarge(f"the object is larger than {self.settings.max_object_bytes:,} bytes")
            return replace(fetched, refusal=refusal)
        encoding = version.content_headers.get("content-encoding", "")
        try:
            with journey.stage("decode"):
                tensor = await self._decoder.decode(stored.data, deadline, encoding=encoding)
        except Permanent as exc:
            return replace(fetched, refusal=without_frames(exc))
        return replace(fetched, tensor=tensor)

    def _trace_id_of(self, version: ObjectVersion) -> str:
        try:
            given = trace_id_in(version.metadata, self.settings)
        except BadTraceId as exc:
            log.warning("%s/%s: %s; it is ignored", version.bucket, ascii(version.key), exc)
            given = None
        return given or trace_id_of(object_identity(version))

    # --- inline requests ---

    async def _answered(self, passage: Passage, request: Inline, go: Go) -> Result:
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
        await self._reject_inline(request, refusal, passage)
        raise refusal

    async def _publish_inline(self, request: Inline, passage: Passage) -> Result:
        settings, predictions = self.settings, passage.predictions
        data = settings.task.data(predictions, inline=True)
        labels = [prediction.label for prediction in predictions]
        result = inline_result(request, data, type=settings.event_type, source=settings.event_source, labels=labels)
        try:
            await self._settlement.publish(result, passage.journey, passage.deadline)
        except MessageTooLarge as exc:
            raise ResultTooLarge(str(exc)) from exc
        return result

    async def _reject_inline(self, request: Inline, refusal: Permanent, passage: Passage) -> None:
        """Publish why an inline request is refused, where it has an identity under which somebody may wait for it."""
        if request.identity is None:
            return
        settings = self.settings
        data = rejected_data(refusal)
        result = inline_result(request, data, type=settings.rejected_type, source=settings.event_source)
        await self._settlement.publish(result, passage.journey, passage.deadline)

    # --- both ---

    async def _pass(self, passage: Passage, go: Go) -> None:
        """Take objects along; what is raised on their way becomes what became of them."""
        try:
            await go(passage)
            if not passage.is_finished:
                raise Retryable("preprocess and postprocess have to call their super's")
        except PipelineError as exc:
            if passage.fetched:
                await self.abandon(passage, exc)
            else:
                self._fail(passage.wanted, exc)

    def _fail(self, wanted: Iterable[Wanted], error: PipelineError, says: str = "") -> None:
        """Tell once of objects none of which is in hand that they are not settled."""
        failed = self.tell(Outcome(reason=error.reason, error=without_frames(error), stays=True, says=says))
        for one in wanted:
            one.outcomes.append(failed)

    def _cut_short(self, passage: Passage, error: BaseException) -> None:
        """Tell what a caller who hangs up has cut short, and end its spans; of a bug our caller tells."""
        if isinstance(error, asyncio.CancelledError):
            hung_up = Retryable(_HUNG_UP)
            unsettled = [item for item in passage.fetched if not item.journey.ended]
            for item in unsettled:
                self._ended(item, item.outcome(_CANCELLED, error=hung_up, stays=True))
            if not unsettled:
                self.tell(Outcome(reason=_CANCELLED, error=hung_up, stays=True))
        for journey in passage.journeys:
            if not journey.ended:
                journey.end(_BUG)

    def _ended(self, item: Fetched, outcome: Outcome) -> None:
        item.wanted.outcomes.append(self._end(outcome, item.journey))

    def _end(self, outcome: Outcome, journey: Journey) -> Outcome:
        journey.end(outcome)
        return self.tell(outcome)

    @contextmanager
    def _in_hand(self, number: int) -> Iterator[None]:
        for _ in range(number):
            self._observer.begun()
        try:
            yield
        finally:
            for _ in range(number):
                self._observer.ended()

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

    async def check_with(self, predict: Predict, deadline: Deadline) -> None:
        """The same of the predictor too, which is asked about nothing but zeros.

        Raises:
            Retryable: one of the three does not.
        """
        await self.check(deadline)
        wanted = self.settings.task.input
        await predict(np.zeros((1, *wanted.shape), wanted.datatype), deadline)

    async def close(self) -> None:
        """Release the connections of both ports, and the threads; a later call may open new ones."""
        self._decoder.close()
        for port in (self.store, self.publisher):
            if port is not None:
                await port.close()
        if self.tracer is not None:
            await asyncio.to_thread(self.tracer.flush)


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
