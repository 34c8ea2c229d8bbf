"""What the fakes note of their calls, and which of these shall fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mnist_pipeline.pipeline.ports import ObjectVersion


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a port: the method's name, and what it was about; `versions` of `delete_all`."""

    method: str
    bucket: str = ""
    key: str = ""
    version_id: str | None = None
    versions: tuple[ObjectVersion, ...] = ()


@dataclass
class Failures:
    """Errors to raise, by method: the first of a list at the next call, then the next one.

    `before` is raised instead of doing anything; `after` when all is done, as when an answer is lost. What waits in
    `before` for `delete` also becomes of the versions of a `delete_all`, one each.
    """

    before: dict[str, list[Exception]] = field(default_factory=dict)
    after: dict[str, list[Exception]] = field(default_factory=dict)


def raise_next(errors: Mapping[str, list[Exception]], method: str) -> None:
    """Raise the error that waits for this method, if one does."""
    if waiting := errors.get(method):
        raise waiting.pop(0)
