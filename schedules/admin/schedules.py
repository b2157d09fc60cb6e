"""Schedules: the list, adding and editing with a preview, and the page of one with its verbs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from execution.admin import shown
from execution.admin.base import Done, Listed, ReadOnlyAdmin, Verb, actor_of, tell
from execution.admin.workflows import history_of, listed_executions
from execution.models import Execution
from schedules import change_preview, conflict_facts, lifecycle
from schedules.admin import bulk_page, load_ahead
from schedules.admin.backfills import BEGIN
from schedules.admin.forms import (
    CloneForm,
    DeleteForm,
    PauseForm,
    ResumeForm,
    ScheduleForm,
    TriggerForm,
    beside_what_was_typed,
    form_values,
)
from schedules.admin.ledger import execution_of, outcome_of, reason_of, span_of
from schedules.admin.timing_tables import (
    NEXT,
    change_tables,
    clock_changes_table,
    next_table,
    seen_of,
    timing_of,
    versions_table,
)
from schedules.change_preview import ChangePreview
from schedules.claims import SOURCE_KIND
from schedules.conflicts import ON_SAVE
from schedules.models import Schedule, ScheduleFire
from schedules.states import ConflictSeverity, OnConflict, PauseKind
from schedules.timing.preview import Preview, preview
from scheduling_project.common import clock
from scheduling_project.common.errors import DomainError

CHANGE: Final = "schedules.change_schedule"
HISTORY: Final = 60
LATEST: Final = 12
LEDGER: Final = 30

#: The state whose colour a conflict has.
TONES: Final[Mapping[str, str]] = {
    ConflictSeverity.NOTICE: "",
    ConflictSeverity.WARNING: "retryable",
    ConflictSeverity.ERROR: "failed",
}


# ── Verbs ────────────────────────────────────────────────────────────────────────────────────────────────────


def _trigger(schedule: Schedule, values: Mapping[str, Any], actor: str) -> Done:
    started = lifecycle.trigger(
        schedule.pk, actor=actor, input=values.get("input"), priority=values.get("priority"), note=values["note"]
    )
    return Done("Started beside the timetable. This page follows it.", shown.page_of(started))


def _pause(schedule: Schedule, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.pause(schedule.pk, actor=actor, note=values["note"], until=values["until"], on_resume=values["on_resume"])
    return Done(f"{schedule.name} is paused.")


def _resume(schedule: Schedule, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.resume(schedule.pk, actor=actor, missed=values["missed"], note=values["note"])
    return Done(f"{schedule.name} fires again.")


def _clone(schedule: Schedule, values: Mapping[str, Any], actor: str) -> Done:
    changes: dict[str, Any] = {"enabled": False} if values["is_paused"] else {}
    copy = lifecycle.clone(schedule.pk, name=values["name"], actor=actor, **changes)
    return Done(f"{copy.name} is like {schedule.name}.", shown.page_of(copy))


def _delete(schedule: Schedule, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.delete(schedule.pk, actor=actor, note=values["note"])
    return Done(f"{schedule.name} is deleted.", reverse("admin:schedules_schedule_changelist"))


VERBS: Final = (
    Verb[Schedule](
        name="run",
        label="Run now",
        permission="schedules.run_schedule",
        perform=_trigger,
        form=TriggerForm,
        initial=lambda schedule: {"input": schedule.input},
        primary=True,
        explanation="Starts one execution beside the timetable. It works while the schedule is paused.",
    ),
    Verb[Schedule](
        name="resume",
        label="Resume",
        icon="resume",
        permission="schedules.pause_schedule",
        perform=_resume,
        form=ResumeForm,
        many=True,
        available=lambda schedule: not schedule.enabled and schedule.pause_kind != PauseKind.FINISHED,
    ),
    Verb[Schedule](
        name="pause",
        label="Pause",
        icon="pause",
        permission="schedules.pause_schedule",
        perform=_pause,
        form=PauseForm,
        many=True,
        explanation="Nothing fires from now on. What was due before still does.",
        available=lambda schedule: schedule.enabled,
    ),
    BEGIN,
    Verb[Schedule](
        name="clone",
        label="Clone",
        icon="content_copy",
        permission="schedules.add_schedule",
        perform=_clone,
        form=CloneForm,
        initial=lambda schedule: {"name": f"{schedule.name[:190]} (copy)"},
        explanation="A new schedule like this one. Its history starts anew.",
    ),
    Verb[Schedule](
        name="delete",
        label="Delete",
        icon="delete",
        permission="schedules.delete_schedule",
        perform=_delete,
        form=DeleteForm,
        danger=True,
        explanation="Its versions and its ledger go too. Executions that it started stay, and run to their end.",
    ),
)


# ── The admin ────────────────────────────────────────────────────────────────────────────────────────────────


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    verbs = VERBS
    detail_template = "admin/schedules/schedule/detail.html"
    list_display = ("shown_name", "timing", "state", "next_fire", "last_fire", "overlap_policy", "shown_workflow")
    list_display_links = None
    list_select_related = ("workflow", "version")
    list_filter = (("workflow", AutocompleteSelectFilter), "overlap_policy", "pause_kind")
    list_filter_submit = True
    search_fields = ("name", "external_id", "owner")
    sortable_by = ("shown_name", "next_fire", "last_fire")
    ordering = ("name",)
    chips_field = "enabled"
    chips_choices: ClassVar[Any] = (("1", "Active", "good"), ("0", "Paused", "warn"))
    empty_text = "No schedule yet. Add one: a workflow, a cron expression, a time zone."

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("schedules.add_schedule"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        found: QuerySet[Schedule] = super().get_queryset(request)
        return found.select_related("workflow", "version")

    @admin.display(description="Schedule", ordering="name")
    def shown_name(self, schedule: Schedule) -> SafeString:
        return format_html('<a class="sp-link sp-strong" href="{}">{}</a>', shown.page_of(schedule), schedule.name)

    @admin.display(description="When")
    def timing(self, schedule: Schedule) -> SafeString:
        return format_html('<span class="sp-cut" title="{0}">{0}</span>', timing_of(schedule))

    @admin.display(description="State")
    def state(self, schedule: Schedule) -> SafeString:
        if schedule.enabled:
            return shown.badge("enabled", "active")
        if schedule.pause_kind == PauseKind.FINISHED:
            return shown.badge("", "finished")
        is_bad = schedule.pause_kind in {PauseKind.FAILURES, PauseKind.ERROR}
        return shown.badge("failed" if is_bad else "retryable", "paused", title=schedule.pause_note)

    @admin.display(description="Next", ordering="next_fire_at")
    def next_fire(self, schedule: Schedule) -> SafeString:
        return shown.instant(schedule.next_fire_at if schedule.enabled else None, relative=True)

    @admin.display(description="Last", ordering="last_fire_at")
    def last_fire(self, schedule: Schedule) -> SafeString:
        return shown.instant(schedule.last_fire_at, relative=True)

    @admin.display(description="Workflow")
    def shown_workflow(self, schedule: Schedule) -> SafeString:
        return shown.link(schedule.workflow)

    # ── Add and edit ─────────────────────────────────────────────────────────────────────────────────────────

    def get_urls(self) -> list[URLPattern]:
        return [
            path(
                "<uuid:schedule_id>/edit/", self.admin_site.admin_view(self.edit_view), name="schedules_schedule_edit"
            ),
            path("agenda/", self.admin_site.admin_view(self.agenda_view), name="schedules_schedule_agenda"),
            *super().get_urls(),
        ]

    def agenda_view(self, request: HttpRequest) -> HttpResponse:
        """What all schedules have ahead, as a calendar."""
        return load_ahead.view(self, request)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        return self._form_page(request, None)

    def edit_view(self, request: HttpRequest, schedule_id: Any) -> HttpResponseBase:
        """Change a schedule; what is typed can be previewed before it is saved."""
        if not (self.may_view(request) and request.user.has_perm(CHANGE)):
            raise PermissionDenied
        schedule = self.get_object(request, str(schedule_id))
        if schedule is None:
            response: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, str(schedule_id))
            return response
        return self._form_page(request, schedule)

    def _form_page(self, request: HttpRequest, schedule: Schedule | None) -> HttpResponseBase:
        form = ScheduleForm(request.POST if request.method == "POST" else None, initial=form_values(schedule))
        seen: Preview | None = None
        changed: ChangePreview | None = None
        if form.is_bound and form.is_valid():
            try:
                if "preview" not in request.POST:
                    return self._save(request, schedule, form)
                seed = str(schedule.pk) if schedule else form.cleaned_data["name"]
                if schedule is not None:
                    changed = change_preview.preview(schedule.pk, lambda: self._update(request, schedule, form))
                seen = preview(form.values()["spec"], now=int(clock.now().timestamp()), count=NEXT, seed=seed)
            except DomainError as error:
                typed_cron = bool(form.cleaned_data.get("cron_expression"))
                told = beside_what_was_typed(error, typed_cron=typed_cron)
                if told.fields:
                    tell(form, told)
                else:
                    form.add_error(None, error.message)
        context = {
            **self._page(request, f"Edit {schedule.name}" if schedule else "Add a schedule", schedule),
            "form": form,
            "label": "Save" if schedule else "Create",
            "preview": None if seen is None else next_table(seen),
            "described": seen.description if seen else "",
            "changes": None if changed is None else change_tables(changed, _zone_of(seen)),
            "warnings": _warnings(seen, changed),
            "back": shown.page_of(schedule) if schedule else reverse("admin:schedules_schedule_changelist"),
        }
        status = 400 if form.is_bound and form.errors else 200
        return TemplateResponse(request, "admin/schedules/schedule/form.html", context, status=status)

    def _save(self, request: HttpRequest, schedule: Schedule | None, form: ScheduleForm) -> HttpResponse:
        actor, note = actor_of(request), form.cleaned_data["note"]
        if schedule is None:
            saved = lifecycle.create(actor=actor, note=note, **form.values())
            messages.success(request, f"{saved.name} is scheduled.")
        else:
            saved = self._update(request, schedule, form)
            messages.success(request, "Saved. What was due before now has fired as it was defined then.")
        for warning in conflict_facts.warnings_of(saved):
            messages.warning(request, warning["message"])
        return redirect(shown.page_of(saved))

    def _update(self, request: HttpRequest, schedule: Schedule, form: ScheduleForm) -> Schedule:
        revision, note = form.cleaned_data["revision"], form.cleaned_data["note"]
        return lifecycle.update(schedule.pk, form.values(), actor=actor_of(request), revision=revision, note=note)

    # ── Many at once ─────────────────────────────────────────────────────────────────────────────────────────

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions = super().get_actions(request)
        if request.user.has_perm(CHANGE):
            actions["change-many"] = (bulk_page.change_many, "change-many", "Change…")
        return actions

    # ── The page of one ──────────────────────────────────────────────────────────────────────────────────────

    def detail(self, request: HttpRequest, schedule: Schedule) -> dict[str, Any]:
        seen = seen_of(schedule)
        runs = Execution.objects.filter(source_kind=SOURCE_KIND, source_id=str(schedule.pk)).order_by("-id")
        latest = list(runs.defer("input", "retry_policy")[:HISTORY])
        edit_url = reverse("admin:schedules_schedule_edit", args=[schedule.pk])
        return {
            "schedule": schedule,
            "edit_url": edit_url if request.user.has_perm(CHANGE) else "",
            "timing": timing_of(schedule),
            "warnings": [warning.message for warning in seen.warnings] if seen else [],
            "facts": self.facts(schedule),
            "history": history_of(latest[::-1]),
            "spec": shown.json_text(schedule.version.spec if schedule.version else None),
            "input": shown.json_text(schedule.input),
            "tables": [
                ("Conflicts", conflicts_of(schedule)),
                (f"Next {NEXT}", next_table(seen, is_paused=not schedule.enabled)),
                *_clock_changes(seen),
                ("Latest executions", listed_executions(latest[:LATEST])),
                ("Ledger", _ledger(schedule)),
                ("Versions", versions_table(schedule)),
            ],
            "is_live": True,
        }

    def facts(self, schedule: Schedule) -> list[tuple[str, Any]]:
        most = schedule.max_executions
        optional: tuple[tuple[str, Any], ...] = (
            ("Description", schedule.description),
            ("Owner", schedule.owner),
            ("Queue", schedule.queue),
            ("Failures in a row", schedule.consecutive_failures),
            ("Pause after failures", schedule.pause_on_failure),
            ("Concurrency key", schedule.concurrency_key),
            ("External id", schedule.external_id),
            ("Labels", ", ".join(f"{name}: {text}" for name, text in sorted(schedule.labels.items()))),
            ("Timeout", schedule.timeout and shown.seconds_text(schedule.timeout)),
            ("Retry policy", schedule.retry_policy and shown.json_text(schedule.retry_policy)),
            ("Catch-up window", schedule.catch_up_window and shown.seconds_text(schedule.catch_up_window)),
            ("On conflicts", "" if schedule.on_conflict == OnConflict.WARN else json.dumps(schedule.on_conflict)),
            ("Metadata", shown.json_text(schedule.metadata) if schedule.metadata else ""),
        )
        return [
            ("State", self.state(schedule)),
            ("Workflow", shown.link(schedule.workflow)),
            ("Next", self.next_fire(schedule)),
            ("Last", self.last_fire(schedule)),
            ("Fired up to", shown.instant(schedule.fired_through)),
            ("Overlap", schedule.get_overlap_policy_display()),
            ("After a downtime", schedule.get_catch_up_display()),
            ("Priority", shown.priority_text(schedule.priority)),
            ("Started", f"{schedule.started_count:,}" + (f" of {most:,}" if most else "")),
            *((label, value) for label, value in optional if value),
        ]


def _zone_of(seen: Preview | None) -> str:
    return seen.timing.zone.name if seen else "UTC"


def _warnings(seen: Preview | None, changed: ChangePreview | None) -> list[str]:
    told = [warning.message for warning in seen.warnings] if seen else []
    return (
        told + [warning["message"] for warning in changed.warnings if warning["message"] not in told]
        if changed
        else told
    )


def _clock_changes(seen: Preview | None) -> list[tuple[str, Listed]]:
    table = clock_changes_table(seen, now=int(clock.now().timestamp())) if seen else None
    return [("Clock changes", table)] if table else []


def conflicts_of(schedule: Schedule) -> Listed:
    """What gets in its way in the coming week. The page asks again and again, so it looks no further than a save."""
    found = conflict_facts.of(schedule, bounds=ON_SAVE)
    table = Listed(("Kind", "What", "First", "With"), empty="None in the next seven days.")
    for finding in found.findings:
        first = datetime.fromtimestamp(finding.instants[0], UTC) if finding.instants else None
        others = format_html_join(
            ", ",
            '<a class="sp-link" href="{}">{}</a>',
            ((shown.address(Schedule, key), name) for key, name in finding.others[:5]),
        )
        table.rows.append(
            (
                shown.badge(TONES[finding.severity], str(finding.code).replace("_", " ")),
                finding.message,
                shown.instant(first) if first else shown.NOTHING,
                others or shown.NOTHING,
            )
        )
    if found.truncated:
        table.more = "There may be more: only the likeliest were compared. The API looks further."
    return table


def _ledger(schedule: Schedule) -> Listed:
    table = Listed(
        ("Instant", "Outcome", "Reason", "Execution", "Recorded"),
        empty="Nothing has been due yet. Every instant will stand here.",
    )
    fires = ScheduleFire.objects.filter(schedule=schedule).select_related("execution").order_by("-scheduled_for")
    for fire in fires[:LEDGER]:
        table.rows.append(
            (span_of(fire), outcome_of(fire), reason_of(fire), execution_of(fire), shown.instant(fire.recorded_at))
        )
    if len(table.rows) == LEDGER:
        table.more = f"The latest {LEDGER}. The ledger's own list has all."
    return table
