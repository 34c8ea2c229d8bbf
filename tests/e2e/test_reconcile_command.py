"""`mnist-pipeline reconcile` as a program: objects in a bucket whose notifications never come."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e2e.following import wait_until
from e2e.places import REJECTED_BUCKET, Place, search_path
from mnist_pipeline.local.processes import Child
from mnist_pipeline.mnist import images
from mnist_pipeline.testing import digit_png


@pytest.fixture
def site(place: Place) -> Place:
    """A place with a source bucket of the test's own, which notifies nobody."""
    site = replace(place, bucket=f"source-{uuid.uuid4()}")
    site.make_buckets()
    return site


def start(site: Place, *args: str, program: str = "mnist_pipeline", **settings: str) -> Child:
    return site.sandbox.start(
        f"reconcile-{uuid.uuid4()}",
        [
            *(sys.executable, "-m", program, "reconcile"),
            *("--predictor_host", f"127.0.0.1:{site.predictor.http_port}", *args),
        ],
        env={**site.settings, "SOURCE_BUCKETS": site.bucket, "PYTHONPATH": search_path(), **settings},
    )


def ended(child: Child) -> tuple[int, str]:
    """Its exit code and what it has printed."""
    wait_until(lambda: not child.running, seconds=60)
    return child.kill(), Path(child.log).read_text()


def left(site: Place) -> list[str]:
    """The keys of the source bucket's versions."""
    listed = site.client().list_objects(bucket_name=site.bucket, recursive=True, include_version=site.versioned)
    return sorted(str(one.object_name) for one in listed)


def test_row_33_what_was_missed_is_found_filed_and_published(site: Place) -> None:
    prefix = f"{uuid.uuid4()}/"
    uploads = [site.upload(f"{prefix}{digit} +é.png", digit_png(digit)) for digit in range(10)]
    bad = site.upload(f"{prefix}bad.png", b"no image")
    site.upload(f"{prefix}readme.txt", b"not ours")

    code, said = ended(start(site, "--older-than", "1h"))
    assert (code, "nothing was missed" in said) == (0, True), said
    code, said = ended(start(site, "--older-than", "0s", "--dry-run"))
    assert (code, said.count(f"{site.bucket}/{prefix}"), "11 missed" in said) == (1, 11, True), said
    assert len(left(site)) == 12

    code, said = ended(start(site, "--older-than", "0s", "--rate", "100"))
    assert (code, "10 filed, 1 badimage; 0 left" in said) == (0, True), said
    assert left(site) == [f"{prefix}readme.txt"]
    for digit, upload in enumerate(uploads):
        assert site.copies(upload) == {f"digit-{digit}/{upload.key}": upload.data}
        assert [event["data"]["predictions"] for event in site.results(upload)] == [[digit]]
    assert site.copies(bad) == {f"{REJECTED_BUCKET}/{bad.key}": bad.data}
    assert [event["type"].endswith(".rejected") for event in site.results(bad)] == [True]


def test_what_another_transformer_missed_goes_down_its_own_path(site: Place) -> None:
    picture = np.rint(images.to_tensor(digit_png(7)) * 255).astype(np.uint8)
    upload = site.upload(f"{uuid.uuid4()}.png", picture[::-1, ::-1].tobytes())
    bad = site.upload(f"{uuid.uuid4()}.png", digit_png(7))
    code, said = ended(start(site, "--older-than", "0s", program="e2e.raw_digits"))
    assert (code, "1 filed" in said, "1 badimage" in said, "; 0 left" in said) == (0, True, True, True), said
    filed = site.client().get_object(bucket_name="digit-9", object_name=f"raw-7/{upload.key}")
    assert filed.read() == upload.data
    assert [event["data"]["predictions"] for event in site.results(upload)] == [[7]]
    assert site.copies(bad) == {f"{REJECTED_BUCKET}/{bad.key}": bad.data}


@pytest.mark.real
def test_row_33_every_version_that_was_missed_is_filed(real_place: Place) -> None:
    site = replace(real_place, bucket=f"source-{uuid.uuid4()}")
    site.make_buckets()
    key = f"{uuid.uuid4()}.png"
    uploads = [site.upload(key, digit_png(digit)) for digit in (1, 2, 3)]
    code, said = ended(start(site, "--older-than", "0s"))
    assert (code, "3 filed; 0 left" in said) == (0, True), said
    assert left(site) == []
    assert site.copies(uploads[0]) == {f"digit-{digit}/{key}": digit_png(digit) for digit in (1, 2, 3)}


def test_what_cannot_be_settled_is_left_and_told(site: Place) -> None:
    upload = site.upload("1.png", digit_png(1))
    code, said = ended(start(site, "--older-than", "0s", "--predictor_host", "127.0.0.1:9", EVENT_TIMEOUT_SECONDS="5"))
    assert (code, "1 predictor; 1 left" in said) == (1, True), said
    assert site.is_left(upload)
    code, said = ended(start(replace(site, bucket="source-of-nobody"), "--older-than", "0s"))
    assert (code, "there is no bucket" in said) == (1, True), said


def test_wrong_settings_are_named_and_nothing_is_touched(site: Place) -> None:
    code, said = ended(start(site, MAX_IN_FLIGHT="none"))
    assert (code, said.split()[0]) == (2, "MAX_IN_FLIGHT")
    for wrong in (["--older-than", "5"], ["--rate", "0"], ["--rate", "x"]):
        code, said = ended(start(site, *wrong))
        assert (code, f"{wrong[0]}: '{wrong[1]}' is no" in said) == (2, True), said


def test_sigterm_finishes_what_is_in_hand(site: Place) -> None:
    for n in range(40):
        site.upload(f"{uuid.uuid4()}.png", digit_png(n % 10))
    child = start(site, "--older-than", "0s", "--rate", "10")
    wait_until(lambda: len(left(site)) < 40, seconds=60)
    os.kill(child.pid, signal.SIGTERM)
    code, said = ended(child)
    still = len(left(site))
    assert (code, f"{40 - still} filed; 0 left" in said) == (1, True), said
    assert 0 < still < 40
