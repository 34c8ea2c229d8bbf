"""Medians, spreads and ratios."""

from __future__ import annotations

import pytest

from benchmarks import figures, table
from benchmarks.figures import Figure, figure, ratio
from benchmarks.making import batch_run, run
from benchmarks.objects import Outcome
from benchmarks.runs import percentile


def test_a_figure_is_a_median_with_the_least_and_the_most() -> None:
    assert figure([3, 1, 2]) == Figure(median=2, least=1, most=3)
    assert figure([1, 2]) == Figure(median=1.5, least=1, most=2)


def test_a_ratio_is_taken_round_by_round() -> None:
    # The medians are the same; in no round were the two.
    assert ratio({0: 1.0, 1: 2.0, 2: 4.0}, {0: 2.0, 1: 1.0, 2: 2.0}) == Figure(median=2.0, least=0.5, most=2.0)


def test_rounds_that_only_one_of_the_two_has_are_no_ratio() -> None:
    assert ratio({0: 1.0, 1: 3.0}, {1: 2.0}) == Figure(median=1.5, least=1.5, most=1.5)
    assert ratio({0: 1.0}, {}) is None


def test_a_percentile_is_a_value_that_came() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50, 99, 100)
    assert percentile([7.0], 0.99) == 7


def test_each_variant_is_compared_with_the_floor_at_as_many_in_flight() -> None:
    runs = [
        run("floor", in_flight=1, cpu_ms=4, rate=100),
        run("ours", in_flight=1, cpu_ms=2, rate=120),
        run("floor", in_flight=8, cpu_ms=5, rate=200),
        run("ours", in_flight=8, cpu_ms=2, rate=300),
    ]
    rows = {(row.variant, row.in_flight): row for row in figures.throughput(runs)}
    cpu = {kind: row.cpu_ratio.median for kind, row in rows.items() if row.cpu_ratio}
    rate = {kind: row.rate_ratio.median for kind, row in rows.items() if row.rate_ratio}
    assert cpu == pytest.approx({("floor", 1): 1, ("ours", 1): 0.5, ("floor", 8): 1, ("ours", 8): 0.4})
    assert rate == pytest.approx({("floor", 1): 1, ("ours", 1): 1.2, ("floor", 8): 1, ("ours", 8): 1.5})


def test_without_the_floor_there_is_no_ratio_to_it() -> None:
    (row,) = figures.throughput([run("ours")])
    assert row.cpu_ratio is None
    assert " - " in table.throughputs([row])


def test_runs_to_warm_up_and_runs_through_the_proxy_are_no_throughput() -> None:
    runs = [run("ours", round=-1, cpu_ms=90), run("ours", cpu_ms=4), run("ours", delay_ms=0.0, cpu_ms=90)]
    (row,) = figures.throughput(runs)
    assert row.cpu_ms == figure([4.0])


def test_each_variant_is_compared_with_the_floors_batch_mode_at_as_many_a_batch() -> None:
    runs = [
        batch_run("floor batch", batch=1, cpu_ms=8, rate=50),
        batch_run("ours consume", batch=1, cpu_ms=2, rate=100),
        batch_run("floor batch", batch=32, cpu_ms=4, rate=200),
        batch_run("ours consume", batch=32, cpu_ms=1, rate=300),
        batch_run("ours consume", batch=32, round=-1, cpu_ms=90),
        batch_run("ours consume", batch=32, cpu_ms=90, s3_requests=203),
    ]
    rows = {(row.variant, row.batch): row for row in figures.batched(runs)}
    cpu = {kind: row.cpu_ratio.median for kind, row in rows.items() if row.cpu_ratio}
    rate = {kind: row.rate_ratio.median for kind, row in rows.items() if row.rate_ratio}
    floor, ours = "floor batch", "ours consume"
    assert cpu == pytest.approx({(floor, 1): 1, (ours, 1): 0.25, (floor, 32): 1, (ours, 32): 0.25})
    assert rate == pytest.approx({(floor, 1): 1, (ours, 1): 2, (floor, 32): 1, (ours, 32): 1.5})
    counted = {kind: row.s3_requests for kind, row in rows.items() if row.s3_requests}
    assert counted == {(ours, 32): figure([2.03])}
    assert "2.03" in table.batches(list(rows.values()))


def test_a_slow_store_is_measured_against_the_lesser_of_what_latency_and_the_machine_allow() -> None:
    def through_the_proxy(undelayed: float) -> figures.Slow:
        (row,) = figures.slow(
            [
                run("ours", delay_ms=0.0, in_flight=1, p50_ms=4.0, s3_requests=300),
                run("ours", delay_ms=0.0, in_flight=64, rate=undelayed, s3_requests=300),
                run("ours", delay_ms=20.0, in_flight=64, rate=400, s3_requests=300),
            ]
        )
        return row

    row = through_the_proxy(undelayed=500)
    assert row.by_latency == figure([1000.0])  # 64 in flight, each 3 · 20 + 4 ms
    assert row.s3_requests == figure([3.0])
    assert row.share == figure([0.8])
    assert through_the_proxy(undelayed=5_000).share == figure([0.4])


def test_all_runs_of_a_variant_are_counted_those_to_warm_up_too() -> None:
    runs = [run("ours", round=-1, refused=1), run("ours", peak_bytes=3 * 2**20), run("empty", peak_bytes=2**20)]
    outcomes = {
        runs[0].name: Outcome(lost=1, misfiled=0, left=2),
        runs[1].name: Outcome(lost=2, misfiled=3, left=0),
    }
    ready = {"ours": {0: 3.0, 1: 2.0}, "empty": {0: 2.0, 1: 1.0}}
    ours, empty = figures.whole(runs, outcomes, ready, reference="empty")
    assert (ours.events, ours.refused, ours.lost, ours.misfiled, ours.left) == (200, 1, 3, 3, 2)
    assert ours.peak_mib == 3
    assert ours.ready_ratio == Figure(median=1.75, least=1.5, most=2.0)
    assert (empty.lost, empty.ready_ratio) == (0, figure([1.0, 1.0]))


def test_a_table_has_aligned_columns_and_a_spread_only_where_there_is_one() -> None:
    runs = [
        run("floor", cpu_ms=4),
        run("floor", round=1, cpu_ms=5),
        run("ours", cpu_ms=2),
        run("ours", round=1, cpu_ms=2),
    ]
    head, line, floor, ours = table.throughputs(figures.throughput(runs)).splitlines()
    assert "4.50 (4.00..5.00)" in floor
    assert "2.00 " in ours
    assert "2.00 (" not in ours
    assert head.index("x floor") == floor.index("1.00") == ours.index("0.45")
    assert set(line) == {"-", " "}
