"""What time may do to schedules: beats that were away, clocks that jump, watermarks that somebody set back."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db.models import F
from django.db.models.functions import Greatest

from execution.models import StepRun
from execution.rescuer import Rescuer
from execution.states import StepState
from schedules import firing
from schedules.models import Schedule, ScheduleFire, ScheduleVersion
from scheduling_project.common import clock
from scheduling_project.drills import load
from scheduling_project.drills.processes import wait_until
from scheduling_project.drills.system import System, tolerant

JUMP: Final = timedelta(hours=1)
SET_BACK: Final = timedelta(seconds=30)


def beats_down_for_ten_minutes(system: System) -> None:
    """Schedules whose beats were away for ten minutes (the watermark is set back), under each catch-up policy."""
    policies = ("all", "latest", "none")
    found = [load.make_schedules(system.path, 1, catch_up=policy)[0] for policy in policies]
    ago = clock.now() - timedelta(minutes=10)
    keys = [schedule.pk for schedule in found]
    ScheduleVersion.objects.filter(schedule__in=keys).update(effective_from=ago)
    Schedule.objects.filter(pk__in=keys).update(fired_through=ago, next_fire_at=ago)
    system.schedules += found
    behind = Schedule.objects.filter(pk__in=keys, fired_through__lt=clock.now() - timedelta(minutes=1))
    wait_until("they have caught up", tolerant(lambda: not behind.exists()), timeout=60)
    fires = {
        policy: schedule.fires.filter(outcome="started", scheduled_for__lt=clock.now() - timedelta(minutes=1)).count()
        for policy, schedule in zip(policies, found, strict=True)
    }
    system.figures["caught_up"] = fires
    if not (fires["all"] >= 50 and fires["latest"] <= 1 and fires["none"] == 0):
        system.problems.append(f"started of what was due meanwhile: {fires}")


def clock_jumps(system: System) -> None:
    """The clock is an hour ahead for one visit of a beat and of a rescuer while steps run, and back for the next."""
    load.start_backlog(system.path, seconds=2.0, count=8)
    running = StepRun.objects.filter(state=StepState.RUNNING)
    wait_until("steps run", running.exists, timeout=60, pause=0.02)
    rescuer = Rescuer()
    rescuer.rescue()
    ahead = clock.now() + JUMP
    rescued = rescuer.rescue(now=ahead)
    keys = [schedule.pk for schedule in system.schedules[:3]]  # whose steps are short: a hundred of each are due
    report = firing.fire_due(now=ahead, schedule_ids=keys)
    rescuer.rescue()  # back: what was queued meanwhile does not wait for an hour
    again = firing.fire_due(now=clock.now(), schedule_ids=keys)
    system.figures |= {
        "fired_ahead": report.started,
        "missed_ahead": report.missed,
        "rescued_by_the_jump": rescued.queued,
        "fired_again": again.started,
    }
    if rescued.queued or rescued.failed:
        system.problems.append(f"{rescued.queued} running steps were taken from living workers by the jump")
    if again.started:
        system.problems.append(f"{again.started} instants of the hour ahead were fired again after the jump back")
    system.run_for(3)


def watermarks_set_back(system: System) -> None:
    """The watermarks of all schedules are set back by half a minute, as by a restored table or by hand."""
    keys = [schedule.pk for schedule in system.schedules]
    before = ScheduleFire.objects.filter(schedule__in=keys).count()
    # Not beyond the version's beginning, before which nothing was due.
    Schedule.objects.filter(pk__in=keys).update(
        fired_through=Greatest(F("fired_through") - SET_BACK, F("created_at")), next_fire_at=clock.now() - SET_BACK
    )
    limit = clock.now() - timedelta(seconds=5)
    behind = Schedule.objects.filter(pk__in=keys, fired_through__lt=limit)
    wait_until("they have caught up", tolerant(lambda: not behind.exists()), timeout=60)
    system.figures["entries_before"] = before
    system.run_for(3)
