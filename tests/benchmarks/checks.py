"""What must hold in every run, however fast the machine is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.figures import Batched, Slow, Whole
from benchmarks.variants import Variant

S3_REQUESTS_VERSIONED = 3
S3_REQUESTS_UNVERSIONED = 4
S3_REQUESTS_IN_BATCH = 2
"""On a versioned bucket; and one for all of a batch, which is full for half at least."""
# A connection that breaks is one request more; a step too many would be one for each event.
_TOLERANCE = 0.05


def problems(
    variants: Iterable[Variant],
    wholes: Sequence[Whole],
    slows: Sequence[Slow],
    batches: Sequence[Batched],
    *,
    versioned: bool,
) -> list[str]:
    """A sentence for each thing that is not so."""
    checked = {variant.name for variant in variants if variant.checked}
    sentences = []
    for row in wholes:
        if row.variant in checked:
            wrong = {"lost": row.lost, "misfiled": row.misfiled, "left": row.left, "refused": row.refused}
            sentences += [f"{row.variant}: {count} of {row.events} {name}" for name, count in wrong.items() if count]
    allowed: float = S3_REQUESTS_VERSIONED if versioned else S3_REQUESTS_UNVERSIONED
    requests = [(slow.variant, slow.s3_requests, allowed) for slow in slows]
    requests += [
        (row.variant, row.s3_requests, S3_REQUESTS_IN_BATCH + 2 / row.batch if versioned else allowed)
        for row in batches
        if row.s3_requests is not None
    ]
    sentences += [
        f"{variant}: {counted.most:.2f} S3 requests an event, not {most:.3g}"
        for variant, counted, most in requests
        if variant in checked and counted.most > most + _TOLERANCE
    ]
    return sentences
