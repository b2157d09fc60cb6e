"""Secrets by reference: the step gets the value, and nothing that is kept or shown holds it."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery import current_app
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.db import connection

from execution import definitions, engine, runner, secret_store
from execution.models import AuditEntry, DeadLetter, Execution, Secret, StepLog
from execution.redaction import redacted, redactor
from execution.runner import Outcome
from execution.step_tasks import step_task
from execution.steps.context import current
from scheduling_project.common.errors import InvalidInput, NotFound
from tests.api_client import Api
from tests.execution import flow

pytestmark = pytest.mark.django_db

NAME = "tests.secretive"
VALUE = 'hunter22 "+&é'
SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def clean(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.WORKFLOW_LEASE_SECONDS = 1.0
    monkeypatch.setattr(runner, "close_old_connections", lambda: None)
    monkeypatch.setattr(engine, "close", lambda: None)
    SEEN.clear()
    yield
    current_app.tasks.pop(NAME, None)


def run(body: Any) -> tuple[Execution, runner.Report]:
    body.__name__ = "body"  # Celery evaluates the name, and a lambda's is no name
    step_task(name=NAME)(body)
    execution = flow.begin({"s": {"task": NAME, "with": {"token": "Bearer ${{ secrets.TOKEN }}"}}})
    return execution, runner.run(flow.step(execution, "s").pk, worker="w@h/1")


def everything_kept() -> str:
    """Every row of every table of the engine, as text."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'execution\\_%'")
        tables = [row[0] for row in cursor.fetchall()]
        found = []
        for table in tables:
            cursor.execute(f"SELECT row_to_json(t)::text FROM {table} t")
            found += [row[0] for row in cursor.fetchall()]
    return "\n".join(found)


def assert_hidden(*texts: str) -> None:
    for text in (everything_kept(), *texts):
        assert "hunter22" not in text
        assert base64.b64encode(VALUE.encode()).decode() not in text


def test_a_step_gets_the_value_and_an_echo_is_redacted(caplog: pytest.LogCaptureFixture) -> None:
    def body(token: str) -> Any:
        SEEN.append(token)
        context = current()
        assert context is not None
        context.log(f"using {token}")
        context.progress(1, note=token)
        return {"echo": [token], token: base64.b64encode(VALUE.encode()).decode()}

    secret_store.set_secret("TOKEN", VALUE, actor="ada")
    with caplog.at_level(logging.DEBUG):
        execution, report = run(body)
    assert (SEEN, report.outcome) == ([f"Bearer {VALUE}"], Outcome.SUCCEEDED)
    assert_hidden(caplog.text, json.dumps(Api().ok("get", f"/api/executions/{execution.pk}")))
    assert flow.step(execution, "s").output.data["echo"] == ["Bearer [secret TOKEN]"]
    assert StepLog.objects.get().message == "using Bearer [secret TOKEN]"


def test_a_failure_is_redacted_wherever_it_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    def body(token: str) -> None:
        try:
            raise KeyError(token)
        except KeyError as error:
            raise ValueError(f"refused {token}") from error

    secret_store.set_secret("TOKEN", VALUE, actor="ada")
    with caplog.at_level(logging.DEBUG):
        _, report = run(body)
    letter = DeadLetter.objects.get()
    assert letter.error == "refused Bearer [secret TOKEN]"
    assert letter.step_input == {"token": "Bearer [secret TOKEN]"}
    assert "[secret TOKEN]" in letter.traceback
    assert_hidden(
        caplog.text, report.error, report.message, json.dumps(Api().ok("get", f"/api/dead-letters/{letter.pk}"))
    )


def test_the_environment_has_what_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_SECRET_TOKEN", "from outside")
    run(lambda token: SEEN.append(token))
    assert SEEN == ["Bearer from outside"]


def test_an_unknown_secret_fails_the_step_clearly() -> None:
    _, report = run(lambda token: None)
    assert report.outcome is Outcome.FAILED
    assert "there is no secret TOKEN, nor WORKFLOW_SECRET_TOKEN" in DeadLetter.objects.get().error


def test_a_secret_of_a_lost_key_fails_the_step_clearly(settings: Any) -> None:
    secret_store.set_secret("TOKEN", VALUE, actor="ada")
    settings.WORKFLOW_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    _, report = run(lambda token: None)
    assert "encrypted with a key that this worker does not have" in report.error


def test_keys_are_rotated(settings: Any) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    settings.WORKFLOW_ENCRYPTION_KEYS = [old]
    secret_store.set_secret("TOKEN", VALUE, actor="ada")
    settings.WORKFLOW_ENCRYPTION_KEYS = [new, old]
    call_command("secrets", "encrypt-again", stdout=io.StringIO())
    settings.WORKFLOW_ENCRYPTION_KEYS = [new]
    assert secret_store.resolve(["TOKEN"]) == {"TOKEN": VALUE}


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [("1x", "long enough", "name"), ("X", "abc", "value"), ("X", "a\0bcd", "value"), ("X", None, "value")],
)
def test_bad_secrets_are_refused_without_being_repeated(name: str, value: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        secret_store.set_secret(name, value, actor="ada")
    assert set(caught.value.fields) == {field}
    assert not Secret.objects.exists()


def test_the_api_takes_values_and_shows_names() -> None:
    api = Api()
    put = api.ok("put", "/api/secrets/TOKEN", {"value": VALUE, "note": "of the shop"})
    assert (put["name"], put["note"], put["updated_by"]) == ("TOKEN", "of the shop", "ada")
    assert [row["name"] for row in api.ok("get", "/api/secrets")["results"]] == ["TOKEN"]
    assert_hidden(json.dumps([put, api.ok("get", "/api/secrets"), api.ok("get", "/api/audit")]))
    api.refused("put", "/api/secrets/not-a-name", {"value": VALUE}, status=400, field="name")
    api.refused("put", "/api/secrets/TOKEN", {"value": "abc"}, status=400, field="value")
    api.ok("delete", "/api/secrets/TOKEN", status=204)
    api.refused("delete", "/api/secrets/TOKEN", status=404)
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {"secret.create", "secret.delete"}


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(VALUE + "\n"))
    call_command("secrets", "set", "TOKEN", stdout=out)
    assert secret_store.resolve(["TOKEN"]) == {"TOKEN": VALUE}
    call_command("secrets", "list", stdout=out)
    call_command("secrets", "delete", "TOKEN", stdout=out)
    assert "hunter22" not in out.getvalue()
    with pytest.raises(CommandError, match="There is no secret TOKEN"):
        call_command("secrets", "delete", "TOKEN")
    with pytest.raises(NotFound):
        secret_store.delete_secret("TOKEN", actor="ada")


@pytest.mark.parametrize(
    ("step", "path", "rule"),
    [
        (
            {"http": {"url": "https://x/${{ secrets.NONE }}"}},
            "steps.a.http.url",
            "reads secret NONE, which does not",
        ),
        ({"http": {"url": "https://x/${{ secrets }}"}}, "steps.a.http.url", "name one: secrets.NAME"),
        ({"wait": "${{ secrets.TOKEN }}"}, "steps.a.wait", "which only the arguments of task and http steps may"),
        ({"emit": {"type": "x", "data": "${{ secrets.TOKEN }}"}}, "steps.a.emit.data", "only the arguments"),
        ({"http": {"url": "https://x"}, "for_each": "${{ secrets.TOKEN }}"}, "steps.a.for_each", "only the arguments"),
    ],
)
def test_references_are_checked_when_they_are_saved(step: Any, path: str, rule: str) -> None:
    secret_store.set_secret("TOKEN", VALUE, actor="ada")
    problems = definitions.problems_of({"steps": {"a": step}})
    assert any(rule in text for text in problems.get(path, [])), problems
    assert definitions.problems_of({"steps": {"a": {"http": {"url": "https://x/${{ secrets.TOKEN }}"}}}}) == {}


def test_every_common_form_is_found_and_the_longest_first() -> None:
    hide = redactor({"A": "pass", "B": "password", "SHORT": "abc"})
    assert hide("password pass abc") == "[secret B] [secret A] abc"
    assert redacted({"pass": [1, None, ("pass",)]}, hide) == {"[secret A]": [1, None, ["[secret A]"]]}
    hide = redactor({"A": VALUE})
    for form in (json.dumps(VALUE), repr(VALUE), "https://x/?k=hunter22%20%22%2B%26%C3%A9", "hunter22+%22%2B%26%C3%A9"):
        assert "hunter22" not in hide(form)
    assert redacted("x", redactor({})) == "x"
