"""The objects of buckets, listed in shards side by side: each object is in exactly one of them.

A shard is a range of keys. Ranges that meet leave nothing out and overlap nowhere, wherever they meet; so where they
meet is only a question of how well the work is shared. Nobody knows where keys lie before they are listed. So a listing
begins as one shard, and while there may be more of them, one that has got somewhere gives away what lies behind it.
"""

from __future__ import annotations

import asyncio
import os.path
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from mnist_pipeline.pipeline.ports import KEYS_A_PAGE, MAX_KEY_BYTES, Deadline, ListedObject
from mnist_pipeline.site.reconcile import LIST_SECONDS, Listing

# Behind a text with this at its end are none of the keys that begin with the text, but such as have it too.
_LAST = "\U0010ffff"


@dataclass(kw_only=True, eq=False)
class Shard:
    """Keys of a bucket in the order of their bytes: those behind `after`, up to `until`, which may be one of them; None
    is the bucket's end. `after` moves as they are dealt with.
    """

    bucket: str
    after: str = ""
    until: str | None = None
    alike: int = field(default=0, repr=False)

    def has(self, key: str) -> bool:
        """Whether a key behind `after` is one of them."""
        # Characters have the order of their bytes in UTF-8.
        return self.until is None or key <= self.until


Deal = Callable[[Shard, Sequence[ListedObject]], Awaitable[None]]
"""Deals with the next objects of a shard, and moves its `after` behind those that are done; it may begin no other once
the shards are stopped.
"""


class Shards:
    """One run through shards.

    Args:
        listing: of the store.
        shards: where to begin: whole buckets, or what an earlier run has left.
        most: so many are listed side by side.

    Attributes:
        left: the shards that are not dealt with to their ends.
    """

    def __init__(self, listing: Listing, shards: Iterable[Shard], *, most: int) -> None:
        self.left: list[Shard] = []
        self.stopped = asyncio.Event()
        self._listing = listing
        self._most = most
        self._waiting: asyncio.Queue[Shard] = asyncio.Queue()
        self._failure: Exception | None = None
        for shard in shards:
            self._add(shard)

    def stop(self) -> None:
        """List nothing more."""
        self.stopped.set()

    async def walk(self, deal: Deal) -> None:
        """Deal with all objects; what is in hand is finished, whatever ends it.

        Raises:
            StoreUnavailable, DeadlineExceeded: a listing is cut short.
            Exception: what `deal` raises.
        """
        workers = [asyncio.create_task(self._work(deal)) for _ in range(self._most)]
        try:
            await self._waiting.join()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)
        if self._failure is not None:
            raise self._failure

    def _add(self, shard: Shard) -> None:
        self.left.append(shard)
        self._waiting.put_nowait(shard)

    async def _work(self, deal: Deal) -> None:
        while True:
            shard = await self._waiting.get()
            try:
                await self._walk(shard, deal)
            except Exception as exc:  # noqa: BLE001 - raised by `walk`, once the others have ended
                self._failure = self._failure or exc
                self.stop()
            finally:
                self._waiting.task_done()

    async def _walk(self, shard: Shard, deal: Deal) -> None:
        while not self.stopped.is_set():
            page = await self._list_after(shard, shard.after)
            ours = [one for one in page if shard.has(one.key)]
            await deal(shard, ours)
            if self.stopped.is_set():
                return
            if not ours or len(ours) < len(page):
                self.left.remove(shard)
                return
            shard.after = ours[-1].key
            if len(self.left) < self._most:
                prefix = os.path.commonprefix([ours[0].key, shard.after])  # noqa: RUF071 - of characters, as is meant
                await self._split(shard, alike=len(prefix))

    async def _split(self, shard: Shard, *, alike: int) -> None:
        """Give away the keys that differ from `after` early; the earlier they do, the more they may be.

        Those that were listed last are `alike` for so long. Keys that differ at their end only are no work for two.
        """
        # The store takes no longer one to begin behind.
        key = shard.after.encode()[: MAX_KEY_BYTES - len(_LAST.encode())].decode(errors="ignore")
        low, high = shard.alike + 1, min(alike - 1, len(key))
        if low > high:
            return
        if not await self._has_any_after(shard, key[:high] + _LAST):
            shard.alike = high
            return
        while low < high:
            middle = (low + high) // 2
            if await self._has_any_after(shard, key[:middle] + _LAST):
                high = middle
            else:
                low = middle + 1
        until = key[:high] + _LAST
        # Others may have been split meanwhile; and where a key goes on with that last character, it is before that key.
        if len(self.left) < self._most and until > shard.after:
            self._add(Shard(bucket=shard.bucket, after=until, until=shard.until, alike=high - 1))
            shard.until, shard.alike = until, high

    async def _has_any_after(self, shard: Shard, key: str) -> bool:
        return any(shard.has(one.key) for one in await self._list_after(shard, key, most=1))

    async def _list_after(self, shard: Shard, key: str, *, most: int = KEYS_A_PAGE) -> list[ListedObject]:
        return await self._listing.list_after(shard.bucket, key, most=most, deadline=Deadline(LIST_SECONDS))
