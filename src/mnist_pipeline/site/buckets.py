"""The buckets of a site: what has to be there, bucket by bucket."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mnist_pipeline.adapters.buckets import BucketStore
from mnist_pipeline.adapters.refusals import Away
from mnist_pipeline.pipeline.settings import Settings
from mnist_pipeline.site.bucket_configs import (
    Change,
    lifecycle_change,
    notification_change,
    object_lock_state,
    versioning_change,
)
from mnist_pipeline.site.parts import Part, State

_EMPTY = {
    "versioning": b"<VersioningConfiguration/>",
    "lifecycle": b"<LifecycleConfiguration/>",
    "notification": b"<NotificationConfiguration/>",
}


@dataclass(frozen=True)
class Bucket:
    """A bucket, there or not."""

    store: BucketStore
    name: str

    @property
    def what(self) -> str:
        """`bucket NAME`."""
        return f"bucket {self.name}"

    async def look(self) -> State:
        """Whether it is there."""
        return State() if await self.store.has_bucket(self.name) else State(lacks="is not there")

    async def mend(self) -> None:
        """Make it."""
        await self.store.make_bucket(self.name)


@dataclass(frozen=True)
class BucketConfig:
    """One configuration of a bucket; `change` tells how it should be, from what it is."""

    store: BucketStore
    bucket: str
    kind: str
    change: Callable[[bytes], Change | None]

    @property
    def what(self) -> str:
        """`KIND of bucket NAME`."""
        return f"{self.kind} of bucket {self.bucket}"

    async def look(self) -> State:
        """Whether it is as it should be."""
        change = await self._change()
        return State() if change is None else change.state

    async def mend(self) -> None:
        """Replace it."""
        if change := await self._change():
            await self.store.set_config(self.bucket, self.kind, change.config)

    async def _change(self) -> Change | None:
        config = await self.store.config(self.bucket, self.kind) or _EMPTY[self.kind]
        with _understood(self.what):
            return self.change(config)


async def object_lock(store: BucketStore, bucket: str) -> State:
    """Whether object lock keeps every upload of the bucket."""
    config = await store.config(bucket, "object-lock")
    with _understood(f"object lock of bucket {bucket}"):
        return object_lock_state(config)


def bucket_parts(store: BucketStore, settings: Settings, arn: str) -> list[list[Part]]:
    """All that the store has to have: for each bucket the bucket itself, then what belongs to it."""
    suffixes = notified_suffixes(settings)
    groups: list[list[Part]] = [
        [
            Bucket(store, name),
            BucketConfig(store, name, "versioning", versioning_change),
            BucketConfig(store, name, "lifecycle", lifecycle_change),
            BucketConfig(store, name, "notification", lambda config: notification_change(config, arn, suffixes)),
        ]
        for name in dict.fromkeys(settings.source_buckets)
    ]
    others = dict.fromkeys(place.bucket for place in settings.outputs)
    # A destination may be a prefix in a source bucket, or the rejected bucket.
    return groups + [[Bucket(store, name)] for name in others if name not in settings.source_buckets]


def notified_suffixes(settings: Settings) -> tuple[str, ...]:
    """The suffixes that a notification is to be about.

    A store compares them letter by letter: where the task takes suffixes of any case, these are the small and the
    capital ones, and what is written in both (`.Png`) is found by `reconcile`.
    """
    given = settings.source_suffixes
    if not settings.task.any_case:
        return given
    return tuple(dict.fromkeys(form for suffix in given for form in (suffix, suffix.lower(), suffix.upper())))


@contextmanager
def _understood(what: str) -> Iterator[None]:
    """Take a configuration that cannot be read for no answer."""
    try:
        yield
    except (ET.ParseError, ValueError) as exc:
        raise Away(f"{what}: no answer that makes sense ({type(exc).__name__}); check MINIO_ENDPOINT") from exc
