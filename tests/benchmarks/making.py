"""Runs as they come, for the tests of what is made of them."""

from __future__ import annotations

from benchmarks.runs import BatchRun, PostedRun


def run(
    variant: str,
    *,
    round: int = 0,  # noqa: A002 - the attribute's name
    in_flight: int = 8,
    delay_ms: float | None = None,
    rate: float = 100.0,
    cpu_ms: float = 4.0,
    p50_ms: float = 10.0,
    s3_requests: int | None = None,
    refused: int = 0,
    peak_bytes: int = 2**20,
) -> PostedRun:
    """A run of a hundred events, named by all that makes it another one."""
    events = 100
    return PostedRun(
        name=f"{variant}-{round}-{in_flight}-{delay_ms}",
        variant=variant,
        round=round,
        in_flight=in_flight,
        delay_ms=delay_ms,
        events=events,
        seconds=events / rate,
        cpu_seconds=cpu_ms * events / 1000,
        p50_ms=p50_ms,
        p99_ms=3 * p50_ms,
        refused=refused,
        s3_requests=s3_requests,
        peak_bytes=peak_bytes,
    )


def batch_run(
    variant: str,
    *,
    round: int = 0,  # noqa: A002 - the attribute's name
    batch: int = 32,
    rate: float = 100.0,
    cpu_ms: float = 4.0,
    s3_requests: int | None = None,
) -> BatchRun:
    """The same of one that reads its events from Kafka."""
    events = 100
    return BatchRun(
        name=f"{variant}-{round}-{batch}-{s3_requests}",
        variant=variant,
        round=round,
        batch=batch,
        events=events,
        seconds=events / rate,
        cpu_seconds=cpu_ms * events / 1000,
        s3_requests=s3_requests,
        peak_bytes=2**20,
    )
