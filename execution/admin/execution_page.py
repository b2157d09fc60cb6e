"""What the page of one execution shows: its graph, timeline, steps, attempts, input and outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from execution.admin import shown
from execution.admin.graph_svg import StepLook, draw, in_order
from execution.admin.step_verbs import decisions, step_links
from execution.admin.timeline_svg import Bar, Row, timeline
from execution.models import Attempt, Execution, ExecutionOutput, StepOutput, StepRun
from execution.states import AttemptState, StepState
from execution.why import why
from scheduling_project.common import clock

MOST_STEPS: Final = 200
MOST_ATTEMPTS: Final = 400
MOST_ROWS: Final = 60

#: Where several items of a step have several states, the first of these that occurs is the step's.
LOUDEST: Final = (
    StepState.FAILED,
    StepState.RUNNING,
    StepState.RETRYABLE,
    StepState.QUEUED,
    StepState.WAITING,
    StepState.CANCELLED,
    StepState.SKIPPED,
    StepState.SUCCEEDED,
)


def page(request: HttpRequest, execution: Execution) -> dict[str, Any]:
    """What the template of the page takes."""
    now = clock.now()
    counts, total = _counts(execution)
    runs = list(_interesting(execution)) if total > MOST_STEPS else list(execution.step_runs.order_by("id"))
    order = {name: place for place, name in enumerate(in_order(execution.version.definition))}
    runs.sort(key=lambda run: (order.get(run.name, len(order)), -1 if run.item_index is None else run.item_index))
    attempts = _attempts(runs)
    letters = list(execution.dead_letters.order_by("-id")[:20])
    told = None if execution.is_terminal else why(execution)
    blockers = {blocker["step_run"]: blocker["message"] for blocker in told["blockers"]} if told else {}
    output = ExecutionOutput.objects.filter(pk=execution.pk).first()
    return {
        "execution": execution,
        "now": now,
        "facts": _facts(execution, now),
        "graph": draw(execution.version.definition, _looks(counts)),
        "timeline": _timeline(execution, runs, attempts, now),
        "why": told["summary"] if told else "",
        "steps": [_step(run, now, blockers) | {"links": step_links(request, run)} for run in runs],
        "decisions": decisions(request, execution, runs),
        "steps_left": total - len(runs),
        "attempts": [_attempt(attempt, now) for attempt in attempts],
        "letters": letters,
        "input": shown.json_text(execution.input),
        "output": None if output is None else shown.json_text(output.data),
        "outputs": _outputs(runs),
        "is_live": not execution.is_terminal,
    }


def _facts(execution: Execution, now: datetime) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        ("State", shown.badge(execution.state, execution.get_state_display())),
        ("Workflow", format_html("{} v{}", shown.link(execution.workflow), execution.version.number)),
        ("Source", f"{execution.source_kind} {execution.source_label or execution.source_id}".strip()),
        ("Priority", shown.priority_text(execution.priority)),
        ("Created", shown.instant(execution.created_at)),
        ("Started", shown.instant(execution.started_at)),
        ("Finished", shown.instant(execution.finished_at)),
        ("Took", shown.duration(execution.started_at, execution.finished_at, now=now)),
    ]
    waited = shown.duration(execution.created_at, execution.started_at, now=now)
    facts.insert(6, ("Waited", waited))
    optional: Sequence[tuple[str, Any]] = (
        ("Why", execution.state_reason),
        ("Stands for", execution.scheduled_for and shown.instant(execution.scheduled_for)),
        ("Deadline", execution.deadline_at and shown.instant(execution.deadline_at)),
        ("Queue", execution.queue),
        ("Concurrency key", execution.concurrency_key),
        ("Idempotency key", execution.idempotency_key),
    )
    facts.extend((label, value) for label, value in optional if value)
    facts.append(("Id", format_html('<span class="sp-mono">{}</span>', execution.pk)))
    return facts


def _counts(execution: Execution) -> tuple[dict[str, Counter[str]], int]:
    """Per step how many of its items (or itself, where it has none) have which state, and how many rows there are."""
    items: dict[str, Counter[str]] = {}
    own: dict[str, Counter[str]] = {}
    rows = execution.step_runs.order_by().values_list("name", "state")
    counted = rows.annotate(
        of_items=Count("id", filter=Q(item_index__isnull=False)),
        of_itself=Count("id", filter=Q(item_index__isnull=True)),
    )
    for name, state, of_items, of_itself in counted:
        items.setdefault(name, Counter())[state] += of_items
        own.setdefault(name, Counter())[state] += of_itself
    total = sum(counter.total() for counter in (*items.values(), *own.values()))
    return {name: +(items[name] if items[name].total() else own[name]) for name in items}, total


def _looks(counts: Mapping[str, Counter[str]]) -> dict[str, StepLook]:
    looks = {}
    for name, states in counts.items():
        state = next((state.value for state in LOUDEST if states[state.value]), "")
        total = states.total()
        ended = sum(states[state.value] for state in (StepState.SUCCEEDED, StepState.SKIPPED))
        looks[name] = StepLook(state, f"{ended}/{total} items" if total > 1 else "")
    return looks


def _interesting(execution: Execution) -> QuerySet[StepRun]:
    """Of very many step runs those that people look for: not yet ended well."""
    loud = execution.step_runs.exclude(state__in=[StepState.SUCCEEDED, StepState.SKIPPED]).order_by("id")[:MOST_STEPS]
    ids = list(loud.values_list("id", flat=True))
    if len(ids) < MOST_STEPS:
        rest = execution.step_runs.exclude(pk__in=ids).order_by("id")[: MOST_STEPS - len(ids)]
        ids += list(rest.values_list("id", flat=True))
    return execution.step_runs.filter(pk__in=ids).order_by("id")


def _attempts(runs: Sequence[StepRun]) -> list[Attempt]:
    """Their attempts in the order of time, each with its step run at hand."""
    by_id = {run.pk: run for run in runs}
    found = list(Attempt.objects.filter(step_run__in=list(by_id)).order_by("-started_at", "-id")[:MOST_ATTEMPTS])
    for attempt in found:
        attempt.step_run = by_id[attempt.step_run_id]
    return found[::-1]


def _label(run: StepRun) -> str:
    return run.name if run.item_index is None else f"{run.name}[{run.item_index}]"


def _timeline(execution: Execution, runs: Sequence[StepRun], attempts: Sequence[Attempt], now: datetime) -> Any:
    by_run: dict[UUID, list[Attempt]] = {}
    for attempt in attempts:
        by_run.setdefault(attempt.step_run_id, []).append(attempt)
    rows = []
    for run in sorted((run for run in runs if run.pk in by_run), key=lambda run: by_run[run.pk][0].started_at):
        row = Row(_label(run), run.state, f"step-{run.pk}")
        previous: Attempt | None = None
        for attempt in by_run[run.pk]:
            if previous is not None and previous.finished_at is not None:
                wait = (attempt.started_at - previous.finished_at).total_seconds()
                title = f"waited {shown.seconds_text(wait)} for attempt {attempt.number}"
                row.bars.append(Bar(previous.finished_at, attempt.started_at, "", title, is_wait=True))
            took = ((attempt.finished_at or now) - attempt.started_at).total_seconds()
            told = f"{_label(run)}, attempt {attempt.number}: {attempt.get_state_display()}, {shown.seconds_text(took)}"
            error = f"\n{attempt.error_type}: {attempt.error[:200]}" if attempt.error_type else ""
            row.bars.append(Bar(attempt.started_at, attempt.finished_at, attempt.state, told + error))
            previous = attempt
        if run.state == StepState.RETRYABLE and previous is not None and previous.finished_at is not None:
            row.bars.append(Bar(previous.finished_at, None, "", f"retry at {run.available_at:%H:%M:%S} UTC", True))
        rows.append(row)
    if not rows:
        return ""
    begin = execution.created_at
    end = execution.finished_at or now
    latest = max((bar.end or now for row in rows for bar in row.bars), default=end)
    return timeline(rows[:MOST_ROWS], begin=min(begin, rows[0].bars[0].begin), end=max(end, latest))


def _step(run: StepRun, now: datetime, blockers: Mapping[Any, str]) -> dict[str, Any]:
    return {
        "run": run,
        "label": _label(run),
        "state": shown.badge(run.state, run.get_state_display()),
        "why": blockers.get(run.pk, run.state_reason),
        "took": shown.duration(run.started_at, run.finished_at, now=now if run.state == StepState.RUNNING else None),
        "priority": shown.priority_text(run.priority),
    }


def _attempt(attempt: Attempt, now: datetime) -> dict[str, Any]:
    decision: Mapping[str, Any] = attempt.decision if isinstance(attempt.decision, dict) else {}
    following = decision.get("at")
    return {
        "attempt": attempt,
        "label": _label(attempt.step_run),
        "state": shown.badge(attempt.state, attempt.get_state_display()),
        "took": shown.duration(attempt.started_at, attempt.finished_at, now=now),
        "decision": _decision(decision),
        "next": shown.instant(datetime.fromisoformat(following)) if isinstance(following, str) else shown.NOTHING,
        "is_bad": attempt.state in {AttemptState.FAILED, AttemptState.RETRYABLE, AttemptState.LOST},
    }


def _decision(decision: Mapping[str, Any]) -> str:
    action, reason = str(decision.get("decision", "")), str(decision.get("reason", ""))
    return ": ".join(part for part in (action, reason) if part)


def _outputs(runs: Sequence[StepRun]) -> list[tuple[str, str]]:
    labels = {run.pk: _label(run) for run in runs[:MOST_ROWS]}
    found = dict(StepOutput.objects.filter(pk__in=list(labels)).values_list("pk", "data"))
    return [(label, shown.json_text(found[key])) for key, label in labels.items() if key in found]
