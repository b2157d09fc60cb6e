"""What a backfill writes into the ledger: an instant that did not start becomes started, and a range gives it up.

The caller holds the schedule's lock, so nobody else writes entries of this schedule meanwhile.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from uuid import UUID

from django.db.models import Q

from schedules.backfill_plan import RAN, moment, spans
from schedules.due import Segment
from schedules.models import Schedule, ScheduleFire
from schedules.states import FireOutcome

#: What the entry of a backfilled instant says.
NOTE = "backfill"
#: The first step back, in seconds, of the search for the last instant of a range; it doubles.
FIRST_STEP_BACK = 64


class Entries:
    """The ledger entries of a schedule between two instants (epoch seconds, both included)."""

    def __init__(self, schedule: Schedule, segments: Sequence[Segment], first: int, last: int, *, using: str) -> None:
        self.schedule = schedule
        self.segments = segments
        self.using = using
        begin, end = moment(first), moment(last)
        touching = ScheduleFire.objects.using(using).filter(schedule=schedule, scheduled_for__lte=end)
        touching = touching.filter(Q(until__gte=begin) | Q(until=None, scheduled_for__gte=begin))
        self._rows = list(touching.order_by("scheduled_for"))
        self._firsts = [_first(row) for row in self._rows]

    def has_run(self, nominal: int) -> bool:
        """Whether the ledger says that this instant started, or waits to start."""
        entry = self._covering(nominal)
        return entry is not None and entry.outcome in RAN

    def start(self, nominal: int, version_id: UUID, execution_id: UUID) -> None:
        """Say that an instant started: its entry changes, its range gives it up, or an entry is added.

        An entry that started before is left as it is.
        """
        entry = self._covering(nominal)
        if entry is not None and entry.outcome in RAN:
            return
        if entry is not None and entry.until is None:
            entry.outcome, entry.reason, entry.note = FireOutcome.STARTED, "", NOTE
            entry.execution_id = execution_id
            entry.save(using=self.using, update_fields=["outcome", "reason", "note", "execution"])
            return
        if entry is not None:
            self._remove(entry)
            for after, until in ((_first(entry) - 1, nominal - 1), (nominal, _last(entry))):
                piece = self._piece(entry, after, until)
                if piece is not None:
                    self._add(piece)
        self._add(
            ScheduleFire(
                schedule=self.schedule,
                version_id=version_id,
                scheduled_for=moment(nominal),
                due_at=moment(nominal),
                outcome=FireOutcome.STARTED,
                note=NOTE,
                execution_id=execution_id,
            )
        )

    def _covering(self, nominal: int) -> ScheduleFire | None:
        """The entry of an instant. A single one may lie inside a range that was written beside it by hand."""
        place = bisect_right(self._firsts, nominal)
        for row in reversed(self._rows[max(0, place - 2) : place]):
            if _first(row) <= nominal <= _last(row):
                return row
        return None

    def _add(self, row: ScheduleFire) -> None:
        row.save(using=self.using, force_insert=True)
        place = bisect_right(self._firsts, _first(row))
        self._firsts.insert(place, _first(row))
        self._rows.insert(place, row)

    def _remove(self, row: ScheduleFire) -> None:
        place = self._rows.index(row)
        del self._rows[place], self._firsts[place]
        ScheduleFire.objects.using(self.using).filter(pk=row.pk).delete()

    def _piece(self, entry: ScheduleFire, after: int, until: int) -> ScheduleFire | None:
        """The part of a range in (`after`, `until`], None when it holds no instant."""
        count, first, last = 0, 0, 0
        for segment, start, stop in spans(self.segments, after, until):
            inside = segment.timing.count(start, stop)
            head = segment.timing.next_after(start) if inside else None
            if head is not None:
                count, first, last = count + inside, first or head.nominal, _latest(segment, start, stop)
        if not count:
            return None
        return ScheduleFire(
            schedule_id=entry.schedule_id,
            version_id=entry.version_id,
            scheduled_for=moment(first),
            until=moment(last) if count > 1 else None,
            count=count,
            due_at=moment(first),
            outcome=entry.outcome,
            reason=entry.reason,
            note=entry.note,
            recorded_at=entry.recorded_at,
        )


def _latest(segment: Segment, after: int, until: int) -> int:
    """The last instant in (`after`, `until`], which holds one: looked for backwards in doubling steps."""
    step = FIRST_STEP_BACK
    while True:
        latest = None
        for instant in segment.timing.between(max(after, until - step), until):
            latest = instant.nominal
        if latest is not None:
            return latest
        step *= 2


def _first(entry: ScheduleFire) -> int:
    return int(entry.scheduled_for.timestamp())


def _last(entry: ScheduleFire) -> int:
    return int((entry.until or entry.scheduled_for).timestamp())
