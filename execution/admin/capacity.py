"""Queues: how full they are, what runs in them and what is next in line."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from execution import queues
from execution.admin import shown
from execution.admin.base import Done, Listed, ReadOnlyAdmin, Verb, WithNote
from execution.models import QueueSettings, StepRun
from execution.queues import QueueState
from execution.states import StepState

MOST_ROWS: Final = 50


def _pause(queue: QueueSettings, values: Mapping[str, Any], actor: str) -> Done:
    queues.pause(queue.name, actor=actor, note=values["note"])
    return Done(f"Queue {queue.name} is paused: no worker claims anything of it.")


def _drain(queue: QueueSettings, values: Mapping[str, Any], actor: str) -> Done:
    queues.drain(queue.name, actor=actor, note=values["note"])
    return Done(f"Queue {queue.name} is being drained.")


def _resume(queue: QueueSettings, values: Mapping[str, Any], actor: str) -> Done:
    queues.resume(queue.name, actor=actor)
    return Done(f"Queue {queue.name} goes on.")


@admin.register(QueueSettings)
class QueueSettingsAdmin(ReadOnlyAdmin):
    """All queues of the deployment, whether or not anybody ever decided something about them."""

    verbs = (
        Verb[QueueSettings](
            name="pause",
            label="Pause",
            icon="pause",
            permission="execution.pause_queuesettings",
            perform=_pause,
            form=WithNote,
            danger=True,
            explanation="Workers claim nothing of this queue until you resume it. What runs is left to end.",
            available=lambda queue: queue.paused_at is None,
        ),
        Verb[QueueSettings](
            name="drain",
            label="Drain",
            icon="hourglass_bottom",
            permission="execution.pause_queuesettings",
            perform=_drain,
            form=WithNote,
            danger=True,
            explanation="Pauses it, and tells when the last step that runs in it has ended.",
            available=lambda queue: queue.draining_at is None,
        ),
        Verb[QueueSettings](
            name="resume",
            label="Resume",
            permission="execution.pause_queuesettings",
            perform=_resume,
            primary=True,
            available=lambda queue: queue.paused_at is not None,
        ),
    )

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> QueueSettings | None:
        stored = QueueSettings.objects.filter(pk=object_id).first()
        return stored or (QueueSettings(name=object_id) if object_id in queues.known() else None)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.may_view(request):
            raise PermissionDenied
        now = datetime.now(UTC)
        table = Listed(
            ("Queue", "State", "Waiting", "In flight", "Running", "Later", "Oldest waits", "By priority", "Workers"),
            empty="No queue is configured.",
        )
        for state in queues.stats():
            table.rows.append(
                (
                    format_html('<a class="sp-link sp-strong" href="{}">{}</a>', _queue_url(state.name), state.name),
                    _queue_badge(state),
                    *(f"{state.total(what):,}" for what in ("waiting", "in_flight", "running", "later")),
                    shown.duration(state.oldest_at, None, now=now),
                    _by_priority(state),
                    f"{state.workers} ({state.slots} slots)",
                )
            )
        context = {**self._page(request, "Queues"), "tables": [("", table)], "is_live": True}
        return TemplateResponse(request, "admin/detail.html", context)

    def title_of(self, queue: QueueSettings) -> str:
        return f"Queue {queue.name}"

    def detail(self, request: HttpRequest, queue: QueueSettings) -> dict[str, Any]:
        (state,) = queues.stats([queue.name])
        running = Listed(("Step", "Priority", "Attempt", "Worker", "Since"), empty="Nothing runs in this queue.")
        runs = StepRun.objects.filter(state=StepState.RUNNING, queue=queue.name).select_related("execution")
        for run in runs.order_by("started_at")[:MOST_ROWS]:
            running.rows.append(
                (
                    shown.link(run.execution, str(run)),
                    shown.priority_text(run.priority),
                    run.attempt,
                    run.worker,
                    shown.instant(run.started_at, relative=True),
                )
            )
        waiting = Listed(("Step", "Priority", "Due", "Handed over"), empty="Nothing waits in this queue.")
        next_ids = queues.peek(queue.name, limit=MOST_ROWS)
        due = StepRun.objects.select_related("execution").in_bulk(next_ids)
        for run in (due[key] for key in next_ids if key in due):
            waiting.rows.append(
                (
                    shown.link(run.execution, str(run)),
                    shown.priority_text(run.priority),
                    shown.instant(run.available_at, relative=True),
                    shown.instant(run.dispatched_at, relative=True),
                )
            )
        facts: list[tuple[str, Any]] = [
            ("State", _queue_badge(state)),
            ("Waiting", f"{state.total('waiting'):,}"),
            ("In flight (sent, not claimed)", f"{state.total('in_flight'):,}"),
            ("Running", f"{state.total('running'):,}"),
            ("Later", f"{state.total('later'):,}"),
            ("Workers", f"{state.workers} ({state.slots} slots)"),
            ("By priority", _by_priority(state)),
        ]
        if state.paused_at is not None:
            facts += [
                ("Paused", shown.instant(state.paused_at)),
                ("Paused by", state.paused_by),
                ("Note", state.pause_note or shown.NOTHING),
            ]
        return {"facts": facts, "tables": [("Running", running), ("Next in line", waiting)], "is_live": True}


def _queue_url(name: str) -> str:
    return shown.address(QueueSettings, name)


def _queue_badge(state: QueueState) -> SafeString:
    if state.paused_at is not None:
        return shown.badge("retryable", state.status, title=state.pause_note)
    if state.workers:
        return shown.badge("alive", "served")
    if state.total("waiting") or state.total("in_flight"):
        return shown.badge("failed", "no worker", title="Work waits and no worker serves this queue")
    return shown.badge("", "no worker")


def _by_priority(state: QueueState) -> SafeString | str:
    waiting = ((level.priority, level.waiting + level.in_flight) for level in state.levels)
    return ", ".join(f"{shown.priority_text(level)}: {count:,}" for level, count in waiting if count) or shown.NOTHING
