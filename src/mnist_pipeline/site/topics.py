"""`Topic`: what of a topic has to be there."""

from __future__ import annotations

from dataclasses import dataclass

from mnist_pipeline.adapters.kafka_topics import BROKERS_DEFAULT, Topics
from mnist_pipeline.adapters.refusals import Refused
from mnist_pipeline.site.parts import State

DEFAULT_PARTITIONS = 6


@dataclass(frozen=True)
class Topic:
    """A topic, there or not; `needed`: the transformer produces to it, so its user has to see it."""

    topics: Topics
    name: str
    partitions: int | None
    replication: int | None
    needed: bool

    @property
    def what(self) -> str:
        """`topic NAME`."""
        return f"topic {self.name}"

    async def look(self) -> State:
        """Whether it is there, each partition with a leader."""
        try:
            found = await self.topics.describe(self.name)
        except Refused as refused:
            raise Refused(str(refused), denied=refused.denied, needed=self.needed) from refused
        if found is None:
            return State(lacks="is not there")
        if not found.leaders or min(found.leaders) < 0:
            leaderless = sum(leader < 0 for leader in found.leaders)
            raise Refused(f"{leaderless} of its {len(found.leaders)} partitions have no leader; look at the brokers")
        if self.partitions not in (None, len(found.leaders)):
            return State(note=f"with {len(found.leaders)} partitions, which setup does not change")
        return State()

    async def mend(self) -> None:
        """Make it."""
        await self.topics.create(
            self.name,
            partitions=self.partitions or DEFAULT_PARTITIONS,
            replication=self.replication or BROKERS_DEFAULT,
        )
