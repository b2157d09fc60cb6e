"""From the text of a cron expression to its bitmasks: the Open Cron Pattern Specification, 1.0 to 1.4, strictly.

Own extensions, which the specification leaves free: `H`, `H(a-b)` and `H/n` (a value, hashed from the schedule's
identity), `LW` (last weekday of the month) and `L-n` (n days before the last of the month).
"""

from __future__ import annotations

import difflib
import hashlib
import re
from typing import Final, NamedTuple, NoReturn
from uuid import UUID

from schedules.timing.cron.calendar import FIRST_YEAR, LAST_YEAR
from schedules.timing.cron.fields import (
    ALL_DAYS,
    ALL_HOURS,
    ALL_MINUTES,
    ALL_MONTHS,
    ALL_SECONDS,
    ALL_WEEKDAYS,
    LAST_OCCURRENCE,
    LAST_WEEKDAY,
    Fields,
)

MAX_LENGTH: Final = 1024
"""Longest expression accepted, in characters: more than naming every value of every field takes."""

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
REBOOT: Final = "@reboot"

MONTH_NAMES: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAY_NAMES: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

Seed = str | int | UUID


class CronError(ValueError):
    """A cron expression that cannot be accepted.

    `field` is the name of the field (empty when the whole expression is meant), `text` the offending part,
    `position` its offset in the expression, `rule` what was violated, `suggestion` a text that would be accepted in
    place of `text`, or empty.
    """

    def __init__(self, rule: str, *, field: str = "", text: str = "", position: int = 0, suggestion: str = "") -> None:
        self.field = field
        self.text = text
        self.position = position
        self.rule = rule
        self.suggestion = suggestion
        where = f"{field} {text!r} at position {position}: " if field else f"{text!r}: " if text else ""
        hint = f" Try {suggestion!r}." if suggestion else ""
        super().__init__(f"{where}{rule}.{hint}")


class _Rejected(Exception):
    """A part of a field is wrong; where the field stands is known only further up."""

    def __init__(self, item: str, rule: str, suggestion: str = "") -> None:
        self.item = item
        self.rule = rule
        self.suggestion = suggestion


class FieldSpec(NamedTuple):
    """One field: its name, lowest and highest value, and what each plain text for a value stands for (a mask)."""

    name: str
    low: int
    high: int
    names: dict[str, int]
    masks: dict[str, int]


def _spec(name: str, low: int, high: int, names: tuple[str, ...] = (), full: int = 0) -> FieldSpec:
    numbers = {word: low + index for index, word in enumerate(names)}
    if name == "day-of-week":
        numbers = {word: index for index, word in enumerate(names)}
    base = low if name == "year" else 0
    masks = {}
    for value in range(low, high + 1):
        bit = 1 << (value - base)
        masks[str(value)] = masks[f"{value:02d}"] = bit
    for word, value in numbers.items():
        masks[word] = masks[word.lower()] = masks[word.title()] = 1 << value
    if name == "day-of-week":
        masks["7"] = masks["07"] = 1
    masks["*"] = full or (1 << (high + 1 - base)) - (1 << (low - base))
    if name.startswith("day"):
        masks["?"] = masks["*"]
    return FieldSpec(name, low, high, numbers, masks)


SECOND: Final = _spec("second", 0, 59, full=ALL_SECONDS)
MINUTE: Final = _spec("minute", 0, 59, full=ALL_MINUTES)
HOUR: Final = _spec("hour", 0, 23, full=ALL_HOURS)
DAY_OF_MONTH: Final = _spec("day-of-month", 1, 31, full=ALL_DAYS)
MONTH: Final = _spec("month", 1, 12, MONTH_NAMES, full=ALL_MONTHS)
DAY_OF_WEEK: Final = _spec("day-of-week", 0, 7, WEEKDAY_NAMES, full=ALL_WEEKDAYS)
YEAR: Final = _spec("year", FIRST_YEAR, LAST_YEAR)

_ALL_YEARS: Final = YEAR.masks["*"]
SPECS: Final = (SECOND, MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK, YEAR)

_ALLOWED: Final = re.compile(r"[0-9A-Za-z*,\-/#?+@_() \t]*")
_HASHED: Final = re.compile(r"H(?:\((\d{1,4})-(\d{1,4})\))?(?:/(\d{1,4}))?")


def parse_fields(expression: str, seed: Seed | None) -> Fields:
    """The bitmasks of an expression of five, six or seven fields (nicknames are the caller's).

    `seed` is the schedule's identity, from which `H` takes its values. Raises CronError.
    """
    texts = expression.replace("\t", " ").split(" ") if "\t" in expression else expression.split(" ")
    if "" in texts:
        texts = [text for text in texts if text]
    count = len(texts)
    if count == 5:
        second, year = 1, None
        minute, hour, day, month, weekday = texts
        at = -1
    elif count == 6 or count == 7:
        minute, hour, day, month, weekday = texts[1:6]
        at = 0
    else:
        raise CronError(
            f"an expression has 5 fields, 6 (seconds first) or 7 (year last), this has {count}", text=expression
        )
    spec = MINUTE
    try:
        if at == 0:
            spec = SECOND
            second = _SECOND_MASKS.get(texts[0]) or _numeric(SECOND, texts[0], seed)
            spec = YEAR
            year = _years(texts[6], seed) if count == 7 else None
        spec = MINUTE
        minutes = _MINUTE_MASKS.get(minute) or _numeric(MINUTE, minute, seed)
        spec = HOUR
        hours = _HOUR_MASKS.get(hour) or _numeric(HOUR, hour, seed)
        spec = DAY_OF_MONTH
        days = _DAY_MASKS.get(day)
        last_days = nearest = nth = 0
        if days is None:
            days, last_days, nearest = _days_of_month(day, seed)
        spec = MONTH
        months = _MONTH_MASKS.get(month) or _numeric(MONTH, month, seed)
        spec = DAY_OF_WEEK
        weekdays = _WEEKDAY_MASKS.get(weekday)
        both = False
        if weekdays is None:
            weekdays, nth, both = _days_of_week(weekday, seed)
    except _Rejected as rejected:
        _locate(expression, texts, spec, rejected)
    return Fields(
        second,
        minutes,
        hours,
        days,
        months,
        weekdays,
        year,
        last_days,
        nearest,
        nth,
        _is_open(day),
        _is_open(weekday),
        both,
        _is_star(minute, minutes, ALL_MINUTES),
        _is_star(hour, hours, ALL_HOURS),
    )


_SECOND_MASKS: Final = SECOND.masks
_MINUTE_MASKS: Final = MINUTE.masks
_HOUR_MASKS: Final = HOUR.masks
_DAY_MASKS: Final = DAY_OF_MONTH.masks
_MONTH_MASKS: Final = MONTH.masks
_WEEKDAY_MASKS: Final = DAY_OF_WEEK.masks


def _is_open(text: str) -> bool:
    """A day field is a wildcard when its first list entry is `*` or its alias `?` (OCPS 1.1, section 6.1)."""
    return text in ("*", "?", "+*", "+?") or text.startswith(("*,", "?,", "+*,", "+?,"))


def _is_star(text: str, mask: int, full: int) -> bool:
    """A minute or hour field is a wildcard when it begins with `*` or `H/n`, or names every value."""
    first = text[0]
    return first == "*" or mask == full or (first in "Hh" and "/" in text.partition(",")[0])


def _locate(expression: str, texts: list[str], spec: FieldSpec, rejected: _Rejected) -> NoReturn:
    """Turn a rejected part into a CronError that says where in the expression it stands."""
    index = SPECS.index(spec) - (1 if len(texts) == 5 else 0)
    start, length = 0, 0
    for text in texts[: index + 1]:
        start = expression.index(text, start + length)
        length = len(text)
    at = 0
    for item in texts[index].split(",") if rejected.item else []:
        if item.endswith(rejected.item):  # all of it, or what follows a `+`
            at += len(item) - len(rejected.item)
            break
        at += len(item) + 1
    raise CronError(
        rejected.rule,
        field=spec.name,
        text=rejected.item or texts[index],
        position=start + at,
        suggestion=rejected.suggestion,
    ) from None


def _numeric(spec: FieldSpec, text: str, seed: Seed | None) -> int:
    """The mask of a field that knows numbers, names, ranges, steps and lists only."""
    masks, mask = spec.masks, 0
    for item in text.split(","):
        mask |= masks.get(item) or _range(spec, item, seed)
    return mask


def _years(text: str, seed: Seed | None) -> int | None:
    mask = _numeric(YEAR, text, seed)
    return None if mask == _ALL_YEARS else mask


def _days_of_month(text: str, seed: Seed | None) -> tuple[int, int, int]:
    """(mask, last days, nearest weekday) of a day-of-month field."""
    mask = last = nearest = 0
    items = text.split(",")
    for item in items:
        found = _DAY_MASKS.get(item)
        if found is not None:
            mask |= found
            continue
        upper = item.upper()
        if upper == "L":
            last |= 1
        elif upper.startswith("L-"):
            back = int(upper[2:]) if _is_digits(upper[2:]) else 0
            if not 1 <= back <= 30:
                raise _Rejected(item, "L-n takes 1 to 30 days before the last of the month", "L")
            last |= 1 << back
        elif "W" in upper:
            if len(items) > 1 or "-" in item or "/" in item:
                raise _Rejected(item, "W applies to one day and cannot stand in a list, a range or a step")
            if upper == "LW":
                nearest = LAST_WEEKDAY
            elif not _is_digits(upper[:-1]):
                raise _Rejected(item, "W follows a day of the month, such as 15W, or L")
            else:
                nearest = _number(DAY_OF_MONTH, item, upper[:-1])
        else:
            mask |= _range(DAY_OF_MONTH, item, seed)
    return mask, last, nearest


def _days_of_week(text: str, seed: Seed | None) -> tuple[int, int, bool]:
    """(mask, nth occurrences, both) of a day-of-week field; `both` is a leading `+`."""
    mask = nth = 0
    both = text[0] == "+"
    for item in (text[1:] if both else text).split(","):
        found = _WEEKDAY_MASKS.get(item)
        if found is not None:
            mask |= found
            continue
        upper = item.upper()
        day, mark, occurrence = upper.partition("#")
        if mark:
            if occurrence == "L":
                bit = LAST_OCCURRENCE
            elif occurrence in ("1", "2", "3", "4", "5"):
                bit = int(occurrence)
            else:
                raise _Rejected(item, "# takes an occurrence from 1 to 5, or L for the last")
            nth |= 1 << (_weekday(item, day) * 8 + bit)
        elif upper.endswith("L"):
            if upper == "L":
                raise _Rejected(item, "L in day-of-week follows a day, such as 5L or FRI#L", "SAT")
            nth |= 1 << (_weekday(item, upper[:-1]) * 8 + LAST_OCCURRENCE)
        else:
            mask |= _range(DAY_OF_WEEK, item, seed)
    return mask, nth, both


def _weekday(item: str, day: str) -> int:
    """The number, Sunday being 0, of the one day that `#` or `L` is attached to."""
    if not day or "-" in day or "/" in day or "*" in day or "?" in day:
        raise _Rejected(item, "# and L apply to one day of the week")
    return _number(DAY_OF_WEEK, item, day) % 7


def _range(spec: FieldSpec, item: str, seed: Seed | None) -> int:
    """The mask of one list entry: a value, a range or a wildcard, perhaps with a step, or a hashed value."""
    if not item:
        raise _Rejected(item, "a list has an empty entry")
    if item[0] in "Hh":
        return _hashed(spec, item, seed)
    body, slash, step_text = item.partition("/")
    step = 1
    if slash:
        if not _is_digits(step_text):
            raise _Rejected(item, "a step is a whole number after the slash")
        step = int(step_text)
        if not step:
            raise _Rejected(item, "a step of 0 has no meaning")
    if body == "*" or (body == "?" and "?" in spec.masks):
        low, high = spec.low, spec.high
        if spec is DAY_OF_WEEK:
            high = 6
    else:
        first, dash, second = body.partition("-")
        if not dash:
            if not slash:
                return _single(spec, item)
            if not first:
                raise _Rejected(item, "a step follows * or a range", f"*{item}")
            value = _number(spec, item, first)
            high = 6 if spec is DAY_OF_WEEK else spec.high
            raise _Rejected(item, "a step follows * or a range, not a single value", f"{value}-{high}/{step}")
        if not first or not second:
            raise _Rejected(item, "a range has a first and a last value")
        if "-" in second:
            raise _Rejected(item, "a range has one dash; numbers are not negative")
        low, high = _number(spec, item, first), _number(spec, item, second)
        if spec is DAY_OF_WEEK and high == 0 and low and not _is_digits(second):
            high = 7  # Sunday by name is 0 or 7, whichever makes the range ascend
        if low > high:
            raise _Rejected(
                item,
                "a range ascends and does not wrap around",
                f"{unwrapped(spec, low, high)}{slash}{step_text}" if not slash else "",
            )
    if spec is YEAR:
        low, high = low - FIRST_YEAR, high - FIRST_YEAR
    if step == 1:
        mask = (2 << high) - (1 << low)
    else:
        mask = 0
        for value in range(low, high + 1, step):
            mask |= 1 << value
    if spec is DAY_OF_WEEK:
        mask = mask & ALL_WEEKDAYS | mask >> 7
    return mask


def unwrapped(spec: FieldSpec, low: int, high: int) -> str:
    """A wrap-around range as the list that says the same: `FRI,SAT,SUN,MON`, or `22-23,0-2`."""
    if spec.names:
        words = [*spec.names]
        base = spec.low
        size = len(words)
        count = (high - low) % size + 1
        return ",".join(words[(low - base + index) % size] for index in range(count))
    before = str(low) if low == spec.high else f"{low}-{spec.high}"
    after = str(high) if high == spec.low else f"{spec.low}-{high}"
    return f"{before},{after}"


def _single(spec: FieldSpec, item: str) -> int:
    value = _number(spec, item, item)
    if spec is DAY_OF_WEEK:
        return 1 << value % 7
    return 1 << (value - FIRST_YEAR if spec is YEAR else value)


def _is_digits(text: str) -> bool:
    """Whether `text` is digits only (ASCII: the expression has been checked for other characters)."""
    return text.isdigit()


def _number(spec: FieldSpec, item: str, text: str) -> int:
    """The value that a number or a name stands for, within the field's bounds."""
    if text.isdigit():
        value = int(text)
        if spec.low <= value <= spec.high:
            return value
        hint = "0" if spec is HOUR and value == 24 and item == text else ""
        raise _Rejected(item, f"{spec.name} is {spec.low} to {spec.high}, not {text[:20]}", hint)
    named = spec.names.get(text.upper())
    if named is not None:
        return named
    raise _Rejected(item, *_misunderstood(spec, item, text))


def _misunderstood(spec: FieldSpec, item: str, text: str) -> tuple[str, str]:
    """The rule that a text which is neither a number nor a name breaks, and what was probably meant."""
    upper = text.upper()
    if "+" in text:
        return "+ stands only in front of the whole day-of-week field", ""
    if "?" in text:
        return "? stands only alone, as *, in day-of-month and day-of-week", "*" if item == "?" else ""
    if "*" in text:
        return "* stands alone or before a step", ""
    if "#" in text:
        return "# belongs in the day-of-week field", ""
    for word in spec.names:
        if upper.startswith(word):
            return f"names have three letters, such as {word}", item.upper().replace(upper, word)
    if spec.names:
        close = difflib.get_close_matches(upper, spec.names, n=1)
        return f"{spec.name} is {spec.low} to {spec.high} or {next(iter(spec.names))} and the like", "".join(close)
    if spec is not DAY_OF_MONTH and upper in ("L", "W", "LW"):
        return f"{upper} belongs in the day-of-month field", ""
    return f"{spec.name} is a number from {spec.low} to {spec.high}", ""


def _hashed(spec: FieldSpec, item: str, seed: Seed | None) -> int:
    """The mask of `H`, `H(a-b)` or `H/n`: evenly spread over the schedules, constant for each."""
    match = _HASHED.fullmatch(item.upper())
    if match is None or spec is YEAR:
        raise _Rejected(item, "H is written H, H(a-b) or H/n, in any field but the year", "")
    first, last, step_text = match.groups()
    low, high = spec.low, {DAY_OF_MONTH.name: 28, DAY_OF_WEEK.name: 6}.get(spec.name, spec.high)
    if first is not None:
        low, high = _number(spec, item, first), _number(spec, item, last)
        if low > high:
            raise _Rejected(item, "a range ascends and does not wrap around")
    step = int(step_text) if step_text is not None else 0
    if step_text is not None and not step:
        raise _Rejected(item, "a step of 0 has no meaning")
    if seed is None:
        raise _Rejected(item, "H needs a seed, the identity of the schedule, to take its value from")
    digest = hashlib.blake2b(f"{spec.name}\0{seed}".encode(), digest_size=8).digest()
    drawn = int.from_bytes(digest, "big")
    size = high - low + 1
    mask = 0
    if step:
        for value in range(low + drawn % min(step, size), high + 1, step):
            mask |= 1 << value
    else:
        mask = 1 << (low + drawn % size)
    return mask & ALL_WEEKDAYS | mask >> 7 if spec is DAY_OF_WEEK else mask


def check_text(expression: object) -> str:
    """The expression without surrounding blanks, once it is known to be a text that may be parsed at all.

    Raises CronError for other types, for what is too long, and for characters that no expression has.
    """
    if not isinstance(expression, str):
        raise CronError(f"a cron expression is text, not {type(expression).__name__}")
    if len(expression) > MAX_LENGTH:
        raise CronError(f"a cron expression has at most {MAX_LENGTH} characters, this has {len(expression)}")
    allowed = _ALLOWED.match(expression)
    if allowed is None or allowed.end() != len(expression):
        at = allowed.end() if allowed else 0
        raise CronError(
            "only spaces and tabs separate fields" if expression[at].isspace() else "the character has no meaning here",
            field="expression",
            text=expression[at],
            position=at,
        )
    text = expression.strip(" \t")
    if not text:
        raise CronError("the expression is empty")
    return text


def nickname(text: str) -> str:
    """The five fields that a nickname stands for (`@reboot` stands for itself). Raises CronError."""
    found = NICKNAMES.get(text)
    if found is not None:
        return found
    if text == REBOOT:
        return text
    known = [*NICKNAMES, REBOOT]
    word = text.split()[0]
    if word in known:
        raise CronError("a nickname stands alone", text=text, suggestion=word)
    close = difflib.get_close_matches(word.lower(), known, n=1)
    raise CronError(f"nicknames are {', '.join(known)}, in lower case", text=text, suggestion="".join(close))
