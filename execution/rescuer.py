"""The rescue as a worker's housekeeping does it again and again, with an eye on Postgres's clock.

Leases are instants of that clock. When it jumps ahead (NTP after a wrong start, a machine that slept), every lease has
run out at once although every worker lives; when it jumps back, a dead worker's lease would last as long as the jump,
and so would the wait of what was queued meanwhile (`clock_repair`).
"""

from __future__ import annotations

import time
from datetime import datetime

from django.conf import settings

from execution import clock_repair, engine, maintenance
from execution.clock_watch import ClockWatch
from execution.maintenance import Rescued
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)


class Rescuer:
    """Takes back what lost workers hold, but nothing for one lease after the clock has jumped ahead.

    Within that time every living worker renews. After a jump back leases are cut to the length that they are given
    now (living workers renew theirs, those of dead ones run out), and what waits for the old time is due.
    """

    def __init__(self) -> None:
        self._watch = ClockWatch()
        self._holds_until = 0.0

    def rescue(self, *, now: datetime | None = None, monotonic: float | None = None) -> Rescued:
        """One look at the clock, and a rescue unless it has just jumped ahead.

        Args:
            now: Postgres's clock when left out.
            monotonic: seconds of this process's monotonic clock; read when left out.

        Raises:
            django.db.OperationalError: Postgres is away.
        """
        wall = now or engine.now()
        instant = time.monotonic() if monotonic is None else monotonic
        jumped, lease = self._watch.jump(wall, instant), settings.WORKFLOW_LEASE_SECONDS
        if jumped:
            log.error("clock.jumped", seconds=round(jumped, 1), clock="Postgres")
        if jumped > 0:
            self._holds_until = instant + lease
        elif jumped < 0:
            repaired = clock_repair.after_jump_back(lease=lease, now=now)
            log.warning("clock.repaired", leases=repaired.leases, waits=repaired.waits)
        return Rescued() if instant < self._holds_until else maintenance.rescue(now=now)
