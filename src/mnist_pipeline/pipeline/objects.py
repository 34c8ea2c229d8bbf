"""An object on its way: as its event names it, and once it is fetched."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from mnist_pipeline.pipeline.errors import Permanent
from mnist_pipeline.pipeline.events import NOBODY, Caller, Notification
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.outcomes import Outcome
from mnist_pipeline.pipeline.ports import ObjectVersion, StoredObject
from mnist_pipeline.pipeline.stages import Journey
from mnist_pipeline.pipeline.task import Batch


@dataclass(kw_only=True, eq=False)
class Wanted:
    """An object that an event names, what of its event goes along with it, and what became of it.

    Attributes:
        ref: the object.
        trace_id: which the event gives.
        caller: who sent the event.
        arrived: when the event came, a moment of `time.monotonic()`.
        is_alone: its bytes do not fit beside those of others.
        outcomes: what became of it, and of what else its event may mean.
    """

    ref: ObjectRef
    trace_id: str | None = None
    caller: Caller = NOBODY
    arrived: float = field(default_factory=time.monotonic)
    is_alone: bool = False
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """An object in hand with its trace id: with a tensor, or with the reason why it can never have one."""

    wanted: Wanted
    stored: StoredObject
    journey: Journey
    trace_id: str
    tensor: Batch | None = None
    refusal: Permanent | None = None

    def outcome(self, reason: str, **more: Any) -> Outcome:
        """What became of it."""
        version, size = self.stored.version, len(self.stored.data or b"")
        created = self.wanted.ref.created
        more = {"trace_id": self.trace_id, "size": size, "created": created, **more}
        return object_outcome(version, reason, self.journey, **more)


def object_outcome(
    what: ObjectRef | ObjectVersion, reason: str, journey: Journey, *, created: float | None, **more: Any
) -> Outcome:
    """What became of an object, `created` seconds after 1970."""
    age = None if created is None else max(time.time() - created, 0.0)
    return Outcome(reason=reason, place=f"{what.bucket}/{what.key}", age=age, seconds=journey.seconds, **more)


def wanted_by(request: Notification, *, arrived: float) -> list[Wanted]:
    """The objects of a notification that came at this moment of `time.monotonic()`."""
    return [
        Wanted(ref=ref, trace_id=request.trace_id, caller=request.caller, arrived=arrived) for ref in request.objects
    ]
