"""One schedule in one visit: what is due of it by a moment, before its overlap policy has the last word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings

from execution import creation
from execution.creation import Source
from schedules import due, policies
from schedules.policies import CatchUp
from schedules.states import OnResume

#: An instant taken more than so many seconds after it was due is a misfire, to which the catch-up policy applies.
GRACE_SECONDS = 5


@dataclass(slots=True)
class Visit:
    """One schedule in one transaction: its row as locked, what is due, and what becomes of it."""

    row: Any
    batch: due.Batch
    resumed: bool
    missed_through: int | None
    plan: policies.Overlap = policies.NOTHING
    buffered: Sequence[Any] = ()
    running: Sequence[UUID] = ()
    started: int = 0
    last_fire: int | None = None
    source: Source = creation.API
    input: Any = None
    retry_policy: Any = None


class Look:
    """The look of one transaction at its schedules: what is due by `now` (epoch seconds)."""

    def __init__(self, now: int, collect: bool) -> None:
        self.now = now
        self.collect = collect
        self._catch_ups: dict[tuple[str, int | None], CatchUp] = {}

    def at(self, row: Any, segments: Sequence[due.Segment], cap: int) -> Visit:
        """What is due of one schedule, by its pause, its timing and its catch-up policy."""
        now = self.now
        resumed = not row.enabled and row.paused_until is not None and row.paused_until <= now
        missed_through = row.missed_through
        if resumed and row.on_resume == OnResume.SKIP:
            missed_through = max(row.paused_until, missed_through or 0)
        if not self.collect or not (row.enabled or resumed):
            wake = row.paused_until if self.collect else row.wake
            return Visit(row, due.Batch([], row.fired_through, wake, False, 0), False, missed_through)
        batch = due.collect(
            segments,
            after=row.fired_through,
            now=now,
            catch_up=self._catch_up(row.catch_up, row.catch_up_window),
            cap=cap,
            missed_through=missed_through,
        )
        return Visit(row, batch, resumed, missed_through)

    def _catch_up(self, policy: str, window: int | None) -> CatchUp:
        known = self._catch_ups.get((policy, window))
        if known is None:
            seconds = settings.SCHEDULE_CATCH_UP_WINDOW_SECONDS if window is None else window
            known = CatchUp(policy, seconds, settings.SCHEDULE_CATCH_UP_LIMIT, GRACE_SECONDS)
            self._catch_ups[policy, window] = known
        return known
