"""A real Chromium for the checks of the page; a machine without one fails, since nothing else shows what a person sees."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

WIDTHS = {"phone": 360, "desk": 1280}
"""Columns of pixels of the screens on which the page is looked at."""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium without a window.

    Raises:
        AssertionError: there is none.
    """
    program = shutil.which("chromium")
    assert program, "chromium is not installed: `./setup.sh test acceptance` installs it"
    with sync_playwright() as playwright:
        # As root it cannot make its own sandbox; what it opens here is ours alone.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """One tab, and everything in it that should not have been."""

    page: Page
    """The tab."""
    problems: list[str] = field(default_factory=list)
    """Console errors and warnings, exceptions, requests to elsewhere, dialogs."""
    answers: bool = False
    """Whether dialogs are expected, and answered with yes."""

    def expect_none(self, *allowed: str) -> None:
        """Fail if anything went wrong but what holds one of `allowed`."""
        assert [one for one in self.problems if not any(word in one for word in allowed)] == []


@contextlib.contextmanager
def tab(browser: Browser, width: int = 1280, dark: bool = False, script: bool = True, **more: Any) -> Iterator[Seen]:
    """Open a tab `width` pixels wide; what goes wrong in it is noted."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": 780},
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
        reduced_motion="reduce",
        **more,
    )
    context.set_default_timeout(30_000)
    seen = Seen(context.new_page())

    def console(message: Any) -> None:
        if message.type in ("error", "warning"):
            seen.problems.append(f"console {message.type}: {message.text} ({message.location.get('url')})")

    def dialog(shown: Any) -> None:
        if seen.answers:
            shown.accept()
        else:
            seen.problems.append(f"dialog: {shown.message}")
            shown.dismiss()

    def request(asked: Any) -> None:
        if not asked.url.startswith(("http://127.0.0.1:", "blob:", "data:")):
            seen.problems.append(f"request to elsewhere: {asked.url}")

    seen.page.on("console", console)
    seen.page.on("pageerror", lambda error: seen.problems.append(f"exception: {error}"))
    seen.page.on("dialog", dialog)
    seen.page.on("request", request)
    try:
        yield seen
    finally:
        context.close()
