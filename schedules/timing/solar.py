"""Solar events at a place, with `ephem` and the very settings of `celery.schedules.solar`.

The result of an astronomical search depends, in its last digits, on where it starts. To be the same second whoever
asks, each event is computed from one fixed start per solar day: midway between two of its kind, by mean solar time
at the place's longitude, so that the equation of time (a quarter of an hour) never carries it across.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from schedules.timing.spec_reading import LAST_INSTANT
from schedules.timing.timetables import DAY, Timetable

_RISING, _NOON, _SETTING = "next_rising", "next_transit", "next_setting"
_EVENTS: Final = {
    "dawn_astronomical": (_RISING, "-18", True),
    "dawn_nautical": (_RISING, "-12", True),
    "dawn_civil": (_RISING, "-6", True),
    "sunrise": (_RISING, "-0:34", False),
    "solar_noon": (_NOON, "0", False),
    "sunset": (_SETTING, "-0:34", False),
    "dusk_civil": (_SETTING, "-6", True),
    "dusk_nautical": (_SETTING, "-12", True),
    "dusk_astronomical": (_SETTING, "-18", True),
}
EVENTS: Final = tuple(_EVENTS)
_STARTS: Final = {_RISING: -6 * 3600, _NOON: 0, _SETTING: 6 * 3600}
"""When the search of a day begins, in seconds of mean solar time."""
_EPHEM_EPOCH: Final = 25_567.5
"""1970-01-01T00:00Z in days since ephem's epoch, 1899-12-31T12:00Z."""
_LONGEST_ABSENCE: Final = 400
"""Days; an event that does not come for longer, as at the poles, never comes."""


class Solar(Timetable):
    """A solar event at a place, at most one a solar day; none on days on which the sun does not reach its height."""

    def __init__(self, event: str, latitude: float, longitude: float) -> None:
        """`event` is one of EVENTS; degrees north and east."""
        self.event = event
        self.latitude = latitude
        self.longitude = longitude
        self._origin = _STARTS[_EVENTS[event][0]] - round(longitude * 240)

    def next_after(self, after: int) -> int | None:
        after = max(after, -1)
        if after > LAST_INSTANT:
            return None
        day = (after - self._origin) // DAY
        for number in range(day, day + _LONGEST_ABSENCE):
            found = _event(self.event, self.latitude, self.longitude, self._origin + number * DAY)
            if found is not None and found > after:
                return found if found <= LAST_INSTANT else None
        return None

    def describe(self) -> str:
        north, east = "N" if self.latitude >= 0 else "S", "E" if self.longitude >= 0 else "W"
        name = "solar noon" if self.event == "solar_noon" else " ".join(reversed(self.event.split("_")))
        return f"At {name}, {abs(self.latitude):g}°{north} {abs(self.longitude):g}°{east}"


@lru_cache(maxsize=65_536)
def _event(event: str, latitude: float, longitude: float, start: int) -> int | None:
    """The event in the 24 hours from `start` (epoch seconds), to the nearest second, or None."""
    import ephem as untyped_ephem  # only who has such a schedule needs it

    ephem: Any = untyped_ephem  # its stubs know only a part of it
    method, horizon, use_center = _EVENTS[event]
    observer = ephem.Observer()
    observer.lat, observer.lon = str(latitude), str(longitude)
    observer.elevation, observer.pressure, observer.horizon = 0, 0, horizon
    options = {"use_center": True} if use_center else {}
    try:
        found = getattr(observer, method)(ephem.Sun(), start=start / DAY + _EPHEM_EPOCH, **options)
    except ephem.CircumpolarError:
        return None
    instant = round((float(found) - _EPHEM_EPOCH) * DAY)
    return instant if start <= instant < start + DAY else None
