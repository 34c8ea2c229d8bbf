"""A load on a site: objects are uploaded, so many in flight, and their results are waited for."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mnist_pipeline.client import topics
from mnist_pipeline.client.client import AsyncPredictionClient
from mnist_pipeline.client.errors import ClientError
from mnist_pipeline.pipeline.errors import PipelineError
from mnist_pipeline.pipeline.published import PredictionResult, read_result
from mnist_pipeline.pipeline.settings import Kafka

_CHECK_SECONDS = 5.0


@dataclass(kw_only=True)
class Sent:
    """One object of a load; its moments are of `time.monotonic()`.

    Attributes:
        place: `bucket/key`.
        began: when its upload began.
        uploaded: when the store had taken it; None: it has not said so.
        arrived: when its result was read.
        result: the first that came; None: there was none.
    """

    trace_id: str
    place: str
    began: float
    uploaded: float | None = None
    arrived: float | None = None
    result: PredictionResult | None = None


class Load:
    """A load on the site of a client; for one event loop.

    Args:
        client: whose settings say where the store is.
        kafka: where the results are.
        bucket: one of the source buckets.
        in_flight: so many objects at most are uploaded, or being uploaded, and have no result yet.
        timeout: it is given up after so many seconds in which no object was uploaded and no result has come.
        on_result: called for each object whose result has come.

    Attributes:
        sent: the objects that were uploaded, in the order in which that was begun, by their trace ids.
        failed: a sentence for each that could not be uploaded.
    """

    def __init__(
        self,
        client: AsyncPredictionClient,
        kafka: Kafka,
        *,
        bucket: str,
        in_flight: int,
        timeout: float,
        on_result: Callable[[], None],
    ) -> None:
        self.sent: dict[str, Sent] = {}
        self.failed: list[str] = []
        self._client = client
        self._kafka = kafka
        self._bucket = bucket
        self._timeout = timeout
        self._on_result = on_result
        self._slots = asyncio.Semaphore(in_flight)
        self._waiting = 0
        self._is_any_uploaded = False
        self._last_step = time.monotonic()

    async def run(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Upload objects, which are keys with their bytes, and read results until there is one of each.

        Raises:
            KafkaUnavailable: Kafka is away, or refuses us or the topic; where it is so from the start, nothing is
                uploaded.
        """
        trace_key = self._client.settings.trace_key
        async with topics.opened(self._kafka, new_only=True) as topic:
            self._last_step = time.monotonic()
            uploading = asyncio.create_task(self._upload_all(objects))
            try:
                while not uploading.done() or self._waiting:
                    for record in await topic.poll():
                        self._take(read_result(record.key, record.value, record.headers, trace_key=trace_key))
                    if time.monotonic() - self._last_step > self._timeout:
                        # Where the brokers are silent, nothing is known of the objects.
                        await topic.check(_CHECK_SECONDS)
                        break
            finally:
                uploading.cancel()
                await asyncio.wait([uploading])
        if not uploading.cancelled():
            uploading.result()

    async def _upload_all(self, objects: Iterable[tuple[str, bytes]]) -> None:
        under_way: set[asyncio.Task[None]] = set()
        try:
            for key, data in objects:
                await self._slots.acquire()
                if self.failed and not self._is_any_uploaded:
                    break  # nor will the others be
                task = asyncio.create_task(self._upload(key, data))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.gather(*under_way)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _upload(self, key: str, data: bytes) -> None:
        trace_id = str(uuid.uuid4())
        sent = Sent(trace_id=trace_id, place=f"{self._bucket}/{key}", began=time.monotonic())
        # Before it is there: its result may be quicker than the store's answer.
        self.sent[trace_id] = sent
        self._waiting += 1
        try:
            await self._client.upload(data, key=key, bucket=self._bucket, trace_id=trace_id)
        except (ClientError, PipelineError) as exc:
            if sent.result is not None:
                return  # it is there, and only the store's answer was lost
            del self.sent[trace_id]
            self.failed.append(f"{sent.place}: {exc}")
            self._waiting -= 1
            self._slots.release()
        else:
            sent.uploaded = self._last_step = time.monotonic()
            self._is_any_uploaded = True

    def _take(self, result: PredictionResult | None) -> None:
        sent = self.sent.get(result.trace_id) if result else None
        if sent is not None and sent.result is None:
            sent.result = result
            sent.arrived = self._last_step = time.monotonic()
            self._waiting -= 1
            self._slots.release()
            self._on_result()
