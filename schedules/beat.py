"""`WorkflowScheduler`: django-celery-beat's `DatabaseScheduler`, to which workflow schedules are no periodic rows.

- Ordinary PeriodicTasks, our housekeeping among them, are sent as ever, from the same heap. Beside other beats
  each run is claimed in Postgres first, so that it is sent once. What is named in ``HOUSEKEEPING_ON_DEMAND`` is sent
  only while something waits for it: an idle system sends nothing.
- Workflow schedules fire from a thread of their own (`firing_loop`), exactly at the earliest wake-up: neither Redis
  being away nor a slow send holds them up. Their mirror rows stay out of the heap, so that memory does not grow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from celery.beat import Scheduler
from celery.signals import beat_init
from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, transaction
from django.db.models import QuerySet
from django.utils.module_loading import import_string
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry

from execution import engine
from execution.notifications.courier import Courier
from schedules.firing_loop import FiringLoop
from schedules.periodic_tasks import FIRE, SAFETY_NETS
from scheduling_project.common.logs import get_logger
from scheduling_project.common.memory import settle_memory

log = get_logger(__name__)

#: Seconds between looks at whether an ordinary PeriodicTask was changed.
CHANGE_SECONDS = 1.0
#: Seconds between looks at whether anything waits for a task on demand.
DEMAND_SECONDS = 1.0
#: When an ordinary PeriodicTask was last changed, by anybody.
CHANGED_SQL = "SELECT last_update FROM django_celery_beat_periodictasks ORDER BY ident LIMIT 1"
#: Seconds before the next try while Postgres is away.
AWAY_SECONDS = 1.0


@beat_init.connect
def settle(**_: Any) -> None:
    """A process that is a beat and nothing else begins its loop: all that it needs is loaded."""
    settle_memory()


class WorkflowScheduler(DatabaseScheduler):  # type: ignore[misc]
    """The beat scheduler of this project. Any number of them may run at once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.firing: FiringLoop | None = None
        self.on_demand: dict[str, Callable[[str], bool]] = {
            name: import_string(path) for name, path in settings.HOUSEKEEPING_ON_DEMAND.items()
        }
        self.courier: Courier | None = None
        self._unready = False
        self._away = False
        self._looked_at = float("-inf")
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Read the ordinary PeriodicTasks; with Postgres away, later."""
        self._unready = True
        try:
            self._initial_read = True
            super().setup_schedule()
        except (DatabaseError, InterfaceError) as error:
            self._note_away(error)
        else:
            self._unready = False

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send at most one due ordinary PeriodicTask. Returns the seconds until the next call."""
        if self.firing is None or not self.firing.is_alive():
            # Not in __init__: celery makes a second, lazy scheduler for its banner, and may fork in between.
            self.firing = FiringLoop()
            self.firing.start()
        if self.courier is None:
            self.courier = Courier()  # so that people are told also when no worker lives
            self.courier.start()
        try:
            if self._unready:
                self.setup_schedule()
                if self._unready:
                    return AWAY_SECONDS
            seconds: float = super().tick(*args, **kwargs)
        except (DatabaseError, InterfaceError) as error:
            self._note_away(error)
            self._heap = None
            return AWAY_SECONDS
        if self._away:
            log.info("beat.database_back")
            self._away = False
        return seconds

    def _note_away(self, error: Exception) -> None:
        if not self._away:
            log.error("beat.ordinary_tasks_wait", error=str(error).strip(), retry_in=AWAY_SECONDS)
        self._away = True
        close_old_connections()

    def close(self) -> None:
        """Stop firing after the transaction in progress, then release the broker connection."""
        if self.firing is not None:
            self.firing.stop()
        if self.courier is not None:
            self.courier.stop()
        super().close()

    def enabled_models_qs(self) -> QuerySet[PeriodicTask]:
        """The ordinary ones: without the mirror rows of schedules, and without what only stock beat needs."""
        ordinary: QuerySet[PeriodicTask] = super().enabled_models_qs()
        return ordinary.exclude(task=FIRE).exclude(task__in=SAFETY_NETS)

    def schedule_changed(self) -> bool:
        """Whether an ordinary PeriodicTask was changed; asked at most once a second, not several times a tick."""
        now = time.monotonic()
        if now - self._looked_at < CHANGE_SECONDS:
            return False
        self._looked_at = now
        row = engine.fetch_one(CHANGED_SQL, {}, using="default")
        last: datetime | None = getattr(self, "_last_timestamp", None)
        latest: datetime | None = None if row is None else row.last_update
        self._last_timestamp = latest
        return last is not None and latest is not None and latest > last

    def is_due(self, entry: ModelEntry) -> tuple[bool, float]:
        """Whether an entry is due, and if so, nobody else's: the row is marked as run before the message is sent.

        Race: two beats have the same entry due. Each locks the row; the second finds that it has just run and
        asks the entry again with the true last run.
        """
        due, wait = Scheduler.is_due(self, entry)
        if not due:
            return due, wait
        if (is_wanted := self.on_demand.get(entry.task)) is not None and not is_wanted("default"):
            return False, DEMAND_SECONDS
        with transaction.atomic():
            row = PeriodicTask.objects.select_for_update().filter(pk=entry.model.pk, enabled=True).first()
            if row is None:
                return False, self.max_interval
            if row.last_run_at is not None and row.last_run_at > entry.last_run_at:
                entry.last_run_at = entry.model.last_run_at = row.last_run_at
                entry.total_run_count = entry.model.total_run_count = row.total_run_count
                due, wait = Scheduler.is_due(self, entry)
                if not due:
                    return due, wait
            PeriodicTask.objects.filter(pk=row.pk).update(
                last_run_at=entry._default_now(), total_run_count=row.total_run_count + 1
            )
        return due, wait

    def reserve(self, entry: ModelEntry) -> ModelEntry:
        """The entry after this run. What the row says was written by `is_due`; a later write could only be stale."""
        return next(entry)
