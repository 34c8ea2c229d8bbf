"""Giving up a record: when it is time for that, and its way to the dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mnist_pipeline.consuming.requests import dead_letter
from mnist_pipeline.consuming.work import Work
from mnist_pipeline.pipeline.errors import MessageTooLarge, PipelineError
from mnist_pipeline.pipeline.outcomes import may_succeed_later
from mnist_pipeline.pipeline.passage import Predict
from mnist_pipeline.pipeline.path import Pipeline
from mnist_pipeline.pipeline.ports import Deadline, Publisher

log = logging.getLogger(__name__)

_CHECK_SECONDS = 5.0
_GIVE_UP_SECONDS = 30.0


class GivingUp:
    """Gives up what is refused, and what has failed too often while all that it needs was there.

    Args:
        pipeline: the path, whose store and Kafka are asked whether they are there.
        predict: asks the predictor.
        letters: where records go that are given up. None: what is refused is told in the log, and what fails is tried
            again for as long as it takes.
        retry: attempts after the first.
        destination: who gave a record up, as its dead letter says it.
        on_dead_letter: called when a record has been given up, with the reason's word.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        predict: Predict,
        *,
        letters: Publisher | None,
        retry: int,
        destination: str,
        on_dead_letter: Callable[[str], None],
    ) -> None:
        self._pipeline = pipeline
        self._predict = predict
        self._dead_letters = letters
        self._retry = retry
        self._destination = destination
        self._on_dead_letter = on_dead_letter
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._is_away = False

    async def is_given_up(self, work: Work, error: PipelineError) -> bool:
        """Give up a record whose attempt has failed, if it is time for that and can be done; whether it is."""
        if may_succeed_later(error):
            if work.attempts < self._retry or self._dead_letters is None:
                return False
            # What failed while something was away may have failed for that, although all are there by now.
            began_well, work.next_begins_well = work.next_begins_well, not await self._is_something_away()
            if work.attempts <= self._retry or not (began_well and work.next_begins_well):
                return False
        else:
            work.given_up = error
        if self._dead_letters is None:
            return True
        message = dead_letter(work.record, error, self._destination)
        try:
            await self._dead_letters.publish(message, deadline=Deadline(_GIVE_UP_SECONDS))
        except MessageTooLarge:
            # Another attempt would be the same, and would keep the partition's offset where it is.
            log.error("%s is too large for a dead letter: %s", work.place, error)
            return work.given_up is not None
        except PipelineError as exc:
            log.error("%s is not given up yet: %s", work.place, exc)
            return False
        log.warning("%s is given up after %d attempts: %s", work.place, work.attempts, error)
        self._on_dead_letter(error.reason)
        return True

    async def _is_something_away(self) -> bool:
        """Whether it would be no use to give a record up: all others would follow."""
        loop = asyncio.get_running_loop()
        failed_at = loop.time()
        async with self._looking:
            began = loop.time()
            # That all were there before it failed says nothing.
            known_until = self._looked_at + _CHECK_SECONDS if self._is_away else self._looked_at
            if failed_at > known_until:
                self._is_away = True
                try:
                    await self._pipeline.check_with(self._predict, Deadline(_CHECK_SECONDS))
                    self._is_away = False
                except PipelineError as exc:
                    log.error("nothing is given up as long as something is away: %s", exc)
                except Exception:
                    log.exception("nothing is given up as long as it is not known whether something is away")
                self._looked_at = began
        return self._is_away
