"""pipeline.py: whatever is uploaded, overwritten, delivered and cut short, in whatever order: nothing is lost."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from digits import digits_settings
from mnist_pipeline.pipeline import events
from mnist_pipeline.pipeline.errors import (
    DeadlineExceeded,
    KafkaUnavailable,
    PipelineError,
    PredictorUnavailable,
    Retryable,
    StoreUnavailable,
)
from mnist_pipeline.pipeline.events import Notification
from mnist_pipeline.pipeline.outcomes import verdict
from mnist_pipeline.pipeline.path import Pipeline
from mnist_pipeline.pipeline.ports import Deadline, ObjectVersion
from mnist_pipeline.pipeline.task import Batch
from mnist_pipeline.testing import Call, MemoryPublisher, MemoryStore, StubPredictor, digit_png, minio_event

SETTINGS = digits_settings(max_object_bytes=2_000)
ROUNDS = 5
"""Deliveries of all that is left, after which everything must be quiet."""

# Few names and digits, so that they meet again; one of the names is too long for a suffix.
keys = st.sampled_from(["0.png", "é" * 125 + ".png"])
digits = st.sampled_from([3, 7])
calls = st.sampled_from(["get", "put", "delete", "copy", "set_tags"])


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A version that a user has uploaded; `digit` is None for what is no digit."""

    version: ObjectVersion
    data: bytes
    digit: int | None


def picture(digit: int, serial: int) -> bytes:
    """The digit in a file that differs from others of it by its serial number."""
    more, stream = PngInfo(), io.BytesIO()
    more.add_text("serial", str(serial))
    Image.open(io.BytesIO(digit_png(digit))).save(stream, "PNG", pnginfo=more)
    return stream.getvalue()


class Deliveries(RuleBasedStateMachine):
    """Users upload, MinIO notifies, Kafka delivers at least once, and any step may fail, before or after it is done."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads: list[Upload] = []
        self.pending: list[dict[str, Any]] = []
        self.delivered: list[dict[str, Any]] = []
        self.store = MemoryStore("mnist", create_buckets=True)
        self.publisher = MemoryPublisher()
        self.predictor = StubPredictor()
        self.pipeline = Pipeline(SETTINGS, self.store, self.publisher)

    @initialize(versioned=st.booleans())
    def begin(self, *, versioned: bool) -> None:
        if versioned:
            self.store.versioned.add("mnist")

    # --- what users and servers do ---

    @rule(key=keys, digit=digits, serial=st.integers(0, 1))
    def upload_a_digit(self, key: str, digit: int, serial: int) -> None:
        self._upload(key, picture(digit, serial), digit)

    @rule(key=keys, data=st.sampled_from([b"no image", b"x" * 3_000, b"y" * 3_000]))
    def upload_what_is_no_digit(self, key: str, data: bytes) -> None:
        self._upload(key, data, None)

    def _upload(self, key: str, data: bytes, digit: int | None) -> None:
        version = self.store.upload("mnist", key, data)
        self.uploads.append(Upload(version=version, data=data, digit=digit))
        self.pending.append(minio_event("mnist", key, version_id=version.version_id))

    @precondition(lambda self: self.store.versioned)
    @rule(key=keys)
    def remove_as_a_user_does(self, key: str) -> None:
        if key in self.store.keys("mnist"):
            self.store.remove("mnist", key)

    @precondition(lambda self: self.store.versioned and self.uploads)
    @rule(data=st.data())
    def lock_a_version(self, data: st.DataObject) -> None:
        self.store.locked.add(str(data.draw(st.sampled_from(self.uploads)).version.version_id))

    @precondition(lambda self: self.store.locked)
    @rule()
    def let_all_versions_go(self) -> None:
        self.store.locked.clear()

    @rule(call=calls, error=st.sampled_from([StoreUnavailable, DeadlineExceeded]), done=st.booleans())
    def the_store_will_fail(self, call: str, error: type[Retryable], *, done: bool) -> None:
        failures = self.store.failures.after if done else self.store.failures.before
        failures.setdefault(call, []).append(error("injected"))

    @rule(done=st.booleans())
    def kafka_will_fail(self, *, done: bool) -> None:
        failures = self.publisher.failures.after if done else self.publisher.failures.before
        failures.setdefault("publish", []).append(KafkaUnavailable("injected"))

    @rule()
    def the_predictor_will_fail(self) -> None:
        self.predictor.failures.append(PredictorUnavailable("injected"))

    # --- deliveries ---

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), at_once=st.integers(1, 4))
    def deliver(self, data: st.DataObject, at_once: int) -> None:
        first = data.draw(st.integers(0, len(self.pending) - 1))
        self._deliver(self.pending[first : first + at_once])

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        self._deliver([data.draw(st.sampled_from(self.delivered))])

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), nth=st.integers(0, 4), key=keys, digit=st.none() | digits)
    def deliver_while_another_replica_or_user_is_at_it(
        self, data: st.DataObject, nth: int, key: str, digit: int | None
    ) -> None:
        """At the nth call to the store, the same event is delivered as a whole, or an object is overwritten."""
        event = data.draw(st.sampled_from(self.pending))
        left = nth

        async def meanwhile(_call: Call) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                self.store.on_call = None
                if digit is None:
                    await self._settle([event])
                else:
                    self._upload(key, picture(digit, 3), digit)

        self.store.on_call = meanwhile
        self._deliver([event])
        self.store.on_call = None

    def _deliver(self, chosen: list[dict[str, Any]]) -> None:
        """Deliver them as the records of one event; they come again unless the answer is final."""
        if isinstance(asyncio.run(self._settle(chosen)), Retryable):
            return
        for event in chosen:
            if event in self.pending:
                self.pending.remove(event)
                self.delivered.append(event)

    async def _settle(self, chosen: list[dict[str, Any]]) -> PipelineError | None:
        """What the transformer does with one request."""
        body = json.dumps({"Records": [record for event in chosen for record in event["Records"]]}).encode()
        request = events.parse(body, {}, SETTINGS)
        assert isinstance(request, Notification)
        go = self.pipeline.through(self._predict)
        return verdict(await self.pipeline.settle(request, go, Deadline(60)))

    async def _predict(self, tensors: Batch, _deadline: Deadline) -> list[int]:
        return self.predictor(tensors)

    # --- what must hold ---

    @invariant()
    def what_has_left_the_source_is_filed_and_published(self) -> None:
        if not self.store.versioned:
            return  # users overwrite each other there, which leaves nothing to look for
        for upload in self.uploads:
            if upload.version not in self._in_the_source():
                assert self._filed(upload)
                assert self._announced(upload)

    @invariant()
    def nothing_is_announced_that_is_not_there(self) -> None:
        for event in self._results():
            bucket, _, key = event["data"]["destination"].partition("/")
            assert self.store.buckets[bucket][key]

    @invariant()
    def all_results_of_a_version_have_one_id_and_say_the_same(self) -> None:
        told: dict[str, Any] = {}
        for event in self._results():
            version = json.dumps(event["data"]["object"])
            says = (event["id"], event["type"], event["data"].get("predictions"), event["trace-id"])
            assert told.setdefault(version, says) == says
        assert len({says[0] for says in told.values()}) == len(told)

    def teardown(self) -> None:
        """Once nothing fails any more, all that was uploaded is filed under its digit, and once."""
        self.store.failures.before.clear()
        self.store.failures.after.clear()
        self.publisher.failures.before.clear()
        self.publisher.failures.after.clear()
        self.predictor.failures.clear()
        for _ in range(ROUNDS):
            for event in list(self.pending):
                self._deliver([event])
        assert not self.pending
        # What is retained is settled: once its copies are marked, it is published no more, and it goes when it may.
        self._settle_again()
        published = len(self.publisher.messages)
        self._settle_again()
        assert {version.version_id for version in self._in_the_source()} <= self.store.locked
        self.store.locked.clear()
        self._settle_again()
        assert len(self.publisher.messages) == published
        assert not self._in_the_source()
        if not self.store.versioned:
            self.uploads = list({upload.version.key: upload for upload in self.uploads}.values())
        for upload in self.uploads:
            assert self._filed(upload)
            assert self._announced(upload)
        if self.store.versioned:
            self._assert_nothing_else_is_filed()
        self.what_has_left_the_source_is_filed_and_published()
        self.nothing_is_announced_that_is_not_there()
        self.all_results_of_a_version_have_one_id_and_say_the_same()

    def _settle_again(self) -> None:
        for event in self.delivered:
            assert not isinstance(asyncio.run(self._settle([event])), Retryable)

    def _assert_nothing_else_is_filed(self) -> None:
        """Once a key and its bytes; what is too large to be read is copied once a version."""
        small = {(one.version.key, one.data) for one in self.uploads if len(one.data) <= SETTINGS.max_object_bytes}
        large = [one for one in self.uploads if len(one.data) > SETTINGS.max_object_bytes]
        filed = [key for bucket in self.store.buckets if bucket != "mnist" for key in self.store.keys(bucket)]
        assert len(filed) == len(small) + len(large)

    def _in_the_source(self) -> list[ObjectVersion]:
        versions = itertools.chain.from_iterable(self.store.buckets["mnist"].values())
        return [stored.version for stored in versions if stored.data is not None]

    def _bucket(self, upload: Upload) -> str:
        return "mnist-rejected" if upload.digit is None else f"digit-{upload.digit}"

    def _filed(self, upload: Upload) -> bool:
        """Whether its bytes lie under its digit, by its own name or one with a digest."""
        bucket, stem = self._bucket(upload), upload.version.key.removesuffix(".png")[:80]
        return any(
            key.startswith(stem) and self.store.data(bucket, key) == upload.data for key in self.store.keys(bucket)
        )

    def _announced(self, upload: Upload) -> bool:
        """Whether a result says where it lies, and which digit it is."""
        version = upload.version
        for event in self._results():
            data = event["data"]
            one = data["object"]
            if (one["key"], one["etag"], one.get("versionId")) != (version.key, version.etag, version.version_id):
                continue
            bucket, _, key = data["destination"].partition("/")
            predictions = None if upload.digit is None else [upload.digit]
            assert (bucket, data.get("predictions")) == (self._bucket(upload), predictions)
            assert self.store.data(bucket, key) == upload.data
            return True
        return False

    def _results(self) -> list[dict[str, Any]]:
        return [json.loads(message.value) for message in self.publisher.messages]


TestDeliveries = Deliveries.TestCase
