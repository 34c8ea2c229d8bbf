"""A cheap predictor, a program of its own: V1 as TensorFlow Serving speaks it, on the nearest of ten known digits."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import orjson
import uvloop
from numpy.typing import NDArray
from PIL import Image

from benchmarks import http1
from benchmarks.variants import steps
from mnist_pipeline.testing import digit_png

_ANSWER = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


def _known_digits() -> NDArray[np.float32]:
    """Each digit's pixels, `(10, 784)` in 0..1."""
    images = [Image.open(io.BytesIO(digit_png(digit))) for digit in range(10)]
    return np.stack([np.asarray(image, np.float32).reshape(784) / 255 for image in images])


class Nearest:
    """Tells which of the ten digits is the nearest, by the distance of their pixels."""

    def __init__(self) -> None:
        self._digits = _known_digits()
        self._squares = np.square(self._digits).sum(axis=1)

    def __call__(self, body: bytes) -> bytes:
        """The answer to `{"instances": [784 floats or 28 rows of them, …]}`."""
        rows = np.asarray(orjson.loads(body)["instances"], np.float32).reshape(-1, 784)
        # |row - digit|² without |row|², which is the same for each digit.
        digits = (self._squares - 2 * rows @ self._digits.T).argmin(axis=1)
        return orjson.dumps({"predictions": digits.tolist()})


async def serve(port: int) -> None:
    """Answer until we are cancelled."""
    nearest = Nearest()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while message := await http1.read(reader):
                # A GET is the probe of whoever waits until it is ready.
                body = nearest(message.body) if message.method == "POST" else b'{"name":"mnist","ready":true}'
                writer.write(_ANSWER % (b"200 OK", len(body), body))
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", port, backlog=512)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(steps.flags().http_port))
