"""Dead letters are told of as they arrive, and groups of them as they grow past the sizes in
``WORKFLOW_DEAD_LETTER_ALERTS``: in the log, in the audit trail, and by signals for whoever tells people.

The statement that makes a letter leaves news of it, so no arrival is forgotten, whatever dies. A group (the open
letters of one fingerprint) is reported at a size once, until all its letters have been decided and it begins anew.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from django.conf import settings

from execution import audit, engine, news, signals
from execution.finishing import LETTER_TOPIC
from execution.models import AuditEntry, DeadLetter
from execution.states import DeadLetterState
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

SUBJECT_KIND: Final = "dead_letter_group"
ACTION: Final = "dead_letter_group.grew"
SYSTEM: Final = "system"
BATCH: Final = 1_000
#: Seconds that one turn of the housekeeping may take.
TURN_SECONDS: Final = 0.25

# Race: two workers tell of the same group: the second waits here, then counts and sees what the first has reported.
ALONE = "SELECT pg_advisory_xact_lock(hashtext('dead_letter_group'), hashtext(%(fingerprint)s::text))"

SIZE = """
SELECT count(*)::int AS size, min(created_at) AS since FROM (
    SELECT created_at FROM execution_deadletter
    WHERE state = %(state)s::text AND fingerprint = %(fingerprint)s::text ORDER BY created_at LIMIT %(most)s::int
) open
"""


def reached(size: int, thresholds: Iterable[int], reported: Collection[int]) -> int | None:
    """The largest threshold that a group has reached and that was not reported yet, nor a larger one.

    >>> reached(12, [10, 100], [])
    10
    >>> reached(150, [10, 100], [10])
    100
    >>> reached(99, [10, 100], [10]) is None
    True
    """
    highest = max((threshold for threshold in thresholds if threshold <= size), default=None)
    return None if highest is None or any(highest <= each for each in reported) else highest


def tell(*, seconds: float = TURN_SECONDS) -> int:
    """Tell of the letters that have arrived, for about `seconds`. Returns how many that were.

    Safe to run anywhere, any number of times at once.
    """
    give_up_at = time.monotonic() + seconds
    told = 0
    while time.monotonic() < give_up_at:
        with engine.transaction() as alias:
            rows = news.claim(LETTER_TOPIC, limit=BATCH)
            arrived: dict[str, list[Any]] = defaultdict(list)
            for row in rows:
                arrived[row.data["fingerprint"]].append(row)
            for fingerprint in sorted(arrived):  # in one order, so that two workers never wait for each other
                _tell_of_group(fingerprint, arrived[fingerprint], alias)
        told += len(rows)
        if len(rows) < BATCH:
            break
    return told


def _tell_of_group(fingerprint: str, rows: Sequence[Any], using: str) -> None:
    letters = [UUID(row.subject) for row in rows]
    latest = rows[-1].data
    log.warning(
        "dead_letter.arrived",
        count=len(letters),
        letter_id=str(letters[-1]),
        fingerprint=fingerprint,
        workflow_id=latest["workflow_id"],
        step=latest["step"],
        reason=latest["reason"],
        error_type=latest["error_type"],
    )
    signals.announce_letters(letters, fingerprint=fingerprint, using=using)
    _report_growth(fingerprint, latest, using)


def _report_growth(fingerprint: str, latest: Any, using: str) -> None:
    thresholds = settings.WORKFLOW_DEAD_LETTER_ALERTS
    if not thresholds:
        return
    engine.fetch_one(ALONE, {"fingerprint": fingerprint})
    found = engine.fetch_one(
        SIZE, {"fingerprint": fingerprint, "state": DeadLetterState.OPEN.value, "most": max(thresholds) + 1}
    )
    assert found is not None
    if not found.size:
        return
    before = (
        AuditEntry.objects.using(using)
        .filter(subject_kind=SUBJECT_KIND, subject_id=fingerprint, created_at__gte=found.since)
        .order_by("-id")
        .values_list("changes", flat=True)
    )
    reported = [changes["threshold"]["after"] for changes in before[: len(thresholds)]]
    threshold = reached(found.size, thresholds, reported)
    if threshold is None:
        return
    example = DeadLetter.objects.using(using).filter(fingerprint=fingerprint, state=DeadLetterState.OPEN).first()
    audit.record(
        actor=SYSTEM,
        action=ACTION,
        subject_kind=SUBJECT_KIND,
        subject_id=fingerprint,
        subject_label="" if example is None else f"{example.step_name}: {example.error_type}",
        note=f"{threshold} open dead letters of one kind",
        changes={"threshold": {"before": max(reported, default=None), "after": threshold}},
        using=using,
    )
    log.warning(
        "dead_letter.group_grew",
        fingerprint=fingerprint,
        threshold=threshold,
        size=found.size,
        workflow_id=latest["workflow_id"],
        step=latest["step"],
        error_type=latest["error_type"],
    )
    signals.announce_growth(fingerprint, size=found.size, threshold=threshold, using=using)
