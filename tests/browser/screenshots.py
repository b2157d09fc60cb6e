"""Pictures of a running system for the documentation.

    python -m tests.browser.screenshots http://localhost:8000 admin PASSWORD

writes `docs/images/*.png`. Start it on the demo, when some minutes of executions are there to be seen.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.chromium import chromium

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
#: Bytes; a larger picture is a mistake.
MOST = 150_000
SIZE = {"width": 1280, "height": 800}
#: Name, address, look, and a link to follow from there (of the first that matches).
PICTURES = (
    ("dashboard", "/admin/", "light", ""),
    ("dashboard-dark", "/admin/", "dark", ""),
    ("agenda", "/admin/schedules/schedule/agenda/?zone=Europe/Berlin", "light", ""),
    ("schedule", "/admin/schedules/schedule/?q=Sales", "light", "td a.sp-link, th a.sp-link"),
    ("execution", "/admin/execution/execution/?state__exact=succeeded&q=", "light", "th a, td a.sp-link"),
    ("dead-letters", "/admin/execution/deadletter/", "light", ""),
    ("tour", "/admin/demo/order/tour/", "light", ""),
    ("approval", "/admin/execution/execution/?q=close-month", "light", "th a, td a.sp-link"),
    ("workflow", "/admin/execution/workflow/?q=order-intake", "dark", "td a.sp-link, th a.sp-link"),
)


def sign_in(page: Page, user: str, password: str) -> None:
    page.goto("/admin/login/")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url("**/admin/")


def main(url: str, user: str, password: str) -> int:
    path = chromium()
    if path is None:
        print("No Chromium is installed.", file=sys.stderr)
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(base_url=url, viewport=SIZE, timezone_id="Europe/Berlin")  # type: ignore[arg-type]
        sign_in(page, user, password)
        for name, address, look, follow in PICTURES:
            page.emulate_media(color_scheme="dark" if look == "dark" else "light")
            page.goto(address)
            if follow:
                page.locator(f"#result_list :is({follow})").first.click()
                page.wait_for_load_state()
            page.wait_for_timeout(1500)  # the parts that the page fetches for itself
            target = IMAGES / f"{name}.png"
            page.screenshot(path=target)
            size = target.stat().st_size
            print(f"{target.name}: {size:,} bytes")
            if size > MOST:
                print(f"{target.name} is larger than {MOST:,} bytes.", file=sys.stderr)
                return 1
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
