"""One change for many selected schedules: seen first, with a reason, and all of them or none."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from execution import priority
from execution.admin import shown
from execution.admin.base import Confirmation, JSONText, Listed, ReadOnlyAdmin, actor_of, note_field, tell
from schedules import bulk
from schedules.bulk import Bulk, BulkRefused
from schedules.models import Schedule
from schedules.states import CatchUpPolicy, OverlapPolicy
from scheduling_project.common.errors import DomainError

CHANGE: Final = "schedules.change_schedule"
AS_IT_IS: Final = ("", "As it is")
MOST_SHOWN: Final = 200


def _choice(label: str, choices: Any, **options: Any) -> forms.ChoiceField:
    return forms.ChoiceField(
        label=label, required=False, choices=[AS_IT_IS, *choices], widget=UnfoldAdminSelectWidget, **options
    )


class BulkForm(Confirmation):
    """What to change. What is left empty stays as it is."""

    priority = _choice("Priority", [(level, shown.priority_text(level)) for level in priority.LEVELS])
    overlap_policy = _choice("When the previous run is still going", OverlapPolicy.choices)
    catch_up = _choice("After a downtime", CatchUpPolicy.choices)
    timeout = forms.FloatField(
        label="Seconds an execution may take", required=False, min_value=0.001, widget=UnfoldAdminTextInputWidget
    )
    pause_on_failure = forms.IntegerField(
        label="Pause after so many failures in a row",
        required=False,
        min_value=1,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "number"}),
    )
    queue = forms.ChoiceField(
        required=False,
        choices=lambda: [AS_IT_IS, *((name, name) for name in settings.WORKFLOW_QUEUES)],
        widget=UnfoldAdminSelectWidget,
    )
    owner = forms.CharField(required=False, max_length=200, widget=UnfoldAdminTextInputWidget)
    input = JSONText(
        label="Input", required=False, help_text="In place of theirs; checked against each one's workflow."
    )
    note = note_field("Why (kept in the audit trail)", required=True)

    def changes(self) -> dict[str, Any]:
        """The fields that were given, as `bulk.update` takes them."""
        values = {name: value for name, value in self.cleaned_data.items() if name != "note"}
        given = {name: value for name, value in values.items() if value not in (None, "")}
        return given | ({"priority": int(given["priority"])} if "priority" in given else {})

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors and not self.changes():
            raise forms.ValidationError("Say what to change; everything is left as it is.")
        return cleaned


def change_many(admin: ReadOnlyAdmin, request: HttpRequest, selected: QuerySet[Schedule]) -> HttpResponse | None:
    """The action of the list: asks, shows what would happen, and does it."""
    if not request.user.has_perm(CHANGE):
        raise PermissionDenied
    keys = request.POST.getlist(ACTION_CHECKBOX_NAME)
    chosen = Schedule.objects.filter(pk__in=selected.values("pk"))
    is_asked = "confirmed" in request.POST
    form = BulkForm(request.POST if is_asked else None, prefix="bulk")
    seen: Bulk | None = None
    if is_asked and form.is_valid():
        is_trial = "apply" not in request.POST
        try:
            seen = bulk.update(
                chosen, form.changes(), actor=actor_of(request), note=form.cleaned_data["note"], dry_run=is_trial
            )
        except BulkRefused as error:
            messages.error(request, f"{error.message} Look again at what would be refused.")
            return redirect(request.get_full_path())
        except DomainError as error:
            tell(form, error) if error.fields else form.add_error(None, error.message)
        else:
            if not is_trial:
                untouched = f", {len(seen.unchanged)} had these values already" if seen.unchanged else ""
                messages.success(request, f"{len(seen.changed)} schedules are changed{untouched}.")
                return None
    context = {
        **admin._page(request, f"Change {len(keys)} schedules"),
        "form": form,
        "keys": keys,
        "checkbox_name": ACTION_CHECKBOX_NAME,
        "seen": seen,
        "table": None if seen is None else _table(seen),
        "back": request.get_full_path(),
    }
    status = 400 if form.is_bound and form.errors else 200
    return TemplateResponse(request, "admin/schedules/schedule/bulk.html", context, status=status)


def _table(seen: Bulk) -> Listed:
    table = Listed(("Schedule", "What", "Why"))
    table.rows += [(name, shown.badge("failed", "refuses"), why) for _, name, why in seen.refused[:MOST_SHOWN]]
    table.rows += [(name, shown.badge("succeeded", "changes"), shown.NOTHING) for _, name in seen.changed[:MOST_SHOWN]]
    table.rows += [
        (name, shown.badge("", "has these values"), shown.NOTHING) for _, name in seen.unchanged[:MOST_SHOWN]
    ]
    return table
