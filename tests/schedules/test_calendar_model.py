"""Calendars as rows: what is pinned into a spec, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from schedules.models import Calendar
from schedules.timing.occurrences import SpecError, calendar_names, normalise

pytestmark = pytest.mark.django_db

WEEKEND = {"kind": "weekly", "days": ["sat", "sun"]}


def calendar(name: str, definition: dict[str, Any]) -> Calendar:
    made = Calendar(name=name, definition=definition)
    made.clean()
    made.save()
    return made


def test_definitions_bring_all_that_they_mention() -> None:
    calendar("weekend", WEEKEND)
    calendar("holidays", {"kind": "holidays", "country": "de"})
    calendar("off", {"kind": "union", "of": ["weekend", "holidays"]})
    calendar("unused", WEEKEND)
    raw: dict[str, Any] = {"timetables": [{"kind": "interval", "every": 60}], "calendars": {"exclude": ["off"]}}
    raw["calendars"]["data"] = Calendar.objects.definitions(calendar_names(raw))
    assert normalise(raw)["calendars"]["data"] == {
        "holidays": {"kind": "holidays", "country": "DE"},
        "off": {"kind": "union", "of": ["weekend", "holidays"]},
        "weekend": WEEKEND,
    }
    assert Calendar.objects.definitions(["nothing"]) == {}


def test_a_calendar_is_brought_into_its_canonical_form() -> None:
    made = calendar("weekend", {"kind": "weekly", "days": ["Sunday", "SAT"]})
    assert made.definition == WEEKEND
    assert made.kind == "weekly"
    assert str(made) == "weekend"
    assert Calendar(name="x", definition=[]).kind == ""


@pytest.mark.parametrize(
    ("definition", "rule"),
    [
        ({"kind": "weekly", "days": []}, "at least one weekday"),
        ({"kind": "union", "of": ["nowhere"]}, "no calendar 'nowhere'"),
        ({"kind": "union", "of": ["off"]}, "circle: weekend → off → weekend"),
    ],
)
def test_what_cannot_be_meant_is_refused(definition: dict[str, Any], rule: str) -> None:
    calendar("weekend", WEEKEND)
    calendar("off", {"kind": "complement", "of": ["weekend"]})
    weekend = Calendar.objects.get(name="weekend")
    weekend.definition = definition
    with pytest.raises(SpecError, match=rule):
        weekend.clean()
