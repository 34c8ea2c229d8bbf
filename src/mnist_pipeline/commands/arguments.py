"""What may stand on a command line: times, rates, URLs, topics; each raises what argparse tells the user."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

from mnist_pipeline.pipeline import setting_values
from mnist_pipeline.pipeline.errors import BadTraceId
from mnist_pipeline.pipeline.events import check_trace_id

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 40 * 365.0 * _SECONDS["d"]  # what lies further back is older than any record, and than some clocks can tell


def duration(text: str) -> float:
    """Seconds, of a number with s, m, h or d."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else _LONGEST
    if seconds >= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 5m, 2h or 1d")
    return seconds


def ago(seconds: float | None) -> datetime | None:
    """The moment so many seconds before now; None of None."""
    return None if seconds is None else datetime.now(timezone.utc) - timedelta(seconds=seconds)


def trace_id(text: str) -> str:
    """A trace id that a result can have."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    try:
        return check_trace_id(text)
    except BadTraceId as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def rate(text: str) -> float:
    """How many a second."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number a second")
    return number


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not re.fullmatch("0*[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def natural(text: str) -> int:
    """A whole number from 0 on."""
    if not re.fullmatch("[0-9]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def seconds(text: str) -> float:
    """Seconds as a plain number, 0 among them; a day at most, which no wait of one request comes to."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= _SECONDS["d"]:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to {_SECONDS['d']}")
    return number


def timeout(text: str) -> float:
    """The same without 0."""
    number = seconds(text)
    if not number:
        raise argparse.ArgumentTypeError("0 seconds are too few")
    return number


def path(text: str) -> Path:
    """A file or a folder; an empty name would be the folder we are in."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text)


def url(text: str) -> str:
    """An http or https URL that can be posted to."""
    try:
        return setting_values.posted_to(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def topic(text: str) -> str:
    """The name of a Kafka topic."""
    from kafka.util import ensure_valid_topic_name  # not for every command

    try:
        ensure_valid_topic_name(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return text
