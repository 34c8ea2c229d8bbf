"""What became of one object or one request: told to whoever waits, to the log, and to whoever counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from mnist_pipeline.pipeline.errors import PipelineError, Retryable
from mnist_pipeline.pipeline.interpretation import Prediction

Kind: TypeAlias = Literal[
    "filed", "review", "predicted", "retained", "rejected", "gone", "ignored", "refused", "failed"
]

_DONE: frozenset[str] = frozenset(("filed", "review", "predicted", "retained", "gone"))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one object, one inline request, or of a request that came to neither.

    Attributes:
        reason: a word: what was done, or why it was not.
        error: where it is not settled well.
        stays: the object is not settled and still in its source bucket. A rejected one has an error, but is settled.
        retained: it is settled, and still there because the store does not let it go.
        rejected: it can never be classified, and that is published.
        place: `bucket/key` of the object; None of everything else.
        trace_id: where it is known.
        predictions: one for an object, one for each instance of an inline request.
        destination: `bucket/key` of the copy.
        size: bytes of the object that were read.
        age: seconds since the store says that the object was created.
        seconds: how long each stage took (`stages.STAGES`).
        says: more about it, for the log.
    """

    reason: str
    error: PipelineError | None = None
    stays: bool = False
    retained: bool = False
    rejected: bool = field(default=False, compare=False)
    place: str | None = field(default=None, compare=False)
    trace_id: str | None = field(default=None, compare=False)
    predictions: Sequence[Prediction] = field(default=(), compare=False)
    destination: str | None = field(default=None, compare=False)
    size: int = field(default=0, compare=False)
    age: float | None = field(default=None, compare=False)
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    says: str = field(default="", compare=False)

    @property
    def kind(self) -> Kind:
        """One of few words: `refused` is for good and nothing was touched, `failed` comes again."""
        if self.retained and self.error is None:
            return "retained"
        if self.error is None:
            return self.reason if self.reason in _DONE else "ignored"  # type: ignore[return-value]
        if self.rejected:
            return "rejected"
        return "failed" if may_succeed_later(self.error) else "refused"


class Observer(Protocol):
    """Who is told what the path does, such as metrics; it neither fails nor waits."""

    def begun(self) -> None:
        """An event is in hand."""
        ...

    def ended(self) -> None:
        """It is not any more."""
        ...

    def settled(self, outcome: Outcome) -> None:
        """This became of an object or a request."""
        ...


class Nobody:
    """An observer who looks away."""

    def begun(self) -> None:
        """Nothing."""

    def ended(self) -> None:
        """Nothing."""

    def settled(self, outcome: Outcome) -> None:
        """Nothing."""


def may_succeed_later(error: PipelineError) -> bool:
    """Whether it is worth another attempt; a bug may be one of a moment too."""
    return isinstance(error, Retryable) or error.status == PipelineError.status


def verdict(outcomes: Sequence[Outcome]) -> PipelineError | None:
    """The one answer to an event: the first retryable error, else the first permanent one, else None."""
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    retryable = (error for error in errors if isinstance(error, Retryable))
    return next(retryable, errors[0] if errors else None)
