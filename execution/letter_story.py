"""The whole story of a dead letter in the order in which it happened: the attempts, its arrival, who tried again and
with which edits, what became of that, who discarded it or let it expire.

Nothing is written for it: it is read from the attempts, the audit trail, redrive jobs and the executions that tried
again, in five queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Q

from execution import workflows
from execution.models import Attempt, AuditEntry, DeadLetter, Execution, RedriveItem
from execution.states import AttemptState, DeadLetterState

#: Of each kind of event so many are told, the latest.
MOST: Final = 200
_ATTEMPT, _ARRIVED, _DEED, _JOB, _ENDED, _RESOLVED = range(6)
REDRIVE: Final = "dead_letter.redrive"
RESUME: Final = "execution.resume_from_failure"
_GROUP: Final = "dead_letter_group"
KINDS: Final = (
    "arrived",
    "attempt",
    "redriven",
    "resumed",
    "job",
    "tried",
    "step",
    "group_grew",
    "resolved",
    "discarded",
    "expired",
    "audit",
)
KIND_CHOICES: Final = tuple((kind, kind) for kind in KINDS)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a letter. `kind` is stable, `text` for people.

    `changes`: how an input was edited, value by value (path, kind, before, after).
    """

    at: datetime
    kind: str
    text: str
    actor: str = ""
    note: str = ""
    execution: UUID | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def story_of(letter: DeadLetter) -> list[Event]:
    """What happened to a letter, the earliest first."""
    entries = list(
        AuditEntry.objects.filter(
            Q(subject_kind="dead_letter", subject_id=str(letter.pk))
            | Q(subject_kind=_GROUP, subject_id=letter.fingerprint, created_at__gte=letter.created_at)
            | Q(subject_kind="step_run", subject_id=str(letter.step_run_id))
            | Q(
                subject_kind="execution",
                subject_id=str(letter.execution_id),
                action=RESUME,
                created_at__gte=letter.created_at,
            )
        ).order_by("-id")[:MOST]
    )
    attempts = Attempt.objects.filter(step_run=letter.step_run_id).order_by("-number").defer("traceback")[:MOST]
    tried = Execution.objects.filter(source_kind="redrive", source_id=str(letter.pk)).order_by("-id")[:MOST]
    items = RedriveItem.objects.filter(letter=letter).exclude(started_at=None).order_by("-started_at")[:MOST]
    events = sorted(_all(letter, attempts, entries, tried, items), key=lambda pair: (pair[1].at, pair[0]))
    return [event for _, event in events]


def _all(
    letter: DeadLetter,
    attempts: Iterable[Attempt],
    entries: Iterable[AuditEntry],
    tried: Iterable[Execution],
    items: Iterable[RedriveItem],
) -> Iterable[tuple[int, Event]]:
    where = letter.step_name or "the execution's output"
    yield _ARRIVED, Event(letter.created_at, "arrived", f"{where} failed for good ({letter.reason}): a dead letter")
    for attempt in attempts if letter.step_run_id is not None else ():
        yield _ATTEMPT, attempted(attempt)
    latest_first = list(entries)
    for later, entry in zip([None, *latest_first], latest_first, strict=False):
        # A redrive that resumes is noted for its execution and then for the letter: it is told once.
        if later is None or later.action != REDRIVE or (entry.action, entry.actor) != (RESUME, later.actor):
            yield _DEED, done(entry)
    for item in items:
        assert item.started_at is not None
        told = f"redrive job {item.job_id} took it up" + (f": {item.reason}" if item.reason else "")
        yield _JOB, Event(item.started_at, "job", told, execution=item.execution_id)
    for execution in tried:
        if execution.finished_at is not None:
            told = f"the execution that tried again has {execution.state}"
            told += f": {execution.state_reason}" if execution.state_reason else ""
            yield _ENDED, Event(execution.finished_at, "tried", told, execution=execution.pk)
    if letter.state == DeadLetterState.RESOLVED and letter.decided_at is not None:
        yield _RESOLVED, Event(letter.decided_at, "resolved", "trying again succeeded")


def attempted(attempt: Attempt) -> Event:
    """An attempt, at the time of its end (of its beginning while it runs)."""
    told = f"attempt {attempt.number} " + _ENDINGS.get(AttemptState(attempt.state), attempt.state)
    if attempt.error_type or attempt.error:
        told += ": " + ": ".join(part for part in (attempt.error_type, attempt.error[:500]) if part)
    return Event(attempt.finished_at or attempt.started_at, "attempt", told, actor=attempt.worker)


_ENDINGS: Final[Mapping[AttemptState, str]] = {
    AttemptState.RUNNING: "began",
    AttemptState.RETRYABLE: "failed and was to be tried again",
    AttemptState.FAILED: "failed for good",
    AttemptState.LOST: "lost its worker",
    AttemptState.RELEASED: "was given back",
    AttemptState.SNOOZED: "asked for a later time",
}
_KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "dead_letter.discard": ("discarded", "was discarded"),
    RESUME: ("resumed", "the execution was resumed at its failed steps"),
    "step.skip": ("step", "the step was skipped by hand"),
    "step.succeed": ("step", "the step was marked as succeeded"),
    "step.approve": ("step", "the step was approved"),
    "step.reject": ("step", "the step was rejected"),
}


def done(entry: AuditEntry) -> Event:
    """What somebody did, with the edits of the input value by value."""
    kind, text = _KINDS.get(entry.action, ("audit", entry.action))
    execution = None
    if entry.action == REDRIVE:
        kind = "redriven"
        restarts = _after(entry, "mode") == "restart"
        text = "was redriven as a new execution" if restarts else "was redriven from the failed step"
        execution = _uuid(_after(entry, "execution"))
    elif entry.action == "dead_letter.discard" and entry.actor == "system":
        kind, text = "expired", "expired without a decision"
    elif entry.subject_kind == _GROUP:
        kind, text = "group_grew", f"one of {_after(entry, 'threshold')} open letters of one kind by now"
    edited = entry.changes.get("input")
    changes = [] if not isinstance(edited, dict) else workflows.diff(edited.get("before"), edited.get("after"))
    if changes:
        text += f", with {len(changes)} edits of the input" if len(changes) > 1 else ", with an edit of the input"
    return Event(
        entry.created_at,
        kind,
        text,
        actor=entry.actor,
        note=entry.note,
        execution=execution,
        changes=[asdict(change) for change in changes],
    )


def _after(entry: AuditEntry, name: str) -> Any:
    change = entry.changes.get(name)
    return change.get("after") if isinstance(change, dict) else None


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(str(text)) if text else None
    except ValueError:
        return None
