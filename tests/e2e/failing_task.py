"""Digits with a bug for some pictures: `python -m e2e.failing_task`."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from mnist_pipeline import Digits, main

MARK = b"decoded by nobody"


class FailingDigits(Digits):
    """It fails in a way that nobody foresaw for a picture that ends with the mark."""

    def decode(self, data: bytes) -> NDArray[Any]:
        if data.endswith(MARK):
            raise ZeroDivisionError
        return super().decode(data)


if __name__ == "__main__":
    raise SystemExit(main(FailingDigits))
