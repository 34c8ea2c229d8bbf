"""The live page in states that the local stack does not come to on demand: its site is pretended, its server is not."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from browser.accessibility import stumbling_blocks
from browser.pretended_site import PretendedSite
from browser.visiting import PHONE, SEVEN, Visit, visiting
from mnist_pipeline import Task
from mnist_pipeline.testing import digit_png
from readings import Readings
from thumbnails import Thumbnails

SAMPLES = Path(__file__).parents[2] / "examples" / "samples"
PHOTO = (SAMPLES / "photos" / "boat.jpg").read_bytes()
GONE = "net::ERR_"


@pytest.fixture
def site() -> Iterator[PretendedSite]:
    with PretendedSite(review_below=0.5) as site:
        yield site


@pytest.fixture
def visit(browser: Browser, site: PretendedSite) -> Iterator[Visit]:
    with visiting(browser, site.url) as visit:
        yield visit


def test_an_empty_page_invites_and_says_what_will_come(visit: Visit) -> None:
    expect(visit["#way .verdict"]).to_have_text("Nothing yet")
    expect(visit["#way .where"]).to_have_text("Send one, and its steps light up here.")
    expect(visit["#arrivals-empty"]).to_contain_text("Nothing has arrived yet")
    expect(visit[".arrivals"]).to_be_hidden()
    expect(visit["#shelves .says"].first).to_have_text("Empty")
    visit["#send"].click()
    expect(visit["#sending-says"]).to_have_text("Draw a digit first.")
    expect(visit["#sent"]).to_be_hidden()
    assert stumbling_blocks(visit.page) == []


def test_kafka_that_goes_away_is_said_to_be_and_the_page_goes_on_once_it_is_back(
    visit: Visit, site: PretendedSite
) -> None:
    site.pass_through("before.png", 7)
    expect(visit["#arrivals tr"]).to_have_count(1)
    site.kafka_goes_away()
    expect(visit["#notice"]).to_contain_text(re.compile(r"Kafka is away since \d\d:\d\d:\d\d\. .*no broker answers\."))
    expect(visit["#pulse"]).to_have_text("Kafka is away")
    assert stumbling_blocks(visit.page) == []
    # What was there stays to be looked at; what has to be asked of Kafka says why it is not.
    expect(visit["#arrivals tr"]).to_contain_text("before.png")
    visit.expected.append("status of 503")
    visit["#trace-id"].fill("an-old-one")
    visit["#trace-id"].press("Enter")
    expect(visit["#search-says"]).to_contain_text("o broker answers")
    site.kafka_is_back()
    expect(visit["#notice"]).to_be_empty()
    expect(visit["#pulse"]).to_have_text("Live")
    site.pass_through("after.png", 7)
    expect(visit["#arrivals tr"].first).to_contain_text("after.png")


def test_a_page_whose_server_goes_away_says_so_and_comes_back_by_itself(visit: Visit, site: PretendedSite) -> None:
    visit.expected.append(GONE)
    site.pass_through("before.png", 7)
    expect(visit["#arrivals tr"]).to_have_count(1)
    site.stop()
    expect(visit["#notice"]).to_contain_text("The connection to the page's server is lost.")
    expect(visit["#pulse"]).to_have_text("Reconnecting")
    visit.draw(SEVEN)
    visit["#send"].click()
    expect(visit["#way .where"]).to_contain_text("The page's server cannot be reached.")
    site.start()
    expect(visit["#pulse"]).to_have_text("Live")
    expect(visit["#notice"]).to_be_empty()
    # Another process, which does not know what the one before has told.
    expect(visit["#arrivals tr"]).to_have_count(0)
    expect(visit["#shelves .shelf"].nth(7).locator(".count")).to_have_text("1")
    site.pass_through("after.png", 7)
    expect(visit["#arrivals tr"]).to_have_count(1)


def test_what_is_uploaded_here_is_followed_step_by_step(visit: Visit, site: PretendedSite) -> None:
    visit.draw(SEVEN)
    visit["#send"].click()
    expect(visit["#way .steps [data-state=next]"]).to_contain_text("Notified")
    expect(visit["#way-says"]).to_have_text("Uploaded. Waiting for the store's notification.")
    name = visit["#way .where .name"].inner_text()
    trace_id = visit.trace_id
    site.notify(name, trace_id)
    expect(visit["#way .steps [data-state=next]"]).to_contain_text("Fetched")
    expect(visit["#way .steps [data-state=done] b"]).to_have_text(["Uploaded", "Notified"])
    site.publish(name, trace_id, 7)
    expect(visit["#way .steps [data-state=done]"]).to_have_count(6)
    times = visit["#way .steps .time"].all_inner_texts()
    assert times[2:5] == ["took 2.1 ms", "took 3.2 ms", "took 2.3 ms"]
    spent = visit["#way .spent .label"].all_inner_texts()
    assert spent == ["notify", "deliver, publish", "wait", "fetch", "decode", "predict", "file"]
    # Others' arrivals are no reason to say anything.
    said = visit["#way-says"].inner_text()
    site.pass_through("another.png", 3)
    expect(visit["#arrivals tr"].first).to_contain_text("another.png")
    expect(visit["#way-says"]).to_have_text(said)
    expect(visit["#way .where .name"].first).to_have_text(name)


def test_what_the_network_is_not_sure_of_lies_on_the_shelf_for_people_to_look_at(
    visit: Visit, site: PretendedSite
) -> None:
    trace_id = "doubtful-1"
    site.notify("smudge.png", trace_id)
    site.publish("smudge.png", trace_id, 3, 0.41)
    shelf = visit["#shelves-aside .is-review"]
    expect(shelf.locator("button")).to_have_count(2)
    expect(shelf.locator(".pictures button")).to_have_attribute("aria-label", re.compile("^smudge.png"))
    expect(visit["#way .verdict"]).to_contain_text("review")
    expect(visit["#way .where"]).to_have_text(
        "smudge.png is filed in mnist-review/: not sure enough, for people to look at"
    )
    expect(visit["#arrivals tr"]).to_have_attribute("data-state", "review")
    expect(visit["#shelves .pictures button"]).to_have_count(0)
    assert stumbling_blocks(visit.page) == []


def test_all_of_a_shelf_is_seen_in_a_dialog_and_each_object_leads_to_its_journey(
    visit: Visit, site: PretendedSite
) -> None:
    for number in range(12):
        site.pass_through(f"{number:02d}.png", 7)
    shelf = visit["#shelves .shelf"].nth(7)
    expect(shelf.locator(".count")).to_have_text("12")
    expect(shelf.locator(".pictures button")).to_have_count(10)
    shelf.locator(".more").click()
    pictures = visit["#shelf-details-pictures button"]
    expect(pictures).to_have_count(12)
    expect(visit["#shelf-details-says"]).to_have_text("12 objects")
    assert stumbling_blocks(visit.page) == []
    pictures.last.click()
    expect(visit["#details-title"]).to_have_text(re.compile(r"\d\d\.png"))
    expect(visit["#raw .record"]).to_have_count(2)
    visit.page.keyboard.press("Escape")
    expect(visit["#details"]).to_be_hidden()
    expect(pictures.last).to_be_focused()
    visit.page.keyboard.press("Escape")
    expect(visit["#shelf-details"]).to_be_hidden()
    expect(shelf.locator(".more")).to_be_focused()


class Hundreds(Task):
    """Photographs of very many things."""

    name, suffixes = "things", (".jpg",)
    input = Thumbnails.input
    labels = tuple(f"thing {number:03d}" for number in range(300))

    def decode(self, data: bytes) -> Any:
        """As the example has them."""
        return Thumbnails().decode(data)


def test_hundreds_of_labels_are_a_list_to_scroll_and_to_filter_and_only_what_is_seen_is_asked_for(
    browser: Browser,
) -> None:
    with PretendedSite(Hundreds()) as site:
        site.notify("a.jpg", "t-1")
        site.publish("a.jpg", "t-1", "thing 271", data=PHOTO)
        with visiting(browser, site.url) as visit:
            asked: list[str] = []
            visit.page.on("request", lambda request: asked.append(request.url))
            visit.page.reload()
            expect(visit["#shelves .shelf"]).to_have_count(300)
            expect(visit["#shelves .shelf .says"].first).to_have_text("Empty")
            expect(visit["#drawing"]).to_be_hidden()
            visit["#shelf-name"].fill("271")
            expect(visit["#shelves .shelf:visible"]).to_have_count(1)
            expect(visit["#shelves-says"]).to_have_text("1 of 300")
            expect(visit["#shelves .shelf:visible .count"]).to_have_text("1")
            assert len([url for url in asked if "/api/shelves/" in url]) < 100
            visit["#shelf-name"].fill("")
            height = visit["#shelves"].evaluate("(one) => [one.clientHeight, one.scrollHeight]")
            assert height[0] < 600 < height[1]
            # The scores too: the best of them, and all on demand.
            expect(visit["#way .bars li"]).to_have_count(8)
            visit["#way .scores button"].click()
            expect(visit["#way .bars li"]).to_have_count(300)
            assert stumbling_blocks(visit.page) == []
            visit.page.set_viewport_size({"width": 375, "height": 812})
            assert visit.overflow() <= 0


def test_hundreds_of_events_a_second_leave_time_for_whoever_uses_the_page(visit: Visit, site: PretendedSite) -> None:
    rate, seconds = 500, 3
    is_sending = threading.Event()
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))

    def send() -> None:
        is_sending.set()
        began = time.monotonic()
        for number in range(rate * seconds):
            site.pass_through(f"{number:04d}.png", number % 10)
            # As many as are due.
            threading.Event().wait(max(0.0, began + number / rate - time.monotonic()))

    visit.page.evaluate(
        """() => {
            window.longest = 0;
            new PerformanceObserver((list) => {
                for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
            }).observe({ entryTypes: ["longtask"] });
        }"""
    )
    sender = threading.Thread(target=send)
    sender.start()
    is_sending.wait()
    expect(visit["#arrivals tr"]).to_have_count(30)
    # Meanwhile it can be drawn on, and stopped.
    visit.draw(SEVEN)
    visit["#send"].click()
    expect(visit["#sent button"]).to_have_count(1)
    visit["#pause"].click()
    expect(visit["#pause"]).to_have_text("Go on")
    rows = visit["#arrivals"].inner_text()
    sender.join()
    assert visit["#arrivals"].inner_text() == rows
    visit["#pause"].click()
    # Among the newest; where drawing took longer, what was drawn came last.
    expect(visit["#arrivals"]).to_contain_text(f"{rate * seconds - 1:04d}.png")
    expect(visit["#arrivals tr"]).to_have_count(30)
    assert visit.page.evaluate("document.querySelectorAll('*').length") < 1500
    assert visit.page.evaluate("window.longest") < 2000
    # Nobody looks at hundreds of pictures a second: the site need not give them.
    assert len([url for url in asked if "/api/pictures" in url]) < 600


def test_what_keys_and_messages_say_is_shown_and_never_run(visit: Visit, site: PretendedSite) -> None:
    evil = '<img src=x onerror="window.hit=1">'
    key = f"{evil}.png"
    site.notify(key, "t-evil")
    site.reject(key, "t-evil", "badimage", f"<script>window.hit = 1</script>{evil}", data=b"<html><script>window.hit=1")
    shown = visit["#shelves-aside .is-rejected .pictures button"]
    expect(shown).to_have_attribute("aria-label", re.compile(re.escape(key)))
    expect(visit["#arrivals .open"]).to_have_text(key)
    expect(visit["#way .where"]).to_contain_text(f"{key}: <script>window.hit = 1</script>{evil}")
    shown.click()
    expect(visit["#details-title"]).to_have_text(key)
    expect(visit["#raw pre"].last).to_contain_text("<script>window.hit = 1</script>")
    expect(visit["#details .where"]).to_contain_text(evil)
    visit["#details-close"].click()
    visit.wait("location.hash === ''")
    visit.expected.append("status of 404")
    visit.page.goto(f"{site.url}#trace={evil}")
    expect(visit["#search-says"]).to_have_text("Nothing on Kafka has this trace id.")
    # Whatever would have run has had its time.
    visit.wait("document.querySelector('[data-missing]') !== null")
    assert visit.page.evaluate("[window.hit, document.querySelectorAll('img[onerror], script').length]") == [None, 1]


def test_a_page_that_only_shows_has_nothing_to_upload_with_and_says_why(browser: Browser) -> None:
    with PretendedSite(Thumbnails(), read_only=True) as site, visiting(browser, site.url, viewport=PHONE) as visit:
        expect(visit["#lead"]).to_contain_text("This page only shows: whoever has started it did not let it upload")
        expect(visit["#sending"]).to_be_hidden()
        asked: list[str] = []
        visit.page.on("request", lambda request: asked.append(request.method))
        visit.give("drop", {"a.png": digit_png(1)})
        visit.give("paste", {"a.png": digit_png(1)})
        site.notify("a.jpg", "t-1")
        site.publish("a.jpg", "t-1", "boat", 0.9, data=PHOTO)
        expect(visit["#way .verdict strong"]).to_have_text("boat")
        expect(visit["#way-title"]).to_have_text("The latest arrival")
        visit.wait("document.querySelector('#way .pixels img')?.naturalWidth === 64")
        assert "POST" not in asked
        assert visit.overflow() <= 0
        assert stumbling_blocks(visit.page) == []


def test_what_is_no_picture_is_listed_by_what_it_is(browser: Browser) -> None:
    with PretendedSite(Readings()) as site, visiting(browser, site.url) as visit:
        label = site.settings.task.labels[0]
        site.notify("monday.csv", "t-1")
        site.publish("monday.csv", "t-1", label, data=(SAMPLES / "readings" / "monday.csv").read_bytes())
        expect(visit["#way .verdict strong"]).to_have_text(str(label))
        expect(visit["#way .pixels"]).to_be_hidden()
        visit.wait("document.querySelector('#shelves [data-missing=csv]') !== null")
        assert stumbling_blocks(visit.page) == []


def test_nothing_moves_where_people_do_not_want_it_to(browser: Browser, site: PretendedSite) -> None:
    moving = "document.getAnimations().filter((one) => one.playState === 'running').length"

    def waiting(motion: str) -> AbstractContextManager[Visit]:
        return visiting(browser, site.url, reduced_motion=motion)

    for motion, is_moving in (("no-preference", True), ("reduce", False)):
        with waiting(motion) as visit:
            visit.draw(SEVEN)
            visit["#send"].click()
            expect(visit["#way .steps [data-state=next]"]).to_contain_text("Notified")
            # The step that is waited for beats.
            assert (visit.page.evaluate(moving) > 0) is is_moving
