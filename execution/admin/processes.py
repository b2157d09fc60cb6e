"""Workers and beats: who reported, when, and how busy they are. Read only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from execution.admin import shown
from execution.admin.base import Listed, ReadOnlyAdmin
from execution.models import ProcessReport, StepRun
from execution.queues import ALIVE_SECONDS
from execution.states import StepState


def life_of(report: ProcessReport, now: datetime) -> str:
    """``alive``, ``stopped`` (it said so) or ``silent`` (it did not)."""
    if report.stopped_at is not None and report.stopped_at >= report.seen_at:
        return "stopped"
    return "alive" if now - report.seen_at < timedelta(seconds=ALIVE_SECONDS) else "silent"


@admin.register(ProcessReport)
class ProcessReportAdmin(ReadOnlyAdmin):
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
        runs = StepRun.objects.filter(state=StepState.RUNNING, worker=report.name).select_related("execution")[:100]
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
                *((name, version) for name, version in report.versions.items()),
            ],
            "tables": [("Running now", running)] if report.kind == "worker" else [],
        }
