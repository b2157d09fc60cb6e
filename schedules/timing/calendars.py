"""Calendars: named sets of local days, and moving instants to business days.

A definition is JSON:

    {"kind": "holidays", "country": "DE", "subdivision": "BY"}             public holidays (the `holidays` package)
    {"kind": "dates", "dates": ["2026-05-02", {"from": "2026-12-24", "until": "2027-01-01"}], "yearly": ["12-24"]}
    {"kind": "weekly", "days": ["sat", "sun"]}
    {"kind": "union", "of": ["holidays", {"kind": "weekly", "days": ["sat", "sun"]}]}
    {"kind": "intersection", "of": […]}, {"kind": "difference", "of": [first, minus these…]},
    {"kind": "complement", "of": [one]}

where `of` takes names of other calendars and inline definitions. Days are integers, counted from 1970-01-01.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any, Final, NamedTuple

from schedules.timing.cron.calendar import LAST_DAY
from schedules.timing.spec_reading import Problems, Reader, suggest

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
KINDS: Final = ("holidays", "dates", "weekly", "union", "intersection", "difference", "complement")
MOST_DATES: Final = 5_000
MOST_MEMBERS: Final = 50
DEEPEST: Final = 10

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_YEARLY: Final = re.compile(r"(\d{2})-(\d{2})", re.ASCII)

Definition = dict[str, Any]
Reference = str | Definition


class Days(ABC):
    """A set of days."""

    known_until: int | None = None
    """The last day for which there are data; None: all of them."""

    @abstractmethod
    def __contains__(self, day: object) -> bool: ...

    def label(self, day: int) -> str:
        """What this day is called here, or ""."""
        return ""


class Holidays(Days):
    """Public holidays of a country or one of its subdivisions."""

    def __init__(self, country: str, subdivision: str | None, categories: tuple[str, ...], observed: bool) -> None:
        self._key = (country, subdivision, categories, observed)
        self.known_until = _day(date(min(_last_year(country), 2199), 12, 31))

    def __contains__(self, day: object) -> bool:
        return isinstance(day, int) and day in _holidays(*self._key, _date(day).year)

    def label(self, day: int) -> str:
        return _holidays(*self._key, _date(day).year).get(day, "")


class Dates(Days):
    """Single days, ranges, and days of every year. Only single days and ranges run out."""

    def __init__(self, ranges: Sequence[tuple[int, int]], yearly: frozenset[tuple[int, int]]) -> None:
        """`ranges` are (first, last) days, both included; `yearly` are (month, day)."""
        self._days = frozenset(day for first, last in ranges for day in range(first, last + 1))
        self._yearly = yearly
        self.known_until = max((last for _, last in ranges), default=None) if not yearly else None

    def __contains__(self, day: object) -> bool:
        if day in self._days or not self._yearly:
            return day in self._days
        moment = _date(day) if isinstance(day, int) else None
        return moment is not None and (moment.month, moment.day) in self._yearly


class Weekly(Days):
    """The same days of every week; Monday is 0."""

    def __init__(self, weekdays: frozenset[int]) -> None:
        self._weekdays = weekdays

    def __contains__(self, day: object) -> bool:
        return isinstance(day, int) and (day + 3) % 7 in self._weekdays

    def label(self, day: int) -> str:
        return WEEKDAYS[(day + 3) % 7].capitalize()


class Combined(Days):
    """Other calendars put together."""

    def __init__(self, kind: str, members: Sequence[Days]) -> None:
        self._kind = kind
        self._members = members
        known = [member.known_until for member in members if member.known_until is not None]
        self.known_until = min(known, default=None)

    def __contains__(self, day: object) -> bool:
        inside = (day in member for member in self._members)
        if self._kind == "union":
            return any(inside)
        if self._kind == "intersection":
            return all(inside)
        if self._kind == "complement":
            return not next(inside)
        return next(inside) and not any(inside)

    def label(self, day: int) -> str:
        return next((text for member in self._members if day in member and (text := member.label(day))), "")


def _day(moment: date) -> int:
    return moment.toordinal() - _EPOCH_ORDINAL


def _date(day: int) -> date:
    return date.fromordinal(min(max(day, -1), LAST_DAY + 2) + _EPOCH_ORDINAL)


@lru_cache(maxsize=8_192)
def _holidays(
    country: str, subdivision: str | None, categories: tuple[str, ...], observed: bool, year: int
) -> dict[int, str]:
    """The holidays of a year: day → name (in English where the package knows it)."""
    import holidays  # half a second and much memory, only for those who use it

    found = holidays.country_holidays(
        country, subdiv=subdivision, years=year, categories=categories or None, observed=observed
    )
    return {_day(moment): str(name) for moment, name in found.items()}


@lru_cache(maxsize=512)
def _last_year(country: str) -> int:
    import holidays

    return int(holidays.country_holidays(country).end_year)


# Reading definitions


def normalise_definition(definition: object, *, problems: Problems, path: str, depth: int = 0) -> Definition:
    """The canonical form of one definition; what is wrong goes to `problems` under `path`.

    Whether the names in it exist, and whether they go in circles, is for `check_names`.
    """
    reader = Reader(definition, path, problems)
    if not isinstance(definition, Mapping):
        return {}
    kind = reader.choice("kind", KINDS, default=None)
    if kind not in KINDS or reader.at("kind") in problems.fields:
        return {}
    if depth > DEEPEST:
        reader.add("kind", f"calendars nest at most {DEEPEST} deep; give the inner ones names")
        return {}
    canonical: Definition = {"kind": kind}
    if kind == "holidays":
        canonical |= _read_holidays(reader)
    elif kind == "dates":
        canonical |= _read_dates(reader)
    elif kind == "weekly":
        canonical["days"] = read_weekdays(reader, "days")
    else:
        members = reader.items("of", most=MOST_MEMBERS)
        if len(members) != 1 if kind == "complement" else not members:
            reader.add("of", "needs exactly one calendar" if kind == "complement" else "needs at least one calendar")
        canonical["of"] = [
            normalise_reference(member, problems=problems, path=reader.at(f"of.{index}"), depth=depth + 1)
            for index, member in enumerate(members)
        ]
    reader.finish()
    return canonical


def normalise_reference(reference: object, *, problems: Problems, path: str, depth: int = 0) -> Reference:
    """A calendar's name as it is, an inline definition in its canonical form."""
    if isinstance(reference, str) and 0 < len(reference.strip()) <= 200:
        return reference.strip()
    if isinstance(reference, Mapping):
        return normalise_definition(reference, problems=problems, path=path, depth=depth)
    problems.add(path, "must be the name of a calendar, or a definition")
    return ""


def read_weekdays(reader: Reader, name: str) -> list[str]:
    """A list of weekdays in their order; `mon` or `Monday` in any case."""
    found = set()
    values = reader.items(name, most=len(WEEKDAYS) * 2)
    if not values and reader.at(name) not in reader.problems.fields:
        reader.add(name, "needs at least one weekday: " + ", ".join(WEEKDAYS))
    for value in values:
        day = str(value).strip().lower()[:3]
        if day in WEEKDAYS and isinstance(value, str):
            found.add(day)
        else:
            reader.add(name, f"{str(value)[:20]!r} is not one of {', '.join(WEEKDAYS)}")
    return sorted(found, key=WEEKDAYS.index)


def _read_holidays(reader: Reader) -> Definition:
    import holidays

    country = reader.text("country", longest=3, required=True).upper()
    subdivision = reader.text("subdivision", longest=80)
    categories = [str(item).lower() for item in reader.items("categories", most=20)]
    canonical: Definition = {"country": country}
    if not reader.flag("observed", default=True):
        canonical["observed"] = False
    if not country:
        return canonical
    try:
        known = holidays.country_holidays(country)
    except NotImplementedError:
        reader.add("country", f"{country!r} is not a country that the holidays package knows (ISO 3166 code)")
        return canonical
    if subdivision:
        canonical["subdivision"] = subdivision
        try:
            holidays.country_holidays(country, subdiv=subdivision)
        except NotImplementedError:
            options = ", ".join(known.subdivisions) or "none"
            reader.add("subdivision", f"{subdivision!r} is not one of {country}: {options}")
    if categories:
        canonical["categories"] = sorted(set(categories))
        unknown = sorted(set(categories) - set(known.supported_categories))
        if unknown:
            reader.add("categories", f"{country} has {', '.join(known.supported_categories)}, not {', '.join(unknown)}")
    return canonical


def _read_dates(reader: Reader) -> Definition:
    ranges: list[tuple[date, date]] = []
    for index, entry in enumerate(reader.items("dates", most=MOST_DATES)):
        if isinstance(entry, Mapping):
            member = Reader(entry, reader.at(f"dates.{index}"), reader.problems)
            first, last = (
                _read_date(member, "from", member.take("from")),
                _read_date(member, "until", member.take("until")),
            )
            member.finish()
        else:
            first = last = _read_date(reader, f"dates.{index}", entry)
        if first is None or last is None:
            continue
        if last < first:
            reader.add(f"dates.{index}", "must not end before it begins")
        else:
            ranges.append((first, last))
    yearly = sorted({day for item in reader.items("yearly", most=366) if (day := _read_yearly(reader, item))})
    if not ranges and not yearly and not any(path.startswith(reader.path) for path in reader.problems.fields):
        reader.add("dates", "needs at least one date")
    canonical: Definition = {}
    if ranges:
        canonical["dates"] = [
            first.isoformat() if first == last else {"from": first.isoformat(), "until": last.isoformat()}
            for first, last in sorted(set(ranges))
        ]
    if yearly:
        canonical["yearly"] = yearly
    return canonical


def _read_date(reader: Reader, name: str, value: object) -> date | None:
    try:
        if type(value) is date:
            found = value
        else:
            found = date.fromisoformat(value) if isinstance(value, str) else date.min
        if 1970 <= found.year <= 2199:
            return found
    except ValueError:
        pass
    reader.add(name, "must be a date of 1970 to 2199, such as 2026-12-24")
    return None


def _read_yearly(reader: Reader, value: object) -> str:
    match = _YEARLY.fullmatch(value) if isinstance(value, str) else None
    try:
        if match is None:
            raise ValueError
        return date(2000, int(match[1]), int(match[2])).strftime("%m-%d")
    except ValueError:
        reader.add("yearly", f"{str(value)[:20]!r} is not a month and day such as 12-24")
        return ""


# Names


def names_in(reference: object) -> Iterator[str]:
    """The names of calendars that a reference or definition mentions itself."""
    if isinstance(reference, str):
        yield reference
    elif isinstance(reference, Mapping):
        members = reference.get("of")
        for member in members if isinstance(members, list | tuple) else ():
            yield from names_in(member)


def check_names(
    references: Sequence[tuple[str, Reference]], data: Mapping[str, Definition], *, problems: Problems
) -> list[str]:
    """The names that references, given with their paths, lead to, in order; unknown names and circles are problems."""
    reached: set[str] = set()
    for path, reference in references:
        for name in names_in(reference):
            _visit(name, (), data, reached, problems, path)
    return sorted(reached)


def _visit(
    name: str,
    trail: tuple[str, ...],
    data: Mapping[str, Definition],
    reached: set[str],
    problems: Problems,
    path: str,
) -> None:
    if name in trail:
        circle = (*trail[trail.index(name) :], name)
        problems.add(path, "the calendars go in a circle: " + " → ".join(circle))
    elif name not in data:
        within = f" (used by {trail[-1]!r})" if trail else ""
        problems.add(path, f"there is no calendar {name!r}{within}{suggest(name, sorted(data))}")
    elif len(trail) >= MOST_MEMBERS:
        problems.add(path, f"calendars refer to each other more than {MOST_MEMBERS} deep")
    elif name not in reached:
        for inner in names_in(data[name]):
            _visit(inner, (*trail, name), data, reached, problems, path)
        reached.add(name)


# Compiling


def compile_days(reference: Reference, data: Mapping[str, Definition], seen: dict[str, Days] | None = None) -> Days:
    """The days of a canonical reference; `data` has the definitions of all names, without circles."""
    seen = {} if seen is None else seen
    if isinstance(reference, str):
        if reference not in seen:
            seen[reference] = compile_days(data[reference], data, seen)
        return seen[reference]
    kind = reference["kind"]
    if kind == "holidays":
        return Holidays(
            reference["country"],
            reference.get("subdivision"),
            tuple(reference.get("categories", ())),
            reference.get("observed", True),
        )
    if kind == "dates":
        return Dates(
            [_range(entry) for entry in reference.get("dates", ())],
            frozenset((int(day[:2]), int(day[3:])) for day in reference.get("yearly", ())),
        )
    if kind == "weekly":
        return Weekly(frozenset(WEEKDAYS.index(day) for day in reference["days"]))
    return Combined(kind, [compile_days(member, data, seen) for member in reference["of"]])


def _range(entry: str | Mapping[str, str]) -> tuple[int, int]:
    if isinstance(entry, str):
        return (day := _day(date.fromisoformat(entry))), day
    return _day(date.fromisoformat(entry["from"])), _day(date.fromisoformat(entry["until"]))


class Exclusion(NamedTuple):
    """Why a day is not allowed: the calendar (its name, or its kind when inline) and what it calls the day."""

    calendar: str
    label: str


class DayRule:
    """The days on which a schedule may fire: none of `exclude`, and one of `only` where there are any."""

    def __init__(self, exclude: Sequence[tuple[str, Days]], only: Sequence[tuple[str, Days]]) -> None:
        """Both as (name, days)."""
        self.exclude = exclude
        self.only = only
        self._allowed: dict[int, bool] = {}

    def allows(self, day: int) -> bool:
        """Whether the schedule may fire on this local day."""
        allowed = self._allowed.get(day)
        if allowed is None:
            if len(self._allowed) > 20_000:
                self._allowed.clear()
            allowed = self._allowed[day] = self.why_not(day) is None
        return allowed

    def why_not(self, day: int) -> Exclusion | None:
        """What excludes this local day, or None when it is allowed."""
        for name, days in self.exclude:
            if day in days:
                return Exclusion(name, days.label(day))
        if self.only and not any(day in days for _, days in self.only):
            return Exclusion(" or ".join(name for name, _ in self.only), "not one of its days")
        return None

    def known_until(self) -> tuple[str, int] | None:
        """(name, last day) of the calendar whose data end first; None when none ends."""
        ends = [(days.known_until, name) for name, days in (*self.exclude, *self.only) if days.known_until is not None]
        return (min(ends)[1], min(ends)[0]) if ends else None
