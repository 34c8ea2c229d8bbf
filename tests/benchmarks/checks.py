"""What must hold in every run, however fast the machine is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.figures import Slow, Whole
from benchmarks.variants import Variant

S3_REQUESTS_VERSIONED = 3
S3_REQUESTS_UNVERSIONED = 4
# A connection that breaks is one request more; a step too many would be one for each event.
_TOLERANCE = 0.05


def problems(
    variants: Iterable[Variant], wholes: Sequence[Whole], slows: Sequence[Slow], *, versioned: bool
) -> list[str]:
    """A sentence for each thing that is not so."""
    checked = {variant.name for variant in variants if variant.checked}
    sentences = []
    for row in wholes:
        if row.variant in checked:
            wrong = {"lost": row.lost, "misfiled": row.misfiled, "left": row.left, "refused": row.refused}
            sentences += [f"{row.variant}: {count} of {row.events} {name}" for name, count in wrong.items() if count]
    allowed = S3_REQUESTS_VERSIONED if versioned else S3_REQUESTS_UNVERSIONED
    for slow in slows:
        if slow.variant in checked and slow.s3_requests.most > allowed + _TOLERANCE:
            sentences.append(f"{slow.variant}: {slow.s3_requests.most:.2f} S3 requests an event, not {allowed}")
    return sentences
