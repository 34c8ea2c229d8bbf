"""announcing.py and progress.py: what lies in the source buckets becomes notifications, on the public fakes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from digits import digits_settings
from mnist_pipeline.pipeline.errors import KafkaUnavailable, StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline, Message
from mnist_pipeline.site import announcing, progress
from mnist_pipeline.site.announcing import Announcer, announcement
from mnist_pipeline.site.shards import Shard
from mnist_pipeline.testing import Call, MemoryPublisher, MemoryStore, minio_event

RUN = {"topic": "mnist", "buckets": ["mnist"]}


def store_of(number: int) -> MemoryStore:
    store = MemoryStore("mnist")
    for n in range(number):
        store.upload("mnist", f"{n:04}.png", b"x")
    return store


def announcer_of(store: MemoryStore, publisher: MemoryPublisher, **changes: Any) -> Announcer:
    return Announcer(store, publisher, digits_settings(), **{"older_than_seconds": 0, "shards": 4, **changes})


def keys_of(publisher: MemoryPublisher) -> list[str]:
    return [message.key.decode() for message in publisher.messages]


async def test_an_announcement_is_what_minio_would_have_written() -> None:
    store = MemoryStore("mnist")
    store.upload("mnist", "a +é.png", b"hello")
    store.upload("mnist", "empty.png", b"")
    publisher = MemoryPublisher()
    await announcer_of(store, publisher).run()
    for message, key, size in zip(publisher.messages, ["a +é.png", "empty.png"], [5, 0], strict=True):
        assert (message.key.decode(), message.headers) == (f"mnist/{key}", ())
        ours = json.loads(message.value)
        etag = store.buckets["mnist"][key][-1].version.etag
        theirs = minio_event("mnist", key, size=size, etag=etag)
        record, wanted = ours["Records"][0], theirs["Records"][0]
        assert {**ours, "Records": []} == {**theirs, "Records": []}
        assert record.keys() == wanted.keys()
        assert record["eventTime"] == f"2026-01-01T00:00:0{1 + (not size)}.000Z"
        assert record["source"]["userAgent"] == announcing.USER_AGENT
        # What no listing tells is left out.
        described = wanted["s3"]["object"]
        left_out = {"contentType", "userMetadata", "sequencer"}
        assert {**record["s3"]["object"], "sequencer": ""} == {
            **{name: value for name, value in described.items() if name not in left_out},
            "sequencer": "",
        }


async def test_announcements_are_in_the_order_in_which_they_were_written() -> None:
    store = store_of(2)
    first, second = await store.list_after("mnist", "", deadline=Deadline(20))
    sequencers = [
        json.loads(announcement("mnist", one).value)["Records"][0]["s3"]["object"]["sequencer"]
        for one in (first, second)
    ]
    assert sequencers == sorted(set(sequencers))


async def test_all_that_was_missed_in_every_source_bucket_is_announced_once() -> None:
    store = MemoryStore("a-bucket", "b-bucket")
    for bucket, number in (("a-bucket", 2500), ("b-bucket", 3)):
        for n in range(number):
            store.upload(bucket, f"{n:04}é.png", b"")
        store.upload(bucket, "readme.txt", b"")
    store.upload("a-bucket", "digits/7/filed.png", b"")
    store.upload("b-bucket", "new.png", b"")
    publisher = MemoryPublisher()
    settings = digits_settings(source_buckets=("a-bucket", "b-bucket"), destination="a-bucket/digits/{digit}")
    announcer = Announcer(store, publisher, settings, older_than_seconds=1, shards=1)
    await announcer.run()
    assert announcer.summary() == "2,503 announced; all of the listing is read"
    assert sorted(keys_of(publisher)) == [
        *(f"a-bucket/{n:04}é.png" for n in range(2500)),
        *(f"b-bucket/{n:04}é.png" for n in range(3)),
    ]


@pytest.mark.parametrize("shards", [1, 4])
async def test_what_is_stopped_goes_on_where_it_ended(shards: int, tmp_path: Path) -> None:
    store, publisher, path = store_of(3000), MemoryPublisher(), tmp_path / "progress.json"
    announcer = announcer_of(store, publisher, shards=shards, keep=lambda left: progress.write(path, RUN, left))

    def stop(call: Call) -> None:
        if call.key >= "1":
            announcer.stop()

    store.on_call = stop
    await announcer.run()
    first = len(publisher.messages)
    assert 0 < first < 3000
    assert announcer.summary() == f"{first:,} announced; not all of the listing is read"
    store.on_call = None
    again = announcer_of(
        store, publisher, begin=progress.read(path, RUN), keep=lambda left: progress.write(path, RUN, left)
    )
    await again.run()
    assert sorted(keys_of(publisher)) == [f"mnist/{n:04}.png" for n in range(3000)]
    assert again.announced == 3000 - first
    assert progress.read(path, RUN) is None


@pytest.mark.parametrize("shards", [1, 4])
async def test_where_kafka_or_the_store_fails_nothing_is_passed_over(shards: int) -> None:
    store, publisher, left = store_of(2500), MemoryPublisher(), [Shard(bucket="mnist")]
    for failing in ("publish", "list_after"):
        # Of a group of records only some are refused.
        publisher.failures.before["publish"] = [KafkaUnavailable("away")] if failing == "publish" else []
        store.failures.after["list_after"] = [StoreUnavailable("away")] if failing == "list_after" else []
        announcer = announcer_of(store, publisher, shards=shards, begin=left)
        with pytest.raises((KafkaUnavailable, StoreUnavailable), match="away"):
            await announcer.run()
        left = list(announcer.left)
        assert left
    await announcer_of(store, publisher, shards=shards, begin=left).run()
    assert set(keys_of(publisher)) == {f"mnist/{n:04}.png" for n in range(2500)}


async def test_a_notification_counts_once_it_is_acknowledged_and_so_many_are_under_way_at_once() -> None:
    store, under_way, most = store_of(3000), 0, 0

    class Slow(MemoryPublisher):
        async def publish(self, message: Message, *, deadline: Deadline) -> None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            assert announcer.announced <= len(self.messages)
            await super().publish(message, deadline=deadline)
            under_way -= 1

    announcer = announcer_of(store, publisher := Slow())
    await announcer.run()
    assert announcer.announced == len(publisher.messages) == 3000
    assert 200 < most <= 1000


async def test_the_rate_is_kept() -> None:
    store, publisher = store_of(60), MemoryPublisher()
    began = time.monotonic()
    await announcer_of(store, publisher, rate=100).run()
    assert time.monotonic() - began >= 0.5
    assert len(publisher.messages) == 60


async def test_a_stop_is_not_kept_waiting_by_the_rate() -> None:
    store, publisher = store_of(5), MemoryPublisher()
    announcer = announcer_of(store, publisher, rate=0.01)
    asyncio.get_running_loop().call_later(0.1, announcer.stop)
    await asyncio.wait_for(announcer.run(), 20)
    assert keys_of(publisher) == ["mnist/0000.png"]
    assert [shard.after for shard in announcer.left] == ["0000.png"]


async def test_the_progress_is_logged_and_kept(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PROGRESS_SECONDS", "_KEEP_SECONDS"):
        monkeypatch.setattr(announcing, name, 0.0)
    kept: list[list[str]] = []
    announcer = announcer_of(
        store_of(500), MemoryPublisher(), keep=lambda left: kept.append([shard.after for shard in left])
    )
    with caplog.at_level(logging.INFO):
        await announcer.run()
    assert "so far: 250 announced; not all of the listing is read" in caplog.text
    assert ["0249.png"] in kept
    assert kept[-1] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "does not say what is left"),
        ("[]", "does not say what is left"),
        (json.dumps({**RUN, "left": [{"bucket": 7}]}), "does not say what is left"),
        (json.dumps({**RUN, "topic": "other", "left": []}), "is of another run, with .*other"),
    ],
)
def test_a_file_that_is_no_progress_of_this_run_is_told(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=told):
        progress.read(path, RUN)
