"""Nothing holds the event loop up: under load, with large images, and with the store, Kafka and the predictor away."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from e2e.following import post, wait_until
from e2e.places import Place
from e2e.watched_loop import MARK
from mnist_pipeline.local.processes import answers_ok, free_port
from mnist_pipeline.local.servers import ModelServer
from mnist_pipeline.testing import digit_png

AT_ONCE = 32


@pytest.fixture
def server(place: Place) -> Iterator[ModelServer]:
    server = place.start(program="e2e.watched_loop")
    server.wait_ready()
    yield server
    server.close()


def held_up(server: ModelServer) -> list[str]:
    """What the watch has told; what is done once, as the first use of a client, is not looked at."""
    return [line for line in server.child.log.read_text().splitlines() if MARK in line]


def large(digit: int) -> bytes:
    """A picture of nine million pixels, which takes a fifth of a second."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(digit_png(digit))).resize((3000, 3000)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def send_all(server: ModelServer, place: Place, pictures: list[bytes]) -> list[int]:
    uploads = [place.upload(f"{uuid.uuid4()}.png", data) for data in pictures]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda upload: post(server.predict_url, upload.event).status, uploads))


def test_a_burst_of_events_and_large_images_holds_nothing_up(place: Place, server: ModelServer) -> None:
    assert set(send_all(server, place, [digit_png(1)] * AT_ONCE)) == {200}
    before = len(held_up(server))
    assert set(send_all(server, place, [digit_png(n % 10) for n in range(300)] + [large(7)] * 6)) == {200}
    assert held_up(server)[before:] == []


@pytest.mark.parametrize("away", ["MINIO_ENDPOINT", "KAFKA_BOOTSTRAP_SERVERS", "predictor"])
def test_what_is_away_holds_nothing_up(place: Place, away: str) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    settings = {"EVENT_TIMEOUT_SECONDS": "4", **({} if away == "predictor" else {away: nobody})}
    predictor = nobody if away == "predictor" else None
    server = place.start(program="e2e.watched_loop", settings=settings, predictor_host=predictor)
    wait_until(lambda: answers_ok(server.http_port, "/v2/health/live"))
    before = len(held_up(server))
    assert set(send_all(server, place, [digit_png(1)] * AT_ONCE)) <= {503, 504, 429}
    assert held_up(server)[before:] == []
    server.close()
