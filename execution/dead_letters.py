"""What people decide about dead letters: redrive (from the failed step, or from the start) or discard.

A letter is `open` until somebody decides; `redriving` while the work is tried again; then `resolved`, or `open`
again with the new failure. The engine's finishing statement moves it on; here it is set in motion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from django.db.models import QuerySet

from execution import audit, engine, interventions, lifecycle
from execution.creation import Source
from execution.models import DeadLetter, Execution
from execution.states import DEAD_LETTER_UNDECIDED, DeadLetterState
from scheduling_project.common.errors import Conflict, DomainError, InvalidInput, NotFound

Mode = Literal["resume", "restart"]
MODES: Final[tuple[Mode, ...]] = ("resume", "restart")
BULK_LIMIT: Final = 1_000


def redrive(
    letter_id: UUID,
    *,
    actor: str,
    mode: Mode = "resume",
    input: Any = None,
    latest: bool = False,
    note: str = "",
) -> Execution:
    """Try the work behind a letter again and return the execution that does it.

    Args:
        mode: ``resume`` opens the failed execution again at its failed steps, keeping finished outputs;
            ``restart`` starts a new execution.
        input: edited input, checked against the version's schema; the change is kept in the audit trail.
        latest: with ``restart``, run the version that is published now.

    Raises:
        NotFound: there is no such letter.
        InvalidInput: the mode or the input.
        Conflict: the letter is not open, or its execution cannot be resumed.
    """
    if mode not in MODES:
        raise InvalidInput(fields={"mode": [f"must be one of {', '.join(MODES)}"]})
    return (
        _resume(letter_id, actor, input, note) if mode == "resume" else _restart(letter_id, actor, input, latest, note)
    )


# Race: the letter expires or is discarded while its execution is opened again. The reopening locks every open letter of
# it; what somebody has decided by then is seen afterwards, and nothing of this happens.
def _resume(letter_id: UUID, actor: str, input: Any, note: str) -> Execution:
    with engine.transaction() as alias:
        letter = _get(letter_id, alias)
        if letter.state != DeadLetterState.OPEN:
            raise _refusal(letter, "redriven")
        if letter.step_run_id is None:
            raise Conflict("No step has failed here, only what the execution was to return; restart it instead.")
        before = letter.execution.input
        lifecycle.resume_from_failure(letter.execution_id, actor=actor, input=input, note=note, using=alias)
        present = _get(letter_id, alias)
        if present.state not in DEAD_LETTER_UNDECIDED:
            raise _refusal(present, "redriven")
        changes: dict[str, Any] = {"mode": {"before": None, "after": "resume"}}
        if input is not None:
            changes |= audit.difference({"input": before}, {"input": input})
        _audit(letter, "redrive", actor, note=note, changes=changes, using=alias)
        return letter.execution


def _restart(letter_id: UUID, actor: str, input: Any, latest: bool, note: str) -> Execution:
    with engine.transaction() as alias:
        letter = _get(letter_id, alias)
        source = Source("redrive", str(letter.pk), f"redrive of {letter}")
        started = lifecycle.copy_of(letter.execution, source=source, input=input, latest=latest, using=alias)
        moved = interventions.move_letter(
            letter.pk,
            leaving=[DeadLetterState.OPEN],
            to=DeadLetterState.REDRIVING,
            actor=actor,
            note=note,
            execution_id=started.pk,
            using=alias,
        )
        if not moved:
            raise _refusal(_get(letter_id, alias), "redriven")
        changes: dict[str, Any] = {
            "mode": {"before": None, "after": "restart"},
            "execution": {"before": str(letter.execution_id), "after": str(started.pk)},
        }
        if input is not None:
            changes |= audit.difference({"input": letter.execution.input}, {"input": input})
        _audit(letter, "redrive", actor, note=note, changes=changes, using=alias)
        return started


def discard(letter_id: UUID, *, actor: str, note: str = "") -> None:
    """Decide that nothing more is to be done about a letter.

    Raises:
        NotFound: there is no such letter.
        Conflict: it is decided already.
    """
    with engine.transaction() as alias:
        moved = interventions.move_letter(
            letter_id,
            leaving=[DeadLetterState(state) for state in sorted(DEAD_LETTER_UNDECIDED)],
            to=DeadLetterState.DISCARDED,
            actor=actor,
            note=note,
            using=alias,
        )
        letter = _get(letter_id, alias)
        if not moved:
            raise _refusal(letter, "discarded")
        _audit(letter, "discard", actor, note=note, using=alias)


# ── Many at once ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which open letters: those that satisfy all that is given."""

    ids: Sequence[UUID] = ()
    fingerprint: str = ""
    workflow_id: UUID | None = None
    step: str = ""
    error_type: str = ""
    before: datetime | None = None

    @property
    def is_everything(self) -> bool:
        return self == Selection()

    def letters(self) -> QuerySet[DeadLetter]:
        """Oldest first."""
        found = DeadLetter.objects.filter(state=DeadLetterState.OPEN)
        if self.ids:
            found = found.filter(pk__in=self.ids)
        if self.fingerprint:
            found = found.filter(fingerprint=self.fingerprint)
        if self.workflow_id:
            found = found.filter(workflow_id=self.workflow_id)
        if self.step:
            found = found.filter(step_name=self.step)
        if self.error_type:
            found = found.filter(error_type=self.error_type)
        if self.before:
            found = found.filter(created_at__lt=self.before)
        return found.order_by("id")


@dataclass(slots=True)
class BulkResult:
    """What became of many letters. `left`: open letters of the selection beyond the limit."""

    done: list[UUID] = field(default_factory=list)
    refused: dict[UUID, str] = field(default_factory=dict)
    left: int = 0


def redrive_many(
    selection: Selection,
    *,
    actor: str,
    mode: Mode = "resume",
    input: Any = None,
    limit: int = 100,
    note: str = "",
) -> BulkResult:
    """Redrive the oldest open letters of a selection, each in a transaction of its own.

    A first call with ``limit=1`` makes a canary of the oldest.
    """
    return _each(selection, limit, lambda letter_id: redrive(letter_id, actor=actor, mode=mode, input=input, note=note))


def discard_many(selection: Selection, *, actor: str, limit: int = 100, note: str = "") -> BulkResult:
    """Discard the oldest open letters of a selection, each in a transaction of its own."""
    return _each(selection, limit, lambda letter_id: discard(letter_id, actor=actor, note=note))


def _each(selection: Selection, limit: int, decide: Any) -> BulkResult:
    result = BulkResult()
    for letter_id in list(selection.letters().values_list("id", flat=True)[:limit]):
        try:
            decide(letter_id)
        except DomainError as error:
            result.refused[letter_id] = str(error)
        else:
            result.done.append(letter_id)
    result.left = selection.letters().exclude(pk__in=result.refused).count()
    return result


@dataclass(frozen=True, slots=True)
class Group:
    """Open letters that share a fingerprint, with the latest of them as the example."""

    fingerprint: str
    count: int
    first_at: datetime
    last_at: datetime
    example_id: UUID
    workflow_id: UUID
    workflow_name: str
    step_name: str
    error_type: str
    error: str


GROUPS = """
WITH counted AS MATERIALIZED (
    SELECT fingerprint, count(*) AS count, min(created_at) AS first_at, max(created_at) AS last_at
    FROM execution_deadletter WHERE state = %(state)s::text
    GROUP BY fingerprint ORDER BY count(*) DESC, fingerprint LIMIT %(limit)s::int
)
SELECT c.fingerprint, c.count, c.first_at, c.last_at, d.id, d.workflow_id, w.name, d.step_name, d.error_type,
       left(d.error, 500)
FROM counted c
CROSS JOIN LATERAL (
    SELECT * FROM execution_deadletter e WHERE e.state = %(state)s::text AND e.fingerprint = c.fingerprint LIMIT 1
) d
JOIN execution_workflow w ON w.id = d.workflow_id
ORDER BY c.count DESC, c.fingerprint
"""


def groups(*, state: DeadLetterState = DeadLetterState.OPEN, limit: int = 100, using: str = "default") -> list[Group]:
    """Letters of one state by fingerprint, the largest group first."""
    rows = engine.fetch_all(GROUPS, {"state": state.value, "limit": limit}, using=using)
    return [Group(*row) for row in rows]


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _get(letter_id: UUID, using: str) -> DeadLetter:
    found = (
        DeadLetter.objects.using(using)
        .select_related("execution__workflow__published", "execution__version__workflow")
        .filter(pk=letter_id)
        .first()
    )
    if found is None:
        raise NotFound("There is no such dead letter.")
    return found


def _refusal(letter: DeadLetter, done: str) -> Conflict:
    return Conflict(f"The dead letter is {letter.state} and cannot be {done}.", state=letter.state)


def _audit(
    letter: DeadLetter, verb: str, actor: str, *, note: str, changes: dict[str, Any] | None = None, using: str
) -> None:
    audit.record(
        actor=actor,
        action=f"dead_letter.{verb}",
        subject_kind="dead_letter",
        subject_id=letter.pk,
        subject_label=str(letter),
        note=note,
        changes=changes,
        using=using,
    )
