"""The figures as plain text, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.figures import Batched, Figure, Slow, Throughput, Whole


def throughputs(rows: Sequence[Throughput]) -> str:
    """CPU, rate and latency, by events in flight."""
    head = ("in flight", "variant", "own CPU ms/event", "x floor", "events/s", "x floor", "p50 ms", "p99 ms")
    return _aligned(
        head,
        (
            (
                str(row.in_flight),
                row.variant,
                str(row.cpu_ms),
                _or_dash(row.cpu_ratio),
                str(row.rate),
                _or_dash(row.rate_ratio),
                str(row.p50_ms),
                str(row.p99_ms),
            )
            for row in rows
        ),
    )


def slows(rows: Sequence[Slow]) -> str:
    """S3 requests, and what a slow store leaves."""
    delay = f"{rows[0].delay_ms:g} ms a call, {rows[0].in_flight} in flight" if rows else "slow store"
    head = ("variant", "S3 requests/event", f"events/s, {delay}", "by latency", "with no delay", "share of the lesser")
    return _aligned(
        head,
        (
            (
                row.variant,
                str(row.s3_requests),
                str(row.rate),
                str(row.by_latency),
                str(row.undelayed),
                _or_dash(row.share),
            )
            for row in rows
        ),
    )


def batches(rows: Sequence[Batched]) -> str:
    """CPU, rate and S3 requests, by the size of a batch."""
    head = ("a batch", "variant", "own CPU ms/event", "x floor batch", "events/s", "x floor batch", "S3 requests/event")
    return _aligned(
        head,
        (
            (
                str(row.batch),
                row.variant,
                str(row.cpu_ms),
                _or_dash(row.cpu_ratio),
                str(row.rate),
                _or_dash(row.rate_ratio),
                _or_dash(row.s3_requests),
            )
            for row in rows
        ),
    )


def wholes(rows: Sequence[Whole], reference: str) -> str:
    """Start, memory, and what came to a wrong end."""
    head = (
        "variant",
        "start to ready s",
        f"x {reference}",
        "peak MiB",
        "events",
        "refused",
        "lost",
        "misfiled",
        "left in source",
    )
    return _aligned(
        head,
        (
            (
                row.variant,
                _or_dash(row.ready_seconds),
                _or_dash(row.ready_ratio),
                f"{row.peak_mib:.0f}",
                *(str(number) for number in (row.events, row.refused, row.lost, row.misfiled, row.left)),
            )
            for row in rows
        ),
    )


def _or_dash(figure: Figure | None) -> str:
    return "-" if figure is None else str(figure)


def _aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(head))]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in lines]
    return "\n".join(line.rstrip() for line in [padded[0], "  ".join("-" * width for width in widths), *padded[1:]])
