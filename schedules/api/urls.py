"""Routes of the schedules, below ``/api/``."""

from __future__ import annotations

from schedules.api.views import ScheduleViewSet
from scheduling_project.common.api import OptionalSlashRouter

router = OptionalSlashRouter()
router.register("schedules", ScheduleViewSet, basename="schedule")

urlpatterns = router.urls
