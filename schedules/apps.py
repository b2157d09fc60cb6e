from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import DatabaseError, transaction
from django.db.models.signals import post_migrate


class SchedulesConfig(AppConfig):
    name = "schedules"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from execution.notifications import conditions
        from execution.notifications.kinds import NotificationKind
        from schedules import monitoring

        if monitoring.no_run not in conditions.CHECKS[NotificationKind.NO_RUN]:
            conditions.CHECKS[NotificationKind.NO_RUN].append(monitoring.no_run)
        post_migrate.connect(keep_housekeeping, sender=self)


def keep_housekeeping(using: str = "default", **_: Any) -> None:
    """After every migration our housekeeping has its PeriodicTasks, so that a plain beat does all its duties."""
    from schedules import periodic_tasks

    try:
        with transaction.atomic(using=using):
            periodic_tasks.keep_housekeeping(using=using)
    except DatabaseError:
        return  # migrated backwards: the tables are gone
