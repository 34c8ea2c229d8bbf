"""No picture at all: a sensor's readings, whose predictor tells how odd they are.

python -m readings demo --images samples/readings
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_pipeline import Output, Prediction, Reject, Task, Tensor, main


class Readings(Task):
    """CSV files of sixteen readings each, normal or an anomaly; both go into one bucket."""

    name, suffixes, labels, filed_in = "readings", (".csv",), ("normal", "anomaly"), "sorted/{label}"
    input = Tensor((16,), "float64", name="readings")

    def decode(self, data: bytes) -> NDArray[Any]:
        """Sixteen numbers between commas."""
        try:
            return self.input.of([float(number) for number in data.decode().split(",")])
        except ValueError as exc:
            raise Reject("badreadings", "not sixteen numbers between commas") from exc

    def interpret(self, outputs: Mapping[str, Output], _n: int) -> list[Prediction]:
        """One number in 0..1 each: how odd they are."""
        (odd,) = (np.ravel(output.rows) for output in outputs.values())
        return [Prediction(self.labels[int(one > 0.5)], float(max(one, 1 - one))) for one in odd]


if __name__ == "__main__":
    raise SystemExit(main(Readings))
