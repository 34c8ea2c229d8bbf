"""policy.py: what the transformer's user may do, for any task and any settings."""

from __future__ import annotations

import io
import json
from fnmatch import fnmatch
from importlib.resources import files
from typing import Any

from digits import digits_settings
from mnist_pipeline import Settings
from mnist_pipeline.commands import setup
from mnist_pipeline.site.policy import policy_of
from thumbnails import Thumbnails

PACKAGED = json.loads(files("mnist_pipeline.site").joinpath("minio-policy.json").read_text())


def may(policy: dict[str, Any], action: str, resource: str) -> bool:
    return any(
        action in statement["Action"] and any(fnmatch(f"arn:aws:s3:::{resource}", one) for one in statement["Resource"])
        for statement in policy["Statement"]
    )


def test_the_packaged_one_is_that_of_the_digits_defaults() -> None:
    made = policy_of(digits_settings())
    assert [(one["Sid"], one["Action"]) for one in made["Statement"]] == [
        (one["Sid"], one["Action"]) for one in PACKAGED["Statement"]
    ]
    for bucket in ("mnist", *(f"digit-{digit}" for digit in range(10)), "mnist-rejected", "digit-x0", "other"):
        for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
            assert may(made, action, f"{bucket}/a/x.png") == may(PACKAGED, action, f"{bucket}/a/x.png")


def test_a_task_s_places_and_the_review_bucket_may_be_written_and_nothing_beside_them() -> None:
    settings = Settings(task=Thumbnails(), destination="sorted/{label}")
    made = policy_of(settings)
    for place in ("sorted/cat/x.jpg", "sorted/tree/x.jpg", "photos-rejected/x.jpg", "photos-review/x.jpg"):
        assert may(made, "s3:PutObject", place)
        assert not may(made, "s3:DeleteObject", place)
    assert may(made, "s3:DeleteObjectVersion", "photos/x.jpg")
    for place in ("photos/x.jpg", "sorted/x.jpg", "sorted/lion/x.jpg"):
        assert not may(made, "s3:PutObject", place)


def test_the_command_prints_it_without_a_store() -> None:
    out = io.StringIO()
    assert setup.main(["--print-policy"], {"SOURCE_BUCKETS": "uploads"}, out, task=Thumbnails) == 0
    assert may(json.loads(out.getvalue()), "s3:ListBucket", "uploads")
