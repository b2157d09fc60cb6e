"""Whether a wall clock has jumped, told by the monotonic clock beside it. Pure: both readings are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

#: Seconds that two clocks may differ between two looks: a slow answer, or a clock that is being slewed.
TOLERANCE = 5.0


@dataclass(slots=True)
class ClockWatch:
    """Compares how far the wall clock and the monotonic clock have come since the last look.

    >>> from datetime import UTC, datetime, timedelta
    >>> watch, noon = ClockWatch(), datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> watch.jump(noon, 100.0), watch.jump(noon + timedelta(seconds=3701), 101.0)
    (0.0, 3700.0)
    """

    _wall: datetime | None = None
    _monotonic: float = 0.0

    def jump(self, wall: datetime, monotonic: float) -> float:
        """Seconds that the wall clock has jumped ahead (back: negative) since the last look; 0 within `TOLERANCE`.

        Args:
            wall: aware; the clock that is watched.
            monotonic: seconds of this process's monotonic clock, read at the same moment.
        """
        before, passed = self._wall, monotonic - self._monotonic
        self._wall, self._monotonic = wall, monotonic
        if before is None:
            return 0.0
        jumped = (wall - before).total_seconds() - passed
        return jumped if abs(jumped) > TOLERANCE else 0.0
