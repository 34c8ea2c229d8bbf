"""A result is read again: what `results` writes to Kafka, in either mode, as whoever waits for it finds it. Pure.

Formats: CloudEvents 1.0 with its JSON format (structured mode) and its Kafka protocol binding, section 3.2 (binary
mode), with the names that `results` says more of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import orjson

from mnist_pipeline.pipeline.interpretation import Label

# Of ours; what somebody else's record has there may be of any length.
_DURATION = re.compile(r"(\w{1,40});dur=(\d{1,12}(?:\.\d{1,12})?)")
_MOST_STAGES = 16


@dataclass(frozen=True, kw_only=True)
class PredictionResult:
    """What became of an object or of an inline request, as its result event says it.

    Attributes:
        trace_id: under which it was asked for.
        event: all of it, as JSON: the context attributes and `data`, whichever mode it came in.
        stages: how many milliseconds each stage took until it was published, in their order; older ones do not say.
    """

    trace_id: str
    event: Mapping[str, Any]
    stages: Mapping[str, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Of the event: the same however often the same work is done again."""
        return str(self.event["id"])

    @property
    def time(self) -> datetime:
        """When it was published; a time without a zone, which none of ours is, is taken for UTC."""
        time = datetime.fromisoformat(self.event["time"])
        return time if time.tzinfo else time.replace(tzinfo=timezone.utc)

    @property
    def subject(self) -> str | None:
        """`bucket/key` of the object; None of an inline request."""
        return _text(self.event.get("subject"))

    @property
    def predictions(self) -> Sequence[Label]:
        """A label for the object, or for each instance of the request; none where it was rejected."""
        return list(self._listed("predictions"))

    @property
    def scores(self) -> Sequence[float]:
        """A score in 0..1 each, where the predictor gave some."""
        scores = self._listed("scores")
        # A task's own data, or an event of somebody else's, may have anything there.
        return list(scores) if all(isinstance(score, int | float) for score in scores) else []

    @property
    def destination(self) -> str | None:
        """`bucket/key` of the copy; None of an inline request."""
        return _text(self.event["data"].get("destination"))

    @property
    def is_doubtful(self) -> bool:
        """Whether it was filed for people to look at."""
        return self.event["data"].get("review") is True

    @property
    def is_rejected(self) -> bool:
        """Whether it can never be classified; then `reason` and `message` say why."""
        return str(self.event["type"]).endswith(".rejected")

    @property
    def reason(self) -> str:
        """Why it was rejected, in one word; else empty."""
        return str(self.event["data"].get("reason", "")) if self.is_rejected else ""

    @property
    def message(self) -> str:
        """Why it was rejected, in a sentence; else empty."""
        return str(self.event["data"].get("message", "")) if self.is_rejected else ""

    def _listed(self, name: str) -> Sequence[Any]:
        values = self.event["data"].get(name)
        return values if isinstance(values, list) else ()


def read_result(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]], *, trace_key: str
) -> PredictionResult | None:
    """The result in a Kafka record of either mode; None where the record is something else."""
    given = {name.lower(): content for name, content in headers}
    try:
        content = orjson.loads(value or b"")
        if "ce_specversion" in given:
            content = {**_attributes(given), "data": content}
        trace_id = (key or given.get(trace_key.lower(), b"")).decode()
    except ValueError:
        return None
    match content:
        case {"specversion": "1.0", "id": str(), "type": str(), "time": str(time), "data": dict()}:
            stages = _stages(given.get("server-timing", b""))
            return PredictionResult(trace_id=trace_id, event=content, stages=stages) if _is_time(time) else None
    return None


def _stages(timing: bytes) -> dict[str, float]:
    """The durations of a `server-timing` header, as `results` writes it (W3C Server Timing, section 3)."""
    return {name: float(took) for name, took in _DURATION.findall(timing.decode("latin-1"))[:_MOST_STAGES]}


def _attributes(headers: Mapping[str, bytes]) -> dict[str, str]:
    """Those of a record in binary mode; the plain headers among them are attributes in structured mode."""
    attributes = {name.removeprefix("ce_"): value.decode() for name, value in headers.items()}
    attributes["datacontenttype"] = attributes.pop("content-type", "application/json")
    return attributes


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
