"""What a schedule says about time, as words and tables: its next fires, what changes of clocks do to it, versions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from execution import workflows
from execution.admin import shown
from execution.admin.base import Listed
from execution.workflows import Change
from schedules.change_preview import ChangePreview
from schedules.changes import DAYS
from schedules.models import Schedule, ScheduleVersion
from schedules.timing import occurrences
from schedules.timing.preview import Preview, change_at, preview
from schedules.timing.zones import Transition, zone_of
from scheduling_project.common import clock
from scheduling_project.common.errors import DomainError

#: What a spec from the database may raise when it is compiled: one bad row must not break a page.
UNREADABLE: Final = (ValueError, DomainError, KeyError, TypeError)

CHANGES: Final[Mapping[str, str]] = {
    "moved": "this local time does not exist that day: fires when the clock has jumped",
    "first pass": "this local time comes twice that day: the first",
    "second pass": "this local time comes twice that day: the second",
}
SHORT_CHANGES: Final[Mapping[str, str]] = {
    "moved": "its time does not exist",
    "first pass": "the first of two",
    "second pass": "the second of two",
}

NEXT: Final = 10
MOST_VERSIONS: Final = 20
MOST_FIRES: Final = 20
MOST_TRANSITIONS: Final = 3
DAY: Final = 86_400
#: Seconds ahead in which changes of clocks are looked for, and around one in which fires are.
AHEAD: Final = 400 * DAY
AROUND: Final = 3 * 3_600
MOST_AROUND: Final = 5


def timing_of(schedule: Schedule) -> str:
    """What a schedule says about time, in plain English. Never raises."""
    if schedule.version is None:
        return "No timing yet"
    return described(schedule.version.spec, seed=str(schedule.pk))


def described(spec: Mapping[str, Any], *, seed: str) -> str:
    """A spec in plain English. Never raises."""
    try:
        return occurrences.compile(spec, seed=seed).describe()
    except UNREADABLE as error:
        return f"The timing cannot be computed: {error}"


def seen_of(schedule: Schedule) -> Preview | None:
    """What a schedule will do; None where `timing_of` tells why that cannot be said."""
    if schedule.version is None:
        return None
    try:
        return preview(schedule.version.spec, now=int(clock.now().timestamp()), count=NEXT, seed=str(schedule.pk))
    except UNREADABLE:
        return None


def next_table(seen: Preview | None, *, is_paused: bool = False) -> Listed:
    """The next fires, in the schedule's zone and in UTC, with what the clock does to them."""
    if seen is None:
        return Listed((), empty="The timing cannot be computed.")
    zone = seen.timing.zone
    is_utc = zone.name == "UTC"
    headings = ("UTC",) if is_utc else (zone.name, "UTC")
    table = Listed((*headings, "From now", "Remark"), empty="Never: nothing is left to fire.")
    for fire in seen.fires:
        nominal = datetime.fromtimestamp(fire.instant.nominal, UTC)
        local = datetime.fromtimestamp(fire.instant.nominal, zone.tzinfo)
        remarks = [CHANGES.get(fire.change, fire.change)] if fire.change else []
        if fire.instant.due != fire.instant.nominal:
            late = shown.seconds_text(fire.instant.due - fire.instant.nominal)
            remarks.append(f"fires {late} later (jitter or blackout)")
        table.rows.append(
            (
                format_html('<span class="sp-strong">{}</span>', f"{local:%a %Y-%m-%d %H:%M:%S %Z}"),
                *(() if is_utc else (f"{nominal:%Y-%m-%d %H:%M:%S}",)),
                shown.instant(nominal, relative=True),
                "; ".join(remarks) or shown.NOTHING,
            )
        )
    if is_paused and table.rows:
        table.more = "The schedule is paused: none of these fires until it is resumed."
    elif seen.skipped:
        table.more = f"{len(seen.skipped)} instants in between are kept from firing by calendars or blackouts."
    return table


def clock_changes_table(seen: Preview, *, now: int) -> Listed | None:
    """What the next changes of the clocks do to a schedule; None where its zone has none.

    Args:
        now: epoch seconds.
    """
    zone = seen.timing.zone
    transitions = zone.transitions(now, now + AHEAD)[:MOST_TRANSITIONS]
    if not transitions:
        return None
    table = Listed(("When", "The clock", f"This schedule fires ({zone.name})"))
    for change in transitions:
        fires = seen.timing.between(change.at - AROUND, change.at + AROUND)
        near = [instant.nominal for _, instant in zip(range(MOST_AROUND + 1), fires, strict=False) if not instant.skip]
        cells = [(_local(nominal, seen), _mark(seen, nominal)) for nominal in near[:MOST_AROUND]]
        told = format_html_join("", "<div>{}{}</div>", cells) or SafeString("not within three hours of it")
        more = SafeString("<div>…</div>" if len(near) > MOST_AROUND else "")
        local = datetime.fromtimestamp(change.at - 1, zone.tzinfo)
        table.rows.append((f"{local:%a %Y-%m-%d}", _jump(change), format_html("{}{}", told, more)))
    return table


def _local(nominal: int, seen: Preview) -> str:
    return f"{datetime.fromtimestamp(nominal, seen.timing.zone.tzinfo):%H:%M:%S %Z}"


def _mark(seen: Preview, nominal: int) -> SafeString:
    change = change_at(seen.timing, nominal)
    return format_html(' <span class="sp-badge sp-warn">{}</span>', SHORT_CHANGES[change]) if change else SafeString("")


def _jump(change: Transition) -> str:
    before, after = (f"{datetime.fromtimestamp(change.at + offset, UTC):%H:%M}" for offset in change[1:])
    return f"goes {'forward' if change.is_gap else 'back'} from {before} to {after}"


def versions_table(schedule: Schedule) -> Listed:
    """What it said about time, version by version, and what each changed."""
    table = Listed(("Version", "In force from", "Says", "What changed", "By", "tzdata"), empty="No version yet.")
    versions = list(schedule.versions.order_by("-number")[: MOST_VERSIONS + 1])
    for version, before in pairwise([*versions, None]):
        assert version is not None
        if len(table.rows) == MOST_VERSIONS:
            table.more = f"The latest {MOST_VERSIONS}."
            break
        table.rows.append(
            (
                f"v{version.number}",
                shown.instant(version.effective_from),
                described(version.spec, seed=str(schedule.pk)),
                changed(before, version),
                version.created_by or shown.NOTHING,
                version.tzdata,
            )
        )
    return table


def changed(before: ScheduleVersion | None, version: ScheduleVersion) -> SafeString:
    """The differences of two versions' specs, from and to."""
    if before is None:
        return shown.NOTHING
    return shown.differences(workflows.diff(before.spec, version.spec))


def change_tables(seen: ChangePreview, zone: str) -> list[tuple[str, Listed]]:
    """What a change would do: per field from and to, and the fires of the coming weeks that come, go or move."""
    fields = Listed(("Field", "What changes"), empty="No field changes.")
    for name, values in seen.differences.items():
        changes = workflows.diff(values["before"], values["after"]) or [Change("", "changed", **values)]
        fields.rows.append((name.replace("_", " "), shown.differences(changes)))
    fires = Listed(
        ("What", f"Fire ({zone})"), empty=f"No fire of the next {DAYS} days changes; {seen.fires.kept:,} stay."
    )
    tzinfo = zone_of(zone).tzinfo

    def local(instant: int) -> str:
        return f"{datetime.fromtimestamp(instant, tzinfo):%a %Y-%m-%d %H:%M:%S %Z}"

    rows = [
        *((shown.badge("retryable", "moves"), format_html("<s>{}</s> → <b>{}</b>", local(was), local(will)), was)
          for was, will in seen.fires.moved),
        *((shown.badge("failed", "goes"), format_html("<s>{}</s>", local(at)), at) for at in seen.fires.removed),
        *((shown.badge("succeeded", "comes"), local(at), at) for at in seen.fires.added),
    ]  # fmt: skip
    rows.sort(key=lambda row: row[2])
    fires.rows = [row[:2] for row in rows[:MOST_FIRES]]
    if rows:
        counted = f"{len(seen.fires.moved):,} move, {len(seen.fires.removed):,} go, {len(seen.fires.added):,} come"
        fires.more = f"In the next {DAYS} days {counted}, {seen.fires.kept:,} stay."
    return [("What would change", fields), ("Fires", fires)]
