"""The checker is checked: each safeguard of the protocol taken away, one at a time, which a drill must notice.

A sabotage changes statements and functions in the memory of a drill's processes, and the drill's own database. It is
named by an environment variable that no setting knows; `apply` refuses unless the process belongs to a drill, which
runs on servers of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from django.core.exceptions import ImproperlyConfigured

from scheduling_project.drills.environment import CONTROL, SABOTAGE

LETTER_DELAY = 0.4  # seconds between a failure and its dead letter, when they are two statements


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One safeguard without which the drill `noticed_by` must fail with a problem that says `finding`.

    `remove` takes it away in one process, `sql` in the database, statement by statement outside transactions.
    """

    noticed_by: str
    finding: str
    remove: Callable[[], None] = lambda: None
    sql: tuple[LiteralString, ...] = ()

    def is_noticed(self, problems: Sequence[str]) -> bool:
        """Whether a drill that reports these problems has noticed that the safeguard is missing."""
        return any(self.finding in problem for problem in problems)


def _no_unique_instant() -> None:
    """The unique key of (schedule, instant) in the ledger."""
    from schedules import claims

    claims.INSERT_LEDGER = _without(claims.INSERT_LEDGER, "ON CONFLICT (schedule_id, scheduled_for) DO NOTHING")


def _no_catch_up() -> None:
    """The watermark's debt: a beat goes on from now, as stock beat does."""
    from schedules import due

    plain = due.collect

    def collect(segments: Any, *, after: int, now: int, **options: Any) -> Any:
        return plain(segments, after=max(after, now - 2), now=now, **options)

    due.collect = collect


def _no_second_dispatch() -> None:
    """The sweep that sends again what the broker lost, by its epoch and by age."""
    from execution import dispatch, handoff

    dispatch.check_epoch = lambda: 0
    handoff.mark_stale = lambda **_: []


def _no_idempotent_intake() -> None:
    """The unique key of an endpoint's deliveries: a repeat is stored as another event."""
    from triggers import event_rows

    plain = event_rows.columns

    def columns(*arguments: Any, **options: Any) -> dict[str, Any]:
        return plain(*arguments, **options) | {"dedup_key": None}

    event_rows.columns = columns


def _ack_before_commit() -> None:
    """An answer only after the commit: Postgres says "committed" before it has written anything."""


def _no_fence() -> None:
    """The lease token in every write of an attempt: whoever was late ends the step all the same."""
    from execution import queue

    queue.HELD = "s.state IN ('running', 'succeeded')"
    queue.heartbeat = lambda *_, **__: True  # nobody learns that the lease is lost


def _no_claim_guard() -> None:
    """The states that a claim leaves: a second message claims what already runs."""
    from execution import queue

    guarded, open_ = "s.state IN ('queued', 'retryable')", "s.state IN ('queued', 'retryable', 'running')"
    queue.CLAIM = _without(queue.CLAIM, guarded, open_)
    queue.CLAIM_WITH_POOL = _without(queue.CLAIM_WITH_POOL, guarded, open_)


def _letter_apart() -> None:
    """The dead letter in the statement that fails the step: it is written a moment later, by a second one."""
    from execution import engine, queue
    from execution.finishing import Part
    from scheduling_project.common.ids import uuid7

    finish, parts_of = queue.finish, queue.parts_of
    insert = """
        INSERT INTO execution_deadletter (id, execution_id, step_run_id, workflow_id, step_name, reason, error_type,
            error, traceback, fingerprint, attempts, worker, state, note, redrives, decided_by, created_at)
        SELECT %(letter_id)s::uuid, s.execution_id, s.id, e.workflow_id, s.name, %(letter)s::text, '', '', '', '',
            s.attempt, s.worker, 'open', '', 0, '', clock_timestamp()
        FROM execution_steprun s JOIN execution_execution e ON e.id = s.execution_id WHERE s.id = %(id)s::uuid
    """

    def apart(step_run_id: Any, *, ending: queue.Ending, **options: Any) -> Any:
        finished = finish(step_run_id, ending=ending, **options)
        if finished is not None and ending.letter:
            time.sleep(LETTER_DELAY)
            engine.fetch_all(insert, {"letter_id": uuid7(), "letter": ending.letter, "id": step_run_id})
        return finished

    queue.parts_of = lambda *arguments, **options: parts_of(*arguments, **options) & ~Part.LETTER
    queue.finish = apart


def _without(statement: str, part: str, instead: str = "") -> str:
    """A statement with a part replaced, which must be in it: a sabotage that changes nothing would prove nothing."""
    if part not in statement:
        raise ImproperlyConfigured(f"there is no {part!r} to be taken away")
    return statement.replace(part, instead)


SABOTAGES: Final[dict[str, Sabotage]] = {
    "unique-instant": Sabotage(
        "watermarks-set-back",
        "instants are in the ledger or ran more than once",
        _no_unique_instant,
        ("ALTER TABLE schedules_schedulefire DROP CONSTRAINT ledger_instant_once",),
    ),
    "catch-up": Sabotage("beats-killed", "due instants are not in the ledger", _no_catch_up),
    "re-dispatch": Sabotage("redis-flushed", "executions did not succeed", _no_second_dispatch),
    "idempotent-intake": Sabotage("web-killed", "got other ids", _no_idempotent_intake),
    "ack-after-commit": Sabotage(
        "postgres-restarted",
        "accepted webhooks have no event",
        _ack_before_commit,
        (
            "ALTER SYSTEM SET synchronous_commit = off",
            "ALTER SYSTEM SET wal_writer_delay = '2s'",
            "SELECT pg_reload_conf()",
        ),
    ),
    "fence": Sabotage(
        "worker-frozen",
        "stale attempts committed",
        _no_fence,
        # The second line of the same defence: an execution that has succeeded counts no further step.
        ("ALTER TABLE execution_execution DROP CONSTRAINT execution_succeeded_has_no_open_steps",),
    ),
    "claim-guard": Sabotage("messages-doubled", "effects were repeated", _no_claim_guard),
    "letter-in-statement": Sabotage("permanent-failures", "have no dead letter", _letter_apart),
}


def apply() -> None:
    """Take away the safeguard that the environment names, if it names one.

    Raises:
        ImproperlyConfigured: this process belongs to no drill, or there is no such safeguard.
    """
    name = os.environ.get(SABOTAGE)
    if not name:
        return
    if not os.environ.get(CONTROL):
        raise ImproperlyConfigured(f"{SABOTAGE} takes a safeguard away: only a drill on its own servers may set it.")
    if name not in SABOTAGES:
        raise ImproperlyConfigured(f"{SABOTAGE}={name}: there is {', '.join(SABOTAGES)}.")
    SABOTAGES[name].remove()
