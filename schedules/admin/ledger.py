"""The ledger of all schedules: how each due instant ended. Read only."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from execution.admin import shown
from execution.admin.base import ReadOnlyAdmin
from schedules.models import BackfillFire, ScheduleFire


def span_of(fire: ScheduleFire) -> SafeString:
    """The instant of an entry, or the run of instants that it stands for."""
    if fire.until is None:
        return shown.instant(fire.scheduled_for)
    first, last = shown.instant(fire.scheduled_for), shown.instant(fire.until)
    return format_html("{} – {} <b>({}×)</b>", first, last, f"{fire.count:,}")


def outcome_of(fire: ScheduleFire) -> SafeString:
    return shown.badge(fire.outcome, fire.get_outcome_display())


def reason_of(fire: ScheduleFire) -> str:
    return ": ".join(part for part in (fire.get_reason_display(), fire.note) if part)


def execution_of(fire: ScheduleFire | BackfillFire) -> SafeString:
    if fire.execution is None:
        return shown.NOTHING
    return format_html(
        '<a class="sp-link sp-mono" href="{}">{}</a> {}',
        shown.page_of(fire.execution),
        shown.short_id(fire.execution_id),
        shown.badge(fire.execution.state, fire.execution.get_state_display()),
    )


@admin.register(ScheduleFire)
class ScheduleFireAdmin(ReadOnlyAdmin):
    list_display = ("instants", "shown_schedule", "outcome_badge", "why", "shown_execution", "recorded")
    list_display_links = ("instants",)
    list_select_related = ("schedule", "execution", "version")
    list_filter = (("schedule", AutocompleteSelectFilter), "reason")
    list_filter_submit = True
    ordering = ("-id",)
    chips_field = "outcome"
    empty_text = "Nothing has been due yet. Every due instant ends here, also those that started nothing."

    @admin.display(description="Instant")
    def instants(self, fire: ScheduleFire) -> SafeString:
        return span_of(fire)

    @admin.display(description="Schedule")
    def shown_schedule(self, fire: ScheduleFire) -> SafeString:
        return shown.link(fire.schedule)

    @admin.display(description="Outcome")
    def outcome_badge(self, fire: ScheduleFire) -> SafeString:
        return outcome_of(fire)

    @admin.display(description="Reason")
    def why(self, fire: ScheduleFire) -> str:
        return reason_of(fire) or "–"

    @admin.display(description="Execution")
    def shown_execution(self, fire: ScheduleFire) -> SafeString:
        return execution_of(fire)

    @admin.display(description="Recorded")
    def recorded(self, fire: ScheduleFire) -> SafeString:
        return shown.instant(fire.recorded_at, relative=True)

    def title_of(self, fire: ScheduleFire) -> str:
        return f"{fire.schedule.name}, {fire.scheduled_for:%Y-%m-%d %H:%M:%S} UTC"

    def facts(self, fire: ScheduleFire) -> list[tuple[str, Any]]:
        return [
            ("Schedule", shown.link(fire.schedule)),
            ("Instant", span_of(fire)),
            ("Due", shown.instant(fire.due_at)),
            ("Outcome", outcome_of(fire)),
            ("Reason", reason_of(fire) or shown.NOTHING),
            ("Execution", execution_of(fire)),
            ("Version", f"v{fire.version.number}"),
            ("Recorded", shown.instant(fire.recorded_at)),
        ]
