"""A page in the Chromium of this machine, without a display, for tests of what people open in a browser."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# WebGL in software, and no errands of the browser's own.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def chromium() -> str:
    """Path of the browser; the test is skipped where there is none."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no browser on this machine: none of {', '.join(NAMES)} is on the PATH")


@contextmanager
def page(*, width: int = 1280, height: int = 800) -> Iterator[Page]:
    """A fresh page of (width, height) px. Whatever it wants from other machines is refused, as without a network."""

    def local_only(route: Route) -> None:
        if urlsplit(route.request.url).hostname in ("127.0.0.1", "localhost", None):  # None: data: and blob:
            route.continue_()
        else:
            route.abort()

    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            fresh = browser.new_page(viewport={"width": width, "height": height})
            fresh.route("**/*", local_only)
            yield fresh
        finally:
            browser.close()
