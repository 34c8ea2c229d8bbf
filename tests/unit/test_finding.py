from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import kinds
import mnist
from mnist_pipeline.mnist.images import to_tensor
from mnist_pipeline.pipeline.errors import Reject

REPORTED = Path(mnist.FOLDER).parent / "reports" / "pictures"


@pytest.mark.parametrize("name", ["blank-120", "blank-400"])
def test_row_50_a_reported_page_shows_no_digit(name: str) -> None:
    with pytest.raises(Reject) as refused:
        to_tensor((REPORTED / f"{name}.jpg").read_bytes())
    assert refused.value.reason == "nodigit"


def of_a_kind(kind: str, count: int) -> list[tuple[str, NDArray[np.float32] | None, int]]:
    """Pictures of a kind: why each is refused, or what becomes of it, and its label."""
    become: list[tuple[str, NDArray[np.float32] | None, int]] = []
    for data, label in kinds.pictures(kind, count, seed=7):
        try:
            become.append(("", to_tensor(data), label))
        except Reject as refusal:
            become.append((refusal.reason, None, label))
    return become


@pytest.mark.parametrize("kind", [kind for kind in kinds.DIGITS if kind not in {"as they are", "large"}])
def test_row_49_whatever_else_is_in_a_picture_it_shows_the_digit_that_it_shows_without(kind: str) -> None:
    rows = np.random.default_rng(7).permutation(10_000)[:20]
    alike = [
        tensor is not None and np.corrcoef(tensor.ravel(), mnist.images()[row].ravel())[0, 1] > 0.6
        for row, (_, tensor, _) in zip(rows, of_a_kind(kind, 20), strict=True)
    ]
    # Other digits are at most 0.5 like it. What MinFilter or a turn by 15 degrees makes of a few is not so like.
    assert sum(alike) >= (15 if kind in {"turned", "thin", "thick"} else 19)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("blank", "nodigit"), ("tiny", "nodigit"), ("two digits", "severaldigits"), ("cut off", "cutoff")],
)
def test_row_50_what_shows_no_digit_or_two_or_a_part_of_one_is_refused_with_its_reason(kind: str, reason: str) -> None:
    reasons = [why for why, _, _ in of_a_kind(kind, 40)]
    assert sum(map(bool, reasons)) >= {"cut off": 34, "two digits": 37}.get(kind, 39)
    assert reasons.count(reason) >= 30


@pytest.mark.parametrize("side", [28, 100, 300, 700])
@pytest.mark.parametrize("what", ["noise", "stripes", "squares", "steps", "one white pixel"])
def test_what_nobody_has_drawn_is_refused(what: str, side: int) -> None:
    draw = np.random.default_rng(1)
    down, across = np.mgrid[0:side, 0:side]
    pixels = {
        "noise": draw.integers(0, 256, (side, side)),
        "stripes": across % 2 * 255,
        "squares": (across + down) % 2 * 255,
        "steps": across * 255 // side,
        "one white pixel": (across == side // 2) * (down == side // 2) * 255,
    }[what].astype(np.uint8)
    with pytest.raises(Reject):
        to_tensor(kinds.png(pixels))
