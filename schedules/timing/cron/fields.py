"""What a cron expression says, as bitmasks: the value that the parser makes and the search reads."""

from __future__ import annotations

from typing import Final, NamedTuple

ALL_SECONDS: Final = (1 << 60) - 1
ALL_MINUTES: Final = ALL_SECONDS
ALL_HOURS: Final = (1 << 24) - 1
ALL_DAYS: Final = (1 << 32) - 2
ALL_MONTHS: Final = (1 << 13) - 2
ALL_WEEKDAYS: Final = (1 << 7) - 1

LAST_WEEKDAY: Final = 32
"""The value of `Fields.nearest` for `LW`, the last weekday of the month."""

LAST_OCCURRENCE: Final = 6
"""The bit of `Fields.nth` for `#L`, beside 1 to 5 for `#1` to `#5`."""


class Fields(NamedTuple):
    """A cron expression as bitmasks, bit n standing for the value n.

    `years` counts from 1970 and is None for every year; `weekdays` has Sunday as 0. `last_days` has bit n for
    "n days before the last of the month" (`L`, `L-n`); `nearest` is the n of `nW`, or 0; `nth` has eight bits per
    weekday for `#1` to `#5` and `#L`. `dom_open` and `dow_open` say that the field is a wildcard: then, or with
    `both` (a leading `+`), a day must satisfy both day fields, otherwise either. `minute_star` and `hour_star`
    make the job interval-like, which decides what it does when clocks change.
    """

    seconds: int
    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int
    years: int | None
    last_days: int
    nearest: int
    nth: int
    dom_open: bool
    dow_open: bool
    both: bool
    minute_star: bool
    hour_star: bool
