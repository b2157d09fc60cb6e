"""Backfills: the list, the page of one with its progress, beginning one from a schedule's page, and cancelling it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget, UnfoldBooleanSwitchWidget

from execution import priority
from execution.admin import shown
from execution.admin.base import Confirmation, Done, JSONText, Listed, ReadOnlyAdmin, Verb, note_field
from schedules import backfill
from schedules.admin.ledger import execution_of
from schedules.backfill_plan import Estimate, Share
from schedules.models import Backfill, Schedule
from schedules.states import BackfillOrder, BackfillState
from scheduling_project.common.errors import InvalidInput

RUN: Final = "schedules.run_schedule"
CANCEL: Final = "schedules.cancel_backfill"
LATEST: Final = 30


def _instant(label: str) -> forms.DateTimeField:
    widget = UnfoldAdminTextInputWidget(attrs={"type": "datetime-local", "step": "1"})
    return forms.DateTimeField(label=f"{label}, in UTC (included)", widget=widget)


def _number(label: str, *, required: bool) -> forms.IntegerField:
    widget = UnfoldAdminTextInputWidget(attrs={"type": "number"})
    return forms.IntegerField(label=label, required=required, min_value=1, max_value=2**31 - 1, widget=widget)


def _switch(label: str) -> forms.BooleanField:
    return forms.BooleanField(label=label, required=False, widget=UnfoldBooleanSwitchWidget)


class BackfillForm(Confirmation):
    """What a backfill needs to know. Without `start` it only tells what it would do."""

    since = _instant("From")
    until = _instant("To")
    gaps_only = _switch("Only instants that did not start")
    ignore_calendars = _switch("Also what calendars and blackouts keep from firing")
    order = forms.ChoiceField(choices=BackfillOrder.choices, widget=UnfoldAdminSelectWidget)
    max_running = _number("Executions at once", required=True)
    per_minute = _number("Starts in a minute (empty: any number)", required=False)
    priority = forms.TypedChoiceField(
        choices=[
            ("", "Lower than the schedule's"),
            *((level, shown.priority_text(level)) for level in priority.LEVELS),
        ],
        coerce=int,
        empty_value=None,
        required=False,
        widget=UnfoldAdminSelectWidget,
    )
    input = JSONText(label="Input (empty: the schedule's)", required=False)
    note = note_field("Note (kept in the audit trail)")
    start = _switch("Start it (off: only show what it would do)")


class CancelForm(Confirmation):
    stop_running = _switch("Also cancel its executions that still run")
    note = note_field("Why (kept in the audit trail)")


def _begin(schedule: Schedule, values: Mapping[str, Any], actor: str) -> Done:
    given = dict(values)
    note = given.pop("note")
    if not given.pop("start"):
        raise InvalidInput(fields={"start": [described(backfill.plan(schedule.pk, **given))]})
    made = backfill.create(schedule.pk, actor=actor, note=note, **given)
    return Done(f"{made.total:,} instants are started now, one after the other.", shown.page_of(made))


def described(found: Estimate) -> str:
    """An estimate in a few sentences."""
    parts = [f"It would start {found.instants:,} executions ({found.step_runs:,} steps)"]
    if found.first and found.last:
        parts.append(f"from {found.first:%Y-%m-%d %H:%M:%S} to {found.last:%Y-%m-%d %H:%M:%S} UTC")
    if found.seconds is not None:
        parts.append(f"in {shown.seconds_text(found.seconds)} at least")
    if found.run_seconds is not None:
        parts.append(f"one usually takes {shown.seconds_text(found.run_seconds)}")
    parts += [_share("queue", share) for share in found.queues] + [_share("pool", share) for share in found.pools]
    if found.ran:
        parts.append(f"{found.ran:,} instants of the range started before")
    if found.excluded:
        parts.append(f"{found.excluded:,} are left out by calendars and blackouts")
    return "; ".join(parts) + "."


def _share(kind: str, share: Share) -> str:
    taken = "there are none now" if share.share is None else f"{share.share:.0%}"
    return f"{share.used} of the {share.slots} slots of {kind} {share.name} ({taken})"


BEGIN: Final = Verb[Schedule](
    name="backfill",
    label="Backfill",
    icon="history",
    permission=RUN,
    perform=_begin,
    form=BackfillForm,
    initial=lambda schedule: {
        "gaps_only": True,
        "order": BackfillOrder.OLDEST,
        "max_running": 1,
        "until": schedule.fired_through.replace(microsecond=0),
    },
    as_page=True,
    explanation="Runs past instants after all. It works while the schedule is paused and counts against no maximum.",
    available=lambda schedule: schedule.version is not None,
)


def _cancel(subject: Backfill, values: Mapping[str, Any], actor: str) -> Done:
    backfill.cancel(subject.pk, actor=actor, **values)
    return Done("Cancelled. Nothing more of it starts.")


@admin.register(Backfill)
class BackfillAdmin(ReadOnlyAdmin):
    verbs = (
        Verb[Backfill](
            name="cancel",
            label="Cancel",
            icon="cancel",
            permission=CANCEL,
            perform=_cancel,
            form=CancelForm,
            danger=True,
            available=lambda subject: subject.state == BackfillState.RUNNING,
        ),
    )
    list_display = (
        "span",
        "shown_schedule",
        "shown_state",
        "shown_progress",
        "shown_priority",
        "created_by",
        "created",
    )
    list_display_links = ("span",)
    list_select_related = ("schedule",)
    ordering = ("-id",)
    chips_field = "state"
    empty_text = "No backfill yet. Begin one on a schedule's page."

    @admin.display(description="Instants")
    def span(self, subject: Backfill) -> SafeString:
        return format_html("{} – {}", shown.instant(subject.since), shown.instant(subject.until))

    @admin.display(description="Schedule")
    def shown_schedule(self, subject: Backfill) -> SafeString:
        return shown.link(subject.schedule)

    @admin.display(description="State")
    def shown_state(self, subject: Backfill) -> SafeString:
        return shown.badge(subject.state, subject.get_state_display().lower(), title=subject.error)

    @admin.display(description="Started")
    def shown_progress(self, subject: Backfill) -> str:
        return f"{subject.started:,} of {subject.total:,}"

    @admin.display(description="Priority")
    def shown_priority(self, subject: Backfill) -> str:
        return str(shown.priority_text(subject.priority))

    @admin.display(description="Begun")
    def created(self, subject: Backfill) -> SafeString:
        return shown.instant(subject.created_at, relative=True)

    def title_of(self, subject: Backfill) -> str:
        return f"Backfill of {subject.schedule.name}"

    def detail(self, request: HttpRequest, subject: Backfill) -> dict[str, Any]:
        started = Listed(("Instant", "Started", "Execution"), empty="Nothing has started yet.")
        for fire in subject.fires.select_related("execution").order_by("-scheduled_for")[:LATEST]:
            started.rows.append((shown.instant(fire.scheduled_for), shown.instant(fire.started_at), execution_of(fire)))
        return {"facts": self.facts(subject), "tables": [("Latest instants", started)], "is_live": True}

    def facts(self, subject: Backfill) -> list[tuple[str, Any]]:
        done = backfill.progress(subject.pk)
        optional = (("Error", subject.error), ("Note", subject.note), ("Starts in a minute", subject.per_minute))
        return [
            ("Schedule", shown.link(subject.schedule)),
            ("State", self.shown_state(subject)),
            ("Instants", self.span(subject)),
            ("Of these", "gaps only" if subject.gaps_only else "all"),
            ("Started", self.shown_progress(subject)),
            ("Running", f"{done.running:,}"),
            ("Succeeded", f"{done.succeeded:,}"),
            ("Failed", f"{done.failed:,}"),
            ("Order", subject.get_order_display()),
            ("At once", f"{subject.max_running:,}"),
            ("Priority", self.shown_priority(subject)),
            ("By", subject.created_by or shown.NOTHING),
            ("Begun", shown.instant(subject.created_at)),
            ("Ended", shown.instant(subject.finished_at)),
            *((label, value) for label, value in optional if value),
        ]
