"""A Chromium on a live server. Without one the tests are skipped, and say so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from tests.browser.chromium import chromium

#: A browser and a server share the processors with other tests.
PATIENCE = 15_000  # milliseconds
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip("no Chromium is installed: apt-get install chromium, or name one in CHROMIUM")
    # Playwright's synchronous API runs an event loop in this thread, which Django takes for an async context.
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    try:
        with sync_playwright() as playwright:
            try:
                running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            except Error as error:
                pytest.skip(f"{path} does not start: {error.message.splitlines()[0]}")
            yield running
            running.close()
    finally:
        if before is None:
            del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
        else:
            os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = before


@pytest.fixture
def page(browser: Browser, live_server: LiveServer, transactional_db: None) -> Iterator[Page]:
    """A signed-in page in Berlin. What the scripts complain of, or ask of another host, fails the test."""
    cache.clear()
    User.objects.create_superuser("root", "root@example.org", PASSWORD)
    context = browser.new_context(
        base_url=live_server.url, timezone_id="Europe/Berlin", viewport={"width": 1440, "height": 900}
    )
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: complaints.extend(_foreign(request.url, live_server.url)))
    opened.goto("/admin/login/")
    opened.fill("input[name=username]", "root")
    opened.fill("input[name=password]", PASSWORD)
    opened.click("button[type=submit]")
    opened.wait_for_url("**/admin/")
    expect(opened.locator("#sp-agenda")).to_contain_text("times in")
    yield opened
    context.close()
    assert not complaints


def _foreign(url: str, own: str) -> list[str]:
    return [] if url.startswith((own, "data:", "blob:")) else [f"asked {url}"]


@pytest.fixture
def audit() -> str:
    """A script that lists what a reader of the screen would miss on a page."""
    return (Path(__file__).parent / "audit.js").read_text()
