"""pipeline/published.py: what is written is read again."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_pipeline.pipeline.events import Caller
from mnist_pipeline.pipeline.published import read_result
from mnist_pipeline.pipeline.results import Result, to_message

RESULT = Result(
    id="6b1",
    trace_id="order-66",
    type="io.kserve.mnist.prediction",
    source="mnist-pipeline/mnist",
    time="2026-11-26T16:00:00.000001+00:00",
    data={"predictions": [7], "scores": [0.75], "destination": "digit-7/7.png"},
    subject="mnist/7.png",
    caller=Caller(request_host="host", isvc_name="isvc", isvc_namespace="ns"),
)

modes = pytest.mark.parametrize("mode", ["structured", "binary"])
Mode = Literal["structured", "binary"]


def read(result: Result, mode: Mode, trace_key: str = "test-trace-id") -> Any:
    message = to_message(result, mode=mode, trace_key=trace_key)
    return read_result(message.key, message.value, message.headers, trace_key=trace_key)


@modes
def test_a_result_of_an_object_is_read_as_it_was_written(mode: Mode) -> None:
    found = read(RESULT, mode)
    assert (found.trace_id, found.id, found.subject) == ("order-66", "6b1", "mnist/7.png")
    assert (found.predictions, found.scores, found.destination) == ([7], [0.75], "digit-7/7.png")
    assert (found.is_rejected, found.reason, found.message, found.is_doubtful) == (False, "", "", False)
    assert found.time.isoformat() == RESULT.time


def test_both_modes_give_the_same_event() -> None:
    assert read(RESULT, "structured").event == read(RESULT, "binary").event
    assert read(RESULT, "binary").event["kserve-isvc-name"] == "isvc"


@modes
def test_an_inline_result_has_no_subject_no_destination_and_no_scores(mode: Mode) -> None:
    found = read(replace(RESULT, subject=None, data={"predictions": [1, 2]}), mode)
    assert (found.subject, found.destination, found.predictions, found.scores) == (None, None, [1, 2], [])


@modes
def test_a_rejection_says_why(mode: Mode) -> None:
    data = {"reason": "badimage", "message": "no picture"}
    found = read(replace(RESULT, type=RESULT.type + ".rejected", data=data), mode)
    assert (found.is_rejected, found.reason, found.message, found.predictions) == (True, "badimage", "no picture", [])


@given(
    trace_id=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1),
    subject=st.text(st.characters(codec="utf-8")),
    data=st.dictionaries(st.text(), st.one_of(st.text(), st.lists(st.integers(-9, 9)))),
)
@modes
def test_whatever_stands_in_it_is_kept(mode: Mode, trace_id: str, subject: str, data: dict[str, Any]) -> None:
    found = read(replace(RESULT, trace_id=trace_id, subject=subject, data=data), mode)
    assert (found.trace_id, found.subject, found.event["data"]) == (trace_id, subject, data)
    assert found.event["test-trace-id"] == trace_id


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"k", None, ()),
        (b"k", b"", ()),
        (b"k", b"no JSON", ()),
        (b"k", b"[1]", ()),
        (b"k", b'{"predictions": [7]}', ()),
        (b"k", b"7", (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", b"t"), ("ce_time", b"2026"))),
        (b"k", b"{}", (("ce_specversion", b"1.0"), ("ce_id", b"\xff"))),
        (b"\xff", orjson.dumps({"specversion": "1.0", "id": "1", "type": "t", "time": "2026-01-01", "data": {}}), ()),
        (b"k", orjson.dumps({"specversion": "1.0", "id": "1", "type": "t", "time": "soon", "data": {}}), ()),
    ],
)
def test_what_is_no_result_is_left_out(key: bytes, value: bytes | None, headers: Any) -> None:
    assert read_result(key, value, headers, trace_key="trace-id") is None


@modes
def test_how_long_each_stage_took_is_read_as_it_was_measured(mode: Mode) -> None:
    seconds = {"wait": 0.0004, "fetch": 0.00213, "decode": 1.5}
    message = to_message(RESULT, mode=mode, trace_key="trace-id", seconds=seconds)
    found = read_result(message.key, message.value, message.headers, trace_key="trace-id")
    assert found is not None
    assert found.stages == {"wait": 0.4, "fetch": 2.13, "decode": 1500.0}
    assert read(RESULT, mode).stages == {}


@pytest.mark.parametrize("timing", [b"fetch", b"fetch;dur=", b"fetch;dur=NaN", b"\xff\xfe", b"fetch;dur=" + b"9" * 400])
def test_a_timing_of_somebody_else_s_is_left_out_where_it_is_none(timing: bytes) -> None:
    message = to_message(RESULT, mode="structured", trace_key="trace-id")
    headers = (*message.headers, ("server-timing", timing))
    found = read_result(message.key, message.value, headers, trace_key="trace-id")
    assert found is not None
    assert all(0 <= took < 1e12 for took in found.stages.values())


def test_a_time_without_a_zone_is_one_of_utc() -> None:
    found = read(replace(RESULT, time="2026-11-26T16:00:00"), "structured")
    assert found.time == datetime(2026, 11, 26, 16, tzinfo=timezone.utc)
