"""stages.py: how long the stages of a journey take, and which trace it belongs to."""

from __future__ import annotations

import time

import pytest

from mnist_pipeline.pipeline.stages import NO_TRACE, Journey, trace_context

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"traceparent": "t"},
        {"traceparent": b"00"},
        {"traceparent": PARENT.upper()},
        {"traceparent": PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)},
        {"traceparent": PARENT.replace("b7ad6b7169203331", "0" * 16)},
        {"traceparent": "ff" + PARENT[2:]},
        {"traceparent": PARENT + "\n"},
        {"traceparent": f"{PARENT}-more"},
        {"traceparent": f"01{PARENT[2:]}-\r\nx: y"},
        {"traceparent": f"01{PARENT[2:]}-é"},
        {"traceparent": f"01{PARENT[2:]}-{'x' * 500}"},
        {"tracestate": "a=1"},
    ],
)
def test_what_is_no_trace_context_is_none(given: dict[str, object]) -> None:
    assert trace_context(given) == NO_TRACE


@pytest.mark.parametrize("state", ["", "x" * 513, "é=1", "a=\n", 1])
def test_a_bad_tracestate_is_left_out(state: object) -> None:
    assert trace_context({"traceparent": PARENT, "tracestate": state}) == {"traceparent": PARENT}


def test_a_context_is_taken_as_it_is_with_its_state() -> None:
    given = {"traceparent": PARENT, "tracestate": "a=1,b=2", "other": "x"}
    assert trace_context(given) == {"traceparent": PARENT, "tracestate": "a=1,b=2"}
    assert trace_context({"traceparent": f"01{PARENT[2:]}-later"})


def test_a_journey_has_waited_since_its_event_came_and_measures_each_stage_that_fails_too() -> None:
    journey = Journey("process", time.monotonic() - 2)
    with pytest.raises(ValueError, match="away"), journey.stage("fetch"):
        raise ValueError("away")
    assert list(journey.seconds) == ["wait", "fetch"]
    assert 2 <= journey.seconds["wait"] < 10
    assert 0 <= journey.seconds["fetch"] < 10


def test_without_a_tracer_the_context_that_came_goes_on_and_the_objects_own_goes_before_the_events() -> None:
    journey = Journey("process", time.monotonic(), {"traceparent": "of the event"})
    journey.found(NO_TRACE)
    assert journey.context == {"traceparent": "of the event"}
    journey.found({"traceparent": "of the object"})
    with journey.stage("publish") as context:
        assert context == {"traceparent": "of the object"}
