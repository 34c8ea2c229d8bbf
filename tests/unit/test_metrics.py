"""metrics.py: what is counted of each outcome, within bounds, and by several processes together."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest

from mnist_pipeline.pipeline.errors import BadImage, KafkaUnavailable
from mnist_pipeline.pipeline.interpretation import Prediction
from mnist_pipeline.pipeline.outcomes import Outcome
from mnist_pipeline.telemetry.metrics import MOST_VALUES, Metrics, registry
from mnist_pipeline.telemetry.multiprocess import MULTIPROCESS, counted_together

FILED = Outcome(
    reason="filed",
    predictions=[Prediction(7, 0.98)],
    destination="digit-7/7.png",
    size=300,
    age=2.0,
    seconds={"wait": 0.002, "publish": 0.2},
)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"mnist_pipeline_{name}", labels) or 0.0


def test_an_outcome_is_counted_by_all_that_is_known_of_it() -> None:
    metrics = pickle.loads(pickle.dumps(Metrics("all")))
    metrics.begun()
    metrics.settled(FILED)
    assert value("in_flight", model_name="all") == 1
    metrics.ended()
    assert value("in_flight", model_name="all") == 0
    assert value("events_total", model_name="all", outcome="filed", reason="") == 1
    assert value("predictions_total", model_name="all", label="7") == 1
    assert value("prediction_score_bucket", model_name="all", le="0.98") == 1
    assert value("prediction_score_bucket", model_name="all", le="0.95") == 0
    assert value("stage_duration_seconds_bucket", model_name="all", stage="publish", le="0.25") == 1
    assert value("stage_duration_seconds_sum", model_name="all", stage="wait") == 0.002
    assert value("event_age_seconds_sum", model_name="all") == 2
    assert value("fetched_bytes_total", model_name="all") == 300


def test_an_event_that_comes_again_has_an_age_once_it_is_settled() -> None:
    metrics = Metrics("again")
    metrics.settled(replace(FILED, reason="kafka", error=KafkaUnavailable("away"), stays=True, destination=None))
    assert value("event_age_seconds_count", model_name="again") == 0
    metrics.settled(FILED)
    assert value("event_age_seconds_count", model_name="again") == 1


@pytest.mark.parametrize(
    ("outcome", "kind", "reason"),
    [
        (Outcome(reason="badimage", error=BadImage("none"), rejected=True), "rejected", "badimage"),
        (Outcome(reason="badimage", error=BadImage("none")), "refused", "badimage"),
        (Outcome(reason="kafka", error=KafkaUnavailable("away"), stays=True), "failed", "kafka"),
        (Outcome(reason="retained", retained=True), "retained", ""),
        (Outcome(reason="gone"), "gone", ""),
        (Outcome(reason="ignored"), "ignored", ""),
        (Outcome(reason="testevent"), "ignored", "testevent"),
    ],
)
def test_an_outcome_is_one_of_few_kinds_and_its_reason_stands_beside_it(
    outcome: Outcome, kind: str, reason: str
) -> None:
    before = value("events_total", model_name="kinds", outcome=kind, reason=reason)
    Metrics("kinds").settled(outcome)
    assert value("events_total", model_name="kinds", outcome=kind, reason=reason) == before + 1


def test_a_label_has_so_many_values_and_the_others_are_counted_together() -> None:
    metrics = Metrics("bounded")
    for number in range(MOST_VALUES + 5):
        metrics.settled(Outcome(reason="filed", predictions=[Prediction(f"label {number}")]))
    assert value("predictions_total", model_name="bounded", label="label 0") == 1
    assert value("predictions_total", model_name="bounded", label=f"label {MOST_VALUES}") == 0
    assert value("predictions_total", model_name="bounded", label="other") == 5


# Counts as a worker does, says its numbers, and hangs.
WORKER = """
import sys
from mnist_pipeline.pipeline.outcomes import Outcome
from mnist_pipeline.telemetry.metrics import Metrics
metrics = Metrics("mnist")
metrics.begun()
metrics.settled(Outcome(reason="filed", seconds={"fetch": 0.5}))
print("counted", flush=True)
sys.stdin.read()
"""
SCRAPE = """
from prometheus_client import generate_latest
from mnist_pipeline.telemetry.metrics import registry
print(generate_latest(registry()).decode())
"""


def scraped(environ: dict[str, str]) -> dict[str, float]:
    ran = subprocess.run([sys.executable, "-c", SCRAPE], env=environ, capture_output=True, text=True, check=True)
    lines = (line.rpartition(" ") for line in ran.stdout.splitlines() if line.startswith("mnist_pipeline"))
    return {name: float(number) for name, _, number in lines}


def test_row_52_workers_count_together_and_one_that_is_killed_leaves_what_it_has_counted_alone() -> None:
    environ = dict(os.environ)
    with counted_together(2, environ):
        command = [sys.executable, "-c", WORKER]
        workers = [
            subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
        ]
        try:
            for worker in workers:
                assert worker.stdout is not None
                assert worker.stdout.readline() == b"counted\n"
            both = scraped(environ)
            assert both['mnist_pipeline_events_total{model_name="mnist",outcome="filed",reason=""}'] == 2
            assert both['mnist_pipeline_stage_duration_seconds_sum{model_name="mnist",stage="fetch"}'] == 1
            assert both['mnist_pipeline_in_flight{model_name="mnist"}'] == 2
            workers[0].send_signal(signal.SIGKILL)
            workers[0].wait()
            one = scraped(environ)
            assert one['mnist_pipeline_events_total{model_name="mnist",outcome="filed",reason=""}'] == 2
            assert one['mnist_pipeline_in_flight{model_name="mnist"}'] == 1
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()
        folder = Path(environ[MULTIPROCESS])
        assert folder.is_dir()
    assert MULTIPROCESS not in environ
    assert not folder.exists()


@pytest.mark.parametrize(("workers", "environ"), [(1, {}), (4, {MULTIPROCESS: "/theirs"})])
def test_one_worker_or_a_folder_that_is_named_is_left_as_it_is(workers: int, environ: dict[str, str]) -> None:
    before = dict(environ)
    with counted_together(workers, environ):
        assert environ == before
    assert environ == before


def test_a_process_that_has_the_number_of_one_that_ended_has_nothing_in_hand(tmp_path: Path) -> None:
    source = """
import os
from prometheus_client import values
values.ValueClass = values.MultiProcessValue(lambda: 7)
from mnist_pipeline.telemetry.metrics import Metrics
Metrics("mnist").begun()
"""
    environ = {**os.environ, MULTIPROCESS: str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", source], env=environ, check=True)
    (tmp_path / "gauge_livesum_7.db").rename(tmp_path / f"gauge_livesum_{os.getpid()}.db")
    assert scraped(environ)['mnist_pipeline_in_flight{model_name="mnist"}'] == 1


def test_what_was_imported_before_counts_together_with_the_workers_too() -> None:
    source = """
import prometheus_client, os
from mnist_pipeline.telemetry.multiprocess import counted_together
with counted_together(2):
    from mnist_pipeline.telemetry.metrics import Metrics, registry
    Metrics("mnist").begun()
    print(prometheus_client.generate_latest(registry()).decode())
"""
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert 'mnist_pipeline_in_flight{model_name="mnist"} 1.0' in ran.stdout


def test_the_folder_of_a_process_that_was_killed_is_removed_by_the_next_and_one_in_use_is_not() -> None:
    source = """
import os, signal, sys
from mnist_pipeline.telemetry.multiprocess import counted_together
with counted_together(2):
    print(os.environ["PROMETHEUS_MULTIPROC_DIR"], flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", source]
    killed, running = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    try:
        assert killed.stdout is not None
        assert running.stdout is not None
        left, used = Path(killed.stdout.readline().strip()), Path(running.stdout.readline().strip())
        killed.kill()
        killed.wait()
        assert left.is_dir()
        with counted_together(2, {}):
            assert not left.exists()
            assert used.is_dir()
    finally:
        for process in (killed, running):
            process.kill()
            process.communicate()
    with counted_together(2, {}):
        assert not used.exists()


def test_two_scrapes_at_once_remove_what_killed_workers_had_in_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MULTIPROCESS, str(tmp_path))
    for number in range(2000):
        # No process has so high a number.
        (tmp_path / f"gauge_livesum_{5_000_000 + number}.db").touch()
    with ThreadPoolExecutor(4) as threads:
        scrapes = [threads.submit(generate_latest, registry()) for _ in range(4)]
        assert [scrape.result() for scrape in scrapes] == [b""] * 4
