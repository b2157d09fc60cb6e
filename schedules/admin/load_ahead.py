"""What is coming, as a calendar: hours of a week, days of a month, and the list of fires behind each.

The same drawing of the coming week stands on the first page. Counting takes as long as there are timings, so it is
a part that the page fetches for itself, and what was counted is kept for a minute.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from execution.admin import shown
from execution.admin.base import Listed, ReadOnlyAdmin
from execution.models import AuditEntry
from schedules.agenda import LISTED, Agenda, agenda, last_of_month, listing, weeks
from schedules.models import Schedule, ScheduleFire
from schedules.timing.zones import UnknownZone, zone_of
from scheduling_project.common import clock
from scheduling_project.common.errors import DomainError

WEEK: Final = 7
KEPT_SECONDS: Final = 60
HOURS: Final = tuple(range(24))
#: Years around now that the calendar leads to.
YEARS: Final = 2


def view(admin: ReadOnlyAdmin, request: HttpRequest) -> HttpResponse:
    """`view=week|month|list`, `from` (a date), `zone`; `part` answers with the drawing of the coming week alone."""
    if not admin.may_view(request):
        raise PermissionDenied
    now = clock.now()
    zone = _zone(request.GET.get("zone", ""))
    today = now.astimezone(zone_of(zone).tzinfo).date()
    context: dict[str, Any] = {"zone": zone, "today": today, "hours": HOURS, "may_spread": _may_spread(request)}
    context["optimizer_url"] = reverse("admin:schedules_optimizationreport_changelist")
    if "part" in request.GET:
        context |= _week(today, zone, now) | {"is_part": True}
        return TemplateResponse(request, "admin/schedules/load/week.html", context)
    kind = request.GET.get("view", "week")
    try:
        if kind == "list":
            context |= _list(request, zone, now)
        elif kind == "month":
            context |= _month(_day(request, today).replace(day=1), zone, now)
        else:
            context |= _week(_day(request, today), zone, now)
    except DomainError as error:
        told = (f"{name}: {rule}" for name, rules in error.fields.items() for rule in rules)
        context |= {"problem": "; ".join(told) or error.message, "heading": "This cannot be counted"}
    context |= admin._page(request, "Agenda") | {"opts": None, "content_title": "Agenda"}
    context["tabs"] = [
        ("Week", address(view="week", zone=zone), kind not in {"month", "list"}),
        ("Month", address(view="month", zone=zone), kind == "month"),
    ]
    return TemplateResponse(request, "admin/schedules/load/page.html", context)


def address(**query: object) -> str:
    """The address of the agenda with a query."""
    return f"{reverse('admin:schedules_schedule_agenda')}?{urlencode({k: str(v) for k, v in query.items()})}"


def _may_spread(request: HttpRequest) -> bool:
    return bool(request.user.has_perm("schedules.view_optimizationreport"))


def _zone(name: str) -> str:
    """The zone that was asked for, or UTC where there is no such zone."""
    try:
        return zone_of(name).name if name else "UTC"
    except UnknownZone:
        return "UTC"


def _day(request: HttpRequest, today: date) -> date:
    """The day that was asked for, within some years of today."""
    try:
        asked = date.fromisoformat(request.GET.get("from", ""))
    except ValueError:
        return today
    reach = timedelta(days=366 * YEARS)
    return min(max(asked, today - reach), today + reach)


def _counted(first: date, days: int, zone: str, now: datetime) -> Agenda:
    """The agenda, as it was at most a minute ago, or when somebody last did something."""
    key = f"agenda:{first}:{days}:{zone}:{AuditEntry.objects.order_by('-id').values_list('id', flat=True).first()}"
    found: Agenda | None = cache.get(key)
    if found is None:
        found = agenda(first, days, timezone=zone, now=now)
        cache.set(key, found, KEPT_SECONDS)
    return found


def _week(first: date, zone: str, now: datetime) -> dict[str, Any]:
    seen = _counted(first, WEEK, zone, now)
    rows = [
        {
            "day": day,
            "total": seen.total_of(day),
            "cells": [cells.get(hour) for hour in HOURS],
        }
        for day, cells in seen.days.items()
    ]
    return {
        "kind": "week",
        "seen": seen,
        "rows": rows,
        "first": first,
        "moment": "minute" if seen.moment == timedelta(minutes=1) else "quarter of an hour",
        "heading": f"{first:%-d %B} to {first + timedelta(days=WEEK - 1):%-d %B %Y}",
        "before": address(view="week", zone=zone, **{"from": first - timedelta(days=WEEK)}),
        "after": address(view="week", zone=zone, **{"from": first + timedelta(days=WEEK)}),
        "agenda_url": address(view="week", zone=zone),
        "list_url": address(view="list", zone=zone),
    }


def _month(first: date, zone: str, now: datetime) -> dict[str, Any]:
    held = weeks(first)
    seen = _counted(held[0][0], len(held) * WEEK, zone, now)
    today = now.astimezone(seen.zone.tzinfo).date()
    fullest = max((seen.total_of(day) for day in seen.days), default=0)
    last = last_of_month(first)
    grid = [
        [
            {
                "day": day,
                "is_other": not first <= day <= last,
                "is_past": day < today,
                "total": seen.total_of(day),
                "peak": seen.peak_of(day),
                "level": -(-5 * seen.total_of(day) // fullest) if fullest else 0,
                "url": address(view="week", zone=zone, **{"from": day}),
            }
            for day in week
        ]
        for week in held
    ]
    return {
        "kind": "month",
        "seen": seen,
        "grid": grid,
        "heading": f"{first:%B %Y}",
        "before": address(view="month", zone=zone, **{"from": first - timedelta(days=1)}),
        "after": address(view="month", zone=zone, **{"from": last + timedelta(days=1)}),
        "ledger_url": shown.list_address(ScheduleFire),
    }


def _list(request: HttpRequest, zone: str, now: datetime) -> dict[str, Any]:
    """The fires of one hour, by schedule and instant."""
    try:
        asked = datetime.fromisoformat(request.GET.get("at", ""))
    except ValueError:
        asked = now
    start = (asked if asked.tzinfo else asked.replace(tzinfo=UTC)).astimezone(UTC)
    reach = timedelta(days=366 * YEARS)
    start = min(max(start, now - reach), now + reach)
    tzinfo = zone_of(zone).tzinfo
    end = start + timedelta(hours=1) - timedelta(minutes=start.astimezone(tzinfo).minute)
    found = listing(start, end, timezone=zone, now=now)
    table = Listed(("When", "In UTC", "Schedule"), empty="Nothing fires in this hour.")
    for instant, key, name in found.fires:
        local = instant.astimezone(tzinfo)
        table.rows.append((f"{local:%H:%M:%S}", f"{instant:%H:%M:%S}", _linked(key, name)))
    if found.total > len(table.rows):
        table.more = f"The first {LISTED} of {found.total:,}."
    local = start.astimezone(tzinfo)
    return {
        "kind": "list",
        "table": table,
        "heading": f"{local:%A, %-d %B %Y, %H:%M} to {end.astimezone(tzinfo):%H:%M}",
        "total": found.total,
        "before": address(view="list", zone=zone, at=(start - timedelta(hours=1)).isoformat()),
        "after": address(view="list", zone=zone, at=end.isoformat()),
        "week_url": address(view="week", zone=zone, **{"from": local.date()}),
    }


def _linked(key: str, name: str) -> SafeString:
    return format_html('<a class="sp-link" href="{}">{}</a>', shown.address(Schedule, key), name)
