"""Status, history, statistics and ledger audits over the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from execution.models import Execution, ProcessReport
from schedules import audit, firing, lifecycle, versions
from schedules.models import Schedule, ScheduleFire
from scheduling_project.common import clock
from tests.api_client import Api
from tests.schedules.builders import MINUTELY, end_executions, schedule, workflow

pytestmark = pytest.mark.django_db


@pytest.fixture
def busy() -> Schedule:
    """Nine minutes missed, then one started, just now; another one triggered by hand."""
    versions.forget()
    workflow()
    now = clock.now().replace(second=0, microsecond=0)
    made = schedule(MINUTELY, since=now - timedelta(minutes=10), catch_up="latest")
    firing.fire_due(now)
    lifecycle.trigger(made.pk, actor="ada")
    return made


def test_status_tells_everything_at_once(api: Api, busy: Schedule) -> None:
    seen = api.ok("get", f"/api/schedules/{busy.pk}/status")
    assert (seen["state"], seen["pause"], len(seen["running"]), seen["open_executions"]) == ("active", None, 2, 2)
    assert seen["last_day"] == {"buffered": 0, "started": 1, "skipped": 0, "missed": 9}
    assert (seen["last_outcome"], seen["consecutive_failures"], seen["buffered"]) == (None, 0, 0)
    assert seen["lateness"]["p50"] == seen["lateness"]["max"] >= 0
    assert seen["last_fire_at"] is not None
    assert seen["next_fires"]
    end_executions("failed")
    lifecycle.pause(busy.pk, actor="ada", note="too loud")
    seen = api.ok("get", f"/api/schedules/{busy.pk}/status")
    assert (seen["state"], seen["pause"]["note"], seen["last_outcome"]) == ("paused", "too loud", "failed")
    assert (seen["running"], seen["next_fires"], seen["backfills"]) == ([], [], [])


def test_history_is_narrowed_by_what_is_asked(api: Api, busy: Schedule) -> None:
    def kinds(query: str) -> list[tuple[str, str]]:
        rows = api.ok("get", f"/api/schedules/{busy.pk}/history?{query}")["results"]
        return [(row["kind"], row["outcome"]) for row in rows]

    manual, fire, missed = ("manual", "started"), ("fire", "started"), ("fire", "missed")
    assert kinds("") == [manual, fire, missed]
    assert kinds("outcome=started") == [manual, fire]
    assert kinds("outcome=missed") == kinds("reason=catch_up_latest") == [missed]
    assert kinds("reason=paused") == kinds("execution_state=failed") == []
    assert kinds("execution_state=queued") == [manual, fire]
    inside = (busy.fired_through + timedelta(minutes=5)).isoformat().replace("+00:00", "Z")
    assert kinds(f"until={inside}") == [missed]
    assert kinds(f"since={inside}") == [manual, fire, missed]
    end_executions()
    rows = api.ok("get", f"/api/schedules/{busy.pk}/history?execution_state=succeeded")["results"]
    assert rows[0]["finished_at"] is not None
    page = api.ok("get", f"/api/schedules/{busy.pk}/history?outcome=started&limit=1")
    assert "outcome=started" in page["next"]
    assert [row["kind"] for row in api.ok("get", page["next"])["results"]] == ["fire"]


@pytest.mark.parametrize("query", ["outcome=lost", "reason=x", "execution_state=x", "since=x", "until=x", "limit=0"])
def test_what_cannot_narrow_a_history_is_named(api: Api, busy: Schedule, query: str) -> None:
    field = query.partition("=")[0]
    api.refused("get", f"/api/schedules/{busy.pk}/history?{query}", status=400, field=field)


def test_statistics_tell_rates_lateness_and_queues(api: Api, busy: Schedule) -> None:
    ids = list(Execution.objects.order_by("id").values_list("pk", flat=True))
    end_executions("failed")
    Execution.objects.filter(pk=ids[0]).update(state="succeeded", finished_at=clock.now())
    Execution.objects.filter(pk=ids[1]).update(finished_at=clock.now() - timedelta(hours=2))
    lifecycle.trigger(busy.pk, actor="ada")
    ProcessReport.objects.create(name="w1", kind="worker", host="h", pid=1, slots=8, queues=["default"])
    seen = api.ok("get", "/api/schedules/stats")
    executions = seen["executions"]
    assert executions["by_state"]["queued"] == 1
    assert executions["last_hour"] == {
        "succeeded": 1,
        "failed": 0,
        "cancelled": 0,
        "success_rate": 1.0,
        "per_minute": 0.017,
    }
    assert (executions["last_day"]["success_rate"], executions["last_day"]["failed"]) == (0.5, 1)
    assert seen["last_day"]["instants"]["missed"] == 9
    assert seen["lateness"]["last_hour"]["p95"] == seen["lateness"]["last_day"]["p95"] >= 0
    queue = next(one for one in seen["queues"] if one["queue"] == "default")
    assert (queue["workers"], queue["slots"], queue["paused"]) == (1, 8, False)
    assert queue["waiting"] + queue["in_flight"] >= 1
    assert (seen["ledger"], seen["backfills"]) == (None, 0)


def test_statistics_of_an_empty_house(api: Api, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_max_num_queries(20):
        seen = api.ok("get", "/api/schedules/stats")
    nothing = {"p50": None, "p95": None, "max": None}
    assert seen["lateness"] == {"last_hour": nothing, "last_day": nothing}
    assert seen["executions"]["last_day"]["success_rate"] is None


def test_a_row_deleted_by_hand_is_a_line_of_the_audit(api: Api, busy: Schedule) -> None:
    audit.run()
    assert api.ok("get", "/api/schedules/audit")["results"] == []
    gone = ScheduleFire.objects.get(outcome="missed")
    ScheduleFire.objects.filter(pk=gone.pk).delete()
    audit.run()
    line: dict[str, Any]
    (line,) = api.ok("get", "/api/schedules/audit/")["results"]
    assert (line["schedule"], line["schedule_name"], line["differences"]) == (str(busy.pk), "nightly", 9)
    assert (len(line["missing"]), line["unexpected"], line["miscounted"]) == (9, [], [])
    figures = api.ok("get", "/api/schedules/ledger-audits")["results"]
    assert [(row["findings"], row["differences"]) for row in figures] == [(1, 9), (0, 0)]
    assert api.ok("get", "/api/schedules/stats")["ledger"]["differences"] == 9
