"""A thousand schedules at once, on a real beat and a real worker: each runs once, however long it takes."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from execution import workflows
from execution.models import Execution, StepRun
from schedules import bulk
from schedules.models import Schedule, ScheduleFire, ScheduleVersion
from schedules.timing import occurrences
from scheduling_project.common import clock
from scheduling_project.drills import effects
from scheduling_project.drills.processes import Processes, wait_until
from tests.patience import PATIENCE

pytestmark = [pytest.mark.scenario, pytest.mark.django_db(transaction=True)]

COUNT = 1_000


def test_a_thousand_schedules_that_are_due_together_each_run_once(processes: Processes, tmp_path: Path) -> None:
    path = tmp_path / "effects"
    steps = {"only": {"task": "drill.effect", "with": {"path": str(path), "seconds": 0}}}
    workflow = workflows.create("load", {"steps": steps}, actor="test")
    together = clock.now().replace(microsecond=0)
    daily = {"timetables": [{"kind": "interval", "every": 86_400, "anchor": together.isoformat()}]}
    since = together - timedelta(seconds=1)  # nobody looked since
    made = [
        Schedule(name=f"n{number}", workflow=workflow, fired_through=since, overlap_policy="allow_all", catch_up="all")
        for number in range(COUNT)
    ]
    spec = occurrences.normalise(daily)
    versions = [ScheduleVersion(schedule=one, number=1, effective_from=since, spec=spec, tzdata="test") for one in made]
    Schedule.objects.bulk_create(made)
    ScheduleVersion.objects.bulk_create(versions)
    for one, version in zip(made, versions, strict=True):
        one.version, one.next_fire_at = version, together
    Schedule.objects.bulk_update(made, ["version", "next_fire_at"])
    processes.worker()
    processes.beat()
    wait_until("all ran", lambda: Execution.objects.filter(state="succeeded").count() == COUNT, timeout=4 * PATIENCE)
    bulk.pause(Schedule.objects.all(), actor="test")
    assert Counter(ScheduleFire.objects.values_list("outcome", flat=True)) == {"started": COUNT}
    assert ScheduleFire.objects.values("schedule").distinct().count() == COUNT
    done = effects.ended(path)
    assert set(done.values()) == {1}
    assert len(done) == StepRun.objects.count() == COUNT
