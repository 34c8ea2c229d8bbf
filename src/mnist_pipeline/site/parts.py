"""What `mnist-pipeline setup` says of the parts of a site, and what it asks of each: to be looked at, to be mended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Outcome(Enum):
    """What became of one part; the value is what its line begins with."""

    THERE = "there"
    MADE = "made"
    CHANGED = "changed"
    LEFT_OUT = "left out"
    UNSEEN = "not allowed to look"
    NOT_ALLOWED = "not allowed"
    NOT_DONE = "not done"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class State:
    """How a part is found.

    Attributes:
        lacks: what is missing or different; empty where it is as it should be.
        mended: what setup calls it once it is mended, `MADE` or `CHANGED`.
        note: said beside the outcome.
    """

    lacks: str = ""
    mended: Outcome = Outcome.MADE
    note: str = ""


class Part(Protocol):
    """One thing that a site needs.

    Both methods raise `Refused` where this one cannot be looked at or mended, `Away` where the server is no use at all
    (`adapters.refusals`).
    """

    @property
    def what(self) -> str:
        """Its name in a line."""
        ...

    async def look(self) -> State:
        """How it is found; changes nothing."""
        ...

    async def mend(self) -> None:
        """Make it as it should be; called after a `look` that found something missing."""
        ...
