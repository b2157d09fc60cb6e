"""Workers as operators see and steer them: who is alive, who was lost, and pause, drain and resume of one of them.

A wish stands in the worker's row. The worker learns it with its next report (each ``WORKFLOW_REPORT_SECONDS``) and
stops consuming; what it runs is left to end.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from execution import audit, engine, news
from execution.models import ProcessReport
from execution.queues import ALIVE_SECONDS
from scheduling_project.common.errors import Conflict, NotFound
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

#: The type of event that triggers can ask for.
LOST: Final = "worker.lost"

# Race: two operators, or an operator and the worker's end: the wish is taken where it changes something and the
# worker lives, in one statement.
WISH = """
UPDATE execution_processreport
SET wanted = %(wanted)s::text, wanted_at = clock_timestamp(), wanted_by = %(actor)s::text, wanted_note = %(note)s::text,
    ends_when_drained = %(ends)s::bool, drained_at = NULL, extra_queues = '[]'
WHERE name = %(name)s::text AND kind = 'worker' AND stopped_at IS NULL
  AND seen_at > clock_timestamp() - make_interval(secs => %(alive)s::float8)
  AND (wanted, ends_when_drained) IS DISTINCT FROM (%(wanted)s::text, %(ends)s::bool)
  AND NOT (wanted = 'draining' AND %(wanted)s::text = 'paused')
RETURNING name
"""

RESUME = """
UPDATE execution_processreport
SET wanted = '', wanted_at = NULL, wanted_by = '', wanted_note = '', ends_when_drained = false, drained_at = NULL
WHERE name = %(name)s::text AND kind = 'worker' AND wanted <> '' RETURNING name
"""

# Race: it is resumed at this moment: the wish is named.
DRAINED = """
UPDATE execution_processreport SET drained_at = clock_timestamp()
WHERE name = %(name)s::text AND wanted = 'draining' AND drained_at IS NULL RETURNING ends_when_drained
"""

# Race: every worker looks for the lost ones: the first UPDATE names the row, the others find it marked. Nobody could
# report while Postgres was away, so nobody is lost before it has been up for as long again.
MARK_LOST = f"""
WITH {engine.CLOCK},
lost AS (
    UPDATE execution_processreport SET lost_at = clock.now, extra_queues = '[]' FROM clock
    WHERE kind = 'worker' AND stopped_at IS NULL AND lost_at IS NULL
      AND seen_at < clock.now - make_interval(secs => %(alive)s::float8)
      AND pg_postmaster_start_time() < clock.now - 2 * make_interval(secs => %(alive)s::float8)
    RETURNING name, host, seen_at
)
SELECT name, host, seen_at FROM lost
"""


def get(name: str, *, using: str = "default") -> ProcessReport:
    """
    Raises:
        NotFound: no worker of this name has reported.
    """
    found = ProcessReport.objects.using(using).filter(pk=name, kind="worker").first()
    if found is None:
        raise NotFound(f"There is no worker {name}.")
    return found


def is_alive(report: ProcessReport, now: datetime) -> bool:
    """Whether it reported lately and did not say that it stopped."""
    return report.stopped_at is None and (now - report.seen_at).total_seconds() < ALIVE_SECONDS


def status_of(report: ProcessReport, now: datetime) -> str:
    """``active``, ``paused``, ``draining``, ``drained``, ``stopped`` (it said so) or ``lost`` (it did not)."""
    if report.stopped_at is not None:
        return "stopped"
    if not is_alive(report, now):
        return "lost"
    if report.wanted == "draining" and report.drained_at is not None:
        return "drained"
    return report.wanted or "active"


def pause(name: str, *, actor: str, note: str = "", using: str | None = None) -> None:
    """Let one worker take nothing new until `resume`. What it runs is left to end.

    Raises:
        NotFound: there is no such worker.
        Conflict: it is not alive, or paused or drained already.
    """
    _wish(name, "paused", verb="pause", actor=actor, note=note, ends=False, using=using)


def drain(name: str, *, actor: str, note: str = "", ends: bool = False, using: str | None = None) -> None:
    """Let one worker take nothing new, and report when it runs nothing any more.

    Args:
        ends: the worker then ends itself.

    Raises:
        NotFound: there is no such worker.
        Conflict: it is not alive, or being drained in the same way already.
    """
    _wish(name, "draining", verb="drain", actor=actor, note=note, ends=ends, using=using)


def resume(name: str, *, actor: str, using: str | None = None) -> None:
    """Let one worker take work again.

    Raises:
        NotFound: there is no such worker.
        Conflict: it is neither paused nor drained.
    """
    with engine.transaction(using=using) as alias:
        get(name, using=alias)
        if not engine.fetch_all(RESUME, {"name": name}, using=alias):
            raise Conflict(f"Worker {name} is not paused.")
        _audit(name, "resume", actor, "", alias)


def report_drained(name: str, *, using: str | None = None) -> bool:
    """Note that a draining worker runs nothing any more; said once. True when it is now to end."""
    with engine.transaction(using=using) as alias:
        row = engine.fetch_one(DRAINED, {"name": name}, using=alias)
        if row is None:
            return False
        _audit(name, "drained", "system", "", alias)
    log.info("worker.drained", worker=name)
    return bool(row.ends_when_drained)


def mark_lost(*, now: datetime | None = None, using: str | None = None) -> list[str]:
    """Note which workers have not reported for long, without having said that they stop; each is noted once.

    Their slots no longer count, what was lent to them is theirs no more, and the leases give back what they ran.
    """
    with engine.transaction(using=using) as alias:
        rows = engine.fetch_all(MARK_LOST, {"alive": ALIVE_SECONDS, "now": now}, using=alias)
        for row in rows:
            _audit(row.name, "lost", "system", f"last seen {row.seen_at:%Y-%m-%d %H:%M:%S} UTC on {row.host}", alias)
            log.warning("worker.lost", worker=row.name, host=row.host, seen_at=row.seen_at.isoformat())
        if rows and news.wanted([LOST], using=alias):
            told = [
                (
                    f"/workers/{quote(row.name)}",
                    row.name,
                    {"worker": row.name, "host": row.host, "seen_at": row.seen_at.isoformat()},
                )
                for row in rows
            ]
            news.leave(LOST, told, using=alias)
    return [row.name for row in rows]


def _wish(name: str, wanted: str, *, verb: str, actor: str, note: str, ends: bool, using: str | None) -> None:
    with engine.transaction(using=using) as alias:
        params: dict[str, Any] = {
            "name": name,
            "wanted": wanted,
            "actor": actor[:200],
            "note": note[:500],
            "ends": ends,
            "alive": ALIVE_SECONDS,
        }
        if not engine.fetch_all(WISH, params, using=alias):
            status = status_of(get(name, using=alias), engine.now(using=alias))
            raise Conflict(f"Worker {name} is {status}.")
        _audit(name, verb, actor, note, alias)


def _audit(name: str, verb: str, actor: str, note: str, using: str) -> None:
    audit.record(
        actor=actor,
        action=f"worker.{verb}",
        subject_kind="worker",
        subject_id=name,
        subject_label=name,
        note=note,
        using=using,
    )
