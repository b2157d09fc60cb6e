"""`/api/executions`, `/api/dead-letters`, `/api/queues`, `/api/processes` and `/api/audit`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from execution.models import DeadLetter, Execution, ProcessReport, StepRun
from execution.states import ExecutionState, StepState, WaitingFor
from tests import factories
from tests.api_client import Api
from tests.execution.flow import begin, fail, held, http, step, succeed

# ── Start and read ──


def test_an_execution_is_started_and_read(api: Api) -> None:
    workflow = factories.make_workflow("etl", factories.CHAIN, retry_policy={"max_attempts": 4})
    for name in ("etl", str(workflow.pk)):
        started = api.ok("post", "/api/executions", {"workflow": name, "input": {"n": 1}}, status=201)
        assert (started["state"], started["input"], started["version"]) == ("queued", {"n": 1}, 1)
    read = api.ok("get", f"/api/executions/{started['id']}/")
    assert read == started
    assert [s["name"] for s in read["steps"]] == ["a", "b", "c"]
    assert (read["steps"][0]["retry_policy"]["max_attempts"], read["steps"][0]["retry_policy"]["origin"]) == (
        4,
        "workflow",
    )
    assert {"state", "source", "idempotency_key", "created_at", "started_at", "finished_at"} <= read.keys()


def test_outputs_and_attempts_are_shown(api: Api) -> None:
    execution = begin({"a": http(), "b": http("a")}, output="${{ steps.a.output }}")
    succeed(execution, "a", {"n": 1})
    fail(execution, "b")
    path = f"/api/executions/{execution.pk}"
    read = api.ok("get", path)
    assert read["steps"][0]["output"] == {"n": 1}
    assert read["steps"][1]["attempts"][0]["error"] == "boom"
    assert len(api.ok("get", f"{path}/attempts")["results"]) == 2
    assert [s["state"] for s in api.ok("get", f"{path}/steps?state=failed,queued")["results"]] == ["failed"]
    one = api.ok("get", f"{path}/steps/{step(execution, 'a').pk}")
    assert (one["output"], one["attempts"][0]["state"]) == ({"n": 1}, "succeeded")
    api.refused("get", f"{path}/steps/{uuid4()}", status=404)


def test_an_idempotency_key_gives_the_same_execution(api: Api) -> None:
    factories.make_workflow("etl")
    factories.make_workflow("other")
    body = {"workflow": "etl", "idempotency_key": "k"}
    first = api.ok("post", "/api/executions", body, status=201)
    assert api.ok("post", "/api/executions", body, status=200)["id"] == first["id"]
    assert first["idempotency_key"] == "k"
    api.refused("post", "/api/executions", {**body, "workflow": "other"}, status=409, field="idempotency_key")
    header = {"HTTP_IDEMPOTENCY_KEY": "h"}
    second = api.ok("post", "/api/executions", {"workflow": "etl"}, status=201, **header)
    assert api.ok("post", "/api/executions", {"workflow": "etl"}, status=201, **header)["id"] == second["id"]
    assert Execution.objects.count() == 2


def test_a_start_in_the_future_waits(api: Api) -> None:
    factories.make_workflow("etl")
    later = (factories.now() + timedelta(hours=1)).isoformat()
    started = api.ok("post", "/api/executions", {"workflow": "etl", "start_at": later, "timeout": 60}, status=201)
    assert started["state"] == "scheduled"
    last = (factories.now() + timedelta(hours=2)).isoformat()
    bounded = api.ok("post", "/api/executions", {"workflow": "etl", "start_at": later, "deadline": last}, status=201)
    assert datetime.fromisoformat(bounded["deadline_at"]) == datetime.fromisoformat(last)
    why = api.ok("get", f"/api/executions/{started['id']}/why")
    assert why["blockers"][0]["code"] == "not_due"
    assert why["estimated_start"] is not None


def test_lists_are_filtered_and_cheap(api: Api) -> None:
    workflow = factories.make_workflow("etl")
    for state in (ExecutionState.QUEUED, ExecutionState.FAILED, ExecutionState.SUCCEEDED):
        factories.make_execution(workflow, state=state, source_kind="schedule", source_id="s1")
    factories.make_execution()
    ask = "/api/executions"
    assert len(api.ok("get", ask)["results"]) == 4
    assert {e["state"] for e in api.ok("get", f"{ask}?state=failed,succeeded")["results"]} == {"failed", "succeeded"}
    assert len(api.ok("get", f"{ask}?workflow=etl&source_kind=schedule&source_id=s1")["results"]) == 3
    assert len(api.ok("get", f"{ask}?workflow={workflow.pk}")["results"]) == 3
    assert api.ok("get", f"{ask}?created_after=2199-01-01T00:00:00Z")["results"] == []
    page = api.ok("get", f"{ask}?limit=3")
    rest = api.ok("get", page["next"])
    assert len(page["results"]) + len(rest["results"]) == 4
    assert rest["previous"] is not None
    for bad in ("state=odd", "created_after=soon"):
        api.refused("get", f"{ask}?{bad}", status=400, field=bad.split("=")[0])
    with CaptureQueriesContext(
        connection,
    ) as few:
        api.ok("get", f"{ask}?limit=1")
    with CaptureQueriesContext(connection) as many:
        api.ok("get", ask)
    assert len(few) == len(many) == 1


def test_one_execution_takes_the_same_queries_whatever_its_size(api: Api) -> None:
    def queries(count: int) -> int:
        execution = begin({f"s{n}": http() for n in range(count)})
        for n in range(count):
            succeed(execution, f"s{n}", n)
        with CaptureQueriesContext(connection) as captured:
            api.ok("get", f"/api/executions/{execution.pk}")
        return len(captured)

    assert queries(1) == queries(8) <= 4


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"workflow": None}, "workflow"),
        ({"workflow": "nope"}, "workflow"),
        ({"workflow": 7}, "workflow"),
        ({"workflow": ["etl"]}, "workflow"),
        ({"workflow": ""}, "workflow"),
        ({"input": None}, "input"),
        ({"input": "x"}, "input"),
        ({"input": {"a": "x" * 1_100_000}}, "input"),
        ({"priority": "soon"}, "priority"),
        ({"priority": 2.5}, "priority"),
        ({"queue": "nowhere"}, "queue"),
        ({"retry_policy": {"backoff": "x"}}, "retry_policy.backoff"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "60"}, "timeout"),
        ({"timeout": 10**400}, "timeout"),
        ({"deadline": "2020-01-01T00:00:00Z"}, "deadline"),
        ({"deadline": "soon"}, "deadline"),
        ({"deadline": 60}, "deadline"),
        ({"start_at": "2026-01-01"}, "start_at"),
        ({"start_at": "2026-01-01T00:00:00"}, "start_at"),
        ({"start_at": "0001-01-01T00:00:00Z"}, "start_at"),
        ({"start_at": 5}, "start_at"),
        ({"idempotency_key": "x" * 256}, "idempotency_key"),
        ({"idempotency_key": 5}, "idempotency_key"),
        ({"concurrency_key": {}}, "concurrency_key"),
        ({"state": "succeeded"}, "state"),
    ],
)
def test_a_bad_start_is_refused_naming_the_field(api: Api, change: dict[str, Any], field: str) -> None:
    factories.make_workflow("etl")
    api.refused("post", "/api/executions", {"workflow": "etl", **change}, status=400, field=field)
    assert not Execution.objects.exists()


# ── Verbs ──


def test_verbs_answer_with_the_execution(api: Api) -> None:
    execution = begin({"a": http(), "b": http("a")})
    path = f"/api/executions/{execution.pk}"
    assert api.ok("post", f"{path}/pause", {"note": "x"})["state"] == "paused"
    assert api.ok("get", f"{path}/why")["summary"] == "It is paused by ada: x; resume it."
    api.refused("post", f"{path}/pause", {}, status=409)
    assert api.ok("post", f"{path}/resume/")["state"] == "queued"
    assert api.ok("patch", f"{path}/priority", {"priority": "critical"})["priority"] == 0
    api.refused("patch", f"{path}/priority", {"priority": 11}, status=400, field="priority")
    api.refused("patch", f"{path}/priority", {}, status=400, field="priority")
    again = api.ok("post", f"{path}/rerun", {"input": {"n": 2}}, status=201)
    assert (again["source"]["kind"], again["source"]["id"]) == ("rerun", str(execution.pk))
    assert api.ok("post", f"{path}/cancel", {"reason": "enough"})["state"] == "cancelled"
    problem = api.refused("post", f"{path}/cancel", {}, status=409)
    assert (problem["code"], problem["state"]) == ("conflict", "cancelled")
    api.refused("post", f"{path}/resume-from-failure", {}, status=409)
    entries = api.ok("get", f"/api/audit?subject_id={execution.pk}")["results"]
    assert [entry["action"].split(".")[1] for entry in entries] == [
        "cancel",
        "rerun",
        "set_priority",
        "resume",
        "pause",
    ]


def test_steps_are_ended_by_hand(api: Api) -> None:
    execution = begin(
        {"a": http(), "b": {"approval": {}, "needs": ["a"]}, "c": {"approval": {}, "needs": ["a"]}, "d": http()}
    )
    path = f"/api/executions/{execution.pk}/steps"
    assert api.ok("post", f"{path}/{step(execution, 'a').pk}/succeed", {"output": [1]})["output"] == [1]
    assert api.ok("post", f"{path}/{step(execution, 'b').pk}/approve", {"note": "ok"})["state"] == "succeeded"
    assert api.ok("post", f"{path}/{step(execution, 'c').pk}/reject", {})["state"] == "failed"
    assert api.ok("post", f"{path}/{step(execution, 'd').pk}/skip", {"note": "no"})["state"] == "skipped"
    api.refused("post", f"{path}/{step(execution, 'd').pk}/skip", {}, status=409)
    api.refused("post", f"{path}/{uuid4()}/skip", {}, status=404)
    api.refused("post", f"{path}/{'-' * 36}/skip", {}, status=404)
    assert api.ok("post", f"/api/executions/{execution.pk}/resume-from-failure", {})["state"] == "running"


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "rerun", "resume-from-failure", "priority"])
def test_unknown_executions_are_not_found(api: Api, verb: str) -> None:
    for name in (uuid4(), "nonsense", "%00"):
        api.refused("post", f"/api/executions/{name}/{verb}", {"priority": 1} if verb == "priority" else {}, status=404)
    api.refused("get", f"/api/executions/{uuid4()}/steps", status=404)
    api.refused("get", "/api/executions/nonsense/attempts", status=404)


# ── Why ──


def reported(**fields: Any) -> None:
    ProcessReport.objects.create(
        name="w", kind="worker", host="h", pid=1, queues=["default"], slots=2, **{"seen_at": factories.now(), **fields}
    )


def codes(api: Api, execution: Execution) -> dict[str, str]:
    found = api.ok("get", f"/api/executions/{execution.pk}/why")
    return {blocker["step"]: blocker["code"] for blocker in found["blockers"]}


def test_why_names_the_blocker_of_every_step(api: Api) -> None:
    execution = begin({"a": http(), "b": http("a"), "t": {"wait": 60}, "p": {"approval": {}}, "f": http(for_each=[1])})
    assert codes(api, execution) == {
        "a": "no_worker",
        "b": "needs",
        "t": "timer",
        "p": "approval",
        "f": "child",
        "f[0]": "no_worker",
    }
    reported()
    assert codes(api, execution)["a"] == "next"
    api.ok("post", "/api/queues/default/pause", {"note": "deploy"})
    assert codes(api, execution)["a"] == "queue_paused"
    api.ok("post", "/api/queues/default/resume")
    held(execution, "a")
    assert codes(api, execution)["a"] == "running"
    behind = begin({"a": http()})
    assert codes(api, behind) == {"a": "behind"}
    for waiting_for in (WaitingFor.POOL, WaitingFor.KEY):
        run = factories.make_step_run(factories.make_execution(), state=StepState.WAITING, waiting_for=waiting_for)
        assert codes(api, run.execution) == {"work": waiting_for.value}


def test_why_of_what_waits_for_a_retry_or_has_ended(api: Api) -> None:
    execution = factories.make_execution(state=ExecutionState.RUNNING)
    later = factories.now() + timedelta(minutes=1)
    factories.make_step_run(execution, state=StepState.RETRYABLE, available_at=later)
    assert codes(api, execution) == {"work": "retry"}
    for state in (ExecutionState.SUCCEEDED, ExecutionState.CANCELLED):
        ended = factories.make_execution(state=state, state_reason="done")
        assert "done" in api.ok("get", f"/api/executions/{ended.pk}/why")["summary"]
    empty = factories.make_execution(state=ExecutionState.RUNNING)
    assert api.ok("get", f"/api/executions/{empty.pk}/why")["blockers"] == []


def test_why_estimates_the_start_from_recent_throughput(api: Api) -> None:
    reported()
    done = begin({"a": http()})
    succeed(done, "a")
    first, second = begin({"a": http()}), begin({"a": http()})
    assert codes(api, first) == {"a": "next"}
    found = api.ok("get", f"/api/executions/{second.pk}/why")
    assert found["blockers"][0]["code"] == "behind"
    assert found["estimated_start"] is not None


# ── Dead letters ──


def failed() -> tuple[Execution, DeadLetter]:
    execution = begin({"a": http(), "b": http("a")})
    fail(execution, "a")
    return execution, DeadLetter.objects.get(execution=execution)


def test_a_dead_letter_tells_its_story_and_is_redriven(api: Api) -> None:
    execution, letter = failed()
    path = f"/api/dead-letters/{letter.pk}"
    read = api.ok("get", path)
    assert (read["execution"], read["state"], read["error"]) == (str(execution.pk), "open", "boom")
    assert read["history"][0]["state"] == "failed"
    again = api.ok("post", f"{path}/redrive/", {"note": "fixed"})
    assert again["state"] == "redriving"
    assert again["story"][0]["note"] == "fixed"
    api.refused("post", f"{path}/redrive", {}, status=409)
    succeed(execution, "a")
    assert api.ok("get", path)["state"] == "resolved"
    api.refused("post", f"{path}/discard", {}, status=409)


def test_a_dead_letter_is_restarted_with_edited_input_or_discarded(api: Api) -> None:
    _, letter = failed()
    path = f"/api/dead-letters/{letter.pk}"
    for bad, field in (({"mode": "odd"}, "mode"), ({"input": []}, "input"), ({"latest": 1}, "latest"), ({"x": 1}, "x")):
        api.refused("post", f"{path}/redrive", bad, status=400, field=field)
    again = api.ok("post", f"{path}/redrive", {"mode": "restart", "input": {"n": 2}})
    assert again["redrive_execution"] is not None
    assert api.ok("get", f"/api/executions/{again['redrive_execution']}")["input"] == {"n": 2}
    assert api.ok("post", f"{path}/discard", {"note": "no"})["state"] == "discarded"
    api.refused("post", f"/api/dead-letters/{uuid4()}/redrive", {}, status=404)
    api.refused("post", f"/api/dead-letters/{uuid4()}/discard", {}, status=404)


def test_dead_letters_are_listed_grouped_and_decided_in_bulk(api: Api) -> None:
    letters = [failed()[1] for _ in range(3)]
    workflow = letters[0].workflow
    ask = "/api/dead-letters"
    with CaptureQueriesContext(connection) as captured:
        assert len(api.ok("get", ask)["results"]) == 3
    assert len(captured) == 1
    assert len(api.ok("get", f"{ask}?state=open&workflow={workflow.name}&step=a&error_type=ValueError")["results"]) == 1
    assert api.ok("get", f"{ask}?execution={uuid4()}")["results"] == []
    groups = api.ok("get", f"{ask}/groups")["results"]
    assert [(group["count"], group["error_type"]) for group in groups] == [(3, "ValueError")]
    api.refused("get", f"{ask}/groups?state=odd", status=400, field="state")
    canary = api.ok("post", f"{ask}/bulk/redrive", {"fingerprint": groups[0]["fingerprint"], "limit": 1})
    assert (canary["done"], canary["left"]) == ([str(letters[0].pk)], 2)
    rest = api.ok("post", f"{ask}/bulk/discard", {"ids": [str(letter.pk) for letter in letters]})
    assert (len(rest["done"]), rest["refused"]) == (2, [])
    api.refused("post", f"{ask}/bulk/redrive", {}, status=400, field="body")
    api.refused("post", f"{ask}/bulk/redrive", {"ids": ["x"]}, status=400, field="ids.0")
    api.refused("post", f"{ask}/bulk/redrive", {"workflow": "nope"}, status=400, field="workflow")


# ── Queues and processes ──


def test_queues_show_what_waits_and_can_be_paused(api: Api) -> None:
    begin({"a": http(), "b": http(priority="low")})
    reported()
    queues = {queue["name"]: queue for queue in api.ok("get", "/api/queues")["results"]}
    assert (queues["default"]["in_flight"], queues["default"]["workers"], queues["default"]["slots"]) == (2, 1, 2)
    assert [level["priority"] for level in queues["default"]["levels"]] == [6, 9]
    paused = api.ok("post", "/api/queues/default/pause", {"note": "deploy"})
    assert (paused["paused"], paused["paused_by"]) == (True, "ada")
    api.refused("post", "/api/queues/default/pause", {}, status=409)
    assert api.ok("post", "/api/queues/default/resume")["paused"] is False
    api.refused("post", "/api/queues/default/resume", status=409)
    assert [run["name"] for run in api.ok("get", "/api/queues/default/peek")["results"]] == ["a", "b"]
    api.refused("get", "/api/queues/default/peek?limit=0", status=400, field="limit")
    for verb in ("", "/peek"):
        api.refused("get", f"/api/queues/nowhere{verb}", status=404)
    assert StepRun.objects.filter(dispatched_at=None).count() == 0


def test_processes_are_listed_with_the_living_first(api: Api) -> None:
    reported()
    ProcessReport.objects.create(
        name="a-beat", kind="beat", host="h", pid=2, seen_at=factories.now() - timedelta(hours=1)
    )
    found = api.ok("get", "/api/processes")["results"]
    assert [(process["name"], process["alive"]) for process in found] == [("w", True), ("a-beat", False)]
