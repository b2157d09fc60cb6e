"""Schedules as files and from the command line."""

from __future__ import annotations

import io
import json

import pytest
import yaml
from django.core.management import CommandError, call_command

from execution.models import Execution
from schedules import as_code, lifecycle
from schedules.models import Schedule, ScheduleFire
from scheduling_project.common.errors import InvalidInput
from tests.schedules.builders import MINUTELY, schedule, workflow

pytestmark = pytest.mark.django_db

DOCUMENT = {"name": "nightly", "workflow": "report", "spec": MINUTELY, "priority": "high"}


@pytest.fixture(autouse=True)
def _a_workflow():
    workflow()


def run(*arguments):
    out = io.StringIO()
    call_command("schedules", *arguments, stdout=out)
    return out.getvalue()


def test_what_is_exported_can_be_applied_and_changes_nothing():
    as_code.apply([DOCUMENT, DOCUMENT | {"name": "off", "enabled": False, "labels": {"a": "b"}}], actor="x")
    documents = as_code.export(Schedule.objects.all())
    assert [d["name"] for d in documents] == ["nightly", "off"]
    assert "labels" not in documents[0]
    assert (documents[1]["enabled"], documents[1]["labels"]) == (False, {"a": "b"})
    assert as_code.apply(documents, actor="x").unchanged == ["nightly", "off"]


def test_a_dry_run_shows_the_difference_and_changes_nothing():
    as_code.apply([DOCUMENT], actor="x")
    applied = as_code.apply([DOCUMENT | {"priority": 1}, DOCUMENT | {"name": "new"}], actor="x", dry_run=True)
    assert applied.created == ["new"]
    assert applied.updated == {"nightly": {"priority": {"before": 3, "after": 1}}}
    assert Schedule.objects.get().priority == 3


def test_pruning_deletes_only_what_was_applied():
    lifecycle.create(actor="x", name="by hand", workflow="report", spec=MINUTELY)
    as_code.apply([DOCUMENT, DOCUMENT | {"name": "b"}], actor="x")
    assert as_code.apply([DOCUMENT], actor="x", prune=True).pruned == ["b"]
    assert set(Schedule.objects.values_list("name", flat=True)) == {"nightly", "by hand"}


def test_one_wrong_document_applies_none_and_all_problems_are_named():
    wrong = [DOCUMENT, DOCUMENT | {"name": "x", "priority": 77}, DOCUMENT, 5, {"name": "y", "workflow": "no"}]
    with pytest.raises(InvalidInput) as caught:
        as_code.apply(wrong, actor="x")
    assert {"schedules.1.priority", "schedules.2.name", "schedules.3", "schedules.4.workflow"} <= set(
        caught.value.fields
    )
    assert not Schedule.objects.exists()


def test_the_command_shows_and_acts(tmp_path):
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump({"schedules": [DOCUMENT]}))
    assert "1 would be created" in run("apply", str(file), "--dry-run")
    assert "+ nightly" in run("apply", str(file))
    assert "nightly" in run("list", "--search", "night")
    assert "nightly" not in run("list", "--paused")
    assert yaml.safe_load(run("show", "nightly"))["priority"] == 3
    assert json.loads(run("export", "--json"))["schedules"][0]["name"] == "nightly"
    assert "name: nightly" in run("export")
    one = Schedule.objects.get()
    execution = run("trigger", str(one.pk), "--input", '{"a": 1}', "--priority", "0").strip()
    assert Execution.objects.get(pk=execution).input == {"a": 1}
    run("trigger", "nightly", "--priority", "low")
    run("pause", "nightly", "--note", "x")
    assert "by hand" in run("list", "--paused")
    run("resume", "nightly", "--missed", "catch_up")
    file.write_text(yaml.safe_dump([DOCUMENT | {"priority": 1}, DOCUMENT | {"name": "z"}]))
    assert "priority: 3 → 1" in run("apply", str(file))
    file.write_text(yaml.safe_dump([DOCUMENT]))
    assert "- z" in run("apply", str(file), "--prune")
    assert "0 deleted" in run("reconcile")
    assert "stopped" in run("stop", "--note", "x")
    assert "fires" in run("start")
    assert run("delete", "nightly").strip() == "deleted"


def test_the_audit_command_fails_where_the_ledger_differs():
    from datetime import UTC, datetime, timedelta

    from schedules.firing import fire_due

    begun = datetime.now(UTC) - timedelta(hours=1)
    schedule(MINUTELY, since=begun)
    fire_due()
    assert "0 with differences" in run("audit")
    ScheduleFire.objects.order_by("scheduled_for").first().delete()
    with pytest.raises(CommandError):
        run("audit")


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "nobody"),
        ("show", "01a20444-600e-705c-b8fa-54f6a95d96b2"),
        ("apply", "/nowhere.yaml"),
        ("trigger", "nightly", "--input", "{"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments):
    with pytest.raises(CommandError):
        run(*arguments)


@pytest.mark.parametrize("content", ["a: [", "5", "other: 1"])
def test_files_that_hold_no_schedules(tmp_path, content, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(content))
    with pytest.raises(CommandError):
        run("apply", "-")


def test_conflicts_clones_and_many_at_once_from_the_command_line():
    lifecycle.create(actor="x", name="a", workflow="report", spec=MINUTELY, labels={"team": "data"}, owner="ada")
    assert "0 conflicts" in run("conflicts", "--fail")
    run("clone", "a", "b", "--paused")
    assert not Schedule.objects.get(name="b").enabled
    run("resume", "b")
    assert "warning: duplicate: 1 other schedule does what a does" in run("conflicts", "a")
    assert json.loads(run("conflicts", "--json"))["conflicts"][0]["code"] == "duplicate"
    for arguments in (("conflicts", "--fail"), ("conflicts", "--hours", "0")):
        with pytest.raises(CommandError):
            run(*arguments)
    assert "2 would be changed" in run("bulk", "pause", "--label", "team:data", "--dry-run")
    assert "update: a" in run("bulk", "update", "--owner", "ada", "--search", "a", "--set", '{"queue": "io"}')
    assert "2 were changed" in run("bulk", "pause", "--workflow", "report", "--note", "freeze")
    assert "2 were changed" in run("bulk", "resume", "--label", "team", "--missed", "catch_up")
    until = "2190-01-01T00:00:00+00:00"
    run("pause", "a", "--until", until, "--on-resume", "catch_up")
    assert Schedule.objects.get(name="a").paused_until.isoformat() == until
    lifecycle.create(actor="x", name="c", workflow="report", spec={"timetables": [{"kind": "interval", "every": 9}]})
    refusing = ("bulk", "update", "--search", "c", "--set", '{"max_executions": -1}')
    for arguments in (
        ("bulk", "pause"),
        ("bulk", "update", "--search", "a"),
        ("bulk", "pause", "--search", "a", "--set", "{}"),
        ("bulk", "update", "--search", "a", "--set", "{"),
        ("pause", "a", "--until", "soon"),
        ("pause", "a", "--until", "2190-01-01T00:00:00"),
        refusing,
    ):
        with pytest.raises(CommandError):
            run(*arguments)
    assert "2 were changed" in run("bulk", "delete", "--owner", "ada")


def test_a_bar_is_drawn_where_somebody_watches():
    from rich.console import Console

    from schedules.management.importing import bar

    out = io.StringIO()
    with bar(Console(file=out, force_terminal=True), "Applying", 2) as progress:
        progress()
        progress()
    assert "Applying" in out.getvalue()
    with bar(Console(file=out), "Quietly", 1) as progress:
        progress()
    assert "Quietly" not in out.getvalue()


def test_a_dry_run_in_bulk_names_who_refuses():
    workflow("strict", definition={"input": {"required": ["d"]}, "steps": {"s": {"task": "demo.tasks.noop"}}})
    lifecycle.create(actor="x", name="s", workflow="strict", spec=MINUTELY, input={"d": 1})
    assert "refused: s" in run("bulk", "update", "--search", "s", "--set", '{"input": {}}', "--dry-run")
