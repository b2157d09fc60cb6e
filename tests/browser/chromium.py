"""Where the system's Chromium is."""

from __future__ import annotations

import os
import shutil

#: Names under which distributions install it; CHROMIUM in the environment names another.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """The path of an installed Chromium, or None where there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)
