"""A live page as it is served, in front of a site that does what a test says: its store, Kafka and predictor are fakes.

For what the local stack does not do on demand: hundreds of labels and of events a second, names that nobody would give,
Kafka that goes away, results that are doubtful.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar, final

import orjson
from numpy.typing import NDArray

from mnist_pipeline import Settings, Task
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.adapters.sockets import listen
from mnist_pipeline.client.client import Submission
from mnist_pipeline.client.errors import KeyTaken
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.pipeline.filing import REJECTED_REASON
from mnist_pipeline.pipeline.interpretation import Label, Prediction
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.testing import MemoryStore, digit_png, minio_event
from mnist_pipeline.web import server
from mnist_pipeline.web.app import Parts, make_app
from mnist_pipeline.web.guard import Guard
from mnist_pipeline.web.history import History
from mnist_pipeline.web.live import Live
from mnist_pipeline.web.objects import Objects
from mnist_pipeline.web.shelves import Shelves
from mnist_pipeline.web.sightings import notified_in, published_in
from mnist_pipeline.web.uploads import Uploads

_T = TypeVar("_T")

STAGES = "wait;dur=0.41, fetch;dur=2.13, decode;dur=0.09, predict;dur=3.20, file;dur=2.27"
SEVEN = digit_png(7)


@final
class PretendedSite:
    """A site and its page; what is told to it is seen by the browsers that watch.

    Args:
        task: what it is about.
        read_only: whether its page only shows.
        settings: of its transformer.
    """

    def __init__(self, task: Task | None = None, *, read_only: bool = False, **settings: Any) -> None:
        self.settings = Settings(task=task or Digits(), **settings)
        self.store = MemoryStore.of(self.settings)
        self.url = ""
        self._read_only = read_only
        self._records: list[Record] = []
        self._offsets = itertools.count()
        self._is_kafka_away = False
        self._port = 0

    def __enter__(self) -> PretendedSite:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve the page; again at the same address, and as a new process that has seen nothing."""
        listener = listen("127.0.0.1", self._port)
        self.url = server.url_of(listener)
        self._port = listener.getsockname()[1]
        is_ready = threading.Event()

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._live = Live((self._notifications_topic, self._results_topic))
            figures = asyncio.create_task(self._live.run())
            self._server = server.PageServer(self._app(), self._live, is_ready.set)
            await self._server.serve(sockets=[listener])
            figures.cancel()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        assert is_ready.wait(20)
        self.kafka_is_back()

    def stop(self) -> None:
        """Let the page's server go away."""
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def kafka_goes_away(self, why: str = "no broker answers") -> None:
        """Kafka cannot be reached from now on."""
        self._is_kafka_away = True
        self._on_loop(partial(self._live.tell, self._results_topic, why))

    def kafka_is_back(self) -> None:
        """All topics can be read."""
        self._is_kafka_away = False

        def tell() -> None:
            for topic in (self._notifications_topic, self._results_topic):
                self._live.tell(topic, "")

        self._on_loop(tell)

    def notify(self, key: str, trace_id: str, *, age: float = 0.05) -> None:
        """Tell of an upload that was so many seconds ago."""
        event = minio_event(self.source_bucket, key)
        event["Records"][0]["eventTime"] = datetime.fromtimestamp(time.time() - age, timezone.utc).isoformat()
        described = event["Records"][0]["s3"]["object"]
        described["userMetadata"][f"X-Amz-Meta-{self.settings.trace_key}"] = trace_id
        described["sequencer"] = trace_id
        record = self._record(self._notifications_topic, f"{self.source_bucket}/{key}", event)

        def take() -> None:
            for seen in notified_in(record, self.settings):
                self._live.take(self._live.journeys.notified(seen))

        self._on_loop(take)

    def publish(self, key: str, trace_id: str, label: Label, score: float = 0.98, *, data: bytes = SEVEN) -> str:
        """File it by its label, or for review, and tell of that; gives its new place."""
        place = self.settings.place_of(Prediction(label, score))
        below = self.settings.review_below
        told = {"predictions": [label], "scores": [score], "review": below is not None and score < below}
        return self._settle(key, trace_id, told, data, into=f"{place.bucket}/{place.prefix}")

    def reject(self, key: str, trace_id: str, reason: str, message: str, *, data: bytes = b"") -> str:
        """Put it with the rejected ones, and tell of that."""
        told = {"reason": reason, "message": message}
        into = f"{self.settings.rejected_bucket}/"
        return self._settle(key, trace_id, told, data, into=into, kind=".rejected")

    def pass_through(self, key: str, label: Label, score: float = 0.98) -> str:
        """Let an object go all of its way; gives its trace id."""
        trace_id = str(uuid.uuid4())
        self.notify(key, trace_id)
        self.publish(key, trace_id, label, score)
        return trace_id

    @property
    def source_bucket(self) -> str:
        """Where uploads come in."""
        return self.settings.source_buckets[0]

    @property
    def _notifications_topic(self) -> str:
        return self.settings.task.name

    @property
    def _results_topic(self) -> str:
        return f"{self.settings.task.name}-predictions"

    def _settle(self, key: str, trace_id: str, told: dict[str, Any], data: bytes, *, into: str, kind: str = "") -> str:
        bucket, _, filed = f"{into}{key}".partition("/")
        metadata = {self.settings.trace_key: trace_id, REJECTED_REASON: told.get("reason", "")}
        self.store.upload(bucket, filed, data, metadata=metadata)
        event = {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": f"mnist-pipeline/{self.settings.task.name}",
            "type": f"{self.settings.event_type}{kind}",
            "time": datetime.now(timezone.utc).isoformat(),
            "subject": f"{self.source_bucket}/{key}",
            "data": {
                **told,
                "object": {"bucket": self.source_bucket, "key": key},
                "destination": f"{into}{key}",
            },
        }
        headers = (("server-timing", STAGES.encode()), (self.settings.trace_key, trace_id.encode()))
        record = self._record(self._results_topic, trace_id, event, headers)
        seen = published_in(record, self.settings)
        assert seen is not None
        self._on_loop(lambda: self._live.take(self._live.journeys.published(seen)))
        return f"{into}{key}"

    def _record(self, topic: str, key: str, value: Any, headers: Sequence[tuple[str, bytes]] = ()) -> Record:
        record = Record(
            topic=topic,
            partition=0,
            offset=next(self._offsets),
            timestamp_ms=round(time.time() * 1000),
            key=key.encode(),
            value=orjson.dumps(value),
            headers=tuple(headers),
        )
        self._records.append(record)
        return record

    def _app(self) -> Guard:
        objects = Objects(self.settings, self.store)
        parts = Parts(
            settings=self.settings,
            live=self._live,
            objects=objects,
            shelves=Shelves(self.settings, self.store, objects),
            history=History(
                settings=self.settings,
                results=lambda _: self._read(self._results_topic),
                notifications=lambda _: self._read(self._notifications_topic),
            ),
            uploads=None if self._read_only else Uploads(self.settings, _Sender(self.store), self._live),
            why_read_only=server.READ_ONLY if self._read_only else None,
            ask_scores=self._scores,
        )
        return Guard(make_app(parts), hosts=())

    async def _scores(self, _: NDArray[Any]) -> list[dict[str, Any]]:
        labels = self.settings.task.labels
        return [{"label": label, "score": 2.0 ** -(at + 1)} for at, label in enumerate(labels)]

    async def _read(self, topic: str) -> AsyncGenerator[Record, None]:
        if self._is_kafka_away:
            raise KafkaUnavailable("no broker answers")
        for record in self._records:
            if record.topic == topic:
                yield record

    def _on_loop(self, act: Callable[[], _T]) -> _T:
        async def acted() -> _T:
            return act()

        return asyncio.run_coroutine_threadsafe(acted(), self._loop).result(20)


class _Sender:
    """Uploads into a store in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def upload(self, data: bytes, *, key: str, bucket: str | None = None, timeout: float = 60.0) -> Submission:
        sent = Submission(trace_id=str(uuid.uuid4()), place=f"{bucket}/{key}", time=datetime.now(timezone.utc))
        is_new = await self._store.put(
            str(bucket),
            key,
            data,
            content_type="image/png",
            content_headers={},
            metadata={},
            tags={},
            deadline=Deadline(timeout),
        )
        if not is_new:
            raise KeyTaken(f"{sent.place} is there already")
        return sent
