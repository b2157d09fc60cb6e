"""What is kept, for how long, and how the rest is deleted: in small batches, each a short transaction.

Open work is never deleted, nor an execution that a dead letter without a decision is about. Batches lock what they
delete and pass over what somebody else holds, so that any number of processes may prune at once. 0 days mean for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from execution import engine, idempotency
from execution.models import Execution
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

#: Rows of one batch; an execution counts as one, whatever hangs on it.
BATCH: Final = 200
#: Seconds that one `prune` takes at most; the next one goes on.
MOST_SECONDS: Final = 240.0


@dataclass(slots=True)
class Pruned:
    """What was deleted, in rows; `expired`: letters that were discarded because nobody decided in time."""

    executions: int = 0
    dead_letters: int = 0
    expired: int = 0
    redrive_jobs: int = 0
    audit_entries: int = 0
    news: int = 0
    idempotency_keys: int = 0
    process_reports: int = 0
    resource_samples: int = 0
    notifications: int = 0
    keys: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, column.name) for column in fields(self))


# Race: an execution that somebody resumes. Resuming locks its row, so either this passes over it, or resuming waits
# and finds it gone.
OLD_EXECUTIONS: Final = """
SELECT e.id FROM execution_execution e
WHERE e.finished_at < CASE e.state WHEN 'failed' THEN %(failed_before)s::timestamptz ELSE %(before)s::timestamptz END
  AND e.finished_at < greatest(%(failed_before)s::timestamptz, %(before)s::timestamptz)
  AND NOT EXISTS (SELECT 1 FROM execution_deadletter d
                  WHERE d.execution_id = e.id AND d.state IN ('open', 'redriving'))
  AND NOT EXISTS (SELECT 1 FROM execution_deadletter d
                  WHERE d.redrive_execution_id = e.id AND d.state IN ('open', 'redriving'))
  AND NOT EXISTS (SELECT 1 FROM execution_execution p WHERE p.finished_at IS NULL
                  AND p.id = CASE WHEN e.source_kind = 'child' THEN e.source_id::uuid END)
ORDER BY e.finished_at LIMIT %(limit)s::int FOR UPDATE OF e SKIP LOCKED
"""

# The newest ones of each workflow are kept; an index gives them in order.
SURPLUS_EXECUTIONS: Final = """
SELECT e.id FROM execution_workflow w
CROSS JOIN LATERAL (
    SELECT s.id FROM execution_execution s WHERE s.workflow_id = w.id AND s.finished_at IS NOT NULL
    ORDER BY s.id DESC OFFSET %(kept)s::int LIMIT %(limit)s::int
) surplus
JOIN execution_execution e ON e.id = surplus.id
WHERE NOT EXISTS (SELECT 1 FROM execution_deadletter d
                  WHERE d.execution_id = e.id AND d.state IN ('open', 'redriving'))
  AND NOT EXISTS (SELECT 1 FROM execution_deadletter d
                  WHERE d.redrive_execution_id = e.id AND d.state IN ('open', 'redriving'))
  AND NOT EXISTS (SELECT 1 FROM execution_execution p WHERE p.finished_at IS NULL
                  AND p.id = CASE WHEN e.source_kind = 'child' THEN e.source_id::uuid END)
LIMIT %(limit)s::int FOR UPDATE OF e SKIP LOCKED
"""

# Race: somebody decides about a letter that expires: the state is named, and its row is locked.
EXPIRE: Final = """
WITH old AS MATERIALIZED (
    SELECT id FROM execution_deadletter
    WHERE state = 'open' AND created_at < %(before)s::timestamptz
    ORDER BY created_at LIMIT %(limit)s::int FOR NO KEY UPDATE SKIP LOCKED
), discarded AS (
    UPDATE execution_deadletter d
    SET state = 'discarded', decided_at = %(now)s::timestamptz, decided_by = 'system', note = %(note)s::text
    FROM old WHERE d.id = old.id AND d.state = 'open'
    RETURNING d.id, d.workflow_id, d.step_name
)
INSERT INTO execution_auditentry (actor, action, subject_kind, subject_id, subject_label, note, changes, created_at)
SELECT 'system', 'dead_letter.discard', 'dead_letter', d.id::text, left(w.name || '.' || d.step_name, 200),
    %(note)s::text, '{}'::jsonb, %(now)s::timestamptz
FROM discarded d JOIN execution_workflow w ON w.id = d.workflow_id
RETURNING id
"""

# What a running redrive job has taken up stays until the job knows its outcome.
DECIDED_LETTERS: Final = """
WITH old AS MATERIALIZED (
    SELECT d.id FROM execution_deadletter d
    WHERE d.decided_at < %(before)s::timestamptz AND d.state IN ('resolved', 'discarded')
      AND NOT EXISTS (SELECT 1 FROM execution_redriveitem i JOIN execution_redrivejob j ON j.id = i.job_id
                      WHERE i.letter_id = d.id AND j.state = 'running')
    ORDER BY d.decided_at LIMIT %(limit)s::int FOR UPDATE OF d SKIP LOCKED
), items AS (
    DELETE FROM execution_redriveitem WHERE letter_id IN (SELECT id FROM old)
)
DELETE FROM execution_deadletter WHERE id IN (SELECT id FROM old) RETURNING id
"""

JOBS: Final = """
WITH old AS MATERIALIZED (
    SELECT id FROM execution_redrivejob WHERE finished_at < %(before)s::timestamptz
    ORDER BY id LIMIT 10 FOR UPDATE SKIP LOCKED
), items AS (
    DELETE FROM execution_redriveitem WHERE job_id IN (SELECT id FROM old)
)
DELETE FROM execution_redrivejob WHERE id IN (SELECT id FROM old) RETURNING id
"""

# Ids grow with time, so the oldest rows are the first of the primary key; no index on their time is needed.
AUDIT: Final = """
DELETE FROM execution_auditentry WHERE id IN (
    SELECT id FROM (SELECT id, created_at FROM execution_auditentry ORDER BY id LIMIT %(limit)s::int) oldest
    WHERE created_at < %(before)s::timestamptz)
RETURNING id
"""
NEWS: Final = """
DELETE FROM execution_news WHERE id IN (
    SELECT id FROM (SELECT id, created_at FROM execution_news ORDER BY id LIMIT %(limit)s::int) oldest
    WHERE created_at < %(before)s::timestamptz)
RETURNING id
"""
IDEMPOTENCY: Final = """
DELETE FROM execution_idempotencykey WHERE id IN (
    SELECT id FROM execution_idempotencykey WHERE created_at < %(before)s::timestamptz
    ORDER BY created_at LIMIT %(limit)s::int FOR UPDATE SKIP LOCKED)
RETURNING id
"""
REPORTS: Final = """
DELETE FROM execution_processreport WHERE name IN (
    SELECT name FROM execution_processreport WHERE seen_at < %(before)s::timestamptz
    ORDER BY seen_at LIMIT %(limit)s::int FOR UPDATE SKIP LOCKED)
RETURNING name
"""

SAMPLES: Final = """
DELETE FROM execution_resourcesample WHERE id IN (
    SELECT id FROM execution_resourcesample WHERE at < %(before)s::timestamptz ORDER BY at LIMIT %(limit)s::int
    FOR UPDATE SKIP LOCKED)
RETURNING id
"""

NOTIFICATIONS: Final = """
DELETE FROM execution_notification WHERE id IN (
    SELECT id FROM (SELECT id, created_at, state FROM execution_notification ORDER BY id LIMIT %(limit)s::int) oldest
    WHERE created_at < %(before)s::timestamptz AND state <> 'pending')
RETURNING id
"""

# Race: an execution that is just being created takes its key by an upsert: it waits for this, and makes the row anew.
KEYS: Final = """
DELETE FROM execution_concurrencykey k WHERE k.key IN (
    SELECT o.key FROM execution_concurrencykey o
    WHERE o.used = 0 AND o.updated_at < %(before)s::timestamptz AND NOT EXISTS (
        SELECT 1 FROM execution_execution e
        WHERE e.concurrency_key = o.key AND e.finished_at IS NULL AND NOT e.key_held AND e.concurrency_key <> '')
    LIMIT %(limit)s::int FOR UPDATE SKIP LOCKED)
RETURNING k.key
"""
RATES: Final = """
DELETE FROM execution_ratekey k WHERE k.key IN (
    SELECT o.key FROM execution_ratekey o
    WHERE o.tat < %(before)s::timestamptz AND o.next_wake_at < %(before)s::timestamptz
    LIMIT %(limit)s::int FOR UPDATE SKIP LOCKED)
RETURNING k.key
"""


def prune(*, now: datetime | None = None, using: str = "default", seconds: float = MOST_SECONDS) -> Pruned:
    """Expire dead letters and delete what is kept no longer. Safe to run anywhere, any number of times at once.

    Args:
        seconds: about how long it may take; what is left is for the next time.
    """
    instant = now or engine.now(using=using)
    give_up_at = time.monotonic() + seconds

    def before(days: int) -> datetime:
        return instant - timedelta(days=days)

    def rows(sql: str, *, older_than: timedelta | int) -> int:
        """Delete batch by batch; an age of 0 days means for ever."""
        age = timedelta(days=older_than) if isinstance(older_than, int) else older_than
        if not age:
            return 0
        params = {"before": instant - age, "now": instant, "limit": BATCH, "note": _expiry_note()}
        return _in_batches(lambda: len(engine.fetch_all(sql, params, using=using)), give_up_at)

    done = Pruned(expired=rows(EXPIRE, older_than=settings.WORKFLOW_DEAD_LETTERS_EXPIRE_DAYS))
    done.executions = _old_executions(before, using, give_up_at) + _surplus_executions(using, give_up_at)
    done.dead_letters = rows(DECIDED_LETTERS, older_than=settings.WORKFLOW_DEAD_LETTERS_KEPT_DAYS)
    done.redrive_jobs = rows(JOBS, older_than=settings.WORKFLOW_DEAD_LETTERS_KEPT_DAYS)
    done.audit_entries = rows(AUDIT, older_than=settings.WORKFLOW_AUDIT_KEPT_DAYS)
    done.news = rows(NEWS, older_than=settings.WORKFLOW_NEWS_KEPT_DAYS)
    done.idempotency_keys = rows(IDEMPOTENCY, older_than=idempotency.KEPT_FOR)
    done.process_reports = rows(REPORTS, older_than=settings.WORKFLOW_PROCESS_REPORTS_KEPT_DAYS)
    done.resource_samples = rows(SAMPLES, older_than=settings.WORKFLOW_RESOURCE_SAMPLES_KEPT_DAYS)
    done.notifications = rows(NOTIFICATIONS, older_than=settings.NOTIFICATIONS_KEPT_DAYS)
    done.keys = rows(KEYS, older_than=timedelta(days=1)) + rows(RATES, older_than=timedelta(days=1))
    log.info("execution.pruned", **{column.name: getattr(done, column.name) for column in fields(done)})
    return done


# As the statements above choose, without their locks and their limit.
COUNT: Final = f"""
SELECT
  (SELECT count(*) FROM (
      SELECT id FROM ({OLD_EXECUTIONS.replace("FOR UPDATE OF e SKIP LOCKED", "")}) old WHERE %(by_age)s::bool
      UNION
      SELECT id FROM ({SURPLUS_EXECUTIONS.replace("FOR UPDATE OF e SKIP LOCKED", "")}) surplus WHERE %(by_count)s::bool
  ) chosen) AS executions,
  (SELECT count(*) FROM execution_deadletter d
   WHERE d.decided_at < %(decided)s::timestamptz AND d.state IN ('resolved', 'discarded')
     AND NOT EXISTS (SELECT 1 FROM execution_redriveitem i JOIN execution_redrivejob j ON j.id = i.job_id
                     WHERE i.letter_id = d.id AND j.state = 'running')) AS dead_letters,
  (SELECT count(*) FROM execution_deadletter
   WHERE state = 'open' AND created_at < %(expired)s::timestamptz) AS expired,
  (SELECT count(*) FROM execution_redrivejob WHERE finished_at < %(decided)s::timestamptz) AS redrive_jobs,
  (SELECT count(*) FROM execution_auditentry WHERE created_at < %(audit)s::timestamptz) AS audit_entries,
  (SELECT count(*) FROM execution_news WHERE created_at < %(news)s::timestamptz) AS news,
  (SELECT count(*) FROM execution_idempotencykey WHERE created_at < %(answers)s::timestamptz) AS idempotency_keys,
  (SELECT count(*) FROM execution_processreport WHERE seen_at < %(reports)s::timestamptz) AS process_reports,
  (SELECT count(*) FROM execution_concurrencykey o
   WHERE o.used = 0 AND o.updated_at < %(day)s::timestamptz AND NOT EXISTS (
       SELECT 1 FROM execution_execution e
       WHERE e.concurrency_key = o.key AND e.finished_at IS NULL AND NOT e.key_held AND e.concurrency_key <> ''))
  + (SELECT count(*) FROM execution_ratekey
     WHERE tat < %(day)s::timestamptz AND next_wake_at < %(day)s::timestamptz) AS keys
"""
#: A LIMIT that limits nothing.
ALL: Final = 2_000_000_000


def count(*, now: datetime | None = None, using: str = "default") -> Pruned:
    """What `prune` would delete now, without deleting it. What hangs on an execution is not counted apart.

    Reads whole tables where no index tells: for people who ask, not for every hour.
    """
    instant = now or engine.now(using=using)

    def before(age: int | timedelta) -> datetime:
        """The end of what is deleted; an age of 0 days means for ever."""
        return instant - (timedelta(days=age or 365_000) if isinstance(age, int) else age)

    kept, failed_kept = settings.WORKFLOW_EXECUTIONS_KEPT_DAYS, settings.WORKFLOW_FAILED_EXECUTIONS_KEPT_DAYS
    params = {
        "before": before(kept),
        "failed_before": before(failed_kept),
        "by_age": bool(kept or failed_kept),
        "kept": settings.WORKFLOW_EXECUTIONS_KEPT_COUNT,
        "by_count": bool(settings.WORKFLOW_EXECUTIONS_KEPT_COUNT),
        "limit": ALL,
        "decided": before(settings.WORKFLOW_DEAD_LETTERS_KEPT_DAYS),
        "expired": before(settings.WORKFLOW_DEAD_LETTERS_EXPIRE_DAYS),
        "audit": before(settings.WORKFLOW_AUDIT_KEPT_DAYS),
        "news": before(settings.WORKFLOW_NEWS_KEPT_DAYS),
        "answers": before(idempotency.KEPT_FOR),
        "reports": before(settings.WORKFLOW_PROCESS_REPORTS_KEPT_DAYS),
        "day": before(timedelta(days=1)),
    }
    (row,) = engine.fetch_all(COUNT, params, using=using)
    return Pruned(**row._asdict())


def _expiry_note() -> str:
    return f"expired: nobody decided within {settings.WORKFLOW_DEAD_LETTERS_EXPIRE_DAYS} days"


def _old_executions(before: Callable[[int], datetime], using: str, give_up_at: float) -> int:
    kept, failed_kept = settings.WORKFLOW_EXECUTIONS_KEPT_DAYS, settings.WORKFLOW_FAILED_EXECUTIONS_KEPT_DAYS
    if not kept and not failed_kept:
        return 0
    never = before(365_000)
    params = {"before": before(kept) if kept else never, "failed_before": before(failed_kept) if failed_kept else never}
    return _in_batches(lambda: _delete_executions(OLD_EXECUTIONS, params, using), give_up_at)


def _surplus_executions(using: str, give_up_at: float) -> int:
    kept = settings.WORKFLOW_EXECUTIONS_KEPT_COUNT
    if not kept:
        return 0
    return _in_batches(lambda: _delete_executions(SURPLUS_EXECUTIONS, {"kept": kept}, using), give_up_at)


def _delete_executions(chosen: str, params: dict[str, Any], using: str) -> int:
    """One batch with all that hangs on it, also in the tables of other apps, as their models say (`on_delete`)."""
    with transaction.atomic(using=using):
        ids = [row.id for row in engine.fetch_all(chosen, params | {"limit": BATCH}, using=using)]
        if ids:
            Execution.objects.using(using).filter(pk__in=ids).delete()
    return len(ids)


def _in_batches(delete: Callable[[], int], give_up_at: float) -> int:
    total = 0
    while time.monotonic() < give_up_at:
        deleted = delete()
        total += deleted
        if not deleted:
            break
    return total
