"""Calendars: named sets of days, the people's own data."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminTextInputWidget

from execution import audit
from execution.admin.base import JSONText, actor_of, tell
from schedules.models import Calendar
from scheduling_project.common.errors import DomainError

FIELDS = ("name", "description", "definition")


class CalendarForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's class takes no parameter at run time
    definition = JSONText(label="Definition", help_text="Kind and data, as the reference of timetables describes.")

    class Meta:
        model = Calendar
        fields = FIELDS
        widgets = {"name": UnfoldAdminTextInputWidget, "description": UnfoldAdminTextInputWidget}

    def _post_clean(self) -> None:
        """The model's own check speaks of fields as the API does."""
        try:
            super()._post_clean()  # type: ignore[misc]  # private in Django, absent from its stubs
        except DomainError as error:
            tell(self, error)


@admin.register(Calendar)
class CalendarAdmin(ModelAdmin):  # type: ignore[misc]
    """Named sets of days. Schedule versions keep the definition that they were made with."""

    form = CalendarForm
    list_display = ("name", "kind", "description", "revision", "updated_at")
    search_fields = ("name",)
    fields = FIELDS

    def save_model(self, request: HttpRequest, obj: Calendar, form: forms.ModelForm[Calendar], change: bool) -> None:
        with transaction.atomic():
            before: dict[str, Any] = {}
            if change:
                stored = Calendar.objects.select_for_update().get(pk=obj.pk)
                before = {name: getattr(stored, name) for name in FIELDS}
                obj.revision = stored.revision + 1
            obj.save()
            audit.record(
                actor=actor_of(request),
                action="calendar.update" if change else "calendar.create",
                subject_kind="calendar",
                subject_id=obj.pk,
                subject_label=obj.name,
                changes=audit.difference(before, {name: getattr(obj, name) for name in FIELDS}),
            )
