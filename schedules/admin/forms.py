"""The forms of schedules: what people type, and how it becomes values of the lifecycle functions."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from execution import priority
from execution.admin import shown
from execution.admin.base import Confirmation, JSONText, note_field
from execution.models import Workflow
from schedules.models import Schedule
from schedules.states import CatchUpPolicy, OnResume, OverlapPolicy
from scheduling_project.common.errors import DomainError, InvalidInput

#: Fields of the form that are the model's own.
PLAIN: Final = (
    "name",
    "workflow",
    "input",
    "priority",
    "overlap_policy",
    "catch_up",
    "max_executions",
    "pause_on_failure",
    "description",
)


def _number_field(label: str) -> forms.IntegerField:
    return forms.IntegerField(
        label=label, required=False, min_value=1, widget=UnfoldAdminTextInputWidget(attrs={"type": "number"})
    )


class TriggerForm(Confirmation):
    input = JSONText(label="Input", required=False, help_text="Checked against the workflow's input schema.")
    note = note_field()


class PauseForm(Confirmation):
    note = note_field("Why (everybody sees it)")
    until = forms.DateTimeField(
        label="Until, in UTC (empty: until somebody resumes it)",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"}),
    )
    on_resume = forms.ChoiceField(
        label="When it ends by itself, what about the instants that it covered?",
        choices=OnResume.choices,
        initial=OnResume.SKIP,
        widget=UnfoldAdminSelectWidget,
    )


class ResumeForm(Confirmation):
    missed = forms.ChoiceField(
        label="What about the instants that the pause covered?",
        choices=OnResume.choices,
        initial=OnResume.SKIP,
        widget=UnfoldAdminSelectWidget,
    )


class DeleteForm(Confirmation):
    note = note_field("Why (kept in the audit trail)")


class ScheduleForm(Confirmation):
    """Everything that people decide about a schedule. The timing is a cron expression or a whole spec."""

    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    workflow = forms.ModelChoiceField(
        Workflow.objects.filter(published__isnull=False).order_by("name"), widget=UnfoldAdminSelectWidget
    )
    cron_expression = forms.CharField(
        required=False,
        max_length=1000,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "0 2 * * *", "class": "sp-code"}),
        help_text="Five, six or seven fields, or a nickname such as @hourly. Leave it empty to give a spec.",
    )
    timezone = forms.CharField(
        required=False,
        initial="UTC",
        max_length=100,
        widget=UnfoldAdminTextInputWidget,
        help_text="IANA name, such as Europe/Berlin. A spec names its own.",
    )
    spec = JSONText(
        label="Spec (JSON)",
        required=False,
        help_text="For several timetables, intervals, recurrence rules, calendars, blackouts and jitter.",
    )
    input = JSONText(label="Input", required=False, help_text="Checked against the workflow's input schema.")
    priority = forms.TypedChoiceField(
        choices=[(level, shown.priority_text(level)) for level in priority.LEVELS],
        coerce=int,
        initial=priority.NORMAL,
        widget=UnfoldAdminSelectWidget,
    )
    overlap_policy = forms.ChoiceField(
        label="When the previous run is still going",
        choices=OverlapPolicy.choices,
        initial=OverlapPolicy.SKIP,
        widget=UnfoldAdminSelectWidget,
    )
    catch_up = forms.ChoiceField(
        label="After a downtime",
        choices=CatchUpPolicy.choices,
        initial=CatchUpPolicy.ALL,
        widget=UnfoldAdminSelectWidget,
    )
    max_executions = _number_field("Most executions, ever")
    pause_on_failure = _number_field("Pause after so many failures in a row")
    description = forms.CharField(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}))
    note = note_field("Note (kept in the audit trail)")

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors and not cleaned.get("cron_expression") and cleaned.get("spec") is None:
            raise ValidationError({"cron_expression": "Give a cron expression, or a spec below."})
        if not self.errors and cleaned.get("cron_expression") and cleaned.get("spec") is not None:
            raise ValidationError({"cron_expression": "Give a cron expression or a spec, not both."})
        return cleaned

    def values(self) -> dict[str, Any]:
        """What the lifecycle functions take."""
        values = {name: self.cleaned_data[name] for name in (*PLAIN, "spec")}
        if expression := self.cleaned_data["cron_expression"]:
            timetable = {"kind": "cron", "expression": expression}
            values["spec"] = {"timezone": self.cleaned_data["timezone"] or "UTC", "timetables": [timetable]}
        values["input"] = {} if values["input"] is None else values["input"]
        return values


def form_values(schedule: Schedule | None) -> dict[str, Any]:
    """What the form shows first: one plain cron expression as such, anything richer as a spec."""
    if schedule is None:
        return {}
    spec = dict(schedule.version.spec) if schedule.version else {}
    timetables = spec.get("timetables", [])
    only = timetables[0] if len(timetables) == 1 else {}
    is_plain = (
        only.get("kind") == "cron"
        and only.keys() <= {"kind", "expression"}
        and spec.keys() <= {"timezone", "timetables"}
    )
    return {
        **{name: getattr(schedule, name) for name in PLAIN},
        "cron_expression": only["expression"] if is_plain else "",
        "timezone": spec.get("timezone", "UTC"),
        "spec": None if is_plain else spec,
    }


def beside_what_was_typed(error: DomainError, *, typed_cron: bool) -> DomainError:
    """The same refusal, with rules about a spec that was made of the cron fields beside those fields."""
    if not typed_cron:
        return error
    places = {"spec.timezone": "timezone", "timezone": "timezone"}
    fields = {}
    for name, rules in error.fields.items():
        is_timing = name.startswith(("spec", "timetables"))
        fields[places.get(name) or ("cron_expression" if is_timing else name)] = rules
    return InvalidInput(error.message, fields=fields)
