"""A real browser that is logged in to the page, and what it must never do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from page_server import PageServer
from playwright.sync_api import Browser, Page

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]
WAIT_MS = 120_000
"""A page that hangs; on a busy machine one takes many times as long as alone."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """Return the path of Chromium; None if there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@dataclass
class Opened:
    """An open page.

    Args:
        page: The page.
        server: Its server.
        problems: Messages of the console, errors of scripts, and requests to other hosts.
    """

    page: Page
    server: PageServer
    problems: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        """Open a path, and wait until the browser is connected to the server."""
        self.page.goto(self.server.address + path)
        self.page.wait_for_selector("h1")
        self.page.wait_for_function("window.did_handshake === true")
        return self.page

    def chart(self, panel: str) -> list[dict[str, Any]]:
        """Return the curves of a panel: name and values."""
        return self.page.evaluate(
            """(panel) => {
                const figures = [...document.querySelectorAll("figure")];
                const figure = figures.find((each) => each.querySelector("figcaption")?.innerText === panel);
                const chart = figure && getElement(figure.querySelector(".nicegui-echart").id.slice(1))?.chart;
                return (chart?.getOption().series ?? []).map((each) => ({name: each.name, values: each.data}));
            }""",
            panel,
        )

    def wait_for_points(self, panel: str, count: int) -> list[dict[str, Any]]:
        """Wait until the first curve of a panel has so many points, and return its curves."""
        while not (curves := self.chart(panel)) or len(curves[0]["values"]) < count:
            self.page.wait_for_timeout(50)
        return curves


@contextmanager
def open_page(browser: Browser, server: PageServer, **options: Any) -> Iterator[Opened]:
    """Open a logged-in browser, and fail at the end if it had a problem."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(WAIT_MS)
    name, _, value = server.cookie().partition("=")
    context.add_cookies([{"name": name, "value": value, "url": server.address, "httpOnly": True, "sameSite": "Strict"}])
    opened = Opened(context.new_page(), server)
    page, problems = opened.page, opened.problems

    def on_message(message: Any) -> None:
        if message.type in ("error", "warning"):
            problems.append(f"{message.type}: {message.text}")

    def on_request(request: Any) -> None:
        if not request.url.startswith((server.address, f"ws://{server.host}", "data:")):
            problems.append(f"request to {request.url}")

    page.on("console", on_message)
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    context.on("request", on_request)
    try:
        yield opened
        assert problems == []
    finally:
        context.close()
