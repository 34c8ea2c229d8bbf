"""Which buckets and keys can be asked for at all."""

from __future__ import annotations

import functools

from minio.helpers import check_bucket_name, check_object_name

from mnist_pipeline.pipeline.errors import BadKey, StoreUnavailable
from mnist_pipeline.pipeline.ports import MAX_KEY_BYTES


@functools.lru_cache(maxsize=256)
def _is_bucket(name: str) -> bool:
    """Whether S3 takes the name; it is the same few all the time."""
    try:
        check_bucket_name(name)
    except ValueError:
        return False
    return True


def check_names(bucket: str, key: str | None) -> None:
    """See that S3 can have such a bucket, and such an object.

    Raises:
        StoreUnavailable: the bucket's name is none.
        BadKey: no object can have this key.
    """
    if not _is_bucket(bucket):
        raise StoreUnavailable(f"{bucket!r:.80} is no name of a bucket")
    if key is None:
        return
    try:
        # `.` and `..` would be resolved on the way; a lone surrogate cannot be sent.
        check_object_name(key)
        length = len(key.encode())
    except ValueError as exc:
        raise BadKey(f"{key!r:.200} can be no object's key") from exc
    # MinIO refuses it only to who writes; to who reads it says that there is no such object.
    if length > MAX_KEY_BYTES:
        raise BadKey(f"{key!r:.200} is longer than {MAX_KEY_BYTES:,} bytes and can be no object's key")
