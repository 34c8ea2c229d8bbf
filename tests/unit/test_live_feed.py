"""web/live.py and web/feed.py: what a browser is told, and what is read while Kafka comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from mnist_pipeline.adapters.records import Record
from mnist_pipeline.pipeline.errors import KafkaUnavailable
from mnist_pipeline.web.feed import Feed, Source
from mnist_pipeline.web.live import REPLAYED, Live
from mnist_pipeline.web.sightings import notified_in, published_in
from unit.page_records import SETTINGS, notification, result

Event = tuple[str, Any, str]


async def next_of(stream: AsyncGenerator[bytes, None]) -> list[Event]:
    """The events of the next piece: name, data and id."""
    piece = (await asyncio.wait_for(anext(stream), 20)).decode()
    found = re.findall(r"(?:id: (\S+)\n)?event: (\w+)\ndata: (.*)\n\n", piece)
    return [(name, orjson.loads(data), event_id) for event_id, name, data in found]


async def replay_of(stream: AsyncGenerator[bytes, None]) -> tuple[str, str]:
    """The first piece, and the id that stands at its end."""
    piece = (await asyncio.wait_for(anext(stream), 20)).decode()
    return piece, re.findall(r"^id: (\S+)\n\n", piece, re.MULTILINE)[-1]


def places(events: list[Event]) -> list[str]:
    return [data["place"] for name, data, _ in events if name == "journey"]


def add(live: Live, *keys: str) -> None:
    for key in keys:
        live.take(live.journeys.uploaded(key, f"mnist/{key}", at=len(live.journeys)))


async def test_a_browser_that_comes_is_told_all_that_there_is_and_then_what_changes() -> None:
    live = Live(["mnist"])
    add(live, "a", "b")
    async with contextlib.aclosing(live.stream()) as stream:
        begin, status, figures, *journeys = await next_of(stream)
        assert (begin[:2], status[0], figures[0]) == (("begin", {"is_resumed": False}), "status", "figures")
        assert (status[1]["kafka"], status[1]["says"]) == (
            "away",
            "mnist cannot be read: Kafka is not reached yet.",
        )
        assert places(journeys) == ["mnist/a", "mnist/b"]
        add(live, "c")
        assert places(await next_of(stream)) == ["mnist/c"]
        live.tell("mnist", "")
        ((name, told, _),) = await next_of(stream)
        assert (name, told["kafka"], told["says"]) == ("status", "ok", "Kafka is there.")
    assert live.streams == 0


async def test_no_more_than_the_newest_are_replayed() -> None:
    live = Live(["mnist"])
    add(live, *(str(number) for number in range(REPLAYED + 50)))
    async with contextlib.aclosing(live.stream()) as stream:
        told = places(await next_of(stream))
    assert (len(told), told[-1]) == (REPLAYED, f"mnist/{REPLAYED + 49}")


async def test_who_comes_back_is_told_only_what_was_missed() -> None:
    live = Live(["mnist"])
    add(live, "a", "b")
    async with contextlib.aclosing(live.stream()) as stream:
        replay, last = await replay_of(stream)
        assert (replay.count("\nid:"), replay.endswith(f"\n\nid: {last}\n\n")) == (1, True), "cut short, it begins anew"
        add(live, "c")
        last = (await next_of(stream))[-1][2]
    add(live, "d")
    async with contextlib.aclosing(live.stream(last)) as stream:
        begin, *others = await next_of(stream)
    assert (begin[1], places(others)) == ({"is_resumed": True}, ["mnist/d"])


@pytest.mark.parametrize("last", ["0123abcd-1", "{}-99", "{}-", "{}--1", "{}-²", "{}-" + "9" * 5000, "x\x00y"])
async def test_an_id_that_is_none_of_ours_begins_anew(last: str) -> None:
    live = Live(["mnist"])
    add(live, "a")
    async with contextlib.aclosing(live.stream()) as stream:
        process = (await replay_of(stream))[1].partition("-")[0]
    async with contextlib.aclosing(live.stream(last.format(process))) as stream:
        begin, *others = await next_of(stream)
    assert (begin[1], places(others)) == ({"is_resumed": False}, ["mnist/a"])


async def test_a_slow_browser_gets_the_newest_state_of_each_and_piece_by_piece() -> None:
    live = Live(["mnist"])
    async with contextlib.aclosing(live.stream()) as stream:
        await next_of(stream)
        for number in range(500):
            record = notification(f"{number}.png", sequencer=str(number), trace_id=f"t{number}")
            take(live, record)
            take(live, result(f"t{number}", f"{number}.png", result_id=str(number)))
        seen: list[Event] = []
        while len(seen) < 500:
            piece = [event for event in await next_of(stream) if event[0] == "journey"]
            assert len(piece) <= 200
            seen += piece
    assert len({data["id"] for _, data, _ in seen}) == len(seen) == 500
    assert {data["state"] for _, data, _ in seen} == {"filed"}


async def test_a_browser_that_has_missed_too_much_begins_anew() -> None:
    live = Live(["mnist"])
    add(live, "a")
    async with contextlib.aclosing(live.stream()) as stream:
        await next_of(stream)
        add(live, *(f"b{number}" for number in range(5000)))
        begin, *others = await next_of(stream)
        assert begin[:2] == ("begin", {"is_resumed": False})
        assert places(others)[-1] == "mnist/b4999"


async def test_the_page_s_end_ends_its_streams() -> None:
    live = Live(["mnist"])
    stream = live.stream()
    await next_of(stream)
    live.close()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(stream), 5)
    assert live.streams == 0


async def test_the_figures_are_told_again_once_they_change() -> None:
    live = Live(["mnist"])
    running = asyncio.create_task(live.run())
    async with contextlib.aclosing(live.stream()) as stream:
        await next_of(stream)
        take(live, notification("a.png", trace_id="t"))
        take(live, result("t", "a.png"))
        found: list[Event] = []
        while not any(name == "figures" for name, _, _ in found):
            found += await next_of(stream)
    running.cancel()
    (figures,) = [data for name, data, _ in found if name == "figures"]
    assert (figures["count"], figures["p50"]) == (1, 2000)


def take(live: Live, record: Record) -> None:
    if record.topic == "mnist":
        for seen in notified_in(record, SETTINGS):
            live.take(live.journeys.notified(seen))
    elif (published := published_in(record, SETTINGS)) is not None:
        live.take(live.journeys.published(published))


class MemoryTopic:
    """A topic in memory, read as one on Kafka; while `trouble` is set it is away.

    Attributes:
        opened: behind which offsets it was opened, each time.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.trouble = ""
        self.bug: Exception | None = None
        self.opened: list[dict[int, int]] = []
        self._next = 0

    @contextlib.asynccontextmanager
    async def open(self, after: Mapping[int, int]) -> AsyncIterator[MemoryTopic]:
        self._raise()
        self.opened.append(dict(after))
        behind = after.get(0, -1)
        self._next = next((n for n, record in enumerate(self.records) if record.offset > behind), len(self.records))
        yield self

    async def poll(self) -> list[Record]:
        await asyncio.sleep(0.01)
        self._raise()
        found, self._next = self.records[self._next :], len(self.records)
        return found

    async def check(self, seconds: float) -> None:
        del seconds
        self._raise()

    def _raise(self) -> None:
        if self.trouble:
            raise KafkaUnavailable(self.trouble)
        if self.bug:
            bug, self.bug = self.bug, None
            raise bug


class Following:
    """A feed that runs, and its two topics."""

    def __init__(self) -> None:
        self.notifications, self.results = MemoryTopic(), MemoryTopic()
        self.live = Live(["mnist", "mnist-predictions"])
        self.feed = Feed(
            self.live,
            SETTINGS,
            notifications=Source(topic="mnist", named_by="--topic", open=self.notifications.open),
            results=Source(topic="mnist-predictions", named_by="KAFKA_TOPIC", open=self.results.open),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.feed.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def states(self) -> list[str]:
        return [kept.journey.state for kept in self.live.journeys.newest(100)]


async def until(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), 20)


async def test_it_begins_without_kafka_and_goes_on_without_a_gap_whenever_kafka_comes_back() -> None:
    following = Following()
    for topic in (following.notifications, following.results):
        topic.trouble = "not connected; check KAFKA_BOOTSTRAP_SERVERS"
    following.notifications.records.append(notification("a.png", trace_id="a"))
    live = following.live
    async with following.running():
        await until(lambda: "KAFKA_BOOTSTRAP_SERVERS" in live.status["says"])
        says = "mnist and mnist-predictions cannot be read: not connected; check KAFKA_BOOTSTRAP_SERVERS."
        assert (live.status["kafka"], live.status["says"]) == ("away", says)
        following.notifications.trouble = following.results.trouble = ""
        await until(lambda: following.states == ["notified"] and live.status["kafka"] == "ok")

        following.results.trouble = "gone"
        await until(lambda: live.status["kafka"] == "away")
        assert live.status["says"] == "mnist-predictions cannot be read: gone."
        following.results.records += [result("a", "a.png"), result("b", "b.png", result_id="r-2")]
        following.results.trouble = ""
        await until(lambda: following.states == ["filed", "filed"] and live.status["kafka"] == "ok")

        last = following.results.records[-1].offset
        following.results.trouble = "gone again"
        await until(lambda: live.status["kafka"] == "away")
        following.results.trouble = ""
        await until(lambda: live.status["kafka"] == "ok")
        assert following.results.opened[-1] == {0: last}


async def test_a_topic_that_is_not_there_is_told_by_the_flag_that_names_it() -> None:
    following = Following()
    following.notifications.trouble = "there is no topic 'mnist' for us; check KAFKA_TOPIC"
    async with following.running():
        await until(lambda: "--topic" in following.live.status["says"])
        assert following.live.status["kafka"] == "away"
        following.results.records.append(result("a", "a.png"))
        await until(lambda: following.states == ["filed"])


async def test_a_bug_while_reading_is_told_and_does_not_end_the_page(caplog: pytest.LogCaptureFixture) -> None:
    following = Following()
    following.notifications.bug = ZeroDivisionError()
    async with following.running():
        await until(lambda: "internal error" in following.live.status["says"])
        following.notifications.records.append(notification("a.png"))
        await until(lambda: following.states == ["notified"] and following.live.status["kafka"] == "ok")
    assert "ZeroDivisionError" in caplog.text


async def test_a_record_that_nobody_can_read_hides_none_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    following = Following()
    broken: Any = None
    following.results.records += [replace(result("a", "a.png"), headers=broken), result("b", "b.png", result_id="r-2")]
    async with following.running():
        await until(lambda: following.states == ["filed"])
        following.notifications.records.append(notification("c.png"))
        await until(lambda: len(following.states) == 2 and following.live.status["kafka"] == "ok")
    assert caplog.text.count("is passed over") == 1


async def test_a_topic_that_begins_anew_is_gone_on_with_behind_what_was_read_of_it_last() -> None:
    following = Following()
    following.results.records.append(replace(result("a", "a.png"), offset=500))
    async with following.running():
        await until(lambda: following.states == ["filed"])
        following.results.records.append(replace(result("b", "b.png", result_id="r-2"), offset=0))
        await until(lambda: following.states == ["filed", "filed"])
        following.results.trouble = "gone"
        await until(lambda: "gone" in following.live.status["says"])
        following.results.trouble = ""
        await until(lambda: len(following.results.opened) == 2)
        assert following.results.opened[-1] == {0: 0}
