"""Why isn't it running? The exact blocker of every open step of an execution, and when it may start."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from execution import engine, expected_start, pools, queues
from execution.models import Execution, Pool, StepRun
from execution.plans import plan_by_id
from execution.queues import QueueState
from execution.states import EXECUTION_TERMINAL, STEP_CLAIMABLE, STEP_TERMINAL, ExecutionState, StepState, WaitingFor

MOST_STEPS = 100
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Blocker:
    """What one open step waits for. `code` is stable; `message` is for people; `until` where it is known."""

    step: str
    code: str
    message: str
    until: datetime | None = None
    step_run: UUID | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def why(execution: Execution) -> dict[str, Any]:
    """What keeps an execution from going on: a sentence, and a blocker per open step (at most 100)."""
    if execution.state in EXECUTION_TERMINAL:
        return _answer(execution, f"It has {_ended(execution)}.", [])
    now = engine.now(using="default")
    runs = list(
        StepRun.objects.filter(execution=execution).exclude(state__in=STEP_TERMINAL).order_by("id")[:MOST_STEPS]
    )
    lanes = {run.queue for run in runs if run.state in STEP_CLAIMABLE}
    states = queues.service(sorted(lanes)) if lanes else {}
    judged: set[str] = set()  # pools and keys about which the first of the steps that wait for them has been told
    blockers = [_blocker(run, execution, states, judged, now) for run in runs]
    if execution.state == ExecutionState.PAUSED:
        return _answer(execution, f"It is {execution.state_reason or 'paused'}; resume it.", blockers)
    running = sum(1 for blocker in blockers if blocker.code == "running")
    if running:
        return _answer(execution, f"It runs: {running} of its steps are with a worker.", blockers)
    first = next((blocker for blocker in blockers if blocker.code != "needs"), None)
    return _answer(execution, first.message if first else "Nothing of it is open.", blockers)


def _answer(execution: Execution, summary: str, blockers: list[Blocker]) -> dict[str, Any]:
    expected = [blocker.until for blocker in blockers if blocker.until is not None and blocker.code != "running"]
    return {
        "state": execution.state,
        "summary": summary,
        "estimated_start": min(expected, default=None),
        "deadline_at": execution.deadline_at,
        "blockers": [blocker.as_json() for blocker in blockers],
    }


def _ended(execution: Execution) -> str:
    word = "been cancelled" if execution.state == ExecutionState.CANCELLED else execution.state
    return f"{word}: {execution.state_reason}" if execution.state_reason else str(word)


def _blocker(
    run: StepRun, execution: Execution, lanes: dict[str, QueueState], judged: set[str], now: datetime
) -> Blocker:
    name = str(run).removeprefix(f"{execution.workflow.name}.")
    if run.state == StepState.RUNNING:
        return Blocker(name, "running", f"{name} runs on {run.worker} (attempt {run.attempt}).", None, run.pk)
    if run.state == StepState.WAITING:
        code, message, until = _waiting(run, execution, name, judged, now)
        return Blocker(name, code, message, until, run.pk)
    if run.available_at > now:
        if run.rate_slot_at is not None:
            told = f"{name} may begin at {_instant(run.available_at)}: {run.state_reason}."
            return Blocker(name, "rate", told, run.available_at, run.pk)
        if run.state == StepState.RETRYABLE:
            message = f"{name} failed (attempt {run.attempt}) and is tried again at {run.available_at:%H:%M:%S} UTC."
            return Blocker(name, "retry", message, run.available_at, run.pk)
        return Blocker(
            name, "not_due", f"{name} is not due before {_instant(run.available_at)}.", run.available_at, run.pk
        )
    return _queued(run, name, lanes.get(run.queue, QueueState(run.queue)), now)


def _waiting(
    run: StepRun, execution: Execution, name: str, judged: set[str], now: datetime
) -> tuple[str, str, datetime | None]:
    match run.waiting_for:
        case WaitingFor.NEEDS:
            needs = plan_by_id(execution.version_id).steps[run.name].needs
            open_needs = list(
                StepRun.objects.filter(execution=execution, name__in=needs, parent=None)
                .exclude(state__in=STEP_TERMINAL)
                .values_list("name", "state")
            )
            named = (
                ", ".join(f"{need} ({state})" for need, state in open_needs) or "a decision that is about to be made"
            )
            return "needs", f"{name} waits for {named}.", None
        case WaitingFor.TIMER:
            return "timer", f"{name} sleeps until {_instant(run.available_at)}.", run.available_at
        case WaitingFor.APPROVAL:
            return "approval", f"{name} waits for approval, at most until {_instant(run.available_at)}.", None
        case WaitingFor.CHILD:
            if run.kind == "workflow" and run.items_open == 0:
                called = plan_by_id(execution.version_id).steps[run.name].target
                children = Execution.objects.filter(pk__in=[run.last_token])
                state = children.values_list("state", flat=True).first()
                told = f"{name} waits for execution {run.last_token} of workflow {called}, which is {state or 'gone'}."
                return "child", told, None
            return "child", f"{name} waits for {run.items_open} of its items.", None
        case WaitingFor.POOL:
            told = f"{name} waits for {run.pool_units} of pool {run.pool}"
            if f"pool {run.pool}" in judged:
                return "pool", f"{told}, behind others of this execution.", None
            judged.add(f"pool {run.pool}")
            until = expected_start.of_pool(
                run.pool, step_run=run.pk, priority=run.priority, units=run.pool_units, now=now
            )
            return "pool", f"{told}, {_pool_users(run.pool)}.", until
        case _:
            key = execution.concurrency_key
            if "key" in judged:
                return "key", f"{name} waits for the concurrency key {key} too.", None
            judged.add("key")
            held = _named(pools.key_holders(key, limit=MOST_NAMED + 1))
            until = expected_start.of_key(
                key, execution=execution.pk, workflow=execution.workflow_id, priority=execution.priority, now=now
            )
            return "key", f"{name} waits for its concurrency key {key}, held by {held}.", until


def _pool_users(name: str) -> str:
    pool = Pool.objects.filter(pk=name).first()
    if pool is None:
        return "which is gone: it goes on in a moment"
    return (
        f"which has {pool.free} of {pool.slots} slots free: held by {_named(pools.holders(name, limit=MOST_NAMED + 1))}"
    )


def _named(users: list[pools.User]) -> str:
    """The first few of those who hold something, by step or workflow and execution."""
    if not users:
        return "nobody any more"
    told = ", ".join(f"{user.label} ({user.execution})" for user in users[:MOST_NAMED])
    return f"{told} and others" if len(users) > MOST_NAMED else told


BEFORE = """
SELECT count(*) AS ahead FROM (
    SELECT 1 FROM execution_steprun s
    WHERE s.queue = %(queue)s::text AND s.state IN ('queued', 'retryable') AND s.available_at <= %(now)s::timestamptz
      AND (s.priority < %(priority)s::int
           OR (s.priority = %(priority)s::int AND s.available_at < %(available_at)s::timestamptz))
    LIMIT 10001
) counted
"""


def _queued(run: StepRun, name: str, lane: QueueState, now: datetime) -> Blocker:
    if lane.paused_at is not None:
        note = f" ({lane.pause_note})" if lane.pause_note else ""
        if lane.draining_at is not None:
            told = f"Queue {run.queue} was drained by {lane.paused_by}{note}."
            return Blocker(name, "queue_drained", told, None, run.pk)
        return Blocker(name, "queue_paused", f"Queue {run.queue} was paused by {lane.paused_by}{note}.", None, run.pk)
    if lane.workers == 0:
        return Blocker(
            name, "no_worker", f"No worker serves queue {run.queue}; start one with -Q {run.queue}.", None, run.pk
        )
    params = {"queue": run.queue, "priority": run.priority, "available_at": run.available_at, "now": now}
    ahead = engine.fetch_all(BEFORE, params, using="default")[0].ahead
    busy = lane.total("running")
    if ahead == 0:
        message = f"{name} is next in queue {run.queue}; {busy} of {lane.slots} slots are busy."
        until = now if busy < lane.slots else expected_start.in_queue(run.queue, ahead=1, now=now)
        return Blocker(name, "next", message, until, run.pk)
    until = expected_start.in_queue(run.queue, ahead=ahead, now=now)
    message = f"{name} waits in queue {run.queue} behind {'more than ' * (ahead > 10_000)}{min(ahead, 10_000)} others."
    return Blocker(name, "behind", message, until, run.pk)


def _instant(value: datetime) -> str:
    return value.isoformat(timespec="seconds")
