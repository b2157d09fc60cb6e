"""Calendars: named sets of days, the people's own data. Saving and deleting call the functions that the API calls."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminTextInputWidget

from execution.admin.base import JSONText, actor_of, tell
from schedules import shared_calendars
from schedules.models import Calendar
from scheduling_project.common.errors import DomainError


class CalendarForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's class takes no parameter at run time
    definition = JSONText(label="Definition", help_text="Kind and data, as the reference of timetables describes.")
    read_revision = forms.IntegerField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Calendar
        fields = shared_calendars.FIELDS
        widgets = {"name": UnfoldAdminTextInputWidget, "description": UnfoldAdminTextInputWidget}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None:
            self.fields["read_revision"].initial = self.instance.revision

    def clean(self) -> dict[str, Any]:
        """Try it: what the function refuses is told beside the field, before anything is saved."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        try:
            with transaction.atomic():
                save(self, actor="")
                transaction.set_rollback(True)
        except DomainError as error:
            tell(self, error)
            if not error.fields:
                self.add_error(None, error.message)
        return cleaned

    def _save_m2m(self) -> None:
        """Nothing: a calendar has no relations."""

    save_m2m = _save_m2m

    def _post_clean(self) -> None:
        """Nothing: the calendar is made and checked by `schedules.shared_calendars` alone."""


def save(form: CalendarForm, *, actor: str) -> Calendar:
    """Make or change the calendar as the form says.

    Raises:
        InvalidInput, Conflict: the function refuses.
        StaleVersion: somebody else has saved it since the form was read.
    """
    values = {name: form.cleaned_data[name] for name in shared_calendars.FIELDS}
    if form.instance.pk is None:
        return shared_calendars.create(actor=actor, **values)
    revision = form.cleaned_data.get("read_revision")
    return shared_calendars.update(form.instance.pk, values, actor=actor, revision=revision)


@admin.register(Calendar)
class CalendarAdmin(ModelAdmin):  # type: ignore[misc]
    """Named sets of days. Schedule versions keep the definition that they were made with."""

    form = CalendarForm
    list_display = ("name", "kind", "description", "revision", "updated_at")
    search_fields = ("name",)
    fields = (*shared_calendars.FIELDS, "read_revision")
    actions = ("apply_to_schedules",)

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Calendar:
        """The instance as it was: `save_model` writes."""
        instance: Calendar = form.instance
        return instance

    def save_model(self, request: HttpRequest, obj: Calendar, form: Any, change: bool) -> None:
        saved = save(form, actor=actor_of(request))
        for field in Calendar._meta.concrete_fields:
            setattr(obj, field.attname, getattr(saved, field.attname))

    def delete_model(self, request: HttpRequest, obj: Calendar) -> None:
        shared_calendars.delete(obj.pk, actor=actor_of(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Calendar]) -> None:
        with transaction.atomic():
            for calendar in queryset.order_by("pk"):
                shared_calendars.delete(calendar.pk, actor=actor_of(request))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        """A calendar in use says by whom, instead of an error page."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except DomainError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(request.path.replace("/delete/", "/change/"))

    def response_action(self, request: HttpRequest, queryset: QuerySet[Calendar]) -> HttpResponse | None:
        try:
            answered: HttpResponse | None = super().response_action(request, queryset)
            return answered
        except DomainError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(request.get_full_path())

    @admin.action(description="Bring into the schedules that use it", permissions=["change"])
    def apply_to_schedules(self, request: HttpRequest, queryset: QuerySet[Calendar]) -> None:
        """What was due before fires as it was defined."""
        for calendar in queryset.order_by("name"):
            done, refused = shared_calendars.apply(calendar.pk, actor=actor_of(request))
            told = f"{calendar.name}: {len(done)} schedules have it now"
            if refused:
                messages.warning(request, f"{told}, {len(refused)} refused: {refused[0]['reason']}")
            else:
                messages.success(request, f"{told}.")
