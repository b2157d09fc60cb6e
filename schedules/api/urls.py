"""Routes of the schedules, their calendars and their optimiser, below ``/api/``."""

from __future__ import annotations

from schedules.api.backfills import BackfillViewSet
from schedules.api.calendars import CalendarViewSet
from schedules.api.optimizer import OptimizerViewSet
from schedules.api.views import ScheduleViewSet
from scheduling_project.common.api import OptionalSlashRouter

router = OptionalSlashRouter()
router.register("schedules", ScheduleViewSet, basename="schedule")
router.register("calendars", CalendarViewSet, basename="calendar")
router.register("optimizer", OptimizerViewSet, basename="optimizer")
router.register("backfills", BackfillViewSet, basename="backfill")

urlpatterns = router.urls
