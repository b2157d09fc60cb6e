"""The admin's first page: is work flowing, what just ran, what comes next, and what is wrong, in plain words.

Every statement is bounded: it reads an index and stops at a limit, so that a million executions in the table do not
make the page slow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import redis
from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.dataclasses import SearchResult

from execution import engine
from execution.admin import shown
from execution.admin.base import Listed
from execution.admin.processes import life_of
from execution.admin.workflows import listed_executions
from execution.models import DeadLetter, Execution, ProcessReport, QueueSettings, StepRun, Workflow
from execution.states import STEP_CLAIMABLE, DeadLetterState, ExecutionState
from schedules.admin.timing_tables import timing_of
from schedules.models import FiringSwitch, Schedule, ScheduleFire
from scheduling_project.common import clock
from scheduling_project.common.ids import uuid7_floor
from scheduling_project.unfold import navigation

MOST: Final = 10_000
MOST_ENDED: Final = 50_000
LATEST: Final = 10
NEXT: Final = 10
FOUND: Final = 6
OVERDUE: Final = timedelta(seconds=30)
FORGOTTEN: Final = timedelta(hours=24)
REDIS_TIMEOUT: Final = 0.5  # seconds
HOURS: Final = 24
#: Latest starts over which lateness and waiting are told, and from how many seconds (95 of 100) on they are marked.
SAMPLE: Final = 2_000
SLOW: Final = 5.0

# Steps that are due: those that wait and those that are handed over each have a small index of their own, whatever the
# number of ended ones.
DUE: Final = """
SELECT due.queue, due.priority, count(*) AS count FROM (
    (SELECT s.queue, s.priority FROM execution_steprun s
     WHERE s.state IN ('queued', 'retryable') AND s.dispatched_at IS NULL AND s.available_at <= %(now)s::timestamptz
     LIMIT %(most)s::int)
    UNION ALL
    (SELECT s.queue, s.priority FROM execution_steprun s
     WHERE s.state IN ('queued', 'retryable') AND s.dispatched_at IS NOT NULL AND s.available_at <= %(now)s::timestamptz
     LIMIT %(most)s::int)
) due
GROUP BY 1, 2 ORDER BY 1, 2
"""

# How late the latest fires of the hour were taken, and how long the latest executions waited for a worker, in seconds.
# Both are read from the end of a primary key. What a backfill started is no measure of lateness.
DELAYS: Final = """
SELECT
    (SELECT percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY late) FROM (
        SELECT greatest(extract(epoch FROM f.recorded_at - f.due_at), 0)::float8 AS late,
               f.recorded_at, f.outcome, f.note
        FROM schedules_schedulefire f ORDER BY f.id DESC LIMIT %(sample)s::int
     ) f WHERE f.outcome = 'started' AND f.note = '' AND f.recorded_at > %(now)s::timestamptz - interval '1 hour'
    ) AS late,
    (SELECT percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY waited) FROM (
        SELECT extract(epoch FROM e.started_at - e.created_at)::float8 AS waited
        FROM execution_execution e WHERE e.id >= %(first)s::uuid AND e.started_at IS NOT NULL
        ORDER BY e.id DESC LIMIT %(sample)s::int
     ) starts) AS waited
"""

ENDED_BY_HOUR: Final = """
SELECT floor(extract(epoch FROM %(now)s::timestamptz - finished_at) / 3600)::int AS ago, state, count(*) AS count
FROM (
    SELECT finished_at, state FROM execution_execution
    WHERE finished_at > %(now)s::timestamptz - make_interval(hours => %(hours)s::int)
      AND finished_at <= %(now)s::timestamptz
    ORDER BY finished_at DESC LIMIT %(most)s::int
) ended
GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Card:
    """One figure: what it counts, how many, a line below, where it leads, and its tone."""

    label: str
    figure: str
    below: str
    url: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong, and where to look."""

    text: str
    url: str = ""
    fix: str = "Look"


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the first page shows. Figures of what a user may not see are left out."""
    may = request.user.has_perm
    now = clock.now()
    processes = list(ProcessReport.objects.filter(seen_at__gt=now - FORGOTTEN).order_by("kind", "name")[:500])
    alive = Counter(report.kind for report in processes if life_of(report, now) == "alive")
    troubles = list(_troubles(now, processes, alive))
    context |= {
        "title": "Dashboard",
        "now": now,
        "troubles": troubles,
        "is_bad": bool(troubles),
        "may_see_executions": may("execution.view_execution"),
        "may_see_schedules": may("schedules.view_schedule"),
    }
    ended = _ended_by_hour(now) if context["may_see_executions"] else {}
    due = _due_steps(now) if context["may_see_executions"] else []
    context["cards"] = list(_cards(request, now, processes, alive, ended, due))
    if context["may_see_executions"]:
        latest = Execution.objects.order_by("-id").select_related("workflow").defer("input", "retry_policy")
        context |= {
            "hours": draw_hours(ended, now),
            "has_hours": bool(ended),
            "latest": _with_workflow(list(latest[:LATEST])),
            "priorities": _priorities(due),
        }
    if context["may_see_schedules"]:
        context["coming"] = _coming()
    return context


def open_letters_badge(request: HttpRequest) -> str:
    """How many dead letters wait for a decision, for the sidebar; nothing when there are none."""
    if not request.user.has_perm("execution.view_deadletter"):
        return ""
    count = DeadLetter.objects.filter(state=DeadLetterState.OPEN).order_by()[:100].count()
    return "" if not count else "99+" if count > 99 else str(count)


def search(request: HttpRequest, term: str) -> list[SearchResult]:
    """What the command search finds: pages, schedules and workflows by name, and anything by its whole id."""
    results = [
        SearchResult(title=page["title"], description="Page", link=str(page["link"]), icon=page["icon"])
        for group in navigation(request)
        for page in group["items"]
        if term.lower() in page["title"].lower() and page.get("permission", _everybody)(request)
    ]
    kinds: tuple[tuple[type[Any], str, str], ...] = (
        (Schedule, "schedules.view_schedule", "calendar_clock"),
        (Workflow, "execution.view_workflow", "account_tree"),
    )
    for model, permission, icon in kinds:
        if request.user.has_perm(permission):
            for row in model.objects.filter(name__icontains=term).order_by("name")[:FOUND]:
                kind = str(model._meta.verbose_name).capitalize()
                results.append(SearchResult(title=str(row), description=kind, link=shown.page_of(row), icon=icon))
    try:
        key = UUID(term)
    except ValueError:
        return results
    for model, permission in ((Execution, "execution.view_execution"), (DeadLetter, "execution.view_deadletter")):
        if request.user.has_perm(permission) and model.objects.filter(pk=key).exists():
            kind = str(model._meta.verbose_name).capitalize()
            results.append(SearchResult(title=str(key), description=kind, link=shown.address(model, key), icon="tag"))
    return results


def _everybody(request: HttpRequest) -> bool:
    return True


# ── Cards ────────────────────────────────────────────────────────────────────────────────────────────────────


def bounded(rows: QuerySet[Any], most: int = MOST) -> int:
    """How many rows, counting at most `most`."""
    return rows.order_by()[:most].count()


def _figure(count: int, most: int = MOST) -> str:
    return f"{most:,}+" if count >= most else f"{count:,}"


def _cards(
    request: HttpRequest,
    now: datetime,
    processes: Sequence[ProcessReport],
    alive: Mapping[str, int],
    hours: Mapping[int, Counter[str]],
    due: Sequence[Any],
) -> Iterator[Card]:
    may = request.user.has_perm
    if may("schedules.view_schedule"):
        paused = bounded(Schedule.objects.filter(enabled=False))
        url = shown.list_address(Schedule, enabled__exact=1)
        active = _figure(bounded(Schedule.objects.filter(enabled=True)))
        yield Card("Schedules", active, f"active, {paused:,} paused" if paused else "active", url)
    if may("execution.view_execution"):
        yield from _execution_cards(sum(hours.values(), Counter()), due)
    if may("execution.view_execution") and may("schedules.view_schedule"):
        yield from _delay_cards(now)
    if may("execution.view_deadletter"):
        count = bounded(DeadLetter.objects.filter(state=DeadLetterState.OPEN))
        url = shown.list_address(DeadLetter, state__exact="open")
        below = "open, undecided" if count else "nothing to decide"
        yield Card("Dead letters", _figure(count), below, url, "bad" if count else "")
    if may("execution.view_processreport"):
        workers = [report for report in processes if report.kind == "worker" and life_of(report, now) == "alive"]
        slots, busy = sum(report.slots for report in workers), sum(report.busy for report in workers)
        url = shown.list_address(ProcessReport, kind="worker")
        yield Card("Workers", str(len(workers)), f"{busy} of {slots} slots busy", url, "" if workers else "bad")
        url = shown.list_address(ProcessReport, kind="beat")
        beats = alive.get("beat", 0)
        below = "firing" if beats else "nothing fires"
        yield Card("Beats", str(beats), below, url, "" if beats else "bad")


def _execution_cards(ended: Counter[str], due: Sequence[Any]) -> Iterator[Card]:
    running = bounded(Execution.objects.filter(state=ExecutionState.RUNNING))
    paused = bounded(Execution.objects.filter(state=ExecutionState.PAUSED))
    below = f"{paused:,} paused" if paused else "executions"
    yield Card("Running", _figure(running), below, shown.list_address(Execution, state__exact="running"))
    queued = bounded(Execution.objects.filter(state=ExecutionState.QUEUED))
    steps = min(MOST, sum(row.count for row in due))
    yield Card(
        "Queued", _figure(queued), f"{_figure(steps)} steps due", shown.list_address(Execution, state__exact="queued")
    )
    good, bad = ended[ExecutionState.SUCCEEDED], ended[ExecutionState.FAILED]
    below = "of latest 50,000" if ended.total() >= MOST_ENDED else f"of {good + bad:,} ended"
    rate = f"{100 * good / (good + bad):.1f} %".replace("100.0", "100") if good + bad else "–"
    tone = "warn" if good + bad and good / (good + bad) < 0.95 else ""
    yield Card("Success, 24 h", rate, below, shown.list_address(Execution, created="24h"), tone)
    url = shown.list_address(Execution, state__exact="failed", created="24h")
    yield Card("Failures, 24 h", f"{bad:,}", "see them" if bad else "none", url, "bad" if bad else "")


def _delay_cards(now: datetime) -> Iterator[Card]:
    """How late schedules fire, and how long executions wait for a worker: 95 of 100 of the last hour."""
    params = {"now": now, "first": uuid7_floor(now - timedelta(hours=1)), "sample": SAMPLE}
    row = engine.fetch_one(DELAYS, params, using="default")
    for label, values, url in (
        ("Lateness, 1 h", row and row.late, shown.list_address(ScheduleFire)),
        ("Waiting, 1 h", row and row.waited, shown.list_address(Execution, created="1h")),
    ):
        if not values:
            yield Card(label, "–", "nothing yet", url)
            continue
        half, most = values
        tone = "warn" if most > SLOW else ""
        yield Card(label, shown.seconds_text(most), f"half within {shown.seconds_text(half)}", url, tone)


def _ended_by_hour(now: datetime) -> dict[int, Counter[str]]:
    """Per hour ago (0: the last hour) how many executions ended in which state.

    Of the last day, the latest MOST_ENDED: a range of the index on finished_at, counted by Postgres.
    """
    hours: dict[int, Counter[str]] = {}
    params = {"now": now, "hours": HOURS, "most": MOST_ENDED}
    for row in engine.fetch_all(ENDED_BY_HOUR, params, using="default"):
        hours.setdefault(row.ago, Counter())[row.state] = row.count
    return hours


def _due_steps(now: datetime) -> list[Any]:
    """What is due by queue and priority: rows of queue, priority and count."""
    return engine.fetch_all(DUE, {"now": now, "most": MOST}, using="default")


def _priorities(due: Sequence[Any]) -> Listed:
    """What is due, by queue and priority."""
    table = Listed(("Queue", "Priority", "Steps due"), empty="Nothing waits.")
    for row in due:
        name = format_html('<a class="sp-link" href="{}">{}</a>', shown.address(QueueSettings, row.queue), row.queue)
        table.rows.append((name, shown.priority_text(row.priority), _figure(row.count)))
    return table


# ── Tables ───────────────────────────────────────────────────────────────────────────────────────────────────


def _with_workflow(executions: list[Execution]) -> Listed:
    table = listed_executions(executions)
    table.headings = ("Workflow", *table.headings[1:])
    table.rows = [
        (format_html('<div class="sp-strong">{}</div>{}', execution.workflow.name, row[0]), *row[1:])
        for execution, row in zip(executions, table.rows, strict=True)
    ]
    table.empty = "Nothing has run yet. Run a workflow from its page, or wait for a schedule to fire."
    return table


def _coming() -> Listed:
    table = Listed(("Next", "Schedule"), empty="No schedule is due. Add one under Schedules.")
    coming = Schedule.objects.filter(enabled=True, next_fire_at__isnull=False).select_related("version")
    for schedule in coming.order_by("next_fire_at")[:NEXT]:
        name = format_html('{}<div class="sp-faint sp-fine">{}</div>', shown.link(schedule), timing_of(schedule))
        table.rows.append((shown.instant(schedule.next_fire_at, relative=True), name))
    return table


# ── What is wrong ────────────────────────────────────────────────────────────────────────────────────────────


def _troubles(now: datetime, processes: Sequence[ProcessReport], alive: Mapping[str, int]) -> Iterator[Trouble]:
    reports = reverse("admin:execution_processreport_changelist")
    queues = reverse("admin:execution_queuesettings_changelist")
    stopped = FiringSwitch.objects.filter(stopped_at__isnull=False).first()
    if stopped is not None:
        note = f": {stopped.note}" if stopped.note else ""
        yield Trouble(
            f"All firing was stopped by {stopped.stopped_by or 'somebody'}{note}",
            shown.address(FiringSwitch, 1),
            "Start firing",
        )
    if not alive.get("beat"):
        yield Trouble(
            "No beat has reported lately: schedules do not fire. What is due fires when one is back.", reports, "Beats"
        )
    if not alive.get("worker"):
        yield Trouble("No worker has reported lately: steps wait until one does.", reports, "Workers")
    silent = [report.name for report in processes if life_of(report, now) == "silent"]
    if silent and alive:
        named = ", ".join(silent[:3]) + (f" and {len(silent) - 3} more" if len(silent) > 3 else "")
        yield Trouble(f"Silent without having said goodbye: {named}.", reports, "Workers and beats")
    if not redis_answers():
        yield Trouble("Redis does not answer. Nothing is lost; work goes on when it is back.")
    paused = list(QueueSettings.objects.filter(paused_at__isnull=False).values_list("name", flat=True)[:10])
    if paused:
        yield Trouble(
            f"Paused queue{'s' if len(paused) > 1 else ''}: {', '.join(paused)}.", queues, "Resume it under Queues"
        )
    if alive.get("worker"):
        served = {name for report in processes if life_of(report, now) == "alive" for name in report.queues}
        for name in settings.WORKFLOW_QUEUES:
            if name not in served and _waits_long(name, now):
                yield Trouble(f"Work waits in queue {name}, and no worker serves it.", reports, "Who serves what")
    late = Schedule.objects.filter(enabled=True, next_fire_at__lt=now - OVERDUE)
    count = bounded(late, 1_000) if stopped is None else 0
    if count:
        url = shown.list_address(Schedule, enabled__exact=1, o=4)
        yield Trouble(
            f"{_figure(count, 1_000)} schedule{'s are' if count > 1 else ' is'} overdue by more than 30 s.",
            url,
            "Which",
        )


def _waits_long(queue: str, now: datetime) -> bool:
    """Whether a step of the queue has been due for long. One look into each of the two small indexes."""
    late = StepRun.objects.filter(queue=queue, state__in=STEP_CLAIMABLE, available_at__lte=now - OVERDUE).order_by()
    return any(late.filter(dispatched_at__isnull=is_waiting).exists() for is_waiting in (True, False))


def redis_answers() -> bool:
    """Whether the broker answers within half a second."""
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=REDIS_TIMEOUT, socket_connect_timeout=REDIS_TIMEOUT, retry=None
    )
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()


# ── The chart ────────────────────────────────────────────────────────────────────────────────────────────────


def draw_hours(hours: Mapping[int, Counter[str]], now: datetime, *, height: int = 150) -> SafeString:
    """Ended executions per hour of the last day, failures on top. Pure."""
    order = (ExecutionState.SUCCEEDED, ExecutionState.CANCELLED, ExecutionState.FAILED)
    tallest = max((states.total() for states in hours.values()), default=0) or 1
    width = 100 / HOURS
    bars: list[tuple[Any, ...]] = []
    ticks: list[tuple[Any, ...]] = []
    for ago in range(HOURS):
        left = (HOURS - 1 - ago) * width
        begin = now - timedelta(hours=ago + 1)
        if ago % 6 == 5 or ago == 0:
            ticks.append((f"{left + width / 2:.2f}%", height + 16, "now" if ago == 0 else f"−{ago + 1} h"))
        y = float(height)
        states = hours.get(ago, Counter())
        told = (
            ", ".join(f"{states[state]:,} {state.label.lower()}" for state in order if states[state]) or "nothing ended"
        )
        for state in order:
            tall = states[state] / tallest * (height - 8)
            if tall:
                y -= max(tall, 2)
                bars.append(
                    (
                        shown.tone(state),
                        f"{left:.3f}%",
                        f"{y:.1f}",
                        f"{width * 0.8:.3f}%",
                        f"{max(tall, 2):.1f}",
                        f"{begin:%H:%M} to {begin + timedelta(hours=1):%H:%M} UTC: {told}",
                    )
                )
    return format_html(
        '<svg class="sp-hours" width="100%" height="{}" role="img" aria-label="Executions that ended, per hour">'
        '<line x1="0" x2="100%" y1="{}" y2="{}" class="sp-tick"/><text x="0" y="9">{}</text>{}{}</svg>',
        height + 20,
        height,
        height,
        f"{tallest:,}" if hours else "",
        format_html_join(
            "",
            '<rect class="sp-bar sp-{}" x="{}" y="{}" width="{}" height="{}" rx="1.5"><title>{}</title></rect>',
            bars,
        ),
        format_html_join("", '<text x="{}" y="{}" text-anchor="middle">{}</text>', ticks),
    )
