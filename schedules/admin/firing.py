"""The switch that stops and starts all firing: one row, one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from execution.admin import shown
from execution.admin.base import Done, ReadOnlyAdmin, Verb, WithNote
from schedules import switch
from schedules.models import FiringSwitch


def _stop(subject: FiringSwitch, values: Mapping[str, Any], actor: str) -> Done:
    switch.stop(actor=actor, note=values["note"])
    return Done("Nothing fires from now on.")


def _start(subject: FiringSwitch, values: Mapping[str, Any], actor: str) -> Done:
    switch.start(actor=actor, note=values["note"])
    return Done("Everything fires again.")


@admin.register(FiringSwitch)
class FiringSwitchAdmin(ReadOnlyAdmin):
    verbs = (
        Verb[FiringSwitch](
            name="stop",
            label="Stop all firing",
            icon="stop_circle",
            permission="schedules.pause_firingswitch",
            perform=_stop,
            form=WithNote,
            danger=True,
            explanation="No schedule fires until it is started again. What runs is left to end; nothing is forgotten.",
            available=lambda subject: subject.stopped_at is None,
        ),
        Verb[FiringSwitch](
            name="start",
            label="Start firing",
            permission="schedules.pause_firingswitch",
            perform=_start,
            form=WithNote,
            primary=True,
            explanation="What became due meanwhile is settled by each schedule's catch-up policy.",
            available=lambda subject: subject.stopped_at is not None,
        ),
    )

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> FiringSwitch | None:
        return switch.state() if object_id == "1" else None

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.may_view(request):
            raise PermissionDenied
        return redirect(shown.address(FiringSwitch, 1))

    def title_of(self, subject: FiringSwitch) -> str:
        return "All firing is stopped" if subject.stopped_at else "Firing is on"

    def facts(self, subject: FiringSwitch) -> list[tuple[str, Any]]:
        if subject.stopped_at is None:
            return [("State", shown.badge("enabled", "on"))]
        return [
            ("State", shown.badge("failed", "stopped")),
            ("Since", shown.instant(subject.stopped_at)),
            ("By", subject.stopped_by or shown.NOTHING),
            ("Note", subject.note or shown.NOTHING),
        ]
