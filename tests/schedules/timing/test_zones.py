"""Zones as windows: exactly what `zoneinfo` says, for every zone of the pinned database."""

from __future__ import annotations

import io
import zoneinfo
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from importlib.metadata import version
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from schedules.timing import zones
from schedules.timing.zones import FOREVER, TZDATA_VERSION, Transition, UnknownZone, footer_changes, parse_tzif, zone_of
from tests.schedules.timing.cron_oracle import utc


def seconds(offset: timedelta | None) -> int:
    assert offset is not None
    return int(offset.total_seconds())


def test_every_window_of_every_zone_is_what_zoneinfo_says() -> None:
    for name in sorted(zoneinfo.available_timezones()):
        zone, info = zone_of(name), ZoneInfo(name)
        for start in zone.starts[1:]:
            for instant in (start - 1, start):
                assert zone.offset(instant) == seconds(datetime.fromtimestamp(instant, info).utcoffset()), name
        for year in range(1970, 2201, 3):
            instant = utc(year, 7, 15)
            assert zone.offset(instant) == seconds(datetime.fromtimestamp(instant, info).utcoffset()), name


def test_windows_are_longer_than_the_jumps_between_them() -> None:
    # The search relies on it: a local second comes at most twice, and the starts ascend on the local clock too.
    for name in sorted(zoneinfo.available_timezones()):
        zone = zone_of(name)
        assert list(zone.local_starts) == sorted(zone.local_starts), name
        assert list(zone.local_ends) == sorted(zone.local_ends), name


def test_the_database_is_the_pinned_one_and_says_its_version() -> None:
    assert zoneinfo.TZPATH == ()
    before = ZoneInfo("Europe/Berlin")
    zones.use_pinned_tzdata()
    assert ZoneInfo("Europe/Berlin") is before  # once is enough
    assert TZDATA_VERSION[:4] == version("tzdata")[:4]
    assert TZDATA_VERSION[4:].isalpha()


def test_a_zone_is_loaded_once_by_name_and_by_object() -> None:
    assert zone_of("Europe/Berlin") is zone_of("Europe/Berlin")
    assert zone_of(ZoneInfo("Europe/Berlin")) is zone_of(ZoneInfo("Europe/Berlin"))
    assert repr(zone_of("UTC")) == "Zone('UTC', 1 windows)"
    assert zone_of("Europe/Berlin").tzinfo is ZoneInfo("Europe/Berlin")


def test_fixed_offsets_have_one_window() -> None:
    zone = zone_of(timezone(-timedelta(hours=3, minutes=30)))
    assert zone.offsets == (-12600,)
    assert zone.starts == (-FOREVER,)
    assert zone_of(UTC).offset(0) == 0


class OwnZone(tzinfo):
    """A kind of tzinfo whose rules nobody can read."""

    __hash__ = None  # type: ignore[assignment]


NO_ZONES = ["Mars/Olympus", "", "/etc/passwd", "../UTC", "posix\0", "a" * 5000, OwnZone(), 5, None]


@pytest.mark.parametrize("wrong", NO_ZONES)
def test_what_is_no_zone_is_refused(wrong: object) -> None:
    with pytest.raises(UnknownZone):
        zone_of(wrong)  # type: ignore[arg-type]


def test_a_zone_object_must_have_a_name_of_the_database() -> None:
    data = Path(str(zones.importlib.resources.files("tzdata"))).joinpath("zoneinfo", "Europe", "Berlin").read_bytes()
    with pytest.raises(UnknownZone, match="without a key"):
        zone_of(ZoneInfo.from_file(io.BytesIO(data)))
    with pytest.raises(UnknownZone, match="Own/Zone"):
        zone_of(ZoneInfo.from_file(io.BytesIO(data), key="Own/Zone"))
    assert zone_of(ZoneInfo.from_file(io.BytesIO(data), key="Europe/Berlin")).offset(utc(2025, 7, 1)) == 7200


def test_the_cache_of_zones_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zones, "_zones", {})
    monkeypatch.setattr(zones, "_CACHE_LIMIT", 3)
    for minutes in range(10):
        zone_of(timezone(timedelta(minutes=minutes)))
        assert len(zones._zones) <= 3


def test_transitions_tell_gaps_from_overlaps() -> None:
    spring, autumn = zone_of("Europe/Berlin").transitions(utc(2025, 1, 1), utc(2025, 12, 31))
    assert spring == Transition(utc(2025, 3, 30, 1), 3600, 7200)
    assert spring.is_gap
    assert not autumn.is_gap
    assert spring.missing_or_repeated == (utc(2025, 3, 30, 2), utc(2025, 3, 30, 3))
    assert autumn.missing_or_repeated == (utc(2025, 10, 26, 2), utc(2025, 10, 26, 3))
    assert zone_of("UTC").transitions(-FOREVER, FOREVER) == []
    assert zone_of("Europe/Berlin").transitions(spring.at, autumn.at - 1) == []


FOOTERS = [
    # rule, year, (month, day, hour, minute) UTC and the new offset, twice
    ("EST5EDT,M3.2.0,M11.1.0", 2200, (3, 9, 7, 0, -14400), (11, 2, 6, 0, -18000)),
    ("IST-1GMT0,M10.5.0,M3.5.0/1", 2100, (3, 28, 1, 0, 3600), (10, 31, 1, 0, 0)),
    ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", 2100, (4, 3, 15, 0, 37800), (10, 2, 15, 30, 39600)),
    ("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", 2100, (3, 28, 1, 0, -3600), (10, 31, 1, 0, -7200)),
    ("EET-2EEST,M3.4.4/50,M10.4.4/50", 2100, (3, 27, 0, 0, 10800), (10, 29, 23, 0, 7200)),
    ("AAA0BBB,J60/0,J365/0", 2096, (3, 1, 0, 0, 3600), (12, 30, 23, 0, 0)),
    ("AAA0BBB,J59/0,J60/0", 2097, (2, 28, 0, 0, 3600), (2, 28, 23, 0, 0)),
    ("AAA0BBB,59/0,60/0", 2096, (2, 29, 0, 0, 3600), (2, 29, 23, 0, 0)),
    ("AAA0BBB,59/0,60/0", 2097, (3, 1, 0, 0, 3600), (3, 1, 23, 0, 0)),
]


@pytest.mark.parametrize(("rule", "year", "first", "second"), FOOTERS)
def test_a_posix_rule_carries_a_zone_on(
    rule: str, year: int, first: tuple[int, int, int, int, int], second: tuple[int, int, int, int, int]
) -> None:
    begin, end = utc(year, 1, 1), utc(year + 1, 1, 1)
    changes = [change for change in footer_changes(rule, -FOREVER) if begin <= change[0] < end]
    assert changes == [(utc(year, *when[:4]), when[4]) for when in (first, second)]
    later = footer_changes(rule, changes[0][0])
    assert later[0] == changes[1]


def test_a_rule_without_summer_time_changes_nothing() -> None:
    assert footer_changes("", 0) == []
    assert footer_changes("JST-9", 0) == []


def test_other_files_are_no_tzif() -> None:
    for data in [b"", b"TZif", b"TZif1" + b"\0" * 60, b"ZONE2" + b"\0" * 60]:
        with pytest.raises(ValueError, match="TZif"):
            parse_tzif(data)
