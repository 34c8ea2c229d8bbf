"""Print how the demo's network, behind `to_tensor`, reads pictures of each kind of `kinds.py`.

A kind shows the same digits as every other, so that what the network misreads anyway can be told from what a kind adds.
Everything is drawn from a seed: the figures are the same each time. What was not read right is written to a PNG to look
at. The exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import kinds
from mnist_pipeline.mnist import images
from mnist_pipeline.pipeline.errors import Reject

NETWORK = Path(images.__file__).parents[1] / "local" / "network" / "mnist.onnx"

LEAST_RIGHT = {"as they are": 0.994, "pasted": 0.99, "cropped": 0.99}
LEAST_RIGHT_ELSE, MORE_WRONG = 0.975, 0.01
MOST_FILED = {"blank": 0.02, "tiny": 0.02, "two digits": 0.03}
"""Of what shows no digit, or two."""
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""For `REVIEW_BELOW`."""
SHOWN = 400
"""Failures in the PNG."""


class Network:
    """The ONNX network on one thread: `[N, 784]` in 0..1 to ten probabilities each."""

    def __init__(self, path: Path = NETWORK) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options)

    def scores(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of the ten digits, for one tensor."""
        (probabilities,) = self._session.run(["probabilities"], {"images": tensor.reshape(1, 784)})
        scores: NDArray[np.float32] = probabilities[0]
        return scores


@dataclass
class Reading:
    """What became of one picture: the digit that was read and its score, or the reason of a refusal."""

    data: bytes
    label: int
    digit: int | None = None
    score: float = 0.0
    reason: str = ""
    tensor: NDArray[np.float32] | None = None
    seconds: float = 0.0


def read(network: Network, data: bytes, label: int) -> Reading:
    """Read one picture as the pipeline would."""
    started = time.process_time()
    try:
        tensor = images.to_tensor(data)
    except Reject as refusal:
        return Reading(data, label, reason=refusal.reason, seconds=time.process_time() - started)
    seconds = time.process_time() - started
    scores = network.scores(tensor)
    return Reading(data, label, int(scores.argmax()), float(scores.max()), "", tensor, seconds)


@dataclass
class Measured:
    """The readings of one kind."""

    kind: str
    readings: Sequence[Reading]

    def share(self, of: Iterable[bool]) -> float:
        """Of its pictures."""
        return sum(of) / len(self.readings)

    @property
    def right(self) -> float:
        """Read as what it is; what shows no digit, or two, is nothing of the kind."""
        return self.share(self.kind not in kinds.OTHERS and one.digit == one.label for one in self.readings)

    @property
    def filed(self) -> float:
        """Read at all."""
        return self.share(one.digit is not None for one in self.readings)

    def missed(self, plain: Measured, leeway: float = 0) -> str:
        """The target that it misses by more than the leeway, or nothing."""
        if self.kind in MOST_FILED:
            most = MOST_FILED[self.kind] + leeway
            return f"more than {most:.0%} filed" if self.filed > most else ""
        if self.kind in kinds.OTHERS or self.kind in kinds.OF_ANOTHER_SET:
            return ""
        least = LEAST_RIGHT.get(self.kind, LEAST_RIGHT_ELSE) - leeway
        if self.right < least:
            return f"less than {least:.1%} right"
        more = (self.filed - self.right) - (plain.filed - plain.right)
        return (
            f"{more:.1%} more wrong than plain"
            if self.kind not in LEAST_RIGHT and more > MORE_WRONG + leeway + 1e-9
            else ""
        )

    def line(self, plain: Measured) -> str:
        """Of the table."""
        reasons = Counter(one.reason for one in self.readings if one.reason)
        milliseconds = 1000 * sum(one.seconds for one in self.readings) / len(self.readings)
        percents = (100 * share for share in (self.right, 1 - self.filed, self.filed - self.right))
        words = [f"{reason} {count}" for reason, count in reasons.most_common()]
        if missed := self.missed(plain):
            words.insert(0, f"MISSED: {missed};")
        figures = "".join(f"{percent:9.1f}" for percent in percents)
        return f"{self.kind:<18}{figures}{milliseconds:9.2f}   {' '.join(words)}"


def measured(kind: str, count: int, seed: int) -> Measured:
    """Pictures of one kind, read."""
    network = Network()
    return Measured(kind, [read(network, data, label) for data, label in kinds.pictures(kind, count, seed)])


def failures(table: Sequence[Measured]) -> Image.Image:
    """What was not read right: the picture, what the network saw of it, the kind, the label and the answer."""
    wrong = [
        (measure.kind, one)
        for measure in table
        for one in measure.readings
        if (one.digit is not None if measure.kind in kinds.OTHERS else one.digit != one.label)
    ]
    side, columns = 112, 16
    shown = wrong[:: max(1, -(-len(wrong) // SHOWN))]
    sheet = Image.new("L", (columns * side, (2 * side + 14) * -(-len(shown) // columns)))
    pen = ImageDraw.Draw(sheet)
    for number, (kind, one) in enumerate(shown):
        left, top = number % columns * side, number // columns * (2 * side + 14)
        answer = one.reason or f"{one.digit} {one.score:.2f}"
        pen.text((left, top), f"{kind} {one.label}: {answer}"[:20], fill=255)
        picture = Image.open(BytesIO(one.data))
        pixels = np.asarray(picture if picture.mode.startswith("I") else picture.convert("L"), np.float32)
        pixels *= 255 / max(1.0, float(pixels.max()))
        sheet.paste(Image.fromarray(pixels.astype(np.uint8)).resize((side - 2, side - 2)), (left, top + 13))
        if one.tensor is not None:
            sheet.paste(
                Image.fromarray((one.tensor * 255).astype(np.uint8)).resize((side - 2, side - 2)),
                (left, top + 13 + side),
            )
    return sheet


def under(table: Sequence[Measured]) -> Iterable[str]:
    """For each threshold, which share of what is filed has a lower score, so that people would look at it."""
    groups: dict[str, list[float]] = {"digits read right": [], "digits read wrong": []}
    for measure in table:
        for one in measure.readings:
            if one.digit is not None:
                which = "digits read right" if one.digit == one.label else "digits read wrong"
                groups.setdefault(measure.kind if measure.kind in kinds.OTHERS else which, []).append(one.score)
    yield f"{'score under':<28}" + "".join(f"{threshold:9.2f}" for threshold in THRESHOLDS)
    for group, scores in groups.items():
        shares = (100 * sum(score < threshold for score in scores) / max(1, len(scores)) for threshold in THRESHOLDS)
        yield f"{f'{group} ({len(scores):,})':<28}" + "".join(f"{share:8.1f}%" for share in shares)


def main() -> int:
    """Measure, print, and compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1_000, metavar="N", help="pictures a kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn (default %(default)s)")
    parser.add_argument(
        "--leeway", type=float, default=0.0, metavar="SHARE", help="by which targets may be missed, of few pictures"
    )
    parser.add_argument("--kinds", nargs="*", default=list(kinds.ALL), help="which, by name (default all)")
    parser.add_argument(
        "--png", type=Path, default=Path("build/accuracy.png"), help="for the failures (default %(default)s)"
    )
    options = parser.parse_args()
    names = list(dict.fromkeys(["plain", *options.kinds]))
    print(f"{'% of pictures':<18}    right rejected    wrong   ms CPU   rejected for")  # noqa: T201 - a command that prints for people
    table: list[Measured] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        counts = [10_000 if name == "as they are" else options.count for name in names]
        for measure in pool.map(measured, names, counts, [options.seed] * len(names)):
            table.append(measure)
            print(measure.line(table[0]), flush=True)  # noqa: T201
    print("", *under(table), sep="\n")  # noqa: T201
    options.png.parent.mkdir(parents=True, exist_ok=True)
    failures(table).save(options.png)
    missed = [measure.kind for measure in table if measure.missed(table[0], options.leeway)]
    print(f"\nfailures: {options.png}\ntargets missed: {', '.join(missed) or 'none'}")  # noqa: T201
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
