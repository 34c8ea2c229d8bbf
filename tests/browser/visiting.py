"""Somebody with a browser: what they see, do, and what the browser complains of."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Playwright, expect

from required import missing

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 812}

SHOTS = "PAGE_SHOTS"
"""The variable with the folder into which `Visit.shoot` writes."""

_SECONDS = 20
expect.set_options(timeout=_SECONDS * 1000)

Point = tuple[float, float]
ONE: Sequence[Point] = [(0.5, 0.2), (0.5, 0.5), (0.5, 0.8)]
"""A digit as somebody draws it: shares of the board's width and height."""
SEVEN: Sequence[Point] = [(0.3, 0.25), (0.7, 0.25), (0.6, 0.5), (0.48, 0.8)]
THREE: Sequence[Point] = [
    *((0.34, 0.26), (0.5, 0.19), (0.64, 0.27), (0.62, 0.4), (0.48, 0.48)),
    *((0.64, 0.55), (0.67, 0.7), (0.52, 0.81), (0.33, 0.74)),
]


def start(playwright: Playwright) -> Browser:
    """The browser that this machine has; without one the test is skipped with the reason."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        missing(f"none of {', '.join(PROGRAMS)} is on this machine (apt-get install chromium)")
    return playwright.chromium.launch(
        executable_path=program,
        args=[
            "--no-sandbox",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
        ],
    )


class Visit:
    """A page that is open.

    Attributes:
        page: in the browser.
        complaints: what the console has had of errors, and warnings.
        expected: what of these a test has provoked itself, as expressions.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.expected: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def __getitem__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    @property
    def unexpected(self) -> list[str]:
        """What nobody has provoked."""
        return [said for said in self.complaints if not any(re.search(one, said) for one in self.expected)]

    @property
    def trace_id(self) -> str:
        """Of the object whose way is shown."""
        return self["#way .trace-id"].inner_text()

    def open(self, url: str) -> None:
        """Go to a live page, until it has begun."""
        self.page.goto(url)
        self["main[data-ready]"].wait_for()

    def draw(self, points: Sequence[Point]) -> None:
        """Draw with the mouse."""
        places = self._on_board(points)
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for x, y in places[1:]:
            self.page.mouse.move(x, y, steps=6)
        self.page.mouse.up()

    def draw_by_finger(self, points: Sequence[Point]) -> None:
        """Draw on a touch screen."""
        places = self._on_board(points)
        session = self.page.context.new_cdp_session(self.page)
        for at, (x, y) in enumerate(places):
            kind = "touchMove" if at else "touchStart"
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def give(self, event: str, files: dict[str, bytes]) -> None:
        """`drop` or `paste` files on the page."""
        self.page.evaluate(
            """([event, files]) => {
                const transfer = new DataTransfer();
                for (const [name, text] of files) {
                    const data = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
                    transfer.items.add(new File([data], name, { type: "image/png" }));
                }
                const options = { bubbles: true, cancelable: true };
                document.body.dispatchEvent(event === "paste"
                    ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
                    : new DragEvent(event, { ...options, dataTransfer: transfer }));
            }""",
            [event, [[name, base64.b64encode(data).decode()] for name, data in files.items()]],
        )

    def wait(self, condition: str, *, seconds: float = _SECONDS) -> None:
        """Until an expression of the page's is true."""
        self.page.wait_for_function(f"() => {condition}", timeout=seconds * 1000)

    def wait_for_verdict(self, verdict: str) -> None:
        """Until the way of one's own upload ends with that."""
        self[f'.following:has(#sent:not([hidden])) #way .verdict strong:text-is("{verdict}")'].wait_for()

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        wide: int = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return wide

    def shoot(self, name: str, *, full: bool = False) -> None:
        """Keep a picture of the page, where somebody wants them."""
        if folder := os.environ.get(SHOTS):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=full)

    def _on_board(self, points: Sequence[Point]) -> list[Point]:
        self["#canvas"].scroll_into_view_if_needed()
        box = self["#canvas"].bounding_box()
        assert box is not None
        return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} ({message.location.get('url', '')})")


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """Somebody who looks at a page; at the end its console must be clean."""
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    context.set_default_timeout(_SECONDS * 1000)
    try:
        visit = Visit(context.new_page())
        visit.open(url)
        yield visit
        assert visit.unexpected == []
    finally:
        context.close()
