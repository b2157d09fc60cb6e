"""The canonical text of a cron expression: one spelling for everything that means the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from schedules.timing.cron.calendar import FIRST_YEAR, LAST_YEAR
from schedules.timing.cron.fields import ALL_DAYS, ALL_WEEKDAYS, LAST_OCCURRENCE, LAST_WEEKDAY, Fields

_LISTED: Final = 6  # up to so many values are written one by one


def canonical(fields: Fields, hashed: Sequence[str] = ()) -> str:
    """The shortest usual text that parses to these fields.

    `hashed` gives, for each of the seven fields from second to year, the text to keep as it is (because it has
    `H` and its values depend on the seed), or an empty text.
    """
    kept = [*hashed, *[""] * 7][:7]
    second = kept[0] or values_text(fields.seconds, 0, 59)
    minute = kept[1] or starred(fields.minutes, 0, 59, star=fields.minute_star)
    hour = kept[2] or starred(fields.hours, 0, 23, star=fields.hour_star)
    day = kept[3] or _days_of_month(fields)
    month = kept[4] or values_text(fields.months, 1, 12)
    weekday = kept[5] or _days_of_week(fields)
    if fields.years is not None:
        years = values_text(fields.years << FIRST_YEAR, FIRST_YEAR, LAST_YEAR)
        return f"{second} {minute} {hour} {day} {month} {weekday} {years}"
    if second == "0":
        return f"{minute} {hour} {day} {month} {weekday}"
    return f"{second} {minute} {hour} {day} {month} {weekday}"


def values_of(mask: int) -> list[int]:
    """The values of a mask, ascending."""
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def progression(values: Sequence[int]) -> int:
    """The common step of at least three values, or 0 when they have none."""
    if len(values) < 3:
        return 0
    step = values[1] - values[0]
    return step if all(b - a == step for a, b in pairwise(values)) else 0


def values_text(mask: int, low: int, high: int) -> str:
    """A field's values as `*`, a step, or a list of values and ranges: `0,30`, `9-17`, `1-31/2`."""
    values = values_of(mask)
    if len(values) == high - low + 1:
        return "*"
    step = progression(values)
    if step > 1 and len(values) > _LISTED:
        if values[0] == low and values[-1] + step > high:
            return f"*/{step}"
        return f"{values[0]}-{values[-1]}/{step}"
    return ",".join(f"{a}-{b}" if b > a + 1 else f"{a},{b}" if b > a else str(a) for a, b in runs(values))


def runs(values: Sequence[int]) -> list[tuple[int, int]]:
    """Values as (first, last) of each run of neighbours."""
    found: list[tuple[int, int]] = []
    for value in values:
        if found and value == found[-1][1] + 1:
            found[-1] = (found[-1][0], value)
        else:
            found.append((value, value))
    return found


def starred(mask: int, low: int, high: int, *, star: bool) -> str:
    """A minute or hour field; a wildcard must stay one (`*/15`), a fixed list must not become one."""
    if star:
        size = high - low + 1
        if mask.bit_count() == size:
            return "*"
        for step in range(2, size + 1):
            stepped = sum(1 << value for value in range(low, high + 1, step))
            if mask & stepped == stepped:
                rest = values_text(mask & ~stepped, low, high)
                return f"*/{step},{rest}" if rest else f"*/{step}"
    text = values_text(mask, low, high)
    return f"{low}-{high}{text[1:]}" if text.startswith("*/") else text


def _days_of_month(fields: Fields) -> str:
    if fields.dom_open:
        return "*"
    items = []
    if fields.days == ALL_DAYS:
        items.append("1-31")
    elif fields.days:
        items.append(values_text(fields.days, 1, 31))
    items += ["L" if back == 0 else f"L-{back}" for back in values_of(fields.last_days)]
    if fields.nearest:
        items.append("LW" if fields.nearest == LAST_WEEKDAY else f"{fields.nearest}W")
    return ",".join(items)


def _days_of_week(fields: Fields) -> str:
    if fields.dow_open:
        return "*"
    items = []
    if fields.weekdays == ALL_WEEKDAYS:
        items.append("0-6")
    elif fields.weekdays:
        items.append(values_text(fields.weekdays, 0, 6))
    for bit in values_of(fields.nth):
        weekday, occurrence = divmod(bit, 8)
        items.append(f"{weekday}#{'L' if occurrence == LAST_OCCURRENCE else occurrence}")
    return ("+" if fields.both and not fields.dom_open else "") + ",".join(items)
