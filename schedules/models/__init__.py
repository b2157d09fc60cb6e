"""Tables of the schedules app: fields, constraints and querysets."""

from schedules.models.backfill import Backfill, BackfillFire
from schedules.models.calendar import Calendar
from schedules.models.ledger import ScheduleFire
from schedules.models.ledger_audit import LedgerAudit
from schedules.models.optimization import OptimizationChange, OptimizationReport
from schedules.models.schedule import Schedule, ScheduleVersion
from schedules.models.switch import FiringSwitch

__all__ = [
    "Backfill",
    "BackfillFire",
    "Calendar",
    "FiringSwitch",
    "LedgerAudit",
    "OptimizationChange",
    "OptimizationReport",
    "Schedule",
    "ScheduleFire",
    "ScheduleVersion",
]
