"""`AsyncPredictionClient`: send an image, and find its result by its trace id."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import mimetypes
import os
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, final

import orjson

from mnist_pipeline.adapters.object_store import MinioObjectStore
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.client import topics
from mnist_pipeline.client.errors import KeyTaken, PredictionRejected, ResultTimeout
from mnist_pipeline.client.sink import Sink
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline import events, notifications, setting_values
from mnist_pipeline.pipeline.errors import ObjectGone
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.pipeline.published import PredictionResult, read_result
from mnist_pipeline.pipeline.settings import Kafka, Settings, SettingsError
from mnist_pipeline.pipeline.task import Task
from mnist_pipeline.telemetry.traces import current_context

CLOCKS_DIFFER = timedelta(minutes=5)
"""So much may our clock and the transformer's be apart."""

_EVENT_TYPE = "prediction-request-udf-attr"
"""Of the requests that the manifests' Trigger lets through."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What was sent, and the trace id under which its result will be found.

    Attributes:
        place: `bucket/key` of an upload, the URL of an inline request.
        time: when it was sent, by this machine's clock.
    """

    trace_id: str
    place: str
    time: datetime


@final
class AsyncPredictionClient:
    """Sends images to a site and reads its results; for one event loop.

    Within a span of OpenTelemetry, what is sent belongs to its trace.

        async with AsyncPredictionClient.from_environ() as client:
            sent = await client.upload(data, key="0.png")
            result = await client.result(sent)
            print(result.predictions)

    Args:
        settings: where the store and Kafka are, and the trace id's name: those of the transformer.
        url: where inline requests are posted: the transformer's `…/v1/models/<model>:predict`, or a Broker's.

    Raises:
        SettingsError: `url` is no URL.
    """

    def __init__(self, settings: Settings, *, url: str | None = None) -> None:
        self.settings = settings
        self._store = None if settings.minio is None else MinioObjectStore(settings.minio)
        try:
            self._sink = None if url is None else Sink(setting_values.posted_to(url))
        except ValueError as exc:
            raise SettingsError([f"url: {exc}"]) from exc

    @classmethod
    def from_environ(
        cls, task: Task | type[Task] = Digits, environ: Mapping[str, str] | None = None, *, url: str | None = None
    ) -> AsyncPredictionClient:
        """With the settings of the environment, which are those of the transformer.

        Raises:
            SettingsError: they cannot work; a line for each.
        """
        task = task() if isinstance(task, type) else task
        return cls(Settings.from_environ(os.environ if environ is None else environ, task), url=url)

    async def __aenter__(self) -> AsyncPredictionClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def upload(
        self,
        data: bytes,
        *,
        key: str,
        bucket: str | None = None,
        trace_id: str | None = None,
        content_type: str | None = None,
        timeout: float = 60.0,
    ) -> Submission:
        """Upload an object, whose notification then takes it down the path.

        Args:
            data: its bytes.
            key: its name, with one of the suffixes that are taken.
            bucket: one of the source buckets; None: the first of them.
            trace_id: None: a random one. It is among the object's metadata.
            content_type: None: what the key's suffix says.
            timeout: seconds for all of it.

        Raises:
            KeyTaken: an object of this name is there already.
            SettingsError: there are no credentials for the store.
            StoreUnavailable, DeadlineExceeded: it is away, slow, or refuses us.
            NotAllowed: another bucket or suffix than those that are taken: there would be no result.
            BadKey: no object can have this name.
            BadTraceId: longer than 256 characters, or with control characters among them.
        """
        if self._store is None:
            raise SettingsError(["MINIO_ACCESS_KEY and MINIO_SECRET_KEY are not set: there is no store to upload to"])
        bucket = bucket or self.settings.source_buckets[0]
        notifications.check_source(bucket, key, self.settings)
        trace_id = events.check_trace_id(trace_id or str(uuid.uuid4()))
        sent = Submission(trace_id=trace_id, place=f"{bucket}/{key}", time=datetime.now(timezone.utc))
        deadline, trace_key = Deadline(timeout), self.settings.trace_key.lower()
        is_new = await self._store.put(
            bucket,
            key,
            data,
            content_type=content_type or mimetypes.guess_type(key)[0] or "application/octet-stream",
            content_headers={},
            metadata={**current_context(), trace_key: trace_id},
            tags={},
            deadline=deadline,
        )
        if is_new:
            return sent
        # Sent again because its answer was lost, an upload meets itself.
        with contextlib.suppress(ObjectGone):
            there = await self._store.get(bucket, key, None, limit=0, deadline=deadline)
            if there.version.metadata.get(trace_key) == trace_id:
                return sent
        raise KeyTaken(f"{bucket}/{key} is there already")

    async def ask(self, *objects: bytes, trace_id: str | None = None, timeout: float = 60.0) -> Submission:
        """Post objects inline, as one CloudEvent; they are classified and published, and stored nowhere.

        Sent again a few times where the answer says to, or where there is none: its result has one id.

        Raises:
            RequestRefused: it would be refused another time too; its `reason` says why.
            RequestFailed: nobody answered, or the last answer says to come again.
            DeadlineExceeded: it took longer than `timeout` seconds.
            BadTraceId: longer than 256 characters, or with control characters among them.
            SettingsError: the client has no `url`.
        """
        instances = [{"data": base64.b64encode(data).decode()} for data in objects]
        return await self.ask_instances(instances, trace_id=trace_id, timeout=timeout)

    async def ask_instances(
        self, instances: Sequence[Any], *, trace_id: str | None = None, timeout: float = 60.0
    ) -> Submission:
        """The same with V1's `instances` as they are: tensors as nested lists, or objects in base64."""
        if self._sink is None:
            raise SettingsError(["the client has no url: that of the transformer, or of a Broker"])
        trace_id = events.check_trace_id(trace_id or str(uuid.uuid4()))
        body = orjson.dumps(
            {self.settings.trace_key: trace_id, "instances": instances}, option=orjson.OPT_SERIALIZE_NUMPY
        )
        headers = {
            "ce-specversion": "1.0",
            "ce-id": str(uuid.uuid4()),
            "ce-source": "mnist-pipeline/client",
            "ce-type": _EVENT_TYPE,
            "content-type": "application/json",
            **current_context(),
        }
        sent = Submission(trace_id=trace_id, place=self._sink.url, time=datetime.now(timezone.utc))
        await self._sink.post(body, headers, deadline=Deadline(timeout))
        return sent

    async def result(
        self, of: Submission | str, *, since: datetime | None = None, timeout: float = 60.0
    ) -> PredictionResult:
        """The result of what was sent, or of a trace id: the newest that is there, else the first that comes.

        The newest, because what was rejected and is replayed has the same trace id.

        Args:
            of: what `upload` or `ask` gave, or a trace id.
            since: not one that was published before; None: since it was sent, of a trace id any.
            timeout: seconds, connecting among them.

        Raises:
            PredictionRejected: it can never be classified.
            ResultTimeout: it was not there in time.
            SettingsError: `KAFKA_BOOTSTRAP_SERVERS` is not set.
            KafkaUnavailable: Kafka is away, slow, or refuses us or the topic.
        """
        trace_id = of if isinstance(of, str) else of.trace_id
        if since is None and not isinstance(of, str):
            since = of.time - CLOCKS_DIFFER
        events.check_trace_id(trace_id)
        end = time.monotonic() + timeout
        async with topics.opened(self._kafka(), key=trace_id.encode(), since=since, timeout=timeout) as topic:
            try:
                result = await asyncio.wait_for(self._newest(topic, trace_id), max(end - time.monotonic(), 0.0))
            except (asyncio.TimeoutError, TimeoutError) as exc:
                raise ResultTimeout(f"no result with the trace id {trace_id} after {timeout:g} s") from exc
        if result.is_rejected:
            raise PredictionRejected(result)
        return result

    async def results(
        self, *, trace_id: str | None = None, since: datetime | None = None, follow: bool = False
    ) -> AsyncGenerator[PredictionResult, None]:
        """Results as they lie on the topic, in the order of each partition.

        Args:
            trace_id: only those of it, for which only its partition is read.
            since: only those published at this moment or later; None: all that are there.
            follow: go on waiting for others; else it ends where the topic ended when it began.

        Raises:
            SettingsError: `KAFKA_BOOTSTRAP_SERVERS` is not set.
            KafkaUnavailable: Kafka is away, slow, or refuses us or the topic.
        """
        if trace_id is not None:
            events.check_trace_id(trace_id)
        key = None if trace_id is None else trace_id.encode()
        async with contextlib.aclosing(topics.records(self._kafka(), key=key, since=since, follow=follow)) as records:
            async for record in records:
                if result := self._result_in(record, trace_id):
                    yield result

    async def close(self) -> None:
        """Close the connections."""
        if self._store is not None:
            await self._store.close()
        if self._sink is not None:
            await self._sink.close()

    async def _newest(self, topic: topics.OpenTopic, trace_id: str) -> PredictionResult:
        newest, is_at_end = None, False
        while True:
            is_at_end = is_at_end or await topic.is_at_end()
            if is_at_end and newest is not None:
                return newest
            for record in await topic.poll():
                newest = self._result_in(record, trace_id) or newest

    def _result_in(self, record: Record, trace_id: str | None) -> PredictionResult | None:
        result = read_result(record.key, record.value, record.headers, trace_key=self.settings.trace_key)
        return result if result is not None and trace_id in (None, result.trace_id) else None

    def _kafka(self) -> Kafka:
        if self.settings.kafka is None:
            raise SettingsError(["KAFKA_BOOTSTRAP_SERVERS is not set: there are no results to read"])
        return self.settings.kafka
