"""One line of the log for each object, each inline request, and each request that came to neither.

The line's record has what it says as values too, under `event`, for a formatter that writes them as such
(`telemetry.logs`).
"""

from __future__ import annotations

import logging
import time
from typing import Any

from mnist_pipeline.pipeline.outcomes import Kind, Outcome

log = logging.getLogger("mnist_pipeline.events")

LINES_A_SECOND = 10
"""So many lines a second of one kind and reason, of what anybody can bring about without an object that is settled."""

_LEVELS: dict[Kind, int] = {
    "filed": logging.INFO,
    "review": logging.INFO,
    "predicted": logging.INFO,
    "gone": logging.INFO,
    "ignored": logging.INFO,
    "retained": logging.WARNING,
    "rejected": logging.WARNING,
    "refused": logging.WARNING,
    "failed": logging.ERROR,
}
_LIMITED = frozenset(("gone", "ignored", "refused", "failed"))
# An inline request may bring thousands.
_MOST_LABELS = 10


class EventLog:
    """Writes the lines of one process."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str, bool], _Second] = {}

    def tell(self, outcome: Outcome) -> None:
        """Write the line of this outcome, unless there were too many like it within this second."""
        kind = outcome.kind
        level = _LEVELS[kind]
        if not log.isEnabledFor(level):
            return
        left_out = 0
        if kind in _LIMITED:
            second = self._seconds.setdefault((kind, outcome.reason, outcome.place is None), _Second())
            if not second.has_room():
                return
            left_out, second.left_out = second.left_out, 0
        sentence = _sentence(outcome)
        event = {"message": sentence, **_values(outcome)}
        if left_out:
            event["left_out"] = left_out
        log.log(level, "%s", sentence + _more(outcome, left_out), extra={"event": event})


class _Second:
    """How many lines one second has had."""

    def __init__(self) -> None:
        self.left_out = 0
        self._began = float("-inf")
        self._lines = 0

    def has_room(self) -> bool:
        """Whether one more may be written; else it is counted."""
        now = time.monotonic()
        if now - self._began >= 1:
            self._began, self._lines = now, 0
        self._lines += 1
        if self._lines > LINES_A_SECOND:
            self.left_out += 1
            return False
        return True


def _sentence(outcome: Outcome) -> str:
    kind = outcome.kind
    # Nobody's key or trace id may look like the end of a line.
    what = _quoted(outcome.place) if outcome.place else ("an inline request" if kind == "predicted" else "a request")
    match kind:
        case "filed" | "review" | "retained" | "predicted":
            text = f"{what} is {'predicted' if kind == 'predicted' else 'filed'} as {_labels(outcome)}"
            if outcome.destination:
                text += f" in {_quoted(outcome.destination)}"
        case "rejected":
            text = f"{what} is rejected: {outcome.error}"
        case "gone":
            text = f"{what} is gone: {outcome.says}"
        case "ignored":
            text = f"{what} has nothing for us to do: {outcome.reason}"
        case "refused":
            text = f"{what} is refused: {outcome.error}"
        case _:
            text = f"{outcome.says or what} is not settled: {outcome.error}"
    if outcome.retained:
        text += f"; it stays, though all is done: a retention, a legal hold or a policy keeps it ({outcome.says})"
    # A task's own errors may say anything.
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _more(outcome: Outcome, left_out: int) -> str:
    """What a formatter that writes values writes as such."""
    text = f"; trace id {outcome.trace_id!a}" if outcome.trace_id else ""
    if outcome.seconds:
        stages = ", ".join(f"{stage} {seconds * 1000:.1f}" for stage, seconds in outcome.seconds.items())
        text += f"; {sum(outcome.seconds.values()) * 1000:.1f} ms: {stages}"
    return text + (f" ({left_out:,} lines like this one were left out before it)" if left_out else "")


def _values(outcome: Outcome) -> dict[str, Any]:
    values: dict[str, Any] = {
        "outcome": outcome.kind,
        "reason": outcome.reason if outcome.reason != outcome.kind else None,
        "error": None if outcome.error is None else str(outcome.error),
        "trace_id": outcome.trace_id,
        "object": outcome.place,
        "destination": outcome.destination,
        "bytes": outcome.size or None,
        "age_seconds": outcome.age if outcome.age is None else round(outcome.age, 3),
    }
    if outcome.predictions:
        shown = outcome.predictions[:_MOST_LABELS]
        values["labels"] = [prediction.label for prediction in shown]
        values["scores"] = [prediction.score and round(prediction.score, 4) for prediction in shown]
        values["instances"] = len(outcome.predictions)
    if outcome.seconds:
        values["milliseconds"] = {stage: round(seconds * 1000, 3) for stage, seconds in outcome.seconds.items()}
    return {name: value for name, value in values.items() if value is not None}


def _labels(outcome: Outcome) -> str:
    told = [
        str(prediction.label) + ("" if prediction.score is None else f" ({prediction.score:.3f})")
        for prediction in outcome.predictions[:_MOST_LABELS]
    ]
    if more := len(outcome.predictions) - len(told):
        told.append(f"… {more:,} more")
    return ", ".join(told)


def _quoted(place: str) -> str:
    bucket, _, key = place.partition("/")
    return f"{bucket}/{key!a}"
