"""A real headless Chromium, for tests of what people look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; the test fails, and is not passed over, where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("these tests need Chromium: apt-get install chromium (.ci/run does it)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that is open, and what came of opening it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Console messages of level error or warning, uncaught exceptions, and dialogs."""


@contextmanager
def visit(
    browser: Browser, path: Path, width: int = 1200, scheme: str = "light"
) -> Iterator[Visit]:
    """Open a file in a window of its own."""
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    visited = Visit(page)
    page.on("request", lambda request: visited.requests.append(request.url))
    page.on("pageerror", lambda error: visited.errors.append(str(error)))

    def keep_message(message) -> None:
        if message.type in ("error", "warning"):
            visited.errors.append(message.text)

    def keep_dialog(dialog) -> None:
        visited.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("console", keep_message)
    page.on("dialog", keep_dialog)
    try:
        page.goto(path.resolve().as_uri(), wait_until="load")
        yield visited
    finally:
        context.close()


def can_be_read_on_a_phone(page: Page) -> None:
    """In a window 360 wide, all unfolded, nothing lies beside it and no text of a chart is tiny."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = page.locator("svg.chart text").evaluate_all(
        "texts => texts.map(t => parseFloat(getComputedStyle(t).fontSize)"
        " * t.ownerSVGElement.getBoundingClientRect().width / 520)"
    )
    assert min(sizes) > 8
