"""Workflows on real workers: children, sections, secrets, fan-outs, pools, rates, and failures taken up again.

One worker serves the whole module, so the tables are emptied when it has stopped: each test looks at its own rows.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from pytest_django import DjangoDbBlocker

from execution import creation, dead_letters, lifecycle, pools, redrives, secret_store, workflows
from execution.models import Attempt, DeadLetter, Execution, RedriveItem, StepRun
from execution.states import EXECUTION_TERMINAL, StepState
from scheduling_project.drills import effects
from scheduling_project.drills.processes import Processes, Service, environment, wait_until
from tests.api_client import Api
from tests.patience import PATIENCE
from tests.scenarios.conftest import SHORT

pytestmark = [pytest.mark.scenario, pytest.mark.django_db(transaction=True)]

#: Items of the fan-out; ``FAN_OUT_ITEMS=10000`` is its long form.
ITEMS = int(os.environ.get("FAN_OUT_ITEMS", "300"))
SECRET = "hunter22-in-a-scenario"


@pytest.fixture(scope="module")
def fleet(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Processes]:
    with django_db_blocker.unblock():
        redis.Redis.from_url(settings.REDIS_URL).flushdb()
        started = Processes(tmp_path_factory.mktemp("workflows"), environment(**SHORT))
        try:
            started.worker("steady", queues="default", slots=3)
            yield started
        finally:
            started.stop()
            call_command("flush", interactive=False, verbosity=0)


@pytest.fixture
def _django_db_helper(fleet: Processes) -> None:
    """In place of pytest-django's own, which would empty the tables after each test, under the worker's hands."""


@pytest.fixture
def worker(fleet: Processes) -> Iterator[Service]:
    yield fleet.services[0]
    print(fleet.services[0].tail(60))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "effects")


def begin(steps: dict[str, Any], *, input: Any = None, name: str = "scenario", **definition: Any) -> Execution:
    workflow = workflows.create(f"{name}-{time.monotonic_ns()}", {"steps": steps, **definition}, actor="test")
    return creation.start(workflow, input=input)


def ended(execution: Execution, timeout: float = PATIENCE) -> Execution:
    def is_over() -> bool:
        execution.refresh_from_db()
        return execution.state in EXECUTION_TERMINAL

    wait_until(f"execution {execution.pk} ends", is_over, timeout=timeout)
    return execution


def states(execution: Execution) -> dict[str, str]:
    return dict(StepRun.objects.filter(execution=execution, parent=None).values_list("name", "state"))


def attempts(execution: Execution) -> list[str]:
    found = Attempt.objects.filter(step_run__execution=execution).order_by("step_run_id", "number")
    return list(found.values_list("state", flat=True))


def effect(path: str, seconds: float = 0.0, *needs: str, **more: Any) -> dict[str, Any]:
    return {"task": "drill.effect", "with": {"path": path, "seconds": seconds}, "needs": list(needs), **more}


def bad(how: str, **more: Any) -> dict[str, Any]:
    return {"task": "drill.misbehave", "with": {"how": how}, **more}


def child_of(execution: Execution) -> Execution:
    return Execution.objects.get(source_kind="child", source_id=str(execution.pk))


def test_a_child_gives_its_output_fails_its_caller_and_survives_a_killed_process(worker: Service) -> None:
    for how in ("nothing", "poisoned", "kill once"):
        definition = {"steps": {"work": bad(how)}, "output": "${{ steps.work.output }}"}
        workflows.create(f"child-{how.replace(' ', '-')}", definition, actor="test")
    good, failing, killed = (
        begin({"call": {"workflow": name}}, output="${{ steps.call.output }}")
        for name in ("child-nothing", "child-poisoned", "child-kill-once")
    )
    assert ended(good).state == "succeeded"
    assert good.output.data == "nothing"
    assert ended(failing).state == "failed"
    assert DeadLetter.objects.get(execution=failing).error_type == "ChildFailed"
    assert DeadLetter.objects.get(execution=child_of(failing)).error_type == "Poisoned"
    assert ended(killed).state == "succeeded"
    assert attempts(child_of(killed)) == ["lost", "succeeded"]
    assert Execution.objects.filter(source_kind="child", source_id=str(killed.pk)).count() == 1


def test_who_cancels_the_caller_cancels_its_child_at_work_and_finally_runs(worker: Service, path: str) -> None:
    workflows.create("child-slow", {"steps": {"work": effect(path, 30)}}, actor="test")
    caller = begin({"call": {"workflow": "child-slow"}, "next": bad("nothing", needs=["call"])})
    sections: dict[str, Any] = {"finally": {"last": effect(path + "3")}}
    tidy = begin({"work": effect(path + "2", 30)}, **sections)
    wait_until("both work", lambda: all(os.path.exists(p) for p in (path, path + "2")), timeout=PATIENCE)
    lifecycle.cancel(caller.pk, actor="ada", reason="wrong day")
    lifecycle.cancel(tidy.pk, actor="ada")
    assert ended(caller).state == ended(child_of(caller)).state == "cancelled"
    assert ended(tidy).state == "cancelled"
    assert states(tidy) == {"work": "cancelled", "last": "succeeded"}
    assert list(effects.ended(Path(path + "3")).values()) == [1]
    assert not effects.ended(Path(path))


def test_what_comes_last_runs_after_a_failure_which_it_does_not_hide(worker: Service, path: str) -> None:
    sections: dict[str, Any] = {"on_failure": {"tell": effect(path)}, "finally": {"last": effect(path, 0.0)}}
    execution = ended(begin({"work": bad("poisoned"), "next": bad("nothing", needs=["work"])}, **sections))
    assert execution.state == "failed"
    assert states(execution) == {"work": "failed", "next": "skipped", "tell": "succeeded", "last": "succeeded"}
    assert DeadLetter.objects.filter(execution=execution).count() == 1


def test_a_secret_reaches_the_step_and_neither_a_table_nor_a_log(worker: Service, path: str) -> None:
    secret_store.set_secret("SCENARIO", SECRET, actor="test")
    step = {"task": "drill.use_secret", "with": {"token": "${{ secrets.SCENARIO }}", "path": path}}
    execution = ended(begin({"work": step}))
    assert Path(path).read_text() == hashlib.sha256(SECRET.encode()).hexdigest()
    assert DeadLetter.objects.get(execution=execution).error == "the other side refused [secret SCENARIO]"
    with connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT count(*) FROM "{table}" t WHERE row_to_json(t)::text LIKE %s', [f"%{SECRET}%"])
            assert cursor.fetchone() == (0,), table
    held = redis.Redis.from_url(settings.REDIS_URL)
    assert not [key for key in held.scan_iter() if held.type(key) == b"string" and SECRET in str(held.get(key))]
    assert SECRET not in worker.log.read_text(errors="replace")


def test_a_fan_out_fans_in_once_though_a_worker_dies_in_between(fleet: Processes, worker: Service, path: str) -> None:
    doomed = fleet.worker("doomed", slots=1)
    each = effect(path, 0.01, for_each="${{ input.items }}", max_parallel=50)
    execution = begin({"each": each, "after": effect(path + "2", 0.0, "each")}, input={"items": list(range(ITEMS))})
    items = StepRun.objects.filter(execution=execution, name="each").exclude(parent=None)
    wait_until("a part is done", lambda: items.filter(state="succeeded").count() >= ITEMS // 10, timeout=PATIENCE)
    doomed.kill_all()
    assert ended(execution, PATIENCE + ITEMS / 50).state == "succeeded"
    assert items.filter(state="succeeded").count() == ITEMS
    output = StepRun.objects.get(execution=execution, name="each", parent=None).output.data
    assert (output["count"], output["succeeded"], output["failed"]) == (ITEMS, ITEMS, 0)
    assert list(effects.ended(Path(path + "2")).values()) == [1]
    assert StepRun.objects.get(execution=execution, name="after").attempt == 1


def test_a_redrive_job_sends_a_canary_first_and_stops_or_goes_on(worker: Service, path: str, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    step = {"task": "drill.until_mended", "with": {"path": path, "mended": str(mended)}}
    workflow = workflows.create("mendable", {"steps": {"work": step}}, actor="test")
    failed = [creation.start(workflow) for _ in range(14)]
    for execution in failed:
        ended(execution)
    selection = dead_letters.Selection(workflow_id=workflow.pk)
    assert selection.letters().count() == 14

    early = redrives.create(selection, actor="ada")
    wait_until("it stops", lambda: _reread(early).state == "stopped", timeout=PATIENCE)
    assert (early.started, early.failed) == (1, 1)
    assert selection.letters().count() == 14

    mended.touch()
    job = redrives.create(selection, actor="ada")
    wait_until("it is done", lambda: _reread(job).state == "done", timeout=PATIENCE)
    assert (job.started, job.succeeded, job.failed) == (14, 14, 0)
    waves = list(RedriveItem.objects.filter(job=job).order_by("position").values_list("started_at", "finished_at"))
    assert waves[0][1] <= waves[1][0]  # the canary had ended well before the second was taken up
    assert max(finished for _, finished in waves[1:11]) <= waves[11][0]
    assert set(effects.ended(Path(path)).values()) == {1}
    assert not DeadLetter.objects.filter(workflow=workflow).exclude(state="resolved").exists()


def _reread(job: Any) -> Any:
    job.refresh_from_db()
    return job


def test_a_rate_holds_over_two_workers(fleet: Processes, worker: Service, path: str) -> None:
    other = fleet.worker("second", queues="io", slots=2)
    rate = {"key": "shared", "limit": 5, "per": 1}
    each = effect(path, for_each="${{ input.items }}", rate=rate)
    execution = begin({"here": each, "there": {**each, "queue": "io"}}, input={"items": [1, 2, 3, 4]})
    assert ended(execution).state == "succeeded"
    lines = [line for line in effects.read(Path(path)) if line["event"] == "begin"]
    begun = sorted(line["at"] for line in lines)
    # Seven intervals of a fifth of a second. Without the rate all eight begin within some milliseconds.
    assert (len(begun), begun[-1] - begun[0] > 1.0) == (8, True)
    names = Attempt.objects.filter(step_run__execution=execution).values_list("worker", flat=True)
    assert {name.partition("@")[0] for name in names} == {"steady", "second"}
    other.process.stop()


def test_a_slot_that_comes_free_starts_the_next_and_holds_no_process_meanwhile(worker: Service, path: str) -> None:
    pools.create("narrow", slots=1, actor="test")
    each = effect(path, 0.1, for_each="${{ input.items }}", pool={"name": "narrow"})
    execution = begin({"each": each}, input={"items": list(range(6))})
    other = ended(begin({"free": bad("nothing")}))  # those that wait for the pool leave a process for this
    assert other.state == "succeeded"
    assert ended(execution).state == "succeeded"
    lines = effects.read(Path(path))
    assert [line["event"] for line in lines] == ["begin", "end"] * 6  # never two at once
    # What holds the slot does not wait for it by attempts: each item was claimed once.
    assert attempts(execution) == ["succeeded"] * 6
    assert pools.get("narrow").used == 0


def test_a_snooze_is_no_failure_and_charges_no_attempt(worker: Service) -> None:
    execution = ended(begin({"work": bad("snooze")}))
    run = StepRun.objects.get(execution=execution)
    assert (execution.state, run.failures, attempts(execution)) == ("succeeded", 0, ["snoozed", "succeeded"])
    first, second = Attempt.objects.filter(step_run=run).order_by("number")
    assert second.started_at - first.finished_at >= timedelta(seconds=0.45)  # the engine's own clock: half a second
    assert first.decision["reason"] == "the gate is closed"


def test_who_resumes_from_the_failed_step_keeps_what_was_done(worker: Service, path: str, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    steps = {
        "first": effect(path),
        "second": {
            "task": "drill.until_mended",
            "with": {"path": path + "2", "mended": str(mended)},
            "needs": ["first"],
        },
        "third": effect(path + "3", 0.0, "second"),
    }
    execution = ended(begin(steps, output={"pid": "${{ steps.first.output.pid }}", "by": "${{ steps.second.output }}"}))
    assert states(execution) == {"first": "succeeded", "second": "failed", "third": "skipped"}
    kept = StepRun.objects.get(execution=execution, name="first").output.data
    mended.touch()
    lifecycle.resume_from_failure(execution.pk, actor="ada", note="mended")
    assert ended(execution).state == "succeeded"
    assert execution.output.data == {"pid": kept["pid"], "by": "mended"}
    assert list(effects.ended(Path(path)).values()) == [1]
    assert DeadLetter.objects.get(execution=execution).state == "resolved"
    assert StepState(states(execution)["third"]) is StepState.SUCCEEDED


def test_a_fan_out_stops_or_tolerates_as_its_definition_says(worker: Service) -> None:
    hows = ["nothing", "poisoned", "nothing", "nothing", "nothing"]
    each = bad("${{ item }}", for_each=hows, max_parallel=1)
    stopping = begin({"each": each | {"on_item_error": "stop"}})
    tolerant = begin(
        {"each": each | {"max_failed": "20%", "on_item_error": "stop"}, "next": bad("nothing", needs=["each"])}
    )
    assert ended(stopping).state == "failed"
    output = StepRun.objects.get(execution=stopping, parent=None).output.data
    assert (output["succeeded"], output["failed"], output["skipped"]) == (1, 1, 3)
    assert output["errors"] == [{"index": 1, "type": "Poisoned", "message": "fails for good"}]
    assert ended(tolerant).state == "succeeded"
    assert StepRun.objects.get(execution=tolerant, name="each", parent=None).output.data["succeeded"] == 4
    assert not DeadLetter.objects.filter(execution=tolerant).exists()


def test_a_priority_that_is_patched_takes_effect_though_the_messages_were_sent_before(
    fleet: Processes, worker: Service, path: str
) -> None:
    api = Api()
    step = effect(path) | {"queue": "io"}
    executions = [begin({"work": step}) for _ in range(6)]
    handed_over = StepRun.objects.filter(execution__in=executions, dispatched_at__isnull=False)
    wait_until("all messages are sent", lambda: handed_over.count() == 6, timeout=PATIENCE)
    first, *_, last = executions
    assert api.ok("patch", f"/api/executions/{last.pk}/priority", {"priority": "critical"})["priority"] == 0
    assert api.ok("patch", f"/api/executions/{first.pk}/priority", {"priority": 9})["priority"] == 9
    other = fleet.worker("narrow", queues="io", slots=1)
    for execution in executions:
        assert ended(execution).state == "succeeded"
    begun = [line["key"].partition(":")[0] for line in effects.read(Path(path)) if line["event"] == "begin"]
    assert (begun[0], begun[-1]) == (str(last.pk), str(first.pk))
    assert sorted(begun) == sorted(str(execution.pk) for execution in executions)
    assert api.answer("patch", f"/api/executions/{first.pk}/priority", {"priority": 0}).status_code == 409
    other.process.stop()
