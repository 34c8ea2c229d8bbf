"""shards.py and announcing.py: whatever keys there are, each object is in one shard, and is read back as itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from digits import digits_settings
from fuzz.inputs import keys
from mnist_pipeline.pipeline import notifications
from mnist_pipeline.pipeline.ports import Deadline, ListedObject
from mnist_pipeline.site.announcing import announcement
from mnist_pipeline.site.shards import Shard, Shards

# Few letters make keys that share their beginnings; the last ones are where shards meet, and its neighbours.
letters = st.sampled_from(["a", "b", "/", "é", "\U0001f600", "\ud7ff", "\ue000", "\U0010fffe", "\U0010ffff"])
names = st.text(letters, min_size=1, max_size=6) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


class SmallPages:
    """A listing of bare names, a few at a time."""

    def __init__(self, names: set[str], size: int) -> None:
        self._names = sorted(names, key=str.encode)
        self._size = size

    async def list_after(self, bucket: str, key: str, *, most: int = 1000, deadline: Deadline) -> list[ListedObject]:
        assert bucket == "mnist"
        deadline.remaining()
        await asyncio.sleep(0)
        later = [name for name in self._names if name.encode() > key.encode()]
        return [listed(name) for name in later[: min(most, self._size)]]


def listed(key: str) -> ListedObject:
    return ListedObject(key=key, size=3, etag="abc", modified=datetime(2026, 1, 1, tzinfo=timezone.utc), age_seconds=0)


async def dealt_with(
    listing: SmallPages, begin: Sequence[Shard], *, most: int, at_most: int
) -> tuple[list[str], Shards]:
    """The keys that are dealt with, until it is so many; and the shards, of which the rest is left."""
    found: list[str] = []
    shards = Shards(listing, begin, most=most)

    async def deal(shard: Shard, objects: Sequence[ListedObject]) -> None:
        for one in objects:
            if len(found) == at_most:
                shards.stop()
                return
            found.append(one.key)
            shard.after = one.key
            await asyncio.sleep(0)

    await shards.walk(deal)
    return found, shards


@given(st.sets(names, max_size=40), st.integers(1, 5), st.integers(1, 6), st.integers(0, 40), st.integers(1, 6))
@example({"a\U0010ffffa", "b"}, 1, 2, 40, 1)
def test_each_object_is_in_one_shard_also_where_a_run_is_cut_short_and_gone_on_with(
    names: set[str], size: int, most: int, cut_after: int, most_then: int
) -> None:
    listing = SmallPages(names, size)
    first, shards = asyncio.run(dealt_with(listing, [Shard(bucket="mnist")], most=most, at_most=cut_after))
    second, shards = asyncio.run(dealt_with(listing, shards.left, most=most_then, at_most=1000))
    assert sorted(first + second) == sorted(names)
    assert shards.left == []


@given(keys(), st.integers(0, 10))
def test_an_announced_object_is_read_as_itself(key: str, size: int) -> None:
    one = ListedObject(
        key=key,
        size=size,
        etag="5d41402abc4b2a76b9719d911017c592",
        modified=datetime(2026, 11, 22, 4, 43, 56, 615000, tzinfo=timezone.utc),
        age_seconds=0,
    )
    message = announcement("mnist", one)
    assert message.key.decode() == f"mnist/{key}"
    records = notifications.read(json.loads(message.value), digits_settings())
    (ref,) = records.objects
    assert (ref.bucket, ref.key, ref.etag, ref.version_id, ref.is_sure) == ("mnist", key, one.etag, None, True)
    assert ref.created == one.modified.timestamp()
    assert (records.refused, records.ignored) == ((), 0)
