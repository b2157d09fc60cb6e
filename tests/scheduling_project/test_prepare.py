"""`manage.py prepare`, `stop` and `reset`: what they do to the database and the data folder."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection
from rest_framework_simplejwt.tokens import AccessToken

from execution.models import Workflow, WorkflowVersion
from scheduling_project.management.commands import prepare
from scheduling_project.supervisor.data_folder import DataFolder, DataFolderError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ADMIN_USER", "ADMIN_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))


def run(command: str, *arguments: str) -> str:
    output = io.StringIO()
    call_command(command, *arguments, stdout=output, verbosity=0)
    return output.getvalue()


@pytest.mark.django_db
class TestPrepare:
    def test_the_administrator_is_made_once_and_can_log_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ADMIN_USER", "ada")
        monkeypatch.setenv("ADMIN_PASSWORD", "first password")
        assert "'ada' created" in run("prepare")
        user = get_user_model().objects.get(username="ada")
        assert user.is_superuser
        assert user.is_staff
        assert user.check_password("first password")
        assert run("prepare") == ""

    def test_another_password_takes_effect_when_it_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ADMIN_PASSWORD", "first password")
        run("prepare")
        monkeypatch.setenv("ADMIN_PASSWORD", "second password")
        assert "new password" in run("prepare")
        assert get_user_model().objects.get(username="admin").check_password("second password")

    def test_a_generated_password_never_replaces_the_one_that_somebody_chose(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("ADMIN_PASSWORD", "chosen")
        run("prepare")
        monkeypatch.setenv("ADMIN_PASSWORD", "generated")
        run("prepare", "--initial-password", "--report", str(tmp_path / "report"))
        assert get_user_model().objects.get(username="admin").check_password("chosen")
        assert json.loads((tmp_path / "report").read_text())["password_is_known"] is False

    def test_no_password_for_a_new_administrator_is_said(self) -> None:
        with pytest.raises(CommandError, match="Set ADMIN_PASSWORD"):
            run("prepare")

    def test_the_report_has_a_token_of_a_day_and_the_workflow_to_try(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("ADMIN_PASSWORD", "secret")
        report = tmp_path / "report"
        Workflow.objects.create(name="draft")
        run("prepare", "--report", str(report))
        assert json.loads(report.read_text())["workflow"] is None
        for name, labels in (("a-first", {}), ("b-second", {"showcase": "yes"})):
            workflow = Workflow.objects.create(name=name, labels=labels)
            version = WorkflowVersion.objects.create(workflow=workflow, number=1, definition={"steps": {}})
            Workflow.objects.filter(pk=workflow.pk).update(published=version)
        run("prepare", "--report", str(report))
        found = json.loads(report.read_text())
        assert found["workflow"] == "b-second"
        assert found["password_is_known"] is True
        token = AccessToken(found["token"])
        assert token["exp"] - token["iat"] == pytest.approx(86_400, abs=5)
        assert report.stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize(("demo", "installed", "seeded"), [(1, 1, 1), (1, 0, 0), (0, 1, 0)])
    def test_the_demo_is_seeded_when_it_is_wanted_and_there(
        self, monkeypatch: pytest.MonkeyPatch, settings: object, demo: int, installed: int, seeded: int
    ) -> None:
        called: list[tuple[object, ...]] = []
        monkeypatch.setattr(prepare, "call_command", lambda *arguments, **options: called.append(arguments))
        monkeypatch.setattr(prepare, "get_commands", lambda: {"demo": "x"} if installed else {})
        monkeypatch.setattr(settings, "DEMO", bool(demo), raising=False)
        prepare.Command().seed_demo()
        assert called == [("demo", "seed")] * seeded

    def test_a_database_that_does_not_serve_is_one_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused() -> None:
            raise OperationalError("connection refused")

        monkeypatch.setattr(connection, "cursor", refused)
        with pytest.raises(CommandError, match="Postgres does not serve us: connection refused"):
            run("prepare")


class TestStopAndReset:
    def test_with_nothing_running_both_say_so(self) -> None:
        assert "Nothing runs" in run("stop")
        assert "Nothing to delete" in run("reset")

    def test_stop_names_the_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(DataFolder, "stop_running", lambda self: 77)
        assert "Stopped (process 77)" in run("stop")

    def test_reset_deletes_the_data(self, tmp_path: Path) -> None:
        folder = DataFolder(tmp_path / "data")
        folder.take()
        folder.secret("admin password")
        folder.give_back()
        assert f"deleted {folder.path / 'secrets.json'}" in run("reset")
        assert not folder.path.exists()

    @pytest.mark.parametrize("command", ["stop", "reset"])
    def test_what_cannot_be_done_is_one_sentence(self, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
        def refused(self: DataFolder) -> None:
            raise DataFolderError("belongs to another user")

        monkeypatch.setattr(DataFolder, "stop_running", refused)
        with pytest.raises(CommandError, match="belongs to another user"):
            run(command)
