"""The Gregorian months of 1970 to 2199 as tables: which days they span and on which weekday they begin.

There are only 28 shapes of month (four lengths, seven weekdays to begin with), so a cron expression needs at most
28 masks of matching days, whatever the year.
"""

from __future__ import annotations

from array import array
from datetime import date
from typing import Final

FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2199
_EPOCH_ORDINAL: Final = date(FIRST_YEAR, 1, 1).toordinal()

MONTH_COUNT: Final = (LAST_YEAR - FIRST_YEAR + 1) * 12
LAST_DAY: Final = date(LAST_YEAR, 12, 31).toordinal() - _EPOCH_ORDINAL
"""The last day that a cron expression can match, in days since 1970-01-01 (which is day 0)."""


def _tables() -> tuple[array[int], bytes, array[int]]:
    lengths = {False: (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)}
    lengths[True] = (31, 29, *lengths[False][2:])
    starts, shapes, months = array("l"), bytearray(), array("H")
    day = 0
    for year in range(FIRST_YEAR, LAST_YEAR + 1):
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        for length in lengths[leap]:
            months.extend([len(starts)] * length)
            starts.append(day)
            shapes.append((length - 28) * 7 + (day + 4) % 7)  # 1970-01-01 was a Thursday
            day += length
    return starts, bytes(shapes), months


MONTH_STARTS, MONTH_SHAPES, MONTH_OF_DAY = _tables()
"""The first day of each month; its shape, `(length - 28) * 7 + weekday of its first day` (Sunday is 0); and the
index of the month in which each day lies. Months count from January 1970, which is 0."""
