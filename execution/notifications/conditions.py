"""What is looked for every few seconds: executions that run too long, queues that grow old, work that did not run.

A check says what holds now for one rule; `alerts.settle` tells what is new. Other apps add checks of theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db.models import Max

from execution import engine, queues
from execution.models import Execution, NotificationAlert, NotificationRule
from execution.notifications import alerts, intake, matching
from execution.notifications.intake import execution_data, facts_of
from execution.notifications.kinds import WATCHED, NotificationKind
from execution.notifications.outbox import Told

CHECK_SECONDS: Final = 10.0
#: Most executions that are looked at for one rule, the longest running first.
MOST_LOOKED_AT: Final = 1_000
#: Without ``seconds`` an execution runs too long beyond so many times the 95th percentile of its workflow's successes,
#: of which there must be so many, and not within the first seconds.
FACTOR: Final = 2.0
ENOUGH: Final = 10
AT_LEAST_SECONDS: Final = 5.0
USUAL_KEPT_SECONDS: Final = 300.0

Check = Callable[[NotificationRule, datetime, str], Mapping[str, Told]]

# Race: several workers. Each rule is looked at by whoever moves its time on.
DUE: Final = """
UPDATE execution_notificationrule SET checked_at = %(now)s::timestamptz WHERE id = ANY(ARRAY(
    SELECT id FROM execution_notificationrule
    WHERE enabled AND kind = ANY(%(kinds)s::text[])
      AND (checked_at IS NULL OR checked_at <= %(now)s::timestamptz - make_interval(secs => %(every)s::float8))
    ORDER BY checked_at NULLS FIRST LIMIT 20 FOR NO KEY UPDATE SKIP LOCKED))
RETURNING id
"""


def check(*, now: datetime | None = None, using: str | None = None) -> int:
    """Look at the rules whose turn it is. Returns how many conditions were told."""
    with engine.transaction(using=using) as alias:
        instant = now or engine.now(using=alias)
        kinds = sorted({*WATCHED, NotificationKind.DEAD_LETTERS_GROW})
        params = {"now": instant, "every": CHECK_SECONDS, "kinds": engine.array(kinds)}
        ids = [row.id for row in engine.fetch_all(DUE, params, using=alias)]
        told = 0
        for rule in NotificationRule.objects.using(alias).filter(pk__in=ids).order_by("id"):
            if rule.kind == NotificationKind.DEAD_LETTERS_GROW:
                _forget_small_groups(rule, alias)
                continue
            holding: dict[str, Told] = {}
            for found in CHECKS.get(rule.kind, []):
                holding |= found(rule, instant, alias)
            told += alerts.settle(rule, holding, now=instant, using=alias)
    return told


def running_long(rule: NotificationRule, now: datetime, using: str) -> dict[str, Told]:
    """Executions that run longer than the rule's seconds, or than is usual for their workflow."""
    shortest = rule.seconds if rule.seconds is not None else AT_LEAST_SECONDS
    running = Execution.objects.using(using).select_related("workflow")
    running = running.filter(state="running", started_at__lt=now - timedelta(seconds=shortest))
    if rule.workflow_id is not None:
        running = running.filter(workflow=rule.workflow_id)
    executions = [e for e in running.order_by("id")[:MOST_LOOKED_AT] if matching.fits(rule, facts_of(e))]
    limits = {} if rule.seconds is not None else usual({e.workflow_id for e in executions}, using=using)
    found = {}
    for execution in executions:
        limit = rule.seconds if rule.seconds is not None else limits.get(execution.workflow_id)
        assert execution.started_at is not None
        seconds = (now - execution.started_at).total_seconds()
        if limit is None or seconds <= limit:
            continue
        title = f"{execution.workflow.name} has been running for {seconds:.0f} s, longer than {limit:.0f} s"
        data = execution_data(execution) | {"seconds": round(seconds), "limit": round(limit, 1)}
        found[str(execution.pk)] = Told(kind=rule.kind, subject=str(execution.pk), title=title, at=now, data=data)
    return found


_usual: dict[UUID, tuple[float, float | None]] = {}


def usual(workflows: set[UUID], *, using: str) -> dict[UUID, float]:
    """How long executions of these workflows may run before it is unusual; without those that are too little known.

    Kept for five minutes: nothing here changes faster.
    """
    moment = time.monotonic()
    missing = sorted(w for w in workflows if w not in _usual or moment - _usual[w][0] > USUAL_KEPT_SECONDS)
    if missing:
        from execution import analysis  # with all that it simulates; a beat that has no such rule does without

        patterns = analysis.analyze_execution_patterns(sample=200, workflows=missing, using=using)
        known = {p.id: p for p in patterns.workflows}
        for workflow in missing:
            pattern = known.get(workflow)
            enough = pattern is not None and pattern.succeeded >= ENOUGH
            limit = max(AT_LEAST_SECONDS, FACTOR * pattern.p95) if pattern is not None and enough else None
            _usual[workflow] = moment, limit
    limits = {workflow: _usual[workflow][1] for workflow in workflows}
    return {workflow: limit for workflow, limit in limits.items() if limit is not None}


def queue_old(rule: NotificationRule, now: datetime, using: str) -> dict[str, Told]:
    """Queues whose oldest due work has waited longer than the rule's seconds."""
    found = {}
    for state in queues.stats([rule.queue] if rule.queue else None, using=using):
        age = (now - state.oldest_at).total_seconds() if state.oldest_at is not None else 0.0
        if rule.seconds is not None and age > rule.seconds:
            title = f"Work has waited for {age:.0f} s in the queue {state.name}"
            data = {"queue": state.name, "seconds": round(age), "waiting": state.total("waiting"),
                    "workers": state.workers}  # fmt: skip
            found[state.name] = Told(kind=rule.kind, subject=state.name, title=title, at=now, data=data)
    return found


def no_run(rule: NotificationRule, now: datetime, using: str) -> dict[str, Told]:
    """The rule's workflow, if no execution of it has begun for the rule's seconds."""
    if rule.workflow_id is None or rule.schedule or rule.seconds is None:
        return {}
    ids = Execution.objects.using(using).filter(workflow=rule.workflow_id).order_by("-id").values("id")[:100]
    latest = Execution.objects.using(using).filter(pk__in=ids).aggregate(at=Max("started_at"))["at"]
    since = max(latest, rule.created_at) if latest is not None else rule.created_at
    seconds = (now - since).total_seconds()
    if seconds <= rule.seconds:
        return {}
    assert rule.workflow is not None
    title = f"{rule.workflow.name} has not run for {seconds:.0f} s"
    data = {"workflow": rule.workflow.name, "seconds": round(seconds)}
    return {str(rule.workflow_id): Told(kind=rule.kind, subject=str(rule.workflow_id), title=title, at=now, data=data)}


def _forget_small_groups(rule: NotificationRule, using: str) -> None:
    """A group that has shrunk below what was told of it is told again when it grows again."""
    smallest = min(intake.sizes_of(rule), default=1)
    for alert in NotificationAlert.objects.using(using).filter(rule=rule).order_by("id")[:100]:
        if intake.open_in_group(alert.subject, using=using, most=smallest) < smallest:
            alerts.end(rule, alert.subject, using=using)


CHECKS: Final[dict[str, list[Check]]] = {
    NotificationKind.RUNNING_LONG: [running_long],
    NotificationKind.QUEUE_OLD: [queue_old],
    NotificationKind.NO_RUN: [no_run],
}
