"""Which offsets of a partition are settled."""

from __future__ import annotations

import collections


class Offsets:
    """Which offsets of a partition are settled, in whatever order that happens; pure bookkeeping."""

    def __init__(self) -> None:
        self.position: int | None = None
        """The offset to commit, one above the last of the settled run from the start; None: nothing is settled yet."""
        self.committed: int | None = None
        """The last position that was committed."""
        self._begun: collections.deque[int] = collections.deque()
        self._settled: set[int] = set()

    @property
    def to_commit(self) -> int | None:
        """The position, where it is new since the last commit."""
        return self.position if self.position != self.committed else None

    @property
    def beyond(self) -> int:
        """How many are settled that cannot be committed, because one before them is not."""
        return len(self._settled)

    def begin(self, offset: int) -> None:
        """A record came; offsets come in ascending order, with gaps."""
        self._begun.append(offset)

    def settle(self, offset: int) -> None:
        """It is done with."""
        self._settled.add(offset)
        while self._begun and self._begun[0] in self._settled:
            first = self._begun.popleft()
            self._settled.discard(first)
            self.position = first + 1
