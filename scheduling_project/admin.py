"""Users, groups and django-celery-beat in the admin's look.

A PeriodicTask that mirrors a schedule is the schedule's: switching it on or off and running it here does what the
schedule's own buttons do, and nothing else about it can be changed.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as BaseGroupAdmin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.utils.safestring import SafeString
from django_celery_beat.admin import ClockedScheduleAdmin as BaseClockedScheduleAdmin
from django_celery_beat.admin import CrontabScheduleAdmin as BaseCrontabScheduleAdmin
from django_celery_beat.admin import PeriodicTaskAdmin as BasePeriodicTaskAdmin
from django_celery_beat.admin import PeriodicTaskForm, TaskSelectWidget
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from execution.admin import shown
from execution.admin.base import FastList, actor_of
from schedules import lifecycle
from schedules.models import Schedule
from scheduling_project.common.errors import DomainError

for _model in (
    User,
    Group,
    PeriodicTask,
    CrontabSchedule,
    IntervalSchedule,
    SolarSchedule,
    ClockedSchedule,
    OutstandingToken,  # its page would show refresh tokens, which are secrets
    BlacklistedToken,
):
    admin.site.unregister(_model)


@admin.register(User)
class UserAdmin(BaseUserAdmin, ModelAdmin):  # type: ignore[misc,type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    # Whoever may change users could otherwise make themselves a superuser, or take one's password.

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        fields = tuple(super().get_readonly_fields(request, obj))
        return fields if _is_superuser(request) else (*fields, "is_superuser")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return bool(super().has_change_permission(request, obj)) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return bool(super().has_delete_permission(request, obj)) and _may_touch(request, obj)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        found: QuerySet[User] = super().get_queryset(request)
        if request.method == "POST" and "action" in request.POST and not _is_superuser(request):
            return found.filter(is_superuser=False)  # actions on chosen rows ask for no row by itself
        return found


def _is_superuser(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_superuser", False))


def _may_touch(request: HttpRequest, user: User | None) -> bool:
    return user is None or not user.is_superuser or _is_superuser(request)


@admin.register(Group)
class GroupAdmin(BaseGroupAdmin, ModelAdmin):  # type: ignore[misc]
    pass


# ── django-celery-beat ───────────────────────────────────────────────────────────────────────────────────────


class _TaskSelect(UnfoldAdminSelectWidget, TaskSelectWidget):  # type: ignore[misc]
    pass


class _PeriodicTaskForm(PeriodicTaskForm):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if schedule_of(self.instance) is not None:  # declared by the parent, and so in every form of it
            del self.fields["regtask"], self.fields["task"]
        else:
            self.fields["regtask"].widget = _TaskSelect()
            self.fields["task"].widget = UnfoldAdminTextInputWidget()

    def clean(self) -> dict[str, Any]:
        return super().clean() if "task" in self.fields else self.cleaned_data  # type: ignore[no-any-return]


class MirrorFilter(admin.SimpleListFilter):
    """Rows of workflow schedules, or ordinary ones."""

    title = "kind"
    parameter_name = "mirror"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "Ordinary"), ("yes", "Mirrors a schedule")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = {"yes": False, "no": True}.get(self.value() or "")
        return queryset if wanted is None else queryset.filter(workflow_schedule__isnull=wanted)


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(BasePeriodicTaskAdmin, FastList):  # type: ignore[misc]
    form = _PeriodicTaskForm
    change_form_template = None
    date_hierarchy = None
    list_display = ("name", "shown_enabled", "when", "shown_schedule", "last_run", "total_run_count")
    list_filter = (MirrorFilter, "enabled", "one_off")
    ordering = ("name",)
    autocomplete_fields = ("interval", "crontab", "solar", "clocked")
    empty_text = "No periodic task yet."

    def get_queryset(self, request: HttpRequest) -> QuerySet[PeriodicTask]:
        return super().get_queryset(request).select_related("workflow_schedule")  # type: ignore[no-any-return]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponseBase:
        # Not the parent's: it reads every crontab row there is, for a hint in its own template.
        response: HttpResponseBase = ModelAdmin.changeform_view(self, request, object_id, form_url, extra_context)
        return response

    @admin.display(description="State")
    def shown_enabled(self, task: PeriodicTask) -> SafeString:
        return shown.badge("enabled", "on") if task.enabled else shown.badge("", "off")

    @admin.display(description="When")
    def when(self, task: PeriodicTask) -> str:
        return str(task.scheduler or "–")

    @admin.display(description="Mirrors")
    def shown_schedule(self, task: PeriodicTask) -> SafeString:
        return shown.link(schedule_of(task))

    @admin.display(description="Last run")
    def last_run(self, task: PeriodicTask) -> SafeString:
        return shown.instant(task.last_run_at, relative=True)

    # ── One row ──────────────────────────────────────────────────────────────────────────────────────────────

    def get_fieldsets(self, request: HttpRequest, obj: PeriodicTask | None = None) -> Any:
        if obj is not None and schedule_of(obj) is not None:
            names = ("name", "shown_schedule", "enabled", "when", "queue", "priority", "last_run_at", "total_run_count")
            note = "It mirrors a schedule: switching it pauses or resumes that. Edit the schedule for the rest."
            return ((None, {"fields": names, "description": note}),)
        return super().get_fieldsets(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: PeriodicTask | None = None) -> Any:
        if obj is not None and schedule_of(obj) is not None:
            return ("name", "shown_schedule", "when", "queue", "priority", "last_run_at", "total_run_count")
        return super().get_readonly_fields(request, obj)

    def save_model(self, request: HttpRequest, obj: PeriodicTask, form: forms.ModelForm[Any], change: bool) -> None:
        schedule = schedule_of(obj) if change else None
        if schedule is None:
            super().save_model(request, obj, form, change)
        elif "enabled" in form.changed_data:
            self._told(request, lambda: _switch(schedule, on=obj.enabled, request=request))

    def has_delete_permission(self, request: HttpRequest, obj: PeriodicTask | None = None) -> bool:
        return bool(super().has_delete_permission(request, obj)) and (obj is None or schedule_of(obj) is None)

    # ── Actions ──────────────────────────────────────────────────────────────────────────────────────────────

    @admin.action(description="Enable selected tasks", permissions=["change"])
    def enable_tasks(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        ordinary, mirrors = _parted(queryset)
        if ordinary:
            super().enable_tasks(request, ordinary)
        self._each(request, mirrors, "resumed", lambda schedule: _switch(schedule, on=True, request=request))

    @admin.action(description="Disable selected tasks", permissions=["change"])
    def disable_tasks(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        ordinary, mirrors = _parted(queryset)
        if ordinary:
            super().disable_tasks(request, ordinary)
        self._each(request, mirrors, "paused", lambda schedule: _switch(schedule, on=False, request=request))

    @admin.action(description="Toggle activity of selected tasks", permissions=["change"])
    def toggle_tasks(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        ordinary, mirrors = _parted(queryset)
        if ordinary:
            super().toggle_tasks(request, ordinary)
        self._each(
            request, mirrors, "switched", lambda schedule: _switch(schedule, on=not schedule.enabled, request=request)
        )

    @admin.action(description="Run selected tasks", permissions=["change"])
    def run_tasks(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        ordinary, mirrors = _parted(queryset)
        if ordinary:
            super().run_tasks(request, ordinary)
        actor = actor_of(request)
        self._each(request, mirrors, "started", lambda schedule: lifecycle.trigger(schedule.pk, actor=actor))

    def _each(self, request: HttpRequest, schedules: list[Schedule], done: str, act: Any) -> None:
        count = sum(self._told(request, lambda: act(schedule)) for schedule in schedules)  # noqa: B023 - used at once
        if count:
            messages.success(request, f"{count} schedule{'s' if count > 1 else ''} {done}.")

    def _told(self, request: HttpRequest, act: Any) -> bool:
        try:
            act()
        except DomainError as error:
            messages.error(request, str(error))
            return False
        return True


def schedule_of(task: PeriodicTask) -> Schedule | None:
    """The schedule that a row mirrors."""
    return getattr(task, "workflow_schedule", None) if task.pk else None


def _parted(queryset: QuerySet[PeriodicTask]) -> tuple[QuerySet[PeriodicTask], list[Schedule]]:
    """Ordinary rows, and the schedules of the others."""
    ids = list(queryset.values_list("pk", flat=True))
    mirrors = list(Schedule.objects.filter(periodic_task__in=ids).order_by("name"))
    return PeriodicTask.objects.filter(pk__in=ids, workflow_schedule__isnull=True), mirrors


def _switch(schedule: Schedule, *, on: bool, request: HttpRequest) -> None:
    if on:
        lifecycle.resume(schedule.pk, actor=actor_of(request))
    else:
        lifecycle.pause(schedule.pk, actor=actor_of(request), note="switched off as a periodic task")


class _Timetable(ModelAdmin):  # type: ignore[misc]
    """Rows that PeriodicTasks share. Without the parent's list of all tasks that use one: that may be very many."""

    inlines = ()
    show_full_result_count = False


@admin.register(CrontabSchedule)
class CrontabScheduleAdmin(_Timetable):
    list_display = BaseCrontabScheduleAdmin.list_display
    fields = BaseCrontabScheduleAdmin.fields
    readonly_fields = BaseCrontabScheduleAdmin.readonly_fields
    search_fields = ("minute", "hour", "timezone")


@admin.register(IntervalSchedule)
class IntervalScheduleAdmin(_Timetable):
    search_fields = ("every", "period")


@admin.register(SolarSchedule)
class SolarScheduleAdmin(_Timetable):
    search_fields = ("event",)


@admin.register(ClockedSchedule)
class ClockedScheduleAdmin(_Timetable):
    fields = BaseClockedScheduleAdmin.fields
    list_display = BaseClockedScheduleAdmin.list_display
    search_fields = ("clocked_time",)
