"""The object that an event means is fetched, whichever way its key is to be read."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from mnist_pipeline.pipeline.errors import BadKey, ObjectGone
from mnist_pipeline.pipeline.notifications import ObjectRef
from mnist_pipeline.pipeline.ports import Deadline, ObjectStore, ObjectVersion, StoredObject


async def fetch(
    store: ObjectStore, ref: ObjectRef, limit: int, deadline: Deadline
) -> tuple[StoredObject, list[ObjectRef]]:
    """The object that the event means, its bytes if they are at most `limit`, and those that it may mean just as well.

    Of several ways to read its key the one whose object has the event's ETag; where none has, one that exists and
    was overwritten since. Objects of the same bytes are not to be told apart, so all of them are due.

    Raises:
        ObjectGone, BadKey: there is none, whichever way the key is read.
    """
    if not ref.other_keys:
        return await store.get(ref.bucket, ref.key, ref.version_id, limit=limit, deadline=deadline), []
    first: StoredObject | None = None
    with contextlib.suppress(ObjectGone, BadKey):
        first = await store.get(ref.bucket, ref.key, ref.version_id, limit=limit, deadline=deadline)
        if ref.is_sure and _is_meant(first.version, ref):
            return first, []
    there = {} if first is None else {ref.key: first.version}
    for key in ref.other_keys:
        with contextlib.suppress(ObjectGone, BadKey):
            # Only looked at, so that two are never in hand.
            looked_at = await store.get(ref.bucket, key, ref.version_id, limit=0, deadline=deadline)
            there[key] = looked_at.version
    meant = [key for key, version in there.items() if _is_meant(version, ref)] or list(there)[:1] or [ref.key]
    also = [replace(ref, key=key, etag=None, other_keys=()) for key in meant[1:]]
    if first is not None and meant[0] == ref.key:
        return first, also
    del first
    return await store.get(ref.bucket, meant[0], ref.version_id, limit=limit, deadline=deadline), also


def _is_meant(version: ObjectVersion, ref: ObjectRef) -> bool:
    """Whether this is the version that the event names, or has its ETag, where it names one."""
    if ref.version_id not in (None, "null") and ref.version_id == version.version_id:
        return True
    return ref.etag is None or ref.etag.lower() == version.etag.lower()
