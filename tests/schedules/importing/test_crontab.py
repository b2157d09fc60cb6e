"""Crontab files become schedules."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from execution.models import Execution
from schedules import lifecycle
from schedules.importing import crontab
from schedules.importing.report import Row
from schedules.models import Schedule
from tests.schedules.builders import workflow

USER = """\
# Settings
SHELL=/bin/bash
MAILTO = "ops@example.org"
PATH='/usr/bin:/bin'

# Nightly report
30 2 * * *\treport --all
#0 5 * * * /old/job
*/5 9-17 * * MON-FRI  poll | grep x%line one%line two
@daily echo 100\\% sure
@reboot start-me
61 * * * * wrong
0 12 * *
CRON_TZ=Europe/Berlin
-0 22-2 * * * wraps
RANDOM_DELAY=5
0~30 4 */2 * 1 spread
"""


def read(text: str, **options: Any) -> list[Row]:
    options.setdefault("choose", lambda command: ("shell", {}))
    return crontab.read(text, **options).rows


def expressions(rows: list[Row]) -> list[str]:
    return [row.values["spec"]["timetables"][0]["expression"] for row in rows if row.values]


def test_a_user_crontab() -> None:
    found = crontab.read(USER, choose=lambda command: ("shell", {}), label="mine")
    rows = found.rows
    assert [(row.source, row.outcome) for row in rows] == [
        ("line 7", "translated"),
        ("line 9", "translated"),
        ("line 10", "translated"),
        ("line 11", "refused"),
        ("line 12", "refused"),
        ("line 13", "refused"),
        ("line 15", "noted"),
        ("line 17", "noted"),
    ]
    report, poll, sure = rows[:3]
    assert report.name == "Nightly report"
    assert report.values["input"] == {
        "command": "report --all",
        "environment": {"SHELL": "/bin/bash", "PATH": "/usr/bin:/bin"},
    }
    assert (poll.values["input"]["command"], poll.values["input"]["stdin"]) == ("poll | grep x", "line one\nline two")
    assert poll.name.startswith("poll")
    assert sure.values["input"]["command"] == "echo 100% sure"
    assert "reboots" in rows[3].reason
    assert "61" in rows[4].reason
    assert "five fields" in rows[5].reason
    assert rows[6].values["spec"]["timezone"] == "Europe/Berlin"
    assert rows[7].values["spec"]["jitter"] == 300
    assert expressions(rows) == [
        "30 2 * * *",
        "*/5 9-17 * * 1-5",
        "0 0 * * *",
        "0 0-2,22,23 * * *",
        "H(0-30) 4 */2 * +1",
    ]
    assert "MAILTO" in found.notes[0]


def test_the_form_of_etc_crontab_has_a_user() -> None:
    rows = read("17 * * * * root cd / && run\n@hourly www sync\n0 0 * * * root\n", is_system=True)
    assert [row.values["input"]["user"] for row in rows[:2]] == ["root", "www"]
    assert rows[0].values["input"]["command"] == "cd / && run"
    assert "a user" in rows[2].reason


def test_tz_is_the_commands_and_zones_must_exist() -> None:
    (row,) = read("TZ=Asia/Tokyo\n0 1 * * * x", timezone="Europe/Paris")
    assert (row.values["spec"]["timezone"], row.values["input"]["environment"]) == (
        "Europe/Paris",
        {"TZ": "Asia/Tokyo"},
    )
    assert "only sets the command's clock" in row.notes[0]
    (row,) = read("CRON_TZ=Mars/Base\n0 1 * * * x")
    assert "CRON_TZ" in row.reason
    (row,) = read("RANDOM_DELAY=soon\n0 1 * * * x")
    assert "no number of minutes" in row.notes[0]


def test_names_and_keys_differ_when_commands_repeat() -> None:
    rows = read("0 1 * * * x\n0 2 * * * x\n# A name\n\n0 3 * * * y\n")
    assert [row.name for row in rows] == ["x", "x (2)", "y"]
    assert len({row.values["external_id"] for row in rows}) == 3
    again = read("0 5 * * * x\n0 2 * * * x\n")
    assert again[0].values["external_id"] == rows[0].values["external_id"]


def test_a_command_that_nobody_runs_is_refused() -> None:
    (row,) = read("0 1 * * * x", choose=lambda command: None)
    assert "no workflow" in row.reason


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────────


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("schedules", "import-crontab", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.django_db
class TestCommand:
    @pytest.fixture(autouse=True)
    def _workflows(self) -> None:
        workflow("shell")
        workflow("reports")

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "crontab.txt"
        file.write_text(USER)
        return file

    def test_a_second_import_changes_nothing(self, file: Path) -> None:
        first = json.loads(run(str(file), "--workflow", "shell", "--json"))
        assert first["outcomes"] == {"translated": 3, "noted": 2, "refused": 3}
        assert (first["actions"]["created"], Schedule.objects.count()) == (5, 5)
        assert "5 are as they should be" in run(str(file), "--workflow", "shell")
        one = Schedule.objects.get(name="Nightly report")
        assert (one.overlap_policy, one.catch_up, one.labels) == ("allow_all", "latest", {"imported-from": "crontab"})
        execution = lifecycle.trigger(one.pk, actor="x")
        assert Execution.objects.get(pk=execution.pk).input["command"] == "report --all"

    def test_an_edited_line_changes_its_schedule(self, file: Path) -> None:
        run(str(file), "--workflow", "shell")
        one = Schedule.objects.get(name="Nightly report")
        lifecycle.pause(one.pk, actor="x")
        lifecycle.update(one.pk, {"name": "my name"}, actor="x")
        file.write_text(USER.replace("30 2 * * *\t", "45 2 * * *\t"))
        assert "1 changed" in run(str(file), "--workflow", "shell")
        one.refresh_from_db()
        assert (one.name, one.enabled) == ("my name", False)
        assert one.version is not None
        assert one.version.spec["timetables"][0]["expression"] == "45 2 * * *"

    def test_a_dry_run_changes_nothing(self, file: Path) -> None:
        assert "5 would be created" in run(str(file), "--workflow", "shell", "--dry-run", "--paused")
        assert not Schedule.objects.exists()

    def test_a_taken_name_and_a_refused_input_stop_no_other(self, file: Path) -> None:
        lifecycle.create(
            actor="x", name="Nightly report", workflow="shell", spec={"timetables": [{"kind": "interval", "every": 9}]}
        )
        report = json.loads(run(str(file), "--workflow", "shell", "--json", "--paused"))
        assert report["rows"][0]["notes"] == ["there was a schedule named Nightly report already"]
        assert not Schedule.objects.filter(enabled=True, external_id__isnull=False).exists()
        assert json.loads(run(str(file), "--workflow", "nobody", "--json"))["outcomes"]["refused"] == 8

    def test_commands_are_mapped_to_workflows(self, file: Path, tmp_path: Path) -> None:
        mapping = tmp_path / "map.yaml"
        mapping.write_text('- {match: "^report", workflow: reports, input: {kind: nightly}}\n')
        run(str(file), "--map", str(mapping))
        one = Schedule.objects.get()
        assert (one.workflow.name, one.input["kind"]) == ("reports", "nightly")
        for wrong in ("5", "- {match: x}", "- {match: '(', workflow: a}", "- {match: a, workflow: b, input: 5}", "["):
            mapping.write_text(wrong)
            with pytest.raises(CommandError):
                run(str(file), "--map", str(mapping))

    @pytest.mark.parametrize(
        "arguments",
        [("/nowhere",), ("/nowhere", "--workflow", "x"), ("-",), ("-", "--workflow", "x", "--timezone", "Mars")],
    )
    def test_what_cannot_be_done_is_said(self, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("0 1 * * * x"))
        with pytest.raises(CommandError):
            run(*arguments)
