"""A record that is begun, and whose turn it is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.consuming.lanes import Lane
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.events import Inline, Notification
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.objects import Wanted, wanted_by
from mnist_pipeline.pipeline.outcomes import Outcome


@dataclass(eq=False, kw_only=True)
class Work:
    """A record that is begun.

    Attributes:
        request: what it asks for; None until it can be read.
        refused: what became of its records that can never be settled.
        arrived: when it was begun, a moment of `time.monotonic()`.
        attempts: how many have failed.
        next_begins_well: whether all that it needs was there after the last attempt.
        given_up: why it is to be given up, where nothing but its dead letter is missing.
    """

    lane: Lane
    record: Record
    request: Notification | Inline | None = None
    refused: list[Outcome] = field(default_factory=list)
    arrived: float = field(default_factory=time.monotonic)
    attempts: int = 0
    next_begins_well: bool = False
    given_up: PipelineError | None = None

    @property
    def objects(self) -> Sequence[ObjectRef]:
        """Those that it names."""
        return self.request.objects if isinstance(self.request, Notification) else ()

    @property
    def keys(self) -> set[tuple[str, str]]:
        """Their buckets and keys."""
        return {(ref.bucket, ref.key) for ref in self.objects}

    def wanted(self) -> list[Wanted]:
        """They, for one attempt."""
        return wanted_by(self.request, arrived=self.arrived) if isinstance(self.request, Notification) else []

    @property
    def place(self) -> str:
        """Where the record lies, for the log."""
        return f"{self.record.topic} partition {self.record.partition} offset {self.record.offset}"


class Turns:
    """Of each key that is not settled, who waits for it, in their order: so that no version overtakes another."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], deque[Work]] = {}

    def join(self, work: Work) -> bool:
        """Let it wait for its keys; whether it is its turn at all of them already."""
        for key in work.keys:
            self._waiting.setdefault(key, deque()).append(work)
        return self._is_first(work)

    def leave(self, work: Work) -> list[Work]:
        """It is done with, and was the first at all of its keys; whose turn it is now."""
        for key in work.keys:
            self._waiting[key].popleft()
        left = {key for key in work.keys if self._waiting[key]}
        for key in work.keys - left:
            del self._waiting[key]
        firsts = dict.fromkeys(self._waiting[key][0] for key in left)
        return [first for first in firsts if self._is_first(first)]

    def _is_first(self, work: Work) -> bool:
        return all(self._waiting[key][0] is work for key in work.keys)
