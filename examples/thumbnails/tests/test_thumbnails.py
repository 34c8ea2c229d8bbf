"""The task on fakes: what becomes of a photograph, of a doubtful one and of what is none."""

import io
from pathlib import Path

import pytest
from PIL import Image

from mnist_pipeline import KafkaUnavailable
from mnist_pipeline.testing import Harness, MemoryPublisher, MemoryStore, StubPredictor
from thumbnails import Thumbnails

PHOTO = Path(__file__).parents[1].joinpath("samples", "disc.jpg").read_bytes()


@pytest.mark.parametrize("label", Thumbnails.labels)
def test_a_photograph_is_filed_by_what_is_on_it(
    label: str, harness: Harness, stub_predictor: StubPredictor, object_store: MemoryStore
) -> None:
    stub_predictor.answers = [label]
    (result,) = harness.send_object(PHOTO, key="a.jpg").results
    assert result["data"]["predictions"] == [label]
    assert object_store.data(f"photos-{label}", "a.jpg") == PHOTO
    assert object_store.keys("photos") == []


def test_a_doubtful_photograph_is_filed_for_people_to_look_at(
    harness: Harness, stub_predictor: StubPredictor, object_store: MemoryStore
) -> None:
    stub_predictor.answers = [[0.3, 0.4, 0.1, 0.1, 0.1]]
    (result,) = harness.send_object(PHOTO, key="a.jpg").results
    assert (result["data"]["predictions"], result["data"]["review"]) == (["dog"], True)
    assert object_store.keys("photos-review") == ["a.jpg"]


def test_what_is_no_photograph_is_rejected_and_the_predictor_not_asked(
    harness: Harness, stub_predictor: StubPredictor, object_store: MemoryStore
) -> None:
    assert harness.send_object(b"a letter", key="a.jpg").reasons == ("badimage",)
    assert object_store.keys("photos-rejected") == ["a.jpg"]
    assert stub_predictor.batches == []


def test_a_photograph_stays_where_it_is_while_kafka_is_away(
    harness: Harness, stub_predictor: StubPredictor, object_store: MemoryStore, publisher: MemoryPublisher
) -> None:
    stub_predictor.answers = ["cat"]
    publisher.failures.before["publish"] = [KafkaUnavailable("away")]
    assert harness.send_object(PHOTO, key="a.jpg").reasons == ("kafka",)
    assert object_store.keys("photos") == ["a.jpg"]


def test_colours_come_first_and_nothing_is_mirrored_or_turned() -> None:
    photo = Image.new("RGB", (64, 64))
    photo.paste((255, 0, 0), (48, 0, 64, 16))  # red, at the top right
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=100)
    red, green, _ = Thumbnails().decode(stream.getvalue())
    assert (red[8, 56] > 0.9, red[56, 8] < 0.1, green[8, 56] < 0.1) == (True, True, True)
