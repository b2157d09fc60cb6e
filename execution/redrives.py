"""Redrive jobs: many dead letters tried again at a measured pace, by whichever worker's housekeeping comes by.

A job is a row, its letters are rows in the order of their arrival. Each letter is taken up in a transaction of its
own that holds the job's row, so any number of workers may advance one job and its canary, its rate and its stop are
exact all the same. Order of locking: redrive job, execution, step runs, letter.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import DataError, IntegrityError, connections

from execution import audit, creation, dead_letters, engine
from execution.dead_letters import MODES, Mode, Selection
from execution.definitions import validate_input
from execution.models import DeadLetter, RedriveItem, RedriveJob
from execution.queue import CLOCK
from execution.redrive_pace import Move, Next, Progress, decide
from execution.states import DeadLetterState, RedriveItemState, RedriveJobState
from scheduling_project.common.errors import Conflict, DomainError, InvalidInput, NotFound
from scheduling_project.common.json_values import merge_patch
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

#: Seconds that one turn of the housekeeping may take.
TURN_SECONDS: Final = 0.25
SYSTEM: Final = "system"


def create(
    selection: Selection,
    *,
    actor: str,
    mode: Mode = "resume",
    latest: bool = False,
    input: Any = None,
    input_patch: Any = None,
    rate_per_minute: float | None = None,
    canary: bool = True,
    max_failures: int | None = 1,
    limit: int | None = None,
    note: str = "",
    using: str | None = None,
) -> RedriveJob:
    """Begin a job that redrives the open letters of a selection, oldest first. They are fixed now.

    Args:
        mode: ``resume`` at the failed step, or ``restart`` as new executions.
        latest: with ``restart``, the version that is published when a letter's turn comes.
        input: one input for all of them; their own when None.
        input_patch: a JSON merge patch (RFC 7396) of each one's own input.
        rate_per_minute: how many at most are taken up in a minute.
        canary: one first, then ten, then all, each time when the last have ended well.
        max_failures: stop at so many that failed again or were refused; never when None.
        limit: only so many of the oldest.

    Raises:
        InvalidInput: naming the value that is wrong; the input is checked against the oldest letter's version.
        Conflict: no open letter is selected.
    """
    _check(mode, latest, input, input_patch, rate_per_minute, max_failures)
    with engine.transaction(using=using) as alias:
        letters = selection.letters().using(alias)
        oldest = letters.select_related("execution__version", "execution__workflow__published").first()
        if oldest is None:
            raise Conflict("No open dead letter is selected.")
        _check_input(oldest, latest, input, input_patch)
        job = RedriveJob.objects.using(alias).create(
            selection=_shown_selection(selection),
            mode=mode,
            latest=latest,
            input=input,
            input_patch=input_patch,
            note=note[:500],
            created_by=actor[:200],
            rate_per_minute=rate_per_minute,
            canary=canary,
            max_failures=max_failures,
        )
        total = _add_items(job, letters if limit is None else letters[:limit], alias)
        RedriveJob.objects.using(alias).filter(pk=job.pk).update(total=total)
        job.refresh_from_db(using=alias)
        _audit(job, "create", actor, note=note, changes={"letters": {"before": None, "after": total}}, using=alias)
    log.info("redrive_job.created", job_id=str(job.pk), letters=total, actor=actor)
    return job


def cancel(job_id: UUID, *, actor: str, note: str = "", using: str | None = None) -> None:
    """Let a job take up no further letter. Those under way go on.

    Raises:
        NotFound: there is no such job.
        Conflict: it has ended.
    """
    with engine.transaction(using=using) as alias:
        told = f"cancelled by {actor}" + (f": {note}" if note else "")
        ended = engine.fetch_all(
            END, {"id": job_id, "state": "cancelled", "reason": told[:500], "now": None}, using=alias
        )
        job = RedriveJob.objects.using(alias).filter(pk=job_id).first()
        if job is None:
            raise NotFound("There is no such redrive job.")
        if not ended:
            raise Conflict(f"The redrive job is {job.state} and cannot be cancelled.", state=job.state)
        _audit(job, "cancel", actor, note=note, using=alias)


# ── Advancing ────────────────────────────────────────────────────────────────────────────────────────────────

# Race: several workers and one job. Whoever holds its row advances it; the others pass on to the next job.
HOLD = f"""
WITH {CLOCK}
SELECT j.id, j.mode, j.latest, j.input, j.input_patch, j.note, j.created_by, j.rate_per_minute, j.canary,
       j.max_failures, j.total, j.started, j.succeeded, j.failed, j.skipped, j.next_at, clock.now
FROM execution_redrivejob j, clock
WHERE j.state = 'running' AND j.next_at <= clock.now AND j.id <> ALL(%(passed)s::uuid[])
ORDER BY j.next_at LIMIT 1 FOR NO KEY UPDATE OF j SKIP LOCKED
"""

# The outcomes of letters under way. Those are the first open items: letters are taken up in order.
SETTLE = f"""
WITH {CLOCK},
open AS MATERIALIZED (
    SELECT i.id, i.letter_id, i.state FROM execution_redriveitem i
    WHERE i.job_id = %(id)s::uuid AND i.state IN ('pending', 'redriving') ORDER BY i.position LIMIT %(most)s::int
), settled AS (
    UPDATE execution_redriveitem i
    SET state = CASE d.state WHEN 'resolved' THEN 'succeeded' WHEN 'open' THEN 'failed' ELSE 'skipped' END,
        reason = CASE d.state WHEN 'open' THEN left(d.error, 500) ELSE '' END, finished_at = clock.now
    FROM open, execution_deadletter d, clock
    WHERE i.id = open.id AND open.state = 'redriving' AND d.id = open.letter_id AND d.state <> 'redriving'
    RETURNING i.state
), counted AS (
    SELECT count(*) FILTER (WHERE state = 'succeeded')::int AS succeeded,
           count(*) FILTER (WHERE state = 'failed')::int AS failed,
           count(*) FILTER (WHERE state = 'skipped')::int AS skipped FROM settled
)
UPDATE execution_redrivejob j
SET succeeded = j.succeeded + c.succeeded, failed = j.failed + c.failed, skipped = j.skipped + c.skipped
FROM counted c WHERE j.id = %(id)s::uuid
RETURNING j.succeeded, j.failed, j.skipped
"""

NEXT_ITEM = """
SELECT i.id, i.letter_id FROM execution_redriveitem i
WHERE i.job_id = %(id)s::uuid AND i.state = 'pending' ORDER BY i.position LIMIT 1
"""

TAKE_UP = f"""
WITH {CLOCK},
item AS (
    UPDATE execution_redriveitem i
    SET state = %(state)s::text, reason = %(reason)s::text, execution_id = %(execution_id)s::uuid,
        started_at = clock.now, finished_at = CASE WHEN %(state)s::text <> 'redriving' THEN clock.now END
    FROM clock WHERE i.id = %(item)s::bigint
)
UPDATE execution_redrivejob j
SET started = j.started + 1, failed = j.failed + (%(state)s::text = 'refused')::int,
    skipped = j.skipped + (%(state)s::text = 'skipped')::int, next_at = %(next_at)s::timestamptz
WHERE j.id = %(id)s::uuid
"""

# Pending letters went with their workflow: the job ends with those that it has taken up.
FORGET_MISSING = """
UPDATE execution_redrivejob j SET total = j.started WHERE j.id = %(id)s::uuid
"""

LOOK_AGAIN = "UPDATE execution_redrivejob SET next_at = %(next_at)s::timestamptz WHERE id = %(id)s::uuid"

# Race: cancelled while a worker holds the job: this waits for it, and finds the job running or ended.
END = f"""
WITH {CLOCK}
UPDATE execution_redrivejob j SET state = %(state)s::text, state_reason = %(reason)s::text, finished_at = clock.now
FROM clock WHERE j.id = %(id)s::uuid AND j.state = 'running'
RETURNING j.id
"""


def advance(*, now: datetime | None = None, seconds: float = TURN_SECONDS) -> int:
    """Go on with all jobs that are due, letter by letter, for about `seconds`. Returns how many letters were taken up.

    Safe to run anywhere, any number of times at once.
    """
    give_up_at = time.monotonic() + seconds
    taken, passed = 0, list[UUID]()
    while time.monotonic() < give_up_at:
        turn = _turn(passed, now=now)
        if turn is None:
            break
        job_id, move = turn
        taken += move.next is Next.START
        if move.next is not Next.START:
            passed.append(job_id)
    return taken


def _turn(passed: list[UUID], *, now: datetime | None) -> tuple[UUID, Move] | None:
    """One move of one due job, in one transaction; None when no job is due or to be had."""
    with engine.transaction() as alias:
        job = engine.fetch_one(HOLD, {"passed": passed, "now": now})
        if job is None:
            return None
        most = job.started - job.succeeded - job.failed - job.skipped
        settled = engine.fetch_one(SETTLE, {"id": job.id, "most": most, "now": now})
        assert settled is not None
        move = decide(
            Progress(
                total=job.total,
                started=job.started,
                settled=settled.succeeded + settled.failed + settled.skipped,
                failed=settled.failed,
                canary=job.canary,
                rate_per_minute=job.rate_per_minute,
                max_failures=job.max_failures,
                next_at=job.next_at,
            ),
            now=job.now,
        )
        match move.next:
            case Next.START:
                _take_up(job, move, now=now)
            case Next.WAIT:
                engine.fetch_all(LOOK_AGAIN, {"id": job.id, "next_at": move.next_at})
            case _:
                _end(job.id, move, alias, now=now)
        return job.id, move


def _take_up(job: Any, move: Move, *, now: datetime | None) -> None:
    item = engine.fetch_one(NEXT_ITEM, {"id": job.id})
    if item is None:
        engine.fetch_all(FORGET_MISSING, {"id": job.id})
        return
    execution_id: UUID | None = None
    try:
        state, reason, execution_id = _redrive(job, item.letter_id)
    except (DomainError, DataError, IntegrityError) as error:
        state, reason = RedriveItemState.REFUSED, str(error)[:500]
    params = {"id": job.id, "item": item.id, "state": state.value, "reason": reason, "execution_id": execution_id}
    engine.fetch_all(TAKE_UP, params | {"next_at": move.next_at, "now": now})


def _redrive(job: Any, letter_id: UUID) -> tuple[RedriveItemState, str, UUID | None]:
    letter = DeadLetter.objects.using(engine.alias()).select_related("execution").get(pk=letter_id)
    if letter.state == DeadLetterState.REDRIVING:  # an earlier letter of the same execution has taken it along
        return RedriveItemState.REDRIVING, "redriven with its execution", letter.execution_id
    if letter.state != DeadLetterState.OPEN:
        return RedriveItemState.SKIPPED, f"it is {letter.state}", None
    own, patch = engine.load_json(job.input), engine.load_json(job.input_patch)
    edited = own if patch is None else merge_patch(letter.execution.input, patch)
    with engine.transaction():
        execution = dead_letters.redrive(
            letter_id,
            actor=job.created_by,
            mode=job.mode,
            input=edited,
            latest=job.latest,
            note=job.note or f"redrive job {job.id}",
        )
    return RedriveItemState.REDRIVING, "", execution.pk


def _end(job_id: UUID, move: Move, using: str, *, now: datetime | None) -> None:
    state = RedriveJobState.DONE if move.next is Next.DONE else RedriveJobState.STOPPED
    engine.fetch_all(END, {"id": job_id, "state": state.value, "reason": move.reason[:500], "now": now})
    job = RedriveJob.objects.using(using).get(pk=job_id)
    _audit(job, str(state.value), SYSTEM, note=move.reason, changes=_outcome(job), using=using)
    tell = log.info if state is RedriveJobState.DONE else log.warning
    tell(
        f"redrive_job.{state.value}", job_id=str(job_id), reason=move.reason, succeeded=job.succeeded, failed=job.failed
    )


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def progress_of(job: RedriveJob) -> Progress:
    """What the pace of a job is decided from."""
    return Progress(
        total=job.total,
        started=job.started,
        settled=job.succeeded + job.failed + job.skipped,
        failed=job.failed,
        canary=job.canary,
        rate_per_minute=job.rate_per_minute,
        max_failures=job.max_failures,
        next_at=job.next_at,
    )


def _check(
    mode: str, latest: bool, input: Any, patch: Any, rate_per_minute: float | None, max_failures: int | None
) -> None:
    problems: dict[str, list[str]] = {}
    if mode not in MODES:
        problems["mode"] = [f"must be one of {', '.join(MODES)}"]
    if latest and mode != "restart":
        problems["latest"] = ["needs mode restart: a resumed execution keeps its version"]
    if input is not None and patch is not None:
        problems["input_patch"] = ["cannot be given together with input"]
    if patch is not None and not isinstance(patch, dict):
        problems["input_patch"] = ["must be an object"]
    if rate_per_minute is not None and not 0 < rate_per_minute <= 60_000:
        problems["rate_per_minute"] = ["must be more than 0 and at most 60000"]
    if max_failures is not None and max_failures < 1:
        problems["max_failures"] = ["must be at least 1"]
    if problems:
        raise InvalidInput(fields=problems)


def _check_input(oldest: DeadLetter, latest: bool, input: Any, patch: Any) -> None:
    if input is None and patch is None:
        return
    version = oldest.execution.workflow.published if latest else oldest.execution.version
    if version is None:
        raise Conflict(f"Workflow {oldest.execution.workflow.name} has no published version.")
    edited = input if patch is None else merge_patch(oldest.execution.input, patch)
    validate_input(version, edited, at="input" if patch is None else "input_patch")
    creation.check_size(edited, field_name="input" if patch is None else "input_patch")


def _shown_selection(selection: Selection) -> dict[str, Any]:
    values = asdict(selection)
    shown = {name: value for name, value in values.items() if value}
    if "ids" in shown:
        shown["ids"] = [str(letter_id) for letter_id in shown["ids"]]
    for name in ("workflow_id", "before"):
        if name in shown:
            shown[name] = str(shown[name]) if name == "workflow_id" else shown[name].isoformat()
    return shown


def _add_items(job: RedriveJob, letters: Any, using: str) -> int:
    sql, params = letters.values("id").query.sql_with_params()
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO {RedriveItem._meta.db_table} (job_id, letter_id, position, state, reason)
            SELECT %s, chosen.id, row_number() OVER (ORDER BY chosen.id) - 1, 'pending', '' FROM ({sql}) chosen (id)
            """,
            [job.pk, *params],
        )
        return int(cursor.rowcount)


def _outcome(job: RedriveJob) -> dict[str, Any]:
    return {name: {"before": 0, "after": getattr(job, name)} for name in ("started", "succeeded", "failed", "skipped")}


def _audit(
    job: RedriveJob, verb: str, actor: str, *, note: str = "", changes: dict[str, Any] | None = None, using: str
) -> None:
    audit.record(
        actor=actor,
        action=f"redrive_job.{verb}",
        subject_kind="redrive_job",
        subject_id=job.pk,
        subject_label=str(job),
        note=note,
        changes=changes,
        using=using,
    )
