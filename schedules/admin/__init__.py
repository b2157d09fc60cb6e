"""The admin of the schedules app: one module per page. Importing them registers them."""

from schedules.admin import backfills, calendars, firing, ledger, optimizer, schedules

__all__ = ["backfills", "calendars", "firing", "ledger", "optimizer", "schedules"]
