"""`manage.py stats`, `prune`, `export` and `apply`: what spans all apps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import yaml
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import OperationalError
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from execution import audit, retention
from execution.models import AuditEntry, Execution, News, Workflow
from execution.states import DeadLetterState, ExecutionState
from schedules import lifecycle as schedules
from schedules import statistics
from schedules.models import Schedule, ScheduleFire
from scheduling_project.common import console
from tests import factories
from tests.commands import ends, given, read, run
from triggers import endpoints, ingest
from triggers import lifecycle as triggers
from triggers.models import Event, Trigger

pytestmark = pytest.mark.django_db
DAYS = timedelta(days=1)


# ── stats ────────────────────────────────────────────────────────────────────────────────────────────────────


def make_everything() -> None:
    factories.make_workflow("report")
    schedules.create(
        name="nightly", workflow="report", spec={"timetables": [{"kind": "cron", "expression": "0 2 * * *"}]}, actor="x"
    )
    made = endpoints.create("shop", actor="x")
    triggers.create("on-paid", workflow="report", endpoint=made.endpoint, event_types=["order.paid"], actor="x")
    triggers.create(
        "on-day", workflow="report", event_types=["day"], actor="x", start_at=datetime(2026, 1, 1, tzinfo=UTC)
    )


def test_the_figures_are_shown_and_watched() -> None:
    make_everything()
    factories.make_execution(state=ExecutionState.FAILED)
    schedules.trigger(Schedule.objects.get().pk, actor="x")
    found = read("stats")
    assert (found["total"], found["executions"]["last_day"]["failed"]) == (1, 1)
    told = run("stats")
    for part in ("1 active", "ended in a day", "default", "open: 1 queued"):
        assert part in told
    assert "Schedules" in run("stats", "--watch", "0.5", "--times", "2")
    for arguments in (["--watch", "0.1"], ["--watch", "1", "--json"]):
        assert ends("stats", *arguments)[0] == 1


def test_the_figures_of_an_empty_and_of_a_stopped_installation_are_shown() -> None:
    assert "0 (none)" in run("stats")
    found = read("stats")
    found["next_fire_at"] = None
    from schedules import switch
    from scheduling_project.management.commands.stats import drawn

    switch.stop(actor="x")
    assert "all firing is stopped" in run("stats")
    late = {"p50": 0.1, "p95": 2.0, "max": 90.0}
    shown = StringIO()
    whole = found | {"lateness": {"last_hour": late, "last_day": late}, "backfills": 2}
    whole["ledger"] = {"differences": 1, "schedules": 7}
    console.Console(file=shown, width=200).print(drawn(whole))
    assert "p50 0.1 s, p95 2 s, at most 1 min 30 s" in shown.getvalue()
    assert "1 differences in 7 schedules" in shown.getvalue()


def test_watching_ends_when_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    from scheduling_project.management.commands import stats

    monkeypatch.setattr(stats.time, "sleep", interrupted)
    assert ends("stats", "--watch", "1")[0] == 0


def test_postgres_that_is_away_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(now: Any) -> Any:
        raise OperationalError("connection to server at 192.0.2.1 failed")

    monkeypatch.setattr(statistics, "stats", away)
    assert ends("stats") == (1, "", "Postgres is away (OperationalError).")


# ── prune ────────────────────────────────────────────────────────────────────────────────────────────────────


def make_old() -> None:
    old = factories.now() - 400 * DAYS
    execution = factories.make_execution(state=ExecutionState.SUCCEEDED, finished_at=old)
    factories.make_execution(execution.workflow, state=ExecutionState.SUCCEEDED)
    factories.make_dead_letter(state=DeadLetterState.RESOLVED, decided_at=old)
    factories.make_dead_letter(created_at=old)
    audit.record(actor="x", action="a", subject_kind="k", subject_id="1")
    AuditEntry.objects.update(created_at=old)
    News.objects.create(topic="t", created_at=old)
    make_everything()
    AuditEntry.objects.filter(created_at__gt=old).delete()
    schedule = Schedule.objects.get()
    for days in (400, 399):
        ScheduleFire.objects.create(
            schedule=schedule,
            version=schedule.version,
            scheduled_for=factories.now() - days * DAYS,
            due_at=old,
            outcome="started",
            recorded_at=old,
        )
    ingest.publish_event("other")
    Event.objects.update(received_at=old)
    user = User.objects.create(username="u")
    for days in (1, -1):
        OutstandingToken.objects.create(user=user, jti=f"j{days}", token="t", expires_at=factories.now() + days * DAYS)
        Session.objects.create(session_key=f"s{days}", session_data="", expire_date=factories.now() + days * DAYS)


def test_a_dry_run_counts_what_is_then_pruned() -> None:
    make_old()
    told = run("prune", "--dry-run")
    assert "would be deleted" in told
    counted = read("prune", "--dry-run")["pruned"]
    assert Execution.objects.count() >= 2
    assert read("prune")["pruned"] == counted
    found = {(row["of"], row["what"]): row["rows"] for row in counted}
    assert {name: count for name, count in found.items() if count} == {
        ("execution", "executions"): 1,
        ("execution", "dead letters"): 1,
        ("execution", "expired"): 1,
        ("execution", "audit entries"): 1,
        ("execution", "news"): 1,
        ("schedules", "ledger"): 1,
        ("triggers", "events"): 1,
        ("access", "tokens"): 1,
        ("access", "sessions"): 1,
    }
    assert run("prune").splitlines()[-1] == "0 were deleted"


@pytest.mark.parametrize(("kept", "days", "count"), [(1, 0, 2), (0, 30, 1), (1, 30, 2), (0, 0, 0)])
def test_executions_are_counted_by_age_and_by_number(settings: Any, kept: int, days: int, count: int) -> None:
    settings.WORKFLOW_EXECUTIONS_KEPT_COUNT = kept
    settings.WORKFLOW_EXECUTIONS_KEPT_DAYS = settings.WORKFLOW_FAILED_EXECUTIONS_KEPT_DAYS = days
    workflow = factories.make_workflow()
    for age in (400, 1, 0):
        factories.make_execution(workflow, state=ExecutionState.SUCCEEDED, finished_at=factories.now() - age * DAYS)
    assert retention.count().executions == count
    assert retention.prune().executions == count


# ── export and apply ─────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_exported_is_what_apply_finds_unchanged_and_makes_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    make_everything()
    text = run("export")
    assert list(yaml.safe_load(text)) == ["workflows", "schedules", "triggers"]
    assert list(read("export", "--only", "triggers")) == ["triggers"]
    first = read("apply", given(monkeypatch, text))
    assert {name: part["unchanged"] for name, part in first.items() if name != "schedules"} == {
        "workflows": ["report"],
        "triggers": ["on-day", "on-paid"],
    }
    for schedule in Schedule.objects.all():
        schedules.delete(schedule.pk, actor="x")
    Trigger.objects.all().delete()
    Workflow.objects.update(published=None)
    Workflow.objects.all().delete()
    told = run("apply", given(monkeypatch, text), "--dry-run")
    assert (told.count("1 would be created"), "+ on-paid" in told) == (2, True)
    assert not Workflow.objects.exists()
    run("apply", given(monkeypatch, text))
    assert yaml.safe_load(run("export")) == yaml.safe_load(text)


def test_what_a_trigger_lacks_goes_back_to_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    make_everything()
    document = {"triggers": [{"name": "on-paid", "workflow": "report", "event_types": ["a"], "priority": 1}]}
    changes = read("apply", given(monkeypatch, yaml.safe_dump(document)))["triggers"]["updated"]["on-paid"]
    assert changes["endpoint"] == {"before": "shop", "after": None}
    assert set(changes) == {"endpoint", "event_types", "priority"}


def test_schedules_that_the_document_no_longer_names_are_pruned_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    make_everything()
    run("apply", given(monkeypatch, run("export")))
    assert read("apply", given(monkeypatch, "schedules: []"), "--prune")["schedules"]["pruned"] == ["nightly"]


@pytest.mark.parametrize(
    ("document", "errors"),
    [
        ("[]", ["document: must be an object with"]),
        ("{schedules: {}, colours: []}", ["schedules: must be a list", "colours: is not a section"]),
        ("{workflows: [{name: new, definition: {}}], schedules: [1]}", ["workflows.0.definition"]),
        (
            "{schedules: [1, {name: x, workflow: none}], triggers: [2, {name: t}, {name: t, workflow: report}, "
            "{name: u, workflow: report, colour: red}, {name: v, workflow: none, event_types: [a]}]}",
            [
                "schedules.0: ",
                "schedules.1",
                "triggers.0: ",
                "triggers.1.workflow",
                "triggers.2.name",
                "triggers.3.colour",
            ],
        ),
    ],
    ids=["list", "sections", "workflows", "others"],
)
def test_a_document_with_mistakes_changes_nothing(
    document: str, errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_everything()
    before = run("export")
    code, _, said = ends("apply", given(monkeypatch, document))
    assert code == 1
    for error in errors:
        assert error in said, said
    assert run("export") == before


def test_help_shows_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("apply", "--help")
    assert ended.value.code == 0
    assert "\nexamples:\n  manage.py apply everything.yaml --dry-run\n" in capsys.readouterr().out
