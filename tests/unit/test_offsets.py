"""Which offset is committed."""

from __future__ import annotations

from mnist_pipeline.adapters.offsets import Offsets


def test_offsets_are_committed_up_to_the_first_that_is_not_settled() -> None:
    offsets = Offsets()
    for offset in (5, 6, 9, 10):
        offsets.begin(offset)
    positions = []
    for offset in (6, 10, 5, 9):
        offsets.settle(offset)
        positions.append(offsets.position)
    assert positions == [None, None, 7, 11]
