"""Redrive jobs: many dead letters tried again at a measured pace, and how far each job is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from execution import redrives
from execution.admin import shown
from execution.admin.base import (
    Confirmation,
    Done,
    JSONText,
    Listed,
    ReadOnlyAdmin,
    Verb,
    WithNote,
    actor_of,
    note_field,
    tell,
)
from execution.dead_letters import Selection
from execution.models import Execution, RedriveItem, RedriveJob, Workflow
from execution.states import REDRIVE_JOB_TERMINAL
from scheduling_project.common.errors import DomainError

REDRIVE: Final = "execution.redrive_deadletter"
VIEW: Final = "execution.view_deadletter"
MOST_ITEMS: Final = 200
TONES: Final[Mapping[str, str]] = {"completed": "succeeded", "stopped": "failed", "cancelled": "cancelled"}


def _number(label: str, **options: Any) -> forms.IntegerField:
    return forms.IntegerField(
        label=label, required=False, min_value=1, widget=UnfoldAdminTextInputWidget(attrs={"type": "number"}), **options
    )


class JobForm(Confirmation):
    """Which letters, how, and at what pace."""

    fingerprint = forms.CharField(required=False, max_length=64, widget=UnfoldAdminTextInputWidget)
    workflow = forms.ModelChoiceField(
        Workflow.objects.order_by("name"), required=False, empty_label="Any", widget=UnfoldAdminSelectWidget
    )
    step = forms.CharField(required=False, max_length=100, widget=UnfoldAdminTextInputWidget)
    error_type = forms.CharField(required=False, max_length=300, widget=UnfoldAdminTextInputWidget)
    mode = forms.ChoiceField(
        choices=[("resume", "Resume at the failed step"), ("restart", "Restart as new executions")],
        widget=UnfoldAdminSelectWidget,
    )
    rate_per_minute = forms.FloatField(
        label="At most so many a minute (empty: no limit)",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "number", "step": "any"}),
    )
    max_failures = _number("Stop when so many failed again (empty: never)", initial=1)
    limit = _number("Only so many of the oldest (empty: all)")
    canary = forms.BooleanField(
        label="Canary: one first, then ten, then all, each time when the last have ended well",
        required=False,
        initial=True,
    )
    latest = forms.BooleanField(label="With restart: the version that is published then", required=False)
    input_patch = JSONText(
        label="Change of each one's input (JSON merge patch)",
        required=False,
        help_text='Such as {"invoice": {"currency": "EUR"}}: what it names is replaced, null removes it.',
    )
    note = note_field("Note (kept in the audit trail)")

    def selection(self) -> Selection:
        """The letters that were asked for."""
        values = self.cleaned_data
        return Selection(
            fingerprint=values["fingerprint"],
            workflow_id=values["workflow"].pk if values["workflow"] else None,
            step=values["step"],
            error_type=values["error_type"],
        )

    def options(self) -> dict[str, Any]:
        """The rest, as `redrives.create` takes it."""
        names = ("mode", "rate_per_minute", "max_failures", "limit", "canary", "latest", "input_patch", "note")
        return {name: self.cleaned_data[name] for name in names}


def _cancel(job: RedriveJob, values: Mapping[str, Any], actor: str) -> Done:
    redrives.cancel(job.pk, actor=actor, note=values["note"])
    return Done("It takes up no further letter; those under way go on.")


@admin.register(RedriveJob)
class RedriveJobAdmin(ReadOnlyAdmin):
    verbs: ClassVar[Any] = (
        Verb[RedriveJob](
            name="cancel",
            label="Cancel",
            icon="cancel",
            permission=REDRIVE,
            perform=_cancel,
            form=WithNote,
            danger=True,
            explanation="It takes up no further letter. Those under way go on.",
            available=lambda job: job.state not in REDRIVE_JOB_TERMINAL,
        ),
    )
    list_display = ("shown_job", "shown_state", "shown_progress", "shown_selection", "created_by", "created")
    ordering = ("-id",)
    add_text = "New redrive job"
    empty_text = (
        "No redrive job yet. A job tries many dead letters again: one first, then ten, then all, no faster than you "
        "allow, and it stops when they fail again. The groups on the page of dead letters lead here."
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(REDRIVE))

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(request.user.has_perm(VIEW))

    @admin.display(description="Job")
    def shown_job(self, job: RedriveJob) -> SafeString:
        return shown.link(job)

    @admin.display(description="State")
    def shown_state(self, job: RedriveJob) -> SafeString:
        return shown.badge(TONES.get(job.state, job.state), job.get_state_display(), title=job.state_reason)

    @admin.display(description="Progress")
    def shown_progress(self, job: RedriveJob) -> SafeString:
        return progress(job)

    @admin.display(description="Which letters")
    def shown_selection(self, job: RedriveJob) -> str:
        return ", ".join(f"{name}: {value}" for name, value in job.selection.items() if value) or "all that were open"

    @admin.display(description="Begun")
    def created(self, job: RedriveJob) -> SafeString:
        return shown.instant(job.created_at, relative=True)

    # ── A new one ────────────────────────────────────────────────────────────────────────────────────────────

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        wanted = {
            name: request.GET[name] for name in ("fingerprint", "workflow", "step", "error_type") if name in request.GET
        }
        form = JobForm(request.POST if request.method == "POST" else None, initial=wanted, prefix="job")
        if form.is_valid():
            try:
                job = redrives.create(form.selection(), actor=actor_of(request), **form.options())
            except DomainError as error:
                tell(form, error) if error.fields else form.add_error(None, error.message)
            else:
                messages.success(request, f"Begun with {job.total:,} letters. This page follows it.")
                return redirect(shown.page_of(job))
        context = {
            **self._page(request, "New redrive job"),
            "verb": {
                "name": "job",
                "label": "Begin",
                "explanation": "Tries every open dead letter again that satisfies all that is given here.",
            },
            "form": form,
            "subjects": [],
            "back": reverse("admin:execution_deadletter_changelist"),
        }
        return TemplateResponse(request, "admin/verb.html", context, status=400 if form.is_bound else 200)

    # ── The page of one ──────────────────────────────────────────────────────────────────────────────────────

    def detail(self, request: HttpRequest, job: RedriveJob) -> dict[str, Any]:
        items = Listed(("Letter", "State", "Reason", "Execution", "Took"), empty="It has no letter.")
        rows = RedriveItem.objects.filter(job=job).select_related("letter__workflow").order_by("position")
        for item in rows.defer("letter__traceback", "letter__step_input")[:MOST_ITEMS]:
            letter = item.letter
            items.rows.append(
                (
                    shown.link(
                        letter, f"{letter.error_type.rpartition('.')[2]} in {letter.workflow}.{letter.step_name}"
                    ),
                    shown.badge(item.state, item.get_state_display()),
                    item.reason or shown.NOTHING,
                    _execution(item),
                    shown.duration(item.started_at, item.finished_at),
                )
            )
        if job.total > MOST_ITEMS:
            items.more = f"The first {MOST_ITEMS} of {job.total:,}. The API lists every one."
        facts: list[tuple[str, Any]] = [
            ("State", self.shown_state(job)),
            ("Progress", progress(job)),
            ("Succeeded", f"{job.succeeded:,}"),
            ("Failed again or refused", f"{job.failed:,}"),
            ("Decided by others", f"{job.skipped:,}"),
            ("Under way", f"{job.under_way:,}"),
            ("Which letters", self.shown_selection(job)),
            ("How", job.mode + (" with the latest version" if job.latest else "")),
            ("Canary", "one, then ten, then all" if job.canary else "no"),
            ("Rate", f"{job.rate_per_minute:g} a minute" if job.rate_per_minute else "no limit"),
            ("Stops at failures", job.max_failures or "never"),
            ("Begun", shown.instant(job.created_at)),
            ("By", job.created_by),
        ]
        optional = (
            ("Why", job.state_reason),
            ("Change of the input", shown.json_text(job.input_patch) if job.input_patch else ""),
            ("Finished", job.finished_at and shown.instant(job.finished_at)),
            ("Note", job.note),
        )
        facts += [(label, value) for label, value in optional if value]
        return {"facts": facts, "tables": [("Letters", items)], "is_live": job.state not in REDRIVE_JOB_TERMINAL}


def progress(job: RedriveJob) -> SafeString:
    """How many of a job's letters are settled, as a meter."""
    settled = job.succeeded + job.failed + job.skipped
    share = round(100 * settled / job.total) if job.total else 100
    return format_html(
        '<span class="sp-meter" aria-hidden="true"><i style="width:{2}%"></i></span> {0} of {1}',
        settled,
        job.total,
        share,
    )


def _execution(item: RedriveItem) -> SafeString:
    if item.execution_id is None:
        return shown.NOTHING
    url = shown.address(Execution, item.execution_id)
    return format_html('<a class="sp-link sp-mono" href="{}">{}</a>', url, shown.short_id(item.execution_id))
