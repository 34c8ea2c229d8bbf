"""`Consumer`: the records of a consumer group go down the path, many at a time, and are committed once settled.

Objects of as many records as are there go together, up to a batch: fetched at once, one request to the predictor, filed
at once, their results acknowledged together, one request to release them. While others are in hand, a batch that is not
full waits a moment for more. What fails is tried again, alone, so that it cannot hold others back; objects of one key
keep their order meanwhile. What cannot be settled goes to the topic of dead letters, where there is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mnist_pipeline.consuming.giving_up import GivingUp
from mnist_pipeline.consuming.lanes import Lanes
from mnist_pipeline.consuming.requests import request_of
from mnist_pipeline.consuming.work import Turns, Work
from mnist_pipeline.pipeline.concurrently import concurrently
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.events import Inline, Nothing, Notification, Request
from mnist_pipeline.pipeline.outcomes import Outcome, may_succeed_later, verdict
from mnist_pipeline.pipeline.passage import Go, Predict
from mnist_pipeline.pipeline.path import Pipeline
from mnist_pipeline.pipeline.ports import Deadline, Publisher

log = logging.getLogger(__name__)

# A value up to this size is parsed on the event loop.
_PARSED_ON_THE_LOOP = 64 * 1024
_MOST_BACKOFF_SECONDS = 60.0
# So many failures in a row, and then a success: what was away is back, and nobody waits any longer for it.
_OUTAGE = 8


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How records are consumed.

    Attributes:
        batch: so many objects go together at most; no more than `MAX_IN_FLIGHT`.
        linger_seconds: how long a batch that is not full waits for more, while others are in hand.
        retry: attempts after the first before a record is given up.
        backoff_seconds: before the attempt number n it waits this times 2ⁿ, a minute at most.
        drain_seconds: what the records in hand are given at the end.
        destination: who gave a record up, as its dead letter says it.
    """

    batch: int = 32
    linger_seconds: float = 0.02
    retry: int = 10
    backoff_seconds: float = 0.3
    drain_seconds: float = 25.0
    destination: str = "mnist-pipeline consume"


class Member(Protocol):
    """What is asked of the member of the group."""

    def begin(self) -> None:
        """Bring records from now on."""

    def stop_taking(self) -> None:
        """Bring no more."""

    def close(self) -> None:
        """Commit, and leave the group; blocks for some seconds."""


class Consumer:
    """Consumes on one event loop, from `run` until `stop`.

    Args:
        pipeline: the path.
        go: the way of a passage.
        predict: asks the predictor.
        dead_letters: where records go that are given up. None: what is refused is told in the log, and what fails is
            tried again for as long as it takes.
        manner: how.
        on_dead_letter: called when a record has been given up, with the reason's word.

    Attributes:
        lanes: the owner for the member of the group.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        go: Go,
        predict: Predict,
        *,
        dead_letters: Publisher | None,
        manner: Manner,
        on_dead_letter: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.lanes = Lanes(self._arrived)
        self._pipeline = pipeline
        self._go = go
        self._manner = manner
        self._batch = min(manner.batch, pipeline.settings.max_in_flight)
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        # Slots of MAX_IN_FLIGHT that are taken: by what is in a task, and by the batch that is forming.
        self._slots = 0
        self._forming: list[Work] = []
        self._forming_slots = 0
        self._linger: asyncio.TimerHandle | None = None
        # What failed, until its time has come.
        self._backing_off: dict[Work, asyncio.TimerHandle] = {}
        self._turns = Turns()
        # What waits for nothing but slots.
        self._due: deque[Work] = deque()
        self._failed_in_a_row = 0
        self._giving_up = GivingUp(
            pipeline,
            predict,
            letters=dead_letters,
            retry=manner.retry,
            destination=manner.destination,
            on_dead_letter=on_dead_letter,
        )

    def stop(self) -> None:
        """Begin no other record, and finish those in hand."""
        self._stopping.set()

    async def run(self, member: Member) -> None:
        """Consume until `stop`."""
        member.begin()
        try:
            await self._stopping.wait()
        finally:
            member.stop_taking()
            self._send_batch()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._manner.drain_seconds)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.to_thread(member.close)

    # --- what is begun, and when ---

    def _arrived(self) -> None:
        # The loop may have been closed meanwhile.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._fill)

    def _fill(self) -> None:
        """Begin as much as there are slots for."""
        most = self._pipeline.settings.max_in_flight
        while not self._stopping.is_set() and self._slots < most:
            if self._due:
                if self._slots + self._slots_of([self._due[0]]) > most:
                    break
                self._start(self._due.popleft())
            elif (found := self.lanes.next()) is not None:
                self._begin(Work(lane=found[0], record=found[1]))
            else:
                break
        if self._forming and not self._tasks:
            self._send_batch()

    def _begin(self, work: Work) -> None:
        if len(work.record.value or b"") > _PARSED_ON_THE_LOOP:
            work.lane.is_held = True
            self._run([work], self._read(work))
            return
        try:
            request = request_of(work.record, self._pipeline.settings)
        except Exception as exc:  # noqa: BLE001 - a bug is told there
            self._run([work], self._refused(work, exc))
        else:
            self._take_in(work, request)

    async def _read(self, work: Work) -> None:
        """Parse a record in a thread; none of its partition overtakes it meanwhile."""
        try:
            request = await asyncio.to_thread(request_of, work.record, self._pipeline.settings)
        except Exception as exc:  # noqa: BLE001 - a bug is told there
            work.lane.is_held = False
            await self._refused(work, exc)
        else:
            work.lane.is_held = False
            self._take_in(work, request)

    def _take_in(self, work: Work, request: Request) -> None:
        if isinstance(request, Nothing):
            self._pipeline.tell(Outcome(reason=request.reason))
            self.lanes.settle(work.lane, work.record)
            return
        work.request = request
        if isinstance(request, Notification):
            work.refused = self._pipeline.tell_of_records(request)
        self._queue(work)

    def _queue(self, work: Work) -> None:
        """Let it have its turn at each of its keys."""
        if self._turns.join(work):
            self._due.append(work)

    def _form(self, work: Work) -> None:
        """Let it join the batch that is forming."""
        if self._forming_slots + len(work.objects) > self._batch:
            self._send_batch()
        self._forming.append(work)
        self._forming_slots += len(work.objects)
        self._slots += len(work.objects)
        if self._forming_slots == self._batch:
            self._send_batch()
        elif self._linger is None:
            self._linger = self._loop.call_later(self._manner.linger_seconds, self._send_batch)

    def _send_batch(self) -> None:
        batch, self._forming = self._forming, []
        self._slots -= self._forming_slots
        self._forming_slots = 0
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if batch:
            self._run(batch, self._settle(batch))

    def _start(self, work: Work) -> None:
        """Let it go: with others at its first attempt."""
        if not work.lane.is_ours:
            self._settled(work)
        elif work.given_up is not None:
            self._run([work], self._conclude(work, work.given_up))
        elif work.request is None:
            self._begin(work)
        elif isinstance(work.request, Inline):
            self._run([work], self._answer(work, work.request))
        elif not work.attempts and 0 < len(work.objects) < self._batch:
            self._form(work)
        else:
            self._run([work], self._settle([work]))

    def _run(self, works: Sequence[Work], step: Coroutine[Any, Any, None]) -> None:
        """Take the slots of some records, for as long as the step takes."""
        slots = self._slots_of(works)
        self._slots += slots

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._slots -= slots
            if not task.cancelled() and task.exception() is not None:
                log.error("records are left for the next start, by a bug", exc_info=task.exception())
            self._fill()

        task = self._loop.create_task(step)
        self._tasks.add(task)
        task.add_done_callback(ended)

    def _slots_of(self, works: Sequence[Work]) -> int:
        return min(max(sum(len(work.objects) for work in works), 1), self._batch)

    # --- what becomes of it ---

    async def _settle(self, works: Sequence[Work]) -> None:
        """Settle all objects of some records together."""
        wanted = {work: work.wanted() for work in works}
        everything = [one for several in wanted.values() for one in several]
        deadline = Deadline(self._pipeline.settings.event_timeout_seconds)
        bug: PipelineError | None = None
        try:
            await self._pipeline.settle_objects(everything, self._go, deadline, slots=self._slots_of(works))
        except Exception:
            log.exception("a batch failed in a way that nobody foresaw")
            bug = PipelineError("internal error")
        outcomes = {work: [outcome for one in wanted[work] for outcome in one.outcomes] for work in works}
        await concurrently([self._conclude(work, bug or verdict([*work.refused, *outcomes[work]])) for work in works])

    async def _answer(self, work: Work, request: Inline) -> None:
        """Classify and publish an inline request."""
        error: PipelineError | None = None
        try:
            await self._pipeline.answer(request, self._go, Deadline(self._pipeline.settings.event_timeout_seconds))
        except PipelineError as exc:
            error = exc
        except Exception:
            log.exception("an inline request failed in a way that nobody foresaw")
            error = PipelineError("internal error")
        await self._conclude(work, error)

    async def _refused(self, work: Work, error: Exception) -> None:
        """Tell of a record that cannot be read."""
        if not isinstance(error, PipelineError):
            log.error("%s failed in a way that nobody foresaw", work.place, exc_info=error)
            error = PipelineError("internal error")
        self._pipeline.tell(Outcome(reason=error.reason, error=error))
        await self._conclude(work, error)

    async def _conclude(self, work: Work, error: PipelineError | None) -> None:
        """A record is settled, given up, or tried again later."""
        if error is None:
            self._succeeded()
        elif work.lane.is_ours:
            work.attempts += 1
            self._failed_in_a_row += may_succeed_later(error)
            if not await self._giving_up.is_given_up(work, error):
                self._back_off(work)
                return
        self._settled(work)

    def _settled(self, work: Work) -> None:
        self.lanes.settle(work.lane, work.record)
        self._due += self._turns.leave(work)

    def _succeeded(self) -> None:
        if self._failed_in_a_row >= _OUTAGE:
            for work, timer in self._backing_off.items():
                timer.cancel()
                self._due.append(work)
            self._backing_off.clear()
        self._failed_in_a_row = 0

    def _back_off(self, work: Work) -> None:
        seconds = min(self._manner.backoff_seconds * 2.0 ** min(work.attempts, 16), _MOST_BACKOFF_SECONDS)
        self._backing_off[work] = self._loop.call_later(seconds, self._come_again, work)

    def _come_again(self, work: Work) -> None:
        del self._backing_off[work]
        self._due.append(work)
        self._fill()
