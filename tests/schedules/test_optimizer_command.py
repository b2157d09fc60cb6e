"""`manage.py optimizer`."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from execution.models import ProcessReport
from schedules import lifecycle
from schedules.models import OptimizationChange, OptimizationReport
from schedules.states import ChangeState
from tests.factories import make_execution, make_step_run, make_workflow

pytestmark = pytest.mark.django_db


@pytest.fixture
def crowd() -> None:
    ProcessReport.objects.create(name="w", kind="worker", host="h1", pid=1, queues=["default"], slots=1)
    workflow = make_workflow("nightly")
    spec = {"timetables": [{"kind": "cron", "expression": "0 2 * * *"}]}
    for number in range(20):
        lifecycle.create(actor="test", name=f"s{number}", workflow=workflow, spec=spec, overlap_policy="allow_all")


def run(*words: str) -> str:
    out = StringIO()
    call_command("optimizer", *words, stdout=out)
    return out.getvalue()


def read(*words: str) -> Any:
    return json.loads(run(*words, "--json"))


def test_from_report_to_revert(crowd: None) -> None:
    shown = run("report", "--days", "1", "--note", "why")
    assert "Wait, 95 of 100" in shown
    assert "With all proposals" in shown
    report = OptimizationReport.objects.get()
    assert report.note == "why"
    assert str(report.pk) in run("show")
    found = read("show", str(report.pk))
    assert found["changes"][0]["state"] == "proposed"
    first = found["changes"][0]["id"]
    assert run("apply", "--change", first).endswith("1 applied\n")
    assert OptimizationChange.objects.get(pk=first).state == ChangeState.APPLIED
    assert len(read("apply")["changes"]) == len(found["changes"]) - 1
    assert f"{len(found['changes'])} reverted" in run("revert", "--note", "no")


def test_what_if(crowd: None) -> None:
    add = json.dumps({"cron_expression": "0 2 * * *", "count": 5, "seconds": 30})
    found = read("what-if", "--days", "1", "--slots", "default=3", "--add", add)
    assert found["after"]["executions"] == found["before"]["executions"] + 5
    assert "What if" in run("what-if", "--days", "1", "--duration-factor", "2")


def test_patterns() -> None:
    workflow = make_workflow("nightly")
    make_step_run(make_execution(workflow))
    assert "nightly" in run("patterns")
    assert read("patterns", "--days", "3")["workflows"][0]["executions"] == 1


def test_a_quiet_deployment_says_so(db: None) -> None:
    shown = run("report", "--days", "1")
    assert "Nothing to propose." in shown
    assert "slots are assumed" in shown
    assert read("report", "--days", "1")["changes"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show",), "no report yet"),
        (("show", "nonsense"), "is not an id"),
        (("apply", "01990000-0000-7000-8000-000000000000"), "There is no optimisation report"),
        (("report", "--days", "0"), "days"),
        (("what-if", "--slots", "default"), "name=4"),
        (("what-if", "--add", "{"), "must be JSON"),
        (("what-if", "--add", "[]"), "JSON object"),
        (("what-if", "--lose-host", "h9"), "lose_hosts"),
    ],
)
def test_what_is_wrong_is_told(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        run(*words)
