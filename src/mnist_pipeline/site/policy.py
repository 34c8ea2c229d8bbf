"""What the transformer's own user has to be allowed to do in the store, for the settings that it has; pure.

`minio-policy.json` beside this is the same for the defaults of the digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mnist_pipeline.pipeline.settings import Settings

_ARN = "arn:aws:s3:::"
_SOURCE = (
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:GetObjectTagging",
    "s3:GetObjectVersionTagging",
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
)
_FILED = ("s3:PutObject", "s3:PutObjectTagging", "s3:GetObject", "s3:GetObjectTagging")


def policy_of(settings: Settings) -> dict[str, Any]:
    """The policy as a JSON document (IAM's policy grammar, version 2012-10-17)."""
    sources = dict.fromkeys(settings.source_buckets)
    filed = (f"{place.bucket}/{place.prefix}" for place in settings.outputs)
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allowed("ReadAndReleaseTheSource", _SOURCE, (f"{bucket}/*" for bucket in sources)),
            _allowed("ListTheSource", ("s3:ListBucket",), sources),
            _allowed("FileAndCompare", _FILED, (f"{place}*" for place in filed)),
        ],
    }


def _allowed(sid: str, actions: Sequence[str], resources: Iterable[str]) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": [f"{_ARN}{resource}" for resource in resources],
    }
