"""The admin of the schedules app: one module per page. Importing them registers them."""

from schedules.admin import calendars, firing, ledger, schedules

__all__ = ["calendars", "firing", "ledger", "schedules"]
