"""web/app.py and web/guard.py: what a browser gets, and what it is refused; on fakes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import threading
import uuid
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, final
from urllib.parse import quote

import httpx
import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from PIL import Image

from fashion import Fashion
from mnist_pipeline import Destination, Prediction, Settings, Task, Tensor
from mnist_pipeline.adapters.records import Record
from mnist_pipeline.adapters.sockets import PortTaken, listen
from mnist_pipeline.client.client import Submission
from mnist_pipeline.client.errors import KeyTaken
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.errors import KafkaUnavailable, PredictorUnavailable, StoreUnavailable
from mnist_pipeline.pipeline.ports import Deadline
from mnist_pipeline.testing import MemoryStore, digit_png
from mnist_pipeline.web import server
from mnist_pipeline.web.answers import Answers
from mnist_pipeline.web.app import Parts, make_app
from mnist_pipeline.web.guard import Guard
from mnist_pipeline.web.history import History
from mnist_pipeline.web.live import Live
from mnist_pipeline.web.objects import Objects
from mnist_pipeline.web.shelves import Shelves
from mnist_pipeline.web.uploads import Uploads
from readings import Readings
from thumbnails import Thumbnails
from unit.page_records import notification, result

HERE = "http://127.0.0.1:8090"
OURS = {"origin": HERE}


class MemorySender:
    """Uploads into a store in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def upload(self, data: bytes, *, key: str, bucket: str | None = None, timeout: float = 60.0) -> Submission:
        sent = Submission(
            trace_id=str(uuid.uuid4()), place=f"{bucket}/{key}", time=datetime(2026, 1, 1, tzinfo=timezone.utc)
        )
        metadata = {"trace-id": sent.trace_id}
        if not await self._store.put(
            str(bucket),
            key,
            data,
            content_type="image/png",
            content_headers={},
            metadata=metadata,
            tags={},
            deadline=Deadline(timeout),
        ):
            raise KeyTaken(f"{sent.place} is there already")
        return sent


class Page:
    """A page on fakes, and whoever asks it."""

    def __init__(self, task: Task | None = None, *, read_only: bool = False, **settings: Any) -> None:
        self.settings = Settings(task=task or Digits(), **settings)
        self.store = MemoryStore.of(self.settings)
        self.live = Live(["mnist"])
        self.notifications: list[Record] = []
        self.results: list[Record] = []
        self.trouble: Exception | None = None
        self.asked: list[NDArray[Any]] = []
        self.ask_scores: Callable[[NDArray[Any]], Any] | None = self._scores
        self._read_only = read_only

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            yield client

    def app(self) -> Guard:
        objects = Objects(self.settings, self.store)
        parts = Parts(
            settings=self.settings,
            live=self.live,
            objects=objects,
            shelves=Shelves(self.settings, self.store, objects),
            history=History(
                settings=self.settings,
                results=lambda _: self._read(self.results),
                notifications=self._notifications_since,
            ),
            uploads=None if self._read_only else Uploads(self.settings, MemorySender(self.store), self.live),
            why_read_only=server.READ_ONLY if self._read_only else None,
            ask_scores=self.ask_scores,
        )
        return Guard(make_app(parts), hosts=("live.example.org",))

    async def get(self, path: str, **options: Any) -> httpx.Response:
        async with self.open() as client:
            return await client.get(path, **options)

    async def post(self, path: str, content: Any = b"", headers: Any = OURS) -> httpx.Response:
        async with self.open() as client:
            return await client.post(path, content=content, headers=headers)

    async def _scores(self, tensor: NDArray[Any]) -> list[dict[str, Any]]:
        if self.trouble:
            raise self.trouble
        self.asked.append(tensor)
        return [{"label": label, "score": 0.1} for label in self.settings.task.labels]

    def _notifications_since(self, since: datetime) -> AsyncGenerator[Record, None]:
        assert since.timestamp() >= 0, "Kafka takes no other"
        return self._read(self.notifications)

    async def _read(self, records: Sequence[Record]) -> AsyncGenerator[Record, None]:
        if self.trouble:
            raise self.trouble
        for record in records:
            yield record


@pytest.fixture
def page() -> Page:
    return Page()


async def test_the_page_itself_runs_nothing_that_is_not_its_own(page: Page) -> None:
    answer = await page.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/static/../../app.py", "/docs", "/openapi.json", "/x"]
)
async def test_no_other_file_is_served(page: Page, path: str) -> None:
    answer = await page.get(path)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


async def test_the_site_is_described(page: Page) -> None:
    told = (await page.get("/api/site")).json()
    assert (told["name"], told["called"], told["labels"]) == ("mnist", "digit", list(range(10)))
    assert (told["is_drawable"], told["may_upload"], told["why_read_only"]) == (True, True, None)
    assert (told["shows_input"], told["has_scores"], told["input_shape"]) == (True, True, [28, 28])
    assert (told["suffixes"], told["source_bucket"], told["trace_key"]) == ([".png"], "mnist", "trace-id")
    assert told["shelves"][7] == {"kind": "label", "label": 7, "place": "digit-7/"}
    assert told["shelves"][10:] == [{"kind": "rejected", "label": None, "place": "mnist-rejected/"}]


async def test_another_task_has_its_own_labels_and_shelves_and_nothing_to_draw_on() -> None:
    told = (await Page(Thumbnails()).get("/api/site")).json()
    assert (told["labels"], told["is_drawable"], told["shows_input"]) == (list(Thumbnails.labels), False, True)
    assert [shelf["place"] for shelf in told["shelves"]][-2:] == ["photos-review/", "photos-rejected/"]
    told = (await Page(Readings()).get("/api/site")).json()
    assert (told["shows_input"], told["shelves"][0]["place"]) == (False, "sorted/normal/")


class Together(Thumbnails):
    """Files two labels into one place, and what is doubtful into a place of its own."""

    def destination(self, prediction: Prediction) -> Destination:
        if (prediction.score or 0) < 0.7:
            return Destination("unsure")
        return Destination("pets" if prediction.label in ("cat", "dog") else "things")

    def destinations(self) -> list[Destination]:
        return [Destination("pets"), Destination("things"), Destination("unsure")]


async def test_labels_that_share_a_place_share_a_shelf() -> None:
    shelves = (await Page(Together()).get("/api/site")).json()["shelves"]
    assert [(shelf["place"], shelf["label"]) for shelf in shelves[:3]] == [
        ("pets/", None),
        ("things/", None),
        ("unsure/", None),
    ]


async def test_a_picture_is_shown_whatever_its_content_type_says(page: Page) -> None:
    page.store.upload("digit-7", "a.png", digit_png(7), content_type="text/html")
    answer = await page.get("/api/pictures", params={"place": "digit-7/a.png"})
    assert (answer.status_code, answer.content) == (200, digit_png(7))
    assert answer.headers["content-type"] == "image/png"
    assert "content-disposition" not in answer.headers


@pytest.mark.parametrize(
    "data", [b"<html><script>alert(1)</script>", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', b""]
)
async def test_what_is_no_picture_is_saved_and_not_run(page: Page, data: bytes) -> None:
    page.store.upload("mnist-rejected", 'e"v\u00efl.png', data, content_type="text/html")
    answer = await page.get("/api/pictures", params={"place": 'mnist-rejected/e"v\u00efl.png'})
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''e%22v%C3%AFl.png"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "place",
    [
        "",
        "x",
        "secrets/a.png",
        "digit-7",
        "digit-7/",
        "digit-7//a.png",
        "digit-7/../secrets/a.png",
        "digit-7/./a.png",
        "../digit-7/a.png",
        "/digit-7/a.png",
        "mnist/notes.txt",
        "mnist/a.png/..",
        "digit-77/a.png",
        "mnist/a\n.png",
    ],
)
@pytest.mark.parametrize("path", ["/api/pictures", "/api/input", "/api/scores"])
async def test_only_the_site_s_places_can_be_read(page: Page, path: str, place: str) -> None:
    page.store.buckets["secrets"] = {}
    page.store.upload("secrets", "a.png", digit_png(1))
    answer = await page.get(path, params={"place": place})
    assert (answer.status_code, set(answer.json())) == (404, {"detail"})
    assert page.store.calls == []


async def test_of_a_bucket_that_is_shared_only_the_site_s_prefix_can_be_read() -> None:
    page = Page(destination="shared/digits/{digit}")
    page.store.upload("shared", "digits/7/a.png", digit_png(7))
    page.store.upload("shared", "digits/70/a.png", digit_png(7))
    page.store.upload("shared", "private.png", digit_png(7))
    places = ("shared/digits/7/a.png", "shared/digits/70/a.png", "shared/private.png")
    assert [(await page.get("/api/pictures", params={"place": place})).status_code for place in places] == [
        200,
        404,
        404,
    ]
    told = (await page.get("/api/shelves/7")).json()
    assert [one["place"] for one in told["objects"]] == ["shared/digits/7/a.png"]


async def test_what_is_gone_and_a_store_that_is_away_are_told_apart(page: Page) -> None:
    answer = await page.get("/api/pictures", params={"place": "digit-7/a.png"})
    assert answer.status_code == 404
    page.store.failures.before["get"] = [StoreUnavailable("no answer from the store; check MINIO_ENDPOINT")]
    answer = await page.get("/api/pictures", params={"place": "digit-7/a.png"})
    assert (answer.status_code, answer.json()) == (
        503,
        {"detail": "No answer from the store; check MINIO_ENDPOINT."},
    )


async def test_what_the_network_saw_is_a_picture(page: Page) -> None:
    page.store.upload("digit-7", "a.png", digit_png(7))
    answer = await page.get("/api/input", params={"place": "digit-7/a.png"})
    seen = Image.open(io.BytesIO(answer.content))
    assert (answer.headers["content-type"], seen.format, seen.size, seen.mode) == ("image/png", "PNG", (28, 28), "L")
    expected = page.settings.task.decode(digit_png(7)) * 255
    assert np.abs(np.asarray(seen) - expected).max() <= 0.5


class Levels(Task):
    """A tensor that is a picture of other numbers than 0 to 1."""

    name, suffixes, labels, input = "levels", (".bin",), ("a", "b"), Tensor((1, 2, 2), "float32")

    def decode(self, data: bytes) -> Any:
        return np.frombuffer(data, np.uint8).astype(np.float32).reshape(1, 2, 2) - 100


@pytest.mark.parametrize(("data", "shown"), [(bytes([0, 50, 100, 200]), [0, 64, 128, 255]), (bytes(4), [0] * 4)])
async def test_other_numbers_are_shown_from_black_to_white(data: bytes, shown: list[int]) -> None:
    page = Page(Levels())
    page.store.upload("levels-a", "x.bin", data)
    answer = await page.get("/api/input", params={"place": "levels-a/x.bin"})
    assert np.asarray(Image.open(io.BytesIO(answer.content))).ravel().tolist() == shown


@pytest.mark.parametrize(("task", "mode"), [(Thumbnails(), "RGB"), (Fashion(), "L")])
async def test_pictures_of_other_shapes_are_shown_too(task: Task, mode: str) -> None:
    page = Page(task)
    place = page.settings.destinations[0].bucket
    page.store.upload(place, "a.png", digit_png(7))
    answer = await page.get("/api/input", params={"place": f"{place}/a.png"})
    assert Image.open(io.BytesIO(answer.content)).mode == mode


async def test_an_input_that_cannot_be_shown_says_why(page: Page) -> None:
    page.store.upload("mnist-rejected", "a.png", b"no picture")
    answer = await page.get("/api/input", params={"place": "mnist-rejected/a.png"})
    assert (answer.status_code, answer.json()["detail"][:27]) == (422, "Neither a PNG nor a JPEG: i")
    answer = await Page(Readings()).get("/api/input", params={"place": "sorted/normal/a.csv"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "What the network sees of readings is no picture."})


async def test_scores_are_asked_of_the_predictor_and_once_for_all_who_look(page: Page) -> None:
    page.store.upload("digit-7", "a.png", digit_png(7))
    async with page.open() as client:
        answers = await asyncio.gather(
            *(client.get("/api/scores", params={"place": "digit-7/a.png"}) for _ in range(5))
        )
    assert [answer.json()["scores"][9] for answer in answers] == [{"label": 9, "score": 0.1}] * 5
    assert len(page.asked) == 1
    assert page.asked[0].shape == (28, 28)


async def test_without_a_predictor_or_with_one_that_is_away_there_are_no_scores(page: Page) -> None:
    page.store.upload("digit-7", "a.png", digit_png(7))
    page.trouble = PredictorUnavailable("the predictor did not answer in time")
    answer = await page.get("/api/scores", params={"place": "digit-7/a.png"})
    assert (answer.status_code, answer.json()) == (503, {"detail": "The predictor did not answer in time."})
    page.ask_scores = None
    answer = await page.get("/api/scores", params={"place": "digit-7/a.png"})
    assert (answer.status_code, answer.json()["detail"]) == (
        404,
        "There is no predictor to be asked (--predictor_host).",
    )


async def test_a_shelf_has_its_newest_objects_first_with_what_their_metadata_say(page: Page) -> None:
    for number in range(5):
        metadata = {"trace-id": f"t{number}", "rejected-reason": "badimage"}
        page.store.upload("mnist-rejected", f"{number}.png", b"x" * number, metadata=metadata)
    told = (await page.get("/api/shelves/10", params={"limit": 2})).json()
    assert (told["place"], told["more"]) == ("mnist-rejected/", True)
    assert [(one["place"], one["size"], one["trace_id"], one["reason"]) for one in told["objects"]] == [
        ("mnist-rejected/4.png", 4, "t4", "badimage"),
        ("mnist-rejected/3.png", 3, "t3", "badimage"),
    ]
    assert told["objects"][0]["modified"] > told["objects"][1]["modified"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("11", 404), ("-1", 404), ("x", 422), ("0?limit=0", 422), ("0?limit=101", 422), ("0?limit=x", 422)],
)
async def test_a_shelf_that_there_is_none_of_is_told_in_a_sentence(page: Page, path: str, status: int) -> None:
    answer = await page.get(f"/api/shelves/{path}")
    assert (answer.status_code, type(answer.json()["detail"])) == (status, str)


async def test_an_upload_becomes_an_object_and_a_journey(page: Page) -> None:
    answer = await page.post("/api/uploads?name=a.png", digit_png(7))
    told = answer.json()
    assert (answer.status_code, told["place"]) == (201, "mnist/a.png")
    assert page.store.data("mnist", "a.png") == digit_png(7)
    (kept,) = page.live.journeys.with_trace_id(told["trace_id"])
    assert (kept.journey.state, kept.journey.place) == ("uploaded", "mnist/a.png")
    answer = await page.post("/api/uploads?name=a.png", digit_png(8))
    assert (answer.status_code, answer.json()) == (409, {"detail": "mnist/a.png is there already."})


async def test_drawings_get_names_of_their_own(page: Page) -> None:
    places = {(await page.post("/api/uploads", digit_png(7))).json()["place"] for _ in range(3)}
    assert len(places) == 3
    assert all(place.startswith("mnist/drawn-") and place.endswith(".png") for place in places)


@pytest.mark.parametrize("name", ["a.txt", "../a.png", "/a.png", "a//b.png", "a\n.png", "x" * 2000 + ".png"])
async def test_a_name_that_is_not_taken_is_refused(page: Page, name: str) -> None:
    answer = await page.post(f"/api/uploads?name={quote(name, safe='')}", b"x")
    assert (answer.status_code, page.store.keys("mnist")) == (422, [])


async def test_an_upload_into_where_objects_are_filed_is_refused() -> None:
    page = Page(destination="mnist/digits/{digit}")
    answer = await page.post("/api/uploads?name=digits/7/a.png", digit_png(7))
    assert answer.status_code == 422
    assert "would not be taken" in answer.json()["detail"]


@pytest.mark.parametrize("is_announced", [True, False])
async def test_an_upload_that_is_too_large_is_refused_before_all_of_it_is_read(is_announced: bool) -> None:
    page = Page(max_object_bytes=1000)
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 100
            yield b"x" * 100

    headers = {**OURS, **({"content-length": "10000"} if is_announced else {})}
    answer = await page.post("/api/uploads?name=a.png", body(), headers)
    assert (answer.status_code, "MAX_OBJECT_BYTES" in answer.json()["detail"]) == (413, True)
    assert read == (0 if is_announced else 1100)
    assert page.store.keys("mnist") == []


async def test_a_page_that_only_shows_takes_no_upload_and_says_why() -> None:
    page = Page(read_only=True)
    answer = await page.post("/api/uploads?name=a.png", digit_png(7))
    assert (answer.status_code, answer.json()) == (403, {"detail": server.READ_ONLY})
    assert page.store.keys("mnist") == []
    told = (await page.get("/api/site")).json()
    assert (told["may_upload"], told["why_read_only"]) == (False, server.READ_ONLY)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8091"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://127.0.0.1:8090.evil.example"},
        {"origin": "file://127.0.0.1:8090"},
        {"origin": HERE, "sec-fetch-site": "cross-site"},
        {"origin": HERE, "sec-fetch-site": "same-site"},
    ],
)
async def test_no_other_origin_uploads(page: Page, headers: dict[str, str]) -> None:
    answer = await page.post("/api/uploads?name=a.png", digit_png(7), headers)
    assert (answer.status_code, page.store.keys("mnist")) == (403, [])


async def test_the_page_s_own_origin_uploads_behind_a_proxy_with_tls_too(page: Page) -> None:
    headers = {"host": "live.example.org", "origin": "https://live.example.org", "sec-fetch-site": "same-origin"}
    assert (await page.post("/api/uploads?name=a.png", digit_png(7), headers)).status_code == 201


@pytest.mark.parametrize(
    "path", ["/api/site", "/api/live", "/api/scores?place=digit-7/a.png", "/api/pictures?place=x/y"]
)
async def test_a_page_of_another_origin_learns_nothing(page: Page, path: str) -> None:
    answer = await page.get(path, headers={"sec-fetch-site": "cross-site"})
    assert (answer.status_code, page.store.calls) == (403, [])
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8090", 200),
        ("localhost:8090", 200),
        ("LOCALHOST", 200),
        ("[::1]:8090", 200),
        ("10.1.2.3", 200),
        ("live.example.org", 200),
        ("evil.example", 421),
        ("evil.example:8090", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("evil@localhost", 421),
        ("localhost/", 421),
        ("localhost:port", 421),
        ("", 421),
    ],
)
async def test_a_foreign_name_that_points_here_is_refused(page: Page, host: str, status: int) -> None:
    for path in ("/", "/api/site"):
        assert (await page.get(path, headers={"host": host})).status_code == status


async def test_a_trace_id_is_found_among_what_was_seen_with_its_records(page: Page) -> None:
    answer = await page.get("/api/journeys/unknown")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Nothing on Kafka has this trace id."})
    page.results = [result("other", "b.png", result_id="r-2"), result("a/b c", "a.png")]
    page.notifications = [notification("b.png", sequencer="2"), notification("a.png")]
    told = (await page.get("/api/journeys/a%2Fb%20c")).json()
    assert [(one["trace_id"], one["state"], one["notified"]) for one in told["journeys"]] == [("a/b c", "filed", 2000)]
    assert [one["value"]["Key"] for one in told["notifications"]] == ["mnist/a.png"]
    assert [one["key"] for one in told["results"]] == ["a/b c"]


@pytest.mark.parametrize("told", ["2026-01-01T00:00:00", "0001-01-01T00:00:00+00:00", "9999-01-01T00:00:00"])
@pytest.mark.parametrize("at", [-1, 0, 10**15])
async def test_a_trace_id_is_found_whatever_times_its_results_tell(page: Page, told: str, at: int) -> None:
    other = result("t", "a.png", at=at)
    event = {**orjson.loads(other.value or b""), "time": told}
    page.results = [replace(other, value=orjson.dumps(event)), result("t", "b.png", result_id="r-2")]
    answer = await page.get("/api/journeys/t")
    assert (answer.status_code, len(answer.json()["journeys"])) == (200, 2)


async def test_while_kafka_is_away_an_old_trace_id_is_not_unknown(page: Page) -> None:
    page.trouble = KafkaUnavailable("not connected; check KAFKA_BOOTSTRAP_SERVERS")
    answer = await page.get("/api/journeys/old")
    assert (answer.status_code, answer.json()["detail"]) == (503, "Not connected; check KAFKA_BOOTSTRAP_SERVERS.")


async def test_a_bug_is_a_sentence_without_what_it_was(page: Page) -> None:
    page.store.failures.before["get"] = [ZeroDivisionError("a secret")]
    answer = await page.get("/api/pictures", params={"place": "digit-7/a.png"})
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal error; the log has more."})


async def test_an_answer_is_kept_for_its_time_and_an_error_is_not() -> None:
    made: list[int] = []

    async def make() -> int:
        made.append(len(made))
        if made[-1] == 0:
            raise StoreUnavailable("away")
        return made[-1]

    answers: Answers[int] = Answers(seconds=60, most=2, at_once=1)
    with pytest.raises(StoreUnavailable):
        await answers.get("a", make)
    assert [await answers.get("a", make) for _ in range(3)] == [1, 1, 1]
    assert [await answers.get(name, make) for name in ("b", "c", "a")] == [2, 3, 4], "the oldest made room"


async def test_an_answer_takes_no_room_beyond_its_time() -> None:
    class Large:
        """What may be a megabyte."""

    async def make() -> Large:
        return Large()

    answers: Answers[Large] = Answers(seconds=0.01, most=50, at_once=1)
    kept = weakref.ref(await answers.get("a", make))

    async def gone() -> None:
        while kept() is not None:  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.01)

    await asyncio.wait_for(gone(), 5)


async def test_who_asked_first_may_go_and_the_others_get_their_answer() -> None:
    may_end = asyncio.Event()

    async def make() -> str:
        await may_end.wait()
        return "done"

    answers: Answers[str] = Answers(seconds=60, most=2, at_once=1)
    first, second = (asyncio.create_task(answers.get("a", make)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    may_end.set()
    assert await second == "done"


@final
class Served:
    """A page on fakes that listens."""

    def __init__(self, page: Page, listener: socket.socket) -> None:
        self.url = server.url_of(listener)
        self.page = page
        self._listener = listener
        self._ready = threading.Event()
        self._server: server.PageServer | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._server = server.PageServer(self.page.app(), self.page.live, self._ready.set)
        await self._server.serve(sockets=[self._listener])

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(Page(), listen("127.0.0.1", 0)) as served:
        yield served


async def test_two_hundred_browsers_are_told_the_same_and_end_with_the_page(served: Served) -> None:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=served.url, limits=limits, timeout=30) as client:
        came, were_told = asyncio.Semaphore(0), asyncio.Semaphore(0)

        async def watch() -> str:
            told = ""
            async with client.stream("GET", "/api/live") as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                async for piece in answer.aiter_text():
                    if not told:
                        came.release()
                    if "event: journey" in piece:
                        were_told.release()
                    told += piece
            return told

        watching = [asyncio.create_task(watch()) for _ in range(200)]
        for _ in watching:
            await came.acquire()
        assert served.page.live.streams == 200
        answer = await client.post("/api/uploads", content=digit_png(7), headers={"origin": served.url.rstrip("/")})
        for _ in watching:
            await were_told.acquire()
        await asyncio.to_thread(served.stop)
        told = await asyncio.wait_for(asyncio.gather(*watching), 20)
    assert all(answer.json()["trace_id"] in one for one in told)
    assert served.page.live.streams == 0


def test_a_port_that_is_taken_is_told() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1, port {port}, cannot be listened on: Address already"):
            listen("127.0.0.1", port)
    for host, port in (("127.0.0.1", 99999), ("no such host", 8090)):
        with pytest.raises(PortTaken):
            listen(host, port)


def test_where_a_browser_finds_it_is_told_for_all_addresses_too() -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))  # noqa: S104 - that is what is tested
        assert server.url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}/"
