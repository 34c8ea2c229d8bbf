"""Photographs go down the real path, on a store and a Kafka in memory."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mnist_pipeline import KafkaUnavailable
from mnist_pipeline.testing import Harness, StubPredictor
from thumbnails import Thumbnails


def jpeg(colour: str, width: int = 90, height: int = 70) -> bytes:
    """A photograph of one colour."""
    file = BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_a_photograph_becomes_colours_first_of_64_by_64() -> None:
    tensor = Thumbnails().decode(jpeg("red"))
    assert tensor.shape == (3, 64, 64)
    assert np.allclose(tensor.mean(axis=(1, 2)), [1, 0, 0], atol=0.02)


def test_it_is_filed_by_its_label(harness: Harness, stub_predictor: StubPredictor) -> None:
    stub_predictor.answers = [[0.0, 0.9, 0.1, 0.0, 0.0]]
    sent = harness.send_object(jpeg("tan"), key="rex.jpg")
    assert sent.results[0]["data"]["predictions"] == ["dog"]
    assert harness.store.keys("photos-dog") == ["rex.jpg"]


def test_what_the_network_is_not_sure_of_is_filed_for_people(harness: Harness, stub_predictor: StubPredictor) -> None:
    stub_predictor.answers = [[0.4, 0.3, 0.1, 0.1, 0.1]]
    sent = harness.send_object(jpeg("tan"), key="blurred.jpg")
    assert sent.results[0]["data"]["review"] is True
    assert harness.store.keys("photos-review") == ["blurred.jpg"]


def test_what_is_no_photograph_is_rejected(harness: Harness) -> None:
    sent = harness.send_object(b"not a photograph", key="notes.jpg")
    assert sent.reasons == ("badimage",)
    assert harness.store.keys("photos-rejected") == ["notes.jpg"]


def test_a_photograph_of_too_many_pixels_is_rejected(harness: Harness) -> None:
    sent = harness.send_object(jpeg("white", 5000, 5000))
    assert sent.reasons == ("badimage",)


def test_where_kafka_is_away_the_upload_stays(harness: Harness) -> None:
    harness.publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    sent = harness.send_object(jpeg("tan"), key="rex.jpg")
    assert sent.reasons == ("kafka",)
    assert harness.store.keys("photos") == ["rex.jpg"]


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_both_protocols_of_the_predictor_are_understood(protocol: str) -> None:
    harness = Harness(Thumbnails, lambda photos: ["boat"] * len(photos), protocol=protocol)
    harness.send_object(jpeg("navy"), key="sail.jpg")
    assert harness.store.keys("photos-boat") == ["sail.jpg"]
