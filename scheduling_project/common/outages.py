"""Log lines of a server that is away: one when it begins, one a minute while it lasts, one when it is over."""

from __future__ import annotations

import math
import time
from typing import Any, Final

from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

#: Seconds between two lines while an outage lasts.
REMINDER: Final = 60.0


class OutageLog:
    """Tells of one server's outages under one name: ``<name>_away`` (warning) and ``<name>_back``.

    Calls may come from any thread; at worst a line is there twice.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._since = math.nan
        self._told_at = -math.inf
        self._failures = 0

    def failed(self, error: BaseException, *, at: float | None = None, **facts: Any) -> None:
        """The server did not answer (at that second of the monotonic clock; now when left out)."""
        now = time.monotonic() if at is None else at
        if math.isnan(self._since):
            self._since = now
        self._failures += 1
        if now - self._told_at >= REMINDER:
            self._told_at = now
            log.warning(f"{self.name}_away", error=str(error).strip(), failures=self._failures, **facts)

    def succeeded(self, *, at: float | None = None) -> None:
        """The server has answered."""
        if not math.isnan(self._since):
            seconds = round((time.monotonic() if at is None else at) - self._since, 1)
            log.info(f"{self.name}_back", seconds=seconds, failures=self._failures)
            self._since, self._told_at, self._failures = math.nan, -math.inf, 0
