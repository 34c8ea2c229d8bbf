"""What a load has come to."""

from __future__ import annotations

import pytest

from mnist_pipeline.client.load import Sent
from mnist_pipeline.commands.bench_report import Bar, Report, histogram, percentiles
from mnist_pipeline.pipeline.published import PredictionResult


def sent(
    number: int,
    *,
    began: float = 0.0,
    uploaded: float | None = None,
    arrived: float | None = None,
    stages: dict[str, float] | None = None,
) -> Sent:
    event = {"type": "prediction", "data": {"predictions": [7]}}
    result = PredictionResult(trace_id=str(number), event=event, stages=stages or {}) if arrived else None
    place = f"mnist/{number}.png"
    return Sent(trace_id=str(number), place=place, began=began, uploaded=uploaded, arrived=arrived, result=result)


def test_a_percentile_is_a_value_that_came() -> None:
    values = [float(number) for number in range(200, 0, -1)]
    assert percentiles(values) == {"p50": 100, "p90": 180, "p99": 198, "max": 200}
    assert percentiles([7.0]) == {"p50": 7, "p90": 7, "p99": 7, "max": 7}


def test_a_histogram_begins_and_ends_with_a_bar_that_is_not_empty() -> None:
    assert histogram([20.0, 29.9, 50.0]) == [
        Bar(begins=20, ends=30, objects=2),
        Bar(begins=30, ends=50, objects=0),
        Bar(begins=50, ends=70, objects=1),
    ]
    assert histogram([]) == []


def test_a_histogram_has_room_for_whatever_comes() -> None:
    assert histogram([0.0])[0] == Bar(begins=0, ends=1, objects=1)
    assert histogram([1e12]) == [Bar(begins=7_000_000, ends=None, objects=1)]


def test_the_rate_is_that_of_results_from_the_first_upload_to_the_last_result() -> None:
    objects = [
        sent(0, began=10, uploaded=11, arrived=12),
        sent(1, began=11, uploaded=12, arrived=15),
        sent(2, began=12),
    ]
    report = Report(count=3, sent=objects, failed=[])
    assert (report.seconds, report.rate) == (5, 0.4)


def test_without_a_result_there_is_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(count=2, sent=[sent(0, uploaded=1)], failed=[])
    assert (report.seconds, report.rate, report.milliseconds) == (0, 0, {})
    report.print()
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name: value.strip() for name, value in lines.items()} == {
        "filed": "0",
        "to be reviewed": "0",
        "rejected": "0",
        "lost": "1",
        "not uploaded": "1",
        "events/s": "0.0",
    }


def test_what_is_neither_upload_nor_stage_is_delivery() -> None:
    slow = sent(0, uploaded=0.25, arrived=1, stages={"fetch": 200.0, "file": 50.0, "unheard_of": 9.0})
    # Its result was published before the store's answer to the upload came.
    quick = sent(1, uploaded=0.5, arrived=0.625, stages={"fetch": 250.0})
    old = sent(2, uploaded=0.5, arrived=1)
    assert Report(count=3, sent=[slow, quick, old], failed=[]).milliseconds == {
        "upload": [250, 500, 500],
        "delivery": [500, 0],
        "fetch": [200, 250],
        "file": [50],
        "upload to result": [1000, 625, 1000],
    }


def test_nothing_is_lost_while_somebody_may_still_wait_for_it() -> None:
    counts = Report(count=1, sent=[sent(0)], failed=[], is_over=False).counts
    assert counts["without a result yet"] == 1
    assert "lost" not in counts
