"""event_log.py and logs.py: what the log says of an event, in both forms, and how often."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from logged import by_us
from mnist_pipeline.pipeline.errors import BadEvent, BadImage, KafkaUnavailable, PipelineError
from mnist_pipeline.pipeline.event_log import LINES_A_SECOND, EventLog
from mnist_pipeline.pipeline.interpretation import Prediction
from mnist_pipeline.pipeline.outcomes import Outcome
from mnist_pipeline.telemetry.logs import JsonFormatter

FILED = Outcome(
    reason="filed",
    place="mnist/a b.png",
    trace_id="t-1",
    predictions=[Prediction(7, 0.98765)],
    destination="digit-7/a b.png",
    size=300,
    age=1.5,
    seconds={"wait": 0.001, "fetch": 0.0025},
)
REJECTED = replace(FILED, reason="badimage", error=BadImage("no picture"), rejected=True, predictions=())
FAILED = Outcome(reason="kafka", error=KafkaUnavailable("away"), stays=True, place="mnist/x.png")
REFUSED = Outcome(reason="badevent", error=BadEvent("no event"))


class Lines(logging.Handler):
    """Keeps what is logged on its own thread: what other tests have left behind may log too."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.records.append(record)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    caplog.set_level(logging.INFO)
    handler = Lines()
    logging.getLogger().addHandler(handler)
    yield handler.records
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(
    ("outcome", "level", "says"),
    [
        (
            FILED,
            "INFO",
            "mnist/'a b.png' is filed as 7 (0.988) in digit-7/'a b.png'; trace id 't-1'; 3.5 ms: wait 1.0, fetch 2.5",
        ),
        (replace(FILED, reason="review", seconds={}), "INFO", "is filed as 7 (0.988) in digit-7/"),
        (Outcome(reason="predicted", predictions=[Prediction(7), Prediction(3)]), "INFO", "predicted as 7, 3"),
        (Outcome(reason="predicted", predictions=[Prediction(1)] * 12), "INFO", "1, … 2 more"),
        (REJECTED, "WARNING", "mnist/'a b.png' is rejected: no picture; trace id"),
        (replace(FILED, reason="retained", retained=True, says="a hold"), "WARNING", "it stays, though all is done"),
        (replace(REJECTED, retained=True, says="a hold"), "WARNING", "is rejected: no picture; it stays, though"),
        (FAILED, "ERROR", "mnist/'x.png' is not settled: away"),
        (replace(FAILED, place=None, says="3 objects"), "ERROR", "3 objects is not settled: away"),
        (REFUSED, "WARNING", "a request is refused: no event"),
        (Outcome(reason="error", error=PipelineError("internal error")), "ERROR", "a request is not settled"),
        (Outcome(reason="gone", place="mnist/x.png", says="no such key"), "INFO", "mnist/'x.png' is gone: no such key"),
        (Outcome(reason="ownreply"), "INFO", "a request has nothing for us to do: ownreply"),
    ],
)
def test_each_outcome_has_a_line(outcome: Outcome, level: str, says: str, lines: list[logging.LogRecord]) -> None:
    EventLog().tell(outcome)
    (line,) = lines
    assert line.levelname == level
    assert says in line.getMessage()


def test_no_key_and_no_trace_id_can_look_like_another_line(lines: list[logging.LogRecord]) -> None:
    EventLog().tell(replace(FILED, place="mnist/a\nb\u2028.png", destination="digit-7/\x1b[2J", trace_id="\u2028\x85"))
    text = lines[0].getMessage()
    assert text.isascii()
    assert text.isprintable()


def test_as_json_a_line_has_its_values_by_name(lines: list[logging.LogRecord]) -> None:
    EventLog().tell(FILED)
    line = json.loads(JsonFormatter().format(lines[0]))
    assert line.pop("time").endswith("Z")
    assert line.pop("process") > 0
    assert line == {
        "level": "INFO",
        "logger": "mnist_pipeline.events",
        "message": "mnist/'a b.png' is filed as 7 (0.988) in digit-7/'a b.png'",
        "outcome": "filed",
        "trace_id": "t-1",
        "object": "mnist/a b.png",
        "destination": "digit-7/a b.png",
        "bytes": 300,
        "age_seconds": 1.5,
        "labels": [7],
        "scores": [0.9877],
        "instances": 1,
        "milliseconds": {"wait": 1.0, "fetch": 2.5},
    }


@pytest.mark.parametrize("form", [{"exc_info": True}, {"extra": {"event": {"odd": b"bytes", "text": "\ud800"}}}, {}])
def test_as_json_every_line_is_one_object(form: dict[str, Any], lines: list[logging.LogRecord]) -> None:
    try:
        int("two\nlines")
    except ValueError:
        logging.getLogger("other").warning("of %s\n\ud800", "another", **form)
    text = JsonFormatter().format(lines[0])
    assert "\n" not in text
    assert json.loads(text)["logger"] == "other"
    assert ("exc_info" in form) == ("two\\\\nlines" in text)


def test_what_anybody_can_bring_about_has_so_many_lines_a_second(
    lines: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    told = EventLog()
    for _ in range(1000):
        told.tell(REFUSED)
    told.tell(replace(REFUSED, reason="malformedbody"))
    assert len(lines) == LINES_A_SECOND + 1
    now = 1.0
    told.tell(REFUSED)
    assert lines[-1].getMessage().endswith(f"({1000 - LINES_A_SECOND:,} lines like this one were left out before it)")
    told.tell(REFUSED)
    assert "left out" not in lines[-1].getMessage()


def test_what_is_settled_has_a_line_each(lines: list[logging.LogRecord]) -> None:
    told = EventLog()
    for _ in range(1000):
        told.tell(FILED)
        told.tell(REJECTED)
    assert len(lines) == 2000


def test_no_line_is_made_where_nobody_reads_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    EventLog().tell(FILED)
    assert by_us(caplog) == []


def test_what_another_library_calls_an_event_breaks_no_line(lines: list[logging.LogRecord]) -> None:
    logging.getLogger("other").warning("said", extra={"event": "a word"})
    assert json.loads(JsonFormatter().format(lines[0]))["message"] == "said"


@pytest.mark.parametrize("outcome", [REFUSED, FAILED, REJECTED, Outcome(reason="gone", place="b/k", says="?")])
def test_no_error_can_look_like_another_line(outcome: Outcome, lines: list[logging.LogRecord]) -> None:
    text = "away\n2026-11-26 1 root ERROR forged\u2028\x1b[2J\x85é"
    error = outcome.error and type(outcome.error)(text)
    EventLog().tell(replace(outcome, error=error, says=outcome.says and text))
    assert lines[0].getMessage().isprintable()
    assert "é" in lines[0].getMessage()


def test_python_s_warnings_are_lines_of_the_log_too() -> None:
    source = """
import warnings
from mnist_pipeline.telemetry import logs
logs.configure("json")
warnings.warn("two\\nlines")
"""
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    (line,) = ran.stderr.splitlines()
    assert json.loads(line)["logger"] == "py.warnings"
