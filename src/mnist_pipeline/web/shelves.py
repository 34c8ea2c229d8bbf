"""The shelves of a site: the places where objects come to lie, and the newest objects on each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from mnist_pipeline.pipeline.errors import ObjectGone, Permanent
from mnist_pipeline.pipeline.filing import REJECTED_REASON
from mnist_pipeline.pipeline.interpretation import Label, Prediction
from mnist_pipeline.pipeline.ports import Deadline, ListedObject
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.pipeline.task import Destination
from mnist_pipeline.web.answers import Answers
from mnist_pipeline.web.objects import NotShown, Objects

_SECONDS = 20.0
_MOST_PAGES = 5
"""Pages of a thousand names: what lies behind them is not looked at."""

# Of a small object all is read, so that its connection can be used again; of a larger one only what describes it.
_SMALL_BYTES = 64 * 1024
# What is filed is not changed any more.
_DESCRIBED_SECONDS = 600.0
_MOST_DESCRIBED = 5000


class Listing(Protocol):
    """What of a store is asked for beyond the port."""

    async def list_after(self, bucket: str, key: str, *, deadline: Deadline) -> list[ListedObject]:
        """The next current objects of a bucket after `key`, in the order of their names' bytes; none at its end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A place: of a label, of what is to be reviewed, or of what was rejected.

    Attributes:
        kind: which of them.
        label: whose it is; None of the others, and where several labels share it.
        place: `bucket/`, or `bucket/prefix/`.
    """

    kind: Literal["label", "review", "rejected"]
    label: Label | None
    place: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An object on a shelf: its place, bytes, time in milliseconds since 1970, and what its metadata say."""

    place: str
    size: int | None
    modified: float
    trace_id: str | None
    reason: str | None


def shelves_of(settings: Settings) -> list[Shelf]:
    """All of a site's: the labels' in their order, then the others."""
    labels: dict[Destination, list[Label]] = {}
    for label in settings.task.labels:
        labels.setdefault(settings.destination_of(Prediction(label, 1.0)), []).append(label)
    for other in settings.destinations:
        labels.setdefault(other, [])
    shelves = [
        Shelf(kind="label", label=of[0] if len(of) == 1 else None, place=_place(where)) for where, of in labels.items()
    ]
    if settings.review_below is not None:
        shelves.append(Shelf(kind="review", label=None, place=f"{settings.review_bucket}/"))
    return [*shelves, Shelf(kind="rejected", label=None, place=f"{settings.rejected_bucket}/")]


class Shelves:
    """Looks at the shelves of a site; for one event loop."""

    def __init__(self, settings: Settings, listing: Listing, objects: Objects) -> None:
        self.all: Sequence[Shelf] = shelves_of(settings)
        self._trace_key = settings.trace_key.lower()
        self._listing = listing
        self._objects = objects
        self._described: Answers[Shown] = Answers(seconds=_DESCRIBED_SECONDS, most=_MOST_DESCRIBED, at_once=8)

    async def newest(self, shelf: Shelf, limit: int) -> dict[str, Any]:
        """The newest objects on a shelf, as the page gets them; of a very long one, of the first thousands by name.

        Raises:
            StoreUnavailable, DeadlineExceeded: the store is away, slow or refuses us.
        """
        found, is_all = await self._list(shelf)
        found.sort(key=lambda one: one.age_seconds)
        now = time.time()
        bucket = shelf.place.partition("/")[0]
        shown = await asyncio.gather(*(self._shown(bucket, one, now) for one in found[:limit]))
        return {
            "place": shelf.place,
            "objects": [asdict(one) for one in shown if one is not None],
            "more": len(found) > limit or not is_all,
        }

    async def close(self) -> None:
        """Give up what is asked."""
        await self._described.close()

    async def _list(self, shelf: Shelf) -> tuple[list[ListedObject], bool]:
        """The objects on a shelf, and whether these are all."""
        bucket, _, prefix = shelf.place.partition("/")
        deadline, after = Deadline(_SECONDS), prefix
        found: list[ListedObject] = []
        for _ in range(_MOST_PAGES):
            page = await self._listing.list_after(bucket, after, deadline=deadline)
            here = [one for one in page if one.key.startswith(prefix)]
            found += here
            if not page or len(here) < len(page):
                return found, True
            after = page[-1].key
        return found, False

    async def _shown(self, bucket: str, one: ListedObject, now: float) -> Shown | None:
        place, modified = f"{bucket}/{one.key}", round((now - one.age_seconds) * 1000)

        async def described() -> Shown:
            stored = await self._objects.fetch(place, limit=_SMALL_BYTES)
            metadata = stored.version.metadata
            return Shown(
                place=place,
                size=None if stored.data is None else len(stored.data),
                modified=modified,
                trace_id=metadata.get(self._trace_key),
                reason=metadata.get(REJECTED_REASON),
            )

        try:
            return await self._described.get(place, described)
        except ObjectGone:
            return None
        except (NotShown, Permanent):
            # Somebody else's, under a name that none of ours has.
            return Shown(place=place, size=None, modified=modified, trace_id=None, reason=None)


def _place(destination: Destination) -> str:
    return f"{destination.bucket}/{destination.prefix}"
