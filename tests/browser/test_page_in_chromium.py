"""The live page of the demo's stack, in a browser: nothing of it is pretended."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator

import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, expect

from browser.accessibility import stumbling_blocks
from browser.visiting import DESKTOP, ONE, PHONE, SEVEN, THREE, Visit, visiting
from e2e.following import IMAGES
from e2e.live_page import LivePage, running

DEMO = (sys.executable, "-m", "mnist_pipeline", "demo", "--web", "--web-port", "0")
STEPS = ["Uploaded", "Notified", "Fetched", "Predicted", "Filed", "Published"]


@pytest.fixture(scope="module")
def demo(browser: Browser) -> Iterator[LivePage]:
    # The browser comes first: without one nothing has to start.
    assert browser.is_connected()
    with running(DEMO, {}) as page:
        yield page


@pytest.fixture
def visit(browser: Browser, demo: LivePage) -> Iterator[Visit]:
    with visiting(browser, demo.url) as visit:
        yield visit


def blank() -> bytes:
    with io.BytesIO() as file:
        Image.new("L", (280, 280), 255).save(file, "PNG")
        return file.getvalue()


def test_a_one_drawn_by_mouse_is_seen_on_all_of_its_way_into_its_bucket(visit: Visit) -> None:
    visit.draw(ONE)
    visit["#send"].click()
    visit.wait_for_verdict("1")
    expect(visit["#way .steps [data-state=done] b"]).to_have_text(STEPS)
    expect(visit["#way .where"]).to_contain_text("is filed in digit-1/")
    times = visit["#way .steps .time"].all_inner_texts()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", times[0])
    assert re.fullmatch(r"after .* m?s", times[1])
    assert re.fullmatch(r"after .* m?s", times[5])
    assert all(re.fullmatch("took .* m?s", time) for time in times[2:5])
    visit.wait("document.querySelectorAll('#way .bars .value:not(:empty)').length === 10")
    expect(visit["#way .bars .is-chosen .label"]).to_have_text("1")
    visit.wait("document.querySelector('#way .pixels img')?.naturalWidth === 28")
    assert re.fullmatch(r"[\w-]{36}", visit.trace_id)
    expect(visit["#way-says"]).to_have_text(re.compile(r"Its digit is 1 \(.* %\)\. It is filed in digit-1/"))
    # Newest first, on its shelf and among the arrivals.
    name = visit["#way .where .name"].first.inner_text()
    expect(visit["#shelves .shelf"].nth(1).locator("button").first).to_have_attribute("title", re.compile(f"^{name}"))
    expect(visit["#arrivals tr"].first).to_contain_text(name)


def test_the_next_stroke_after_sending_begins_a_new_drawing(visit: Visit) -> None:
    visit.draw(SEVEN)
    visit["#send"].click()
    visit.wait_for_verdict("7")
    visit["#send"].click()
    expect(visit["#sending-says"]).to_have_text("This drawing was sent: draw another.")
    visit.draw(ONE)
    visit["#send"].click()
    visit.wait_for_verdict("1")
    expect(visit["#sent button"]).to_have_count(2)
    visit["#sent button"].last.click()
    visit.wait_for_verdict("7")


def test_a_blank_that_is_dropped_is_rejected_with_the_reason(visit: Visit) -> None:
    visit.give("dragenter", {"blank.png": blank()})
    expect(visit["#drop"]).to_be_visible()
    visit.give("drop", {"blank.png": blank()})
    expect(visit["#drop"]).to_be_hidden()
    visit.wait_for_verdict("Rejected")
    expect(visit["#way .where"]).to_contain_text("there is no digit")
    expect(visit["#way .steps [data-state=refused]"]).to_contain_text("nodigit")
    expect(visit["#way-says"]).to_contain_text("Rejected: there is no digit")
    expect(visit["#shelves-aside .is-rejected .reason"].first).to_have_text("nodigit")


def test_files_are_chosen_or_pasted_and_what_the_store_would_not_take_is_refused_with_the_reason(visit: Visit) -> None:
    four, nine = IMAGES["4-0004.png"], IMAGES["9-0007.png"]
    visit["#files"].set_input_files(
        [
            FilePayload(name="four.png", mimeType="image/png", buffer=four),
            FilePayload(name="nine.png", mimeType="image/png", buffer=nine),
        ]
    )
    expect(visit["#sent .badge"]).to_have_text(["9", "4"])
    visit.give("paste", {"image.png": four})
    expect(visit["#sent .badge"]).to_have_text(["4", "9", "4"])
    visit.expected.append("status of 4(09|22)")
    # A name that is taken: beside it.
    visit.give("drop", {"nine.png": IMAGES["9-0009.png"]})
    expect(visit["#sent .badge"]).to_have_text(["9", "4", "9", "4"])
    visit.give("drop", {"notes.txt": b"no picture"})
    visit.wait_for_verdict("Not taken")
    expect(visit["#way .where"]).to_contain_text("notes.txt")
    expect(visit["#sent .badge"].first).to_have_text("refused")


def test_a_finger_draws_on_a_phone_and_the_page_stays_where_it_is(browser: Browser, demo: LivePage) -> None:
    with visiting(browser, demo.url, viewport=PHONE, has_touch=True, is_mobile=True) as visit:
        visit["#canvas"].scroll_into_view_if_needed()
        before = visit.page.evaluate("scrollY")
        visit.draw_by_finger(ONE)
        assert visit.page.evaluate("scrollY") == before
        visit["#send"].tap()
        visit.wait_for_verdict("1")
        expect(visit["#way .steps"]).to_be_in_viewport()


def test_a_keyboard_alone_goes_from_the_begin_to_the_raw_event_and_back(visit: Visit) -> None:
    keyboard = visit.page.keyboard

    def tab_to(selector: str) -> None:
        for _ in range(60):
            if visit.page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                shown = visit.page.evaluate("document.activeElement.matches(':focus-visible')")
                assert shown, selector
                return
            keyboard.press("Tab")
        raise AssertionError(f"Tab does not come to {selector}")

    keyboard.press("Tab")
    expect(visit[".skip"]).to_be_focused()
    keyboard.press("Enter")
    tab_to("#canvas")
    expect(visit[".keys"]).to_be_visible()
    for _ in range(9):
        keyboard.press("ArrowUp")
    keyboard.press("Space")
    expect(visit["#pen-says"]).to_have_text("Pen down")
    for _ in range(18):
        keyboard.press("ArrowDown")
    keyboard.press("Enter")
    visit.wait_for_verdict("1")
    trace_id = visit.trace_id
    tab_to("#way .foot > .button")
    keyboard.press("Enter")
    expect(visit["#details"]).to_be_visible()
    expect(visit["#raw-title"]).to_be_focused()
    expect(visit["#raw .record h4"].last).to_contain_text("Result")
    expect(visit["#raw .record dd"].filter(has_text=trace_id).first).to_be_visible()
    for _ in range(20):
        keyboard.press("Tab")
        # Beside the dialog there is only the browser itself.
        assert visit.page.evaluate("document.activeElement.matches('dialog *, dialog, body')")
    keyboard.press("Escape")
    expect(visit["#details"]).to_be_hidden()
    expect(visit["#way .foot > .button"]).to_be_focused()
    # Each shelf is one stop; the arrow keys go on inside.
    tab_to("#shelves .pictures button")
    keyboard.press("ArrowRight")
    expect(visit["#shelves .pictures button"].nth(1)).to_be_focused()
    keyboard.press("Enter")
    expect(visit["#details .where"]).to_contain_text("digit-0/")
    keyboard.press("Escape")
    expect(visit["#shelves .pictures button"].nth(1)).to_be_focused()


def test_a_trace_id_is_found_and_an_unknown_one_is_said_to_be(visit: Visit, demo: LivePage) -> None:
    shelf = demo.get("api/shelves/7", limit=100).json()["objects"]
    asked = next(one for one in shelf if one["place"].endswith("/7-0000.png"))
    visit["#trace-id"].fill(asked["trace_id"])
    visit["#trace-id"].press("Enter")
    expect(visit["#details .where"]).to_contain_text("7-0000.png is filed in digit-7/")
    expect(visit["#raw h4"]).to_have_text([re.compile("^Notification"), re.compile("^Result")])
    expect(visit["#raw pre"].last).to_contain_text('"predictions"')
    # Its address can be handed on.
    address = visit.page.url
    assert asked["trace_id"] in address
    visit["#details-close"].click()
    visit.wait("location.hash === ''")
    visit.page.goto("about:blank")
    visit.open(address)
    expect(visit["#details .where"]).to_contain_text("7-0000.png")
    visit["#details-close"].click()
    visit.expected.append("status of 404")
    visit["#trace-id"].fill("nobody's")
    visit["#search button"].click()
    expect(visit["#search-says"]).to_have_text("Nothing on Kafka has this trace id.")
    expect(visit["#details"]).to_be_hidden()


def test_a_trace_id_is_copied(visit: Visit) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit["#way .trace button"].click()
    expect(visit["#way .trace button"]).to_have_text("Copied")
    assert visit.page.evaluate("navigator.clipboard.readText()") == visit.trace_id


@pytest.mark.parametrize(("name", "viewport"), [("desktop", DESKTOP), ("phone", PHONE)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_in_both_themes_and_on_a_phone_nothing_is_in_the_way(
    browser: Browser, demo: LivePage, theme: str, name: str, viewport: dict[str, int]
) -> None:
    # A colour that changes is between two; so nothing moves.
    with visiting(browser, demo.url, viewport=viewport, color_scheme=theme, reduced_motion="reduce") as visit:
        back = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", back)[:3])) > 380) is (theme == "light")
        for points, label in ((SEVEN, "7"), (THREE, "3")):
            visit.draw(points)
            visit["#send"].click()
            visit.wait_for_verdict(label)
        visit.wait("document.querySelectorAll('#way .bars .value:not(:empty)').length === 10")
        visit.wait("document.querySelector('#way .pixels img')?.naturalWidth === 28")
        # The mouse is nowhere.
        visit.page.mouse.move(2, 2)
        visit.page.evaluate("document.activeElement.blur(); scrollTo({ top: 0, behavior: 'instant' })")
        visit.shoot(f"{theme}-{name}")
        visit.shoot(f"{theme}-{name}-whole", full=True)
        _expect_nothing_in_the_way(visit)
        visit["#way .foot > .button"].click()
        expect(visit["#raw .record"]).to_have_count(2)
        visit.shoot(f"{theme}-{name}-raw")
        _expect_nothing_in_the_way(visit)


def _expect_nothing_in_the_way(visit: Visit) -> None:
    assert stumbling_blocks(visit.page) == []
    assert visit.overflow() <= 0


def test_the_check_itself_finds_what_is_in_the_way(visit: Visit) -> None:
    spoil: Callable[[str], object] = visit.page.evaluate
    spoil("document.querySelector('.lead').style.color = '#b0b5b3'")
    spoil("document.querySelector('#pause').textContent = ''")
    spoil("document.querySelector('#arrivals-title').outerHTML = '<h5>Arrivals</h5>'")
    found = "\n".join(stumbling_blocks(visit.page))
    assert re.search("text has a contrast of 1.*lead", found)
    assert "a button has no name" in found
    assert "a heading skips a level" in found
    assert "aria-labelledby names arrivals-title, which is not there" in found
