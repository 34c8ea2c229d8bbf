"""A consumer on the public fakes, and a consumer group that gives it records and takes partitions as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from digits import digits_settings
from mnist_pipeline.adapters.records import Partition, Record
from mnist_pipeline.consuming.consumer import Consumer, Manner
from mnist_pipeline.consuming.lanes import Lanes
from mnist_pipeline.pipeline.errors import PredictorUnavailable
from mnist_pipeline.pipeline.outcomes import Outcome
from mnist_pipeline.pipeline.path import Pipeline
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.task import Batch
from mnist_pipeline.testing import Call, MemoryPublisher, MemoryStore, StubPredictor, digit_png, minio_event

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing since 3.11

TOPIC = "mnist"


class Member:
    """The member that a consumer is given.

    Attributes:
        committed: the positions, by their partitions.
        did: what was asked of it, in order.
    """

    def __init__(self, lanes: Lanes) -> None:
        self.committed: dict[Partition, int] = {}
        self.did: list[str] = []
        self._lanes = lanes

    def commit(self) -> None:
        offsets = self._lanes.settled()
        self._lanes.committed(offsets)
        self.committed.update(offsets)

    def begin(self) -> None:
        self.did.append("begin")

    def stop_taking(self) -> None:
        self.did.append("stop taking")

    def close(self) -> None:
        self.commit()
        self.did.append("close")


class Gauge:
    """An observer that counts.

    Attributes:
        most: so many objects and requests were in hand together.
        outcomes: what became of them.
    """

    def __init__(self) -> None:
        self.most = 0
        self.outcomes: list[Outcome] = []
        self._now = 0

    @property
    def kinds(self) -> list[str]:
        return [outcome.kind for outcome in self.outcomes]

    def begun(self) -> None:
        self._now += 1
        self.most = max(self.most, self._now)

    def ended(self) -> None:
        self._now -= 1

    def settled(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Group:
    """A group with one member, which consumes for as long as the block lasts; partition 0 is its own from the start.

    Args:
        manner: of the consumer.
        dead_letters: whether there is a topic of them.
        settings: what is changed of the digits'.

    Attributes:
        topic: all records, by their partitions.
        given_up: the reasons for which records were.
        predicting: the predictor answers nobody while this is not set.
    """

    def __init__(self, manner: Manner | None = None, *, dead_letters: bool = True, **settings: Any) -> None:
        self.store = MemoryStore(versioned={"mnist"}, create_buckets=True)
        self.publisher = MemoryPublisher()
        self.letters = MemoryPublisher()
        self.predictor = StubPredictor()
        self.predicting = asyncio.Event()
        self.predicting.set()
        self.gauge = Gauge()
        self.given_up: list[str] = []
        self.topic: dict[int, list[Record]] = {}
        pipeline = Pipeline(digits_settings(**settings), self.store, self.publisher, observer=self.gauge)
        self.consumer = Consumer(
            pipeline,
            pipeline.through(self.predict),
            self.predict,
            dead_letters=self.letters if dead_letters else None,
            manner=manner or Manner(),
            on_dead_letter=self.given_up.append,
        )
        self.member = Member(self.consumer.lanes)
        self._run: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.assign(0)
        self._run = asyncio.create_task(self.consumer.run(self.member))
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Let the consumer come to its end."""
        self.consumer.stop()
        if self._run is not None:
            await self._run

    async def predict(self, tensors: Batch, deadline: Deadline) -> Sequence[Any]:
        try:
            if not self.predicting.is_set():
                await asyncio.wait_for(self.predicting.wait(), deadline.remaining())
        except asyncio.TimeoutError as exc:
            raise PredictorUnavailable("no answer in time") from exc
        return self.predictor(tensors)

    # --- what the group does ---

    def assign(self, *partitions: int) -> None:
        self.consumer.lanes.assigned([Partition(TOPIC, number) for number in partitions])

    def revoke(self, *partitions: int) -> None:
        """Take partitions back, once what is settled of them is committed."""
        self.member.commit()
        self.consumer.lanes.revoked([Partition(TOPIC, number) for number in partitions])

    def give(self, *records: Record) -> None:
        self.consumer.lanes.taken(records)

    def committed(self, partition: int = 0) -> int:
        """The position of a partition, once what is settled is committed."""
        self.member.commit()
        return self.member.committed.get(Partition(TOPIC, partition), 0)

    # --- records ---

    def record(
        self, value: bytes | Mapping[str, Any] | None, *headers: tuple[str, bytes], partition: int = 0
    ) -> Record:
        """The next record of a partition."""
        records = self.topic.setdefault(partition, [])
        record = Record(
            topic=TOPIC,
            partition=partition,
            offset=len(records),
            timestamp_ms=1795322606302,
            key=b"key",
            value=json.dumps(value).encode() if isinstance(value, Mapping) else value,
            headers=headers,
        )
        records.append(record)
        return record

    def upload(self, *keys: str, data: bytes | None = None, partition: int = 0) -> Record:
        """Upload objects, sevens where nothing is said, and give the notification of them."""
        return self.record({"Records": self.uploaded(*keys, data=data)}, partition=partition)

    def uploaded(self, *keys: str, data: bytes | None = None) -> list[Any]:
        """Upload them, and give the records of their notification."""
        versions = [self.store.upload("mnist", key, digit_png(7) if data is None else data) for key in keys]
        return [of_notification(one.bucket, one.key, one.version_id) for one in versions]

    # --- what became of them ---

    @property
    def batches(self) -> list[int]:
        """How many objects were in each request to the predictor."""
        return [len(tensors) for tensors in self.predictor.batches]

    @property
    def results(self) -> list[dict[str, Any]]:
        """The events that were published."""
        return [json.loads(message.value) for message in self.publisher.messages]

    @property
    def filed(self) -> list[str]:
        """The keys of the objects that these are of."""
        return [result["data"]["object"]["key"] for result in self.results]

    @property
    def predictions(self) -> list[int]:
        """All that they say."""
        return [prediction for result in self.results for prediction in result["data"]["predictions"]]

    def calls(self, method: str) -> list[Call]:
        """Of the store."""
        return [call for call in self.store.calls if call.method == method]


def of_notification(bucket: str, key: str, version_id: str | None = None) -> Any:
    """One record of a notification."""
    return minio_event(bucket, key, version_id=version_id)["Records"][0]


def failing(store: MemoryStore, error: Exception, *methods: str, keys: Iterable[str] = ()) -> None:
    """Let these calls of the store fail until `on_call` is set to None; of all keys where none is named."""
    named = set(keys)

    def fail(call: Call) -> None:
        if call.method in methods and (not named or call.key in named):
            raise error

    store.on_call = fail
