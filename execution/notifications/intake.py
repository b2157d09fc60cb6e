"""From durable news to messages: what ended, what letters arrived, what schedules missed.

The database leaves a row of news in the transaction of a change if a rule in force asks for its kind, and only then
(migration 0011); other apps leave theirs with `publish`. Whoever comes by takes the rows and puts what fits into the
outbox, in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.conf import settings

from execution import engine, news
from execution.models import DeadLetter, Execution, NotificationRule
from execution.notifications import alerts, matching, outbox
from execution.notifications.kinds import NotificationKind
from execution.notifications.matching import Facts
from execution.notifications.outbox import Told

TOPIC: Final = "notification"
OF_EXECUTIONS: Final = (NotificationKind.FAILED, NotificationKind.FAILED_IN_A_ROW, NotificationKind.RECOVERED)
OF_LETTERS: Final = (NotificationKind.DEAD_LETTER, NotificationKind.DEAD_LETTERS_GROW)

WANTED: Final = """
SELECT kind, min(seconds) AS seconds FROM execution_notificationrule WHERE enabled AND kind = ANY(%(kinds)s::text[])
GROUP BY kind
"""
LEAVE: Final = """
INSERT INTO execution_news (topic, execution_id, subject, data, created_at)
SELECT %(topic)s::text, NULL, '', event::jsonb, clock_timestamp() FROM unnest(%(events)s::text[]) AS given (event)
"""


def wanted(kinds: Sequence[str], *, using: str | None = None) -> dict[str, float | None]:
    """Which of these kinds some rule in force looks for, with the smallest ``seconds`` that one asks for."""
    rows = engine.fetch_all(WANTED, {"kinds": engine.array(list(kinds))}, using=using)
    return {row.kind: row.seconds for row in rows}


def publish(events: Sequence[tuple[Told, Facts]], *, using: str | None = None) -> None:
    """Leave news in the open transaction. Call it for what is `wanted`: what no rule looks for is thrown away."""
    rows = [
        engine.dump_json(
            {
                "what": "told",
                "told": told.as_json(),
                "facts": {
                    "workflow": None if facts.workflow_id is None else str(facts.workflow_id),
                    "schedule": list(facts.schedule),
                    "labels": dict(facts.labels),
                    "queue": facts.queue,
                },
            }
        )
        for told, facts in events
    ]
    if rows:
        engine.fetch_all(LEAVE, {"topic": TOPIC, "events": engine.array(rows)}, using=using)


def consume(*, limit: int = 100, using: str | None = None) -> int:
    """Turn up to `limit` news into messages. Returns how many were taken. Safe to run anywhere."""
    with engine.transaction(using=using) as alias:
        rows = news.claim(TOPIC, limit=limit, using=alias)
        if rows:
            now = engine.now(using=alias)
            for row in rows:
                _take(row, now, alias)
    return len(rows)


def _take(row: Any, now: datetime, using: str) -> None:
    what = row.data["what"]
    if what == "told":
        _told(row.data, now, using)
    elif what == "letter":
        _letter(UUID(row.data["letter"]), now, using)
    else:
        _execution(row.execution_id, row.data, now, using)


def _told(data: dict[str, Any], now: datetime, using: str) -> None:
    """What another app has left."""
    given = dict(data["told"])
    at = datetime.fromisoformat(given.pop("at"))
    told = Told(kind=given.pop("kind"), subject=given.pop("subject"), title=given.pop("title"), at=at, data=given)
    facts = data["facts"]
    known = Facts(
        workflow_id=UUID(facts["workflow"]) if facts["workflow"] else None,
        schedule=tuple(facts["schedule"]),
        labels=facts["labels"],
        queue=facts["queue"],
    )
    late = given.get("seconds_late")
    for rule in matching.of_kinds([told.kind], using=using):
        if matching.fits(rule, known) and (late is None or rule.seconds is None or late >= rule.seconds):
            outbox.add(rule, told, now=now, using=using)


def _execution(execution_id: UUID, data: dict[str, Any], now: datetime, using: str) -> None:
    execution = Execution.objects.using(using).select_related("workflow").filter(pk=execution_id).first()
    # An end that was taken back at once (steps of on_failure or finally follow) has news of its own later.
    if execution is None or execution.finished_at is None or execution.state != data["state"]:
        return
    if abs(execution.finished_at.timestamp() - data["finished_at"]) > 0.001:
        return
    facts = facts_of(execution)
    for rule in matching.of_kinds(OF_EXECUTIONS, using=using):
        if matching.fits(rule, facts):
            _judge(rule, execution, now, using)


def facts_of(execution: Execution) -> Facts:
    """What rules can be held against of an execution."""
    of_schedule = execution.source_kind == "schedule"
    return Facts(
        workflow_id=execution.workflow_id,
        schedule=(execution.source_id, execution.source_label) if of_schedule else (),
        labels=execution.workflow.labels,
        queue=execution.queue or execution.workflow.queue,
    )


def _judge(rule: NotificationRule, execution: Execution, now: datetime, using: str) -> None:
    """One end and one rule that fits it."""
    name, is_failure = execution.workflow.name, execution.state == "failed"
    scope = str(execution.workflow_id)
    data = execution_data(execution)
    assert execution.finished_at is not None

    def tell(title: str, **more: Any) -> None:
        told = Told(kind=rule.kind, subject=scope, title=title, at=execution.finished_at or now, data=data | more)
        outbox.add(rule, told, now=now, using=using)

    if rule.kind == NotificationKind.FAILED:
        if is_failure:
            tell(f"{name} failed" + (f": {execution.state_reason}" if execution.state_reason else ""))
    elif rule.kind == NotificationKind.RECOVERED:
        if is_failure:
            alerts.begin(rule, scope, now=execution.finished_at, using=using)
        else:
            since = alerts.end(rule, scope, using=using)
            if since is not None and since <= execution.finished_at:
                tell(f"{name} works again", failed_since=since.isoformat())
    elif is_failure:
        times = rule.threshold or 1
        if in_a_row(execution, times, using=using) and alerts.begin(rule, scope, now=now, using=using):
            tell(f"{name} failed {times} times in a row", times=times)
    else:
        alerts.end(rule, scope, using=using)


def execution_data(execution: Execution) -> dict[str, Any]:
    """The ids of an execution that messages carry."""
    return {
        "execution": str(execution.pk),
        "workflow": execution.workflow.name,
        "state": execution.state,
        "source": execution.source_label or execution.source_kind,
    }


def in_a_row(execution: Execution, times: int, *, using: str) -> bool:
    """Whether the latest `times` executions of a workflow that succeeded or failed have all failed."""
    ended = Execution.objects.using(using).filter(workflow=execution.workflow_id, state__in=["succeeded", "failed"])
    latest = list(ended.order_by("-id").values_list("state", flat=True)[:times])
    return len(latest) == times and set(latest) == {"failed"}


def _letter(letter_id: UUID, now: datetime, using: str) -> None:
    letters = DeadLetter.objects.using(using).select_related("workflow", "execution__workflow")
    letter = letters.filter(pk=letter_id).first()
    if letter is None:
        return
    facts, step = facts_of(letter.execution), f"{letter.workflow.name}.{letter.step_name}".rstrip(".")
    data = {
        "dead_letter": str(letter.pk),
        "execution": str(letter.execution_id),
        "workflow": letter.workflow.name,
        "step": letter.step_name,
        "error_type": letter.error_type,
        "fingerprint": letter.fingerprint,
    }
    for rule in matching.of_kinds(OF_LETTERS, using=using):
        if not matching.fits(rule, facts):
            continue
        if rule.kind == NotificationKind.DEAD_LETTER:
            title = f"Dead letter of {step}: {letter.error_type or letter.reason}"
            told = Told(kind=rule.kind, subject=str(letter.pk), title=title, at=letter.created_at, data=data)
            outbox.add(rule, told, now=now, using=using)
            continue
        level = reached(open_in_group(letter.fingerprint, using=using), sizes_of(rule))
        if level and alerts.begin(rule, letter.fingerprint, level=level, now=now, using=using):
            title = f"{level} open dead letters of one cause: {step}: {letter.error_type or letter.reason}"
            told = Told(kind=rule.kind, subject=letter.fingerprint, title=title, at=now, data=data | {"size": level})
            outbox.add(rule, told, now=now, using=using)


def sizes_of(rule: NotificationRule) -> list[int]:
    """The sizes of a group of which a rule tells: its own, or those of the deployment."""
    return [rule.threshold] if rule.threshold else list(settings.WORKFLOW_DEAD_LETTER_ALERTS)


def reached(count: int, sizes: Sequence[int]) -> int:
    """The largest size that a group has reached, 0 for none. Pure.

    >>> reached(50, [10, 100]), reached(5, [10, 100])
    (10, 0)
    """
    return max((size for size in sizes if size <= count), default=0)


def open_in_group(fingerprint: str, *, using: str, most: int = 10_000) -> int:
    """How many open letters share a fingerprint, at most `most`."""
    letters = DeadLetter.objects.using(using).filter(state="open", fingerprint=fingerprint)
    return letters.order_by()[:most].count()
