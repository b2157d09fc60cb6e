"""Workers and beats: who reported, when, how busy they are, and the verbs for one worker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from execution import workers
from execution.admin import shown
from execution.admin.base import Done, Listed, ReadOnlyAdmin, Verb, WithNote
from execution.models import ProcessReport, StepRun
from execution.queues import ALIVE_SECONDS
from execution.states import StepState


def life_of(report: ProcessReport, now: datetime) -> str:
    """``alive``, ``stopped`` (it said so) or ``silent`` (it did not)."""
    if report.stopped_at is not None and report.stopped_at >= report.seen_at:
        return "stopped"
    return "alive" if now - report.seen_at < timedelta(seconds=ALIVE_SECONDS) else "silent"


class DrainForm(WithNote):
    """How one worker is to be drained."""

    ends = forms.BooleanField(label="It ends itself once it runs nothing any more", required=False)


def _pause(report: ProcessReport, values: Mapping[str, Any], actor: str) -> Done:
    workers.pause(report.name, actor=actor, note=values["note"])
    return Done(f"Worker {report.name} takes nothing new.")


def _drain(report: ProcessReport, values: Mapping[str, Any], actor: str) -> Done:
    workers.drain(report.name, actor=actor, note=values["note"], ends=values["ends"])
    return Done(f"Worker {report.name} is being drained.")


def _resume(report: ProcessReport, values: Mapping[str, Any], actor: str) -> Done:
    workers.resume(report.name, actor=actor)
    return Done(f"Worker {report.name} takes work again.")


def _consumes(report: ProcessReport) -> bool:
    return report.kind == "worker" and workers.status_of(report, datetime.now(UTC)) == "active"


def _can_be_drained(report: ProcessReport) -> bool:
    return report.kind == "worker" and workers.status_of(report, datetime.now(UTC)) in {"active", "paused"}


@admin.register(ProcessReport)
class ProcessReportAdmin(ReadOnlyAdmin):
    verbs = (
        Verb[ProcessReport](
            name="pause",
            label="Pause",
            icon="pause",
            permission="execution.pause_processreport",
            perform=_pause,
            form=WithNote,
            danger=True,
            explanation="This worker takes nothing new until you resume it. What it runs is left to end.",
            available=_consumes,
        ),
        Verb[ProcessReport](
            name="drain",
            label="Drain",
            icon="hourglass_bottom",
            permission="execution.pause_processreport",
            perform=_drain,
            form=DrainForm,
            danger=True,
            explanation="It takes nothing new, and tells when it runs nothing any more.",
            available=_can_be_drained,
        ),
        Verb[ProcessReport](
            name="resume",
            label="Resume",
            permission="execution.pause_processreport",
            perform=_resume,
            primary=True,
            available=lambda report: report.wanted != "",
        ),
    )
    list_display = ("name", "kind", "life", "load", "queues_served", "seen", "since")
    list_display_links = ("name",)
    list_filter = ("kind",)
    search_fields = ("name",)
    ordering = ("-seen_at",)
    empty_text = "No worker and no beat has reported yet. Start one: celery -A scheduling_project worker."

    @admin.display(description="Life")
    def life(self, report: ProcessReport) -> SafeString:
        return shown.badge(life_of(report, datetime.now(UTC)))

    @admin.display(description="Busy slots")
    def load(self, report: ProcessReport) -> SafeString:
        if report.kind != "worker":
            return shown.NOTHING
        share = min(100, round(100 * report.busy / report.slots)) if report.slots else 0
        return format_html(
            '<span class="sp-meter" title="{0} of {1} slots"><i style="width:{2}%"></i></span> {0}/{1}',
            report.busy,
            report.slots,
            share,
        )

    @admin.display(description="Queues")
    def queues_served(self, report: ProcessReport) -> str:
        return ", ".join(report.queues) or "–"

    @admin.display(description="Last seen")
    def seen(self, report: ProcessReport) -> SafeString:
        return shown.instant(report.seen_at, relative=True)

    @admin.display(description="Started")
    def since(self, report: ProcessReport) -> SafeString:
        return shown.instant(report.started_at, relative=True)

    def detail(self, request: HttpRequest, report: ProcessReport) -> dict[str, Any]:
        running = Listed(("Step", "Attempt", "Since", "Lease until"), empty="It runs no step at the moment.")
        runs = StepRun.objects.filter(state=StepState.RUNNING, worker__startswith=f"{report.name}/").select_related(
            "execution"
        )[:100]
        for run in runs:
            running.rows.append(
                (
                    shown.link(run.execution, str(run)),
                    run.attempt,
                    shown.instant(run.started_at, relative=True),
                    shown.instant(run.lease_until),
                )
            )
        return {
            "facts": [
                ("Life", self.life(report)),
                ("Kind", report.kind),
                ("Host", report.host),
                ("Process id", report.pid),
                ("Queues", self.queues_served(report)),
                ("Busy slots", self.load(report)),
                ("Started", shown.instant(report.started_at)),
                ("Last seen", shown.instant(report.seen_at)),
                ("Stopped", shown.instant(report.stopped_at)),
                *self._used(report),
                *((name, version) for name, version in report.versions.items()),
            ],
            "tables": [("Running now", running)] if report.kind == "worker" else [],
        }

    def _used(self, report: ProcessReport) -> list[tuple[str, Any]]:
        """What operators want of it, and what it and its host use."""
        facts: list[tuple[str, Any]] = []
        if report.wanted:
            status = workers.status_of(report, datetime.now(UTC))
            facts.append(
                ("Wanted", f"{status} by {report.wanted_by}" + f": {report.wanted_note}" * bool(report.wanted_note))
            )
        if report.extra_queues:
            facts.append(("Queues lent to it", ", ".join(report.extra_queues)))
        used, host = report.resources, report.resources.get("host", {})
        if used:
            facts += [
                ("Processor", f"{used['cpu_percent']:.0f} % of a core, {used['processes']} processes"),
                ("Memory", f"{used['memory_bytes'] / 1e6:,.0f} MB"),
                (
                    "Host's processor",
                    f"{host['cpu_percent']:.0f} % of {host['cores']:g} cores, load {host['load'][0]:g}",
                ),
                ("Host's memory", f"{host['memory_percent']:.0f} % of {host['memory_total'] / 1e9:,.1f} GB"),
            ]
        if report.pressure:
            facts.append(("Pressure", "takes no work" if report.pressure == "full" else "takes only urgent work"))
        return facts
