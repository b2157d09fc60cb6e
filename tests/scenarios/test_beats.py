"""Real beats on real servers: many at once, killed, frozen, edited under; and the stock scheduler in their place.

Short forms run in the suite; ``BEAT_SCENARIO_SECONDS=180`` makes each of them as long.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db.models import Count

from execution import workflows
from execution.models import Attempt, Execution, ProcessReport, Workflow
from schedules import audit, lifecycle, periodic_tasks
from schedules.models import Schedule, ScheduleFire
from scheduling_project.common import clock
from scheduling_project.drills import effects
from scheduling_project.drills.processes import START_TIMEOUT, Processes, Service, wait_until
from scheduling_project.process_role import LEAN_BEAT
from tests.patience import PATIENCE

pytestmark = [pytest.mark.scenario, pytest.mark.django_db(transaction=True)]

SECONDS = float(os.environ.get("BEAT_SCENARIO_SECONDS", "4"))
EVERY_SECOND: dict[str, Any] = {"timetables": [{"kind": "interval", "every": 1}]}


@pytest.fixture
def idle() -> Workflow:
    """A workflow whose executions nobody runs here."""
    return workflows.create("beats", {"steps": {"only": {"task": "drill.effect", "with": {"path": "x"}}}}, actor="test")


def schedules(workflow: Workflow, number: int, **options: Any) -> list[Schedule]:
    options = {"spec": EVERY_SECOND, "overlap_policy": "allow_all", **options}
    return [lifecycle.create(actor="test", name=f"n{i}", workflow=workflow, **options) for i in range(number)]


def fired(at_least: int) -> None:
    wait_until("beats fire", lambda: ScheduleFire.objects.count() >= at_least, timeout=PATIENCE)


def settle_and_check() -> None:
    """Every instant up to each watermark stands in the ledger exactly once, and started at most one execution.

    Only what a pause covered may be missed, and only where that was the choice.
    """
    for schedule in Schedule.objects.all():
        lifecycle.pause(schedule.pk, actor="test")
    assert compared() == []
    doubled = Execution.objects.values("source_id", "scheduled_for").annotate(n=Count("id")).filter(n__gt=1)
    assert not doubled.exists()
    assert ScheduleFire.objects.filter(outcome="started").count() == Execution.objects.count() > 0
    others = ScheduleFire.objects.exclude(outcome="started").values_list("schedule__name", "outcome", "reason")
    assert set(others) <= {("n6", "missed", "paused")}


def compared() -> list[Any]:
    """What the audit finds, up to this moment."""
    settled, audit.SETTLED_SECONDS = audit.SETTLED_SECONDS, 0
    try:
        return audit.audit().findings
    finally:
        audit.SETTLED_SECONDS = settled


def several(processes: Processes, number: int) -> list[Service]:
    """Beats that start together, waited for together."""
    beats = [processes._start(f"b{i}", ["beat", "-l", "INFO"], {}) for i in range(number)]
    pids = [beat.pid for beat in beats]
    reports = ProcessReport.objects.filter(kind="beat", pid__in=pids)
    wait_until("all beats report life", lambda: reports.count() == number, timeout=START_TIMEOUT)
    return beats


def test_four_beats_survive_kill_freeze_edits_and_pauses_and_double_nothing(
    processes: Processes, idle: Workflow
) -> None:
    beats = several(processes, 4)
    made = schedules(idle, 8)
    fired(16)
    beats[0].kill_all()
    beats[1].signal(signal.SIGSTOP)
    paused = {"skip": made[6], "catch_up": made[7]}
    for one in paused.values():
        lifecycle.pause(one.pk, actor="test")
    seen, edits = ScheduleFire.objects.count(), 0
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:  # edits of many while they fire
        edits += 1
        for schedule in made[:4]:
            lifecycle.update(schedule.pk, {"input": {"edit": edits}}, actor="test")
        Schedule.objects.filter(pk__in=[one.pk for one in made[4:6]]).update(description=f"edit {edits}")
        time.sleep(0.2)
    fired(seen + 12)
    beats[1].signal(signal.SIGCONT)
    for choice, one in paused.items():
        lifecycle.resume(one.pk, actor="test", missed=choice)
    fired(ScheduleFire.objects.count() + 16)
    settle_and_check()


def test_a_plain_celery_command_becomes_a_process_that_loads_only_what_a_beat_needs(processes: Processes) -> None:
    beat = processes.beat()
    assert psutil.Process(beat.pid).cmdline()[1:3] == ["-m", LEAN_BEAT]
    loaded = Path(f"/proc/{beat.pid}/maps").read_text()
    assert "psycopg" in loaded
    assert not [name for name in ("cryptography", "rpds", "psutil") if f"site-packages/{name}/" in loaded]


def test_the_stock_scheduler_fires_our_mirrored_rows(processes: Processes, tmp_path: Path) -> None:
    path = tmp_path / "effects"
    steps = {"work": {"task": "drill.effect", "with": {"path": str(path)}}}
    workflow = workflows.create("stock", {"steps": steps}, actor="test")
    periodic_tasks.keep_housekeeping()
    (one,) = schedules(workflow, 1)
    assert Schedule.objects.get(pk=one.pk).periodic_task is not None
    processes.worker()
    processes.beat("stock", options=("-S", "django_celery_beat.schedulers:DatabaseScheduler"))
    wait_until("what it fired runs", lambda: len(effects.ended(path)) >= 3, timeout=60)
    settle_and_check()
    assert set(effects.ended(path).values()) == {1}


def test_the_other_is_told_or_ended_at_once(processes: Processes, tmp_path: Path) -> None:
    spec = {"timetables": [{"kind": "interval", "every": 3, "anchor": clock.now().isoformat()}]}
    paths = {policy: tmp_path / policy for policy in ("cancel_other", "terminate_other")}

    def events(policy: str) -> list[object]:
        return [line["event"] for line in effects.read(paths[policy])]

    processes.worker(slots=6)
    processes.beat()
    for policy, path in paths.items():
        steps = {"work": {"task": "drill.tidy", "with": {"path": str(path), "seconds": 600}}}
        workflow = workflows.create(policy, {"steps": steps}, actor="test")
        lifecycle.create(actor="test", name=policy, workflow=workflow, spec=spec, overlap_policy=policy)
    for policy in paths:
        wait_until(f"{policy}: the next one runs", lambda p=policy: events(p).count("begin") >= 2, timeout=PATIENCE)  # type: ignore[misc]
    for schedule in Schedule.objects.all():
        lifecycle.pause(schedule.pk, actor="test")
    ended = Execution.objects.filter(state="cancelled").values_list("workflow__name", "state_reason")
    assert {(name, reason.partition(":")[0]) for name, reason in ended} == {
        ("cancel_other", "cancelled"),
        ("terminate_other", "terminated"),
    }
    wait_until("the cancelled one tidied up", lambda: "tidied up" in events("cancel_other"), timeout=PATIENCE)
    gone = Execution.objects.filter(workflow__name="terminate_other", state="cancelled").order_by("id")[0]
    first = effects.read(paths["terminate_other"])[0]
    wait_until(
        "the terminated one's process is gone", lambda: not psutil.pid_exists(int(str(first["pid"]))), timeout=PATIENCE
    )
    assert "tidied up" not in events("terminate_other")
    assert list(Attempt.objects.filter(step_run__execution=gone).values_list("state", flat=True)) == ["cancelled"]
