"""The forms of schedules: what people type, and how it becomes values of the lifecycle functions."""

from __future__ import annotations

import json
from typing import Any, Final

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from execution import priority
from execution.admin import shown
from execution.admin.base import Confirmation, JSONText, note_field
from execution.models import Workflow
from schedules.models import Schedule
from schedules.states import CatchUpPolicy, OnConflict, OnResume, OverlapPolicy
from scheduling_project.common.errors import DomainError, InvalidInput

#: Fields of the form that are the model's own.
PLAIN: Final = (
    "name",
    "workflow",
    "input",
    "priority",
    "overlap_policy",
    "catch_up",
    "catch_up_window",
    "max_executions",
    "pause_on_failure",
    "queue",
    "timeout",
    "retry_policy",
    "concurrency_key",
    "on_conflict",
    "description",
    "owner",
    "external_id",
    "labels",
    "metadata",
)
#: What an empty field means.
EMPTY: Final[dict[str, Any]] = {"input": {}, "labels": {}, "metadata": {}, "external_id": None}


def _number_field(label: str, *, least: int = 1) -> forms.IntegerField:
    return forms.IntegerField(
        label=label, required=False, min_value=least, widget=UnfoldAdminTextInputWidget(attrs={"type": "number"})
    )


def _text_field(label: str, most: int, help_text: str = "") -> forms.CharField:
    return forms.CharField(
        label=label, required=False, max_length=most, widget=UnfoldAdminTextInputWidget, help_text=help_text
    )


class OnConflictField(forms.CharField):
    """One word for all conflicts, or a JSON object of words by kind."""

    widget = UnfoldAdminTextInputWidget

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or OnConflict.WARN.value
        return JSONText().to_python(text) if text.startswith("{") else text

    def prepare_value(self, value: Any) -> Any:
        return json.dumps(value) if isinstance(value, dict) else value


class TriggerForm(Confirmation):
    input = JSONText(label="Input", required=False, help_text="Checked against the workflow's input schema.")
    priority = forms.TypedChoiceField(
        required=False,
        choices=[("", "As the schedule says"), *((level, shown.priority_text(level)) for level in priority.LEVELS)],
        coerce=int,
        empty_value=None,
        widget=UnfoldAdminSelectWidget,
    )
    note = note_field()


class CloneForm(Confirmation):
    name = forms.CharField(label="Name of the new schedule", max_length=200, widget=UnfoldAdminTextInputWidget)
    is_paused = forms.BooleanField(label="Paused at first", required=False)


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
    note = note_field()
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
    catch_up_window = _number_field("Seconds after which a late instant is missed (empty: a day)", least=0)
    max_executions = _number_field("Most executions, ever")
    pause_on_failure = _number_field("Pause after so many failures in a row")
    queue = forms.ChoiceField(
        required=False,
        choices=lambda: [("", "As the workflow says"), *((name, name) for name in settings.WORKFLOW_QUEUES)],
        widget=UnfoldAdminSelectWidget,
    )
    timeout = forms.FloatField(
        label="Seconds an execution may take", required=False, min_value=0.001, widget=UnfoldAdminTextInputWidget
    )
    retry_policy = JSONText(label="Retry policy (JSON)", required=False, help_text="Instead of the workflow's.")
    concurrency_key = _text_field("Concurrency key", 255, "Runs with one key wait for each other.")
    on_conflict = OnConflictField(
        label="On conflicts",
        required=False,
        help_text="warn, ignore or reject, or a JSON object of these by kind of conflict.",
    )
    owner = _text_field("Owner", 200)
    external_id = _text_field("External id", 200, "Its name in another system.")
    labels = JSONText(label="Labels (JSON)", required=False, help_text="Names and texts.")
    metadata = JSONText(label="Metadata (JSON)", required=False)
    description = forms.CharField(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}))
    note = note_field("Note (kept in the audit trail)")
    revision = forms.IntegerField(required=False, widget=forms.HiddenInput)

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
        for name, empty in EMPTY.items():
            if values[name] in (None, ""):
                values[name] = empty
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
        "revision": schedule.revision,
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
