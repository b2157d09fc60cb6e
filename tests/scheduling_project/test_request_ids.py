"""Every line that is logged for a request or a step says which; none holds a credential."""

from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from celery import current_app
from django.contrib.auth.models import User
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken

from execution import engine, runner
from execution.models import StepRun
from execution.step_tasks import step_task
from scheduling_project.common.logs import get_logger, logging_config
from tests.execution import flow
from triggers.auth import keys

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, before = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers, root.level = handlers, level
    structlog.configure(**before)


def log_as_json() -> None:
    """From now on, to where the test captures it."""
    logging.config.dictConfig(logging_config(level="INFO", form="json"))


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]


def crash(headers: dict[str, str]) -> Any:
    def fail(*args: Any) -> None:
        logging.getLogger("a.library").warning("on its way")
        raise RuntimeError("a bug")

    with patch("execution.api.operations.queues.stats", side_effect=fail):
        return APIClient(headers=headers, raise_request_exception=False).get("/api/queues")


@pytest.mark.parametrize("given", ["edge-4711", "", "two words", "x" * 65, "ü", "a\tb"])
def test_every_line_of_a_request_and_its_answer_have_its_id(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    log_as_json()
    token = AccessToken.for_user(User.objects.create_superuser("ada"))
    answer = crash({"X-Request-ID": given, "Authorization": f"Bearer {token}"})
    name = answer.headers["X-Request-ID"]
    assert answer.status_code == 500
    assert name == given if given == "edge-4711" else len(name) == 32
    found = lines(capsys)
    assert {line["event"] for line in found} >= {"api.failed", "on its way"}
    assert {line.get("request_id") for line in found} == {name}


def test_a_traceback_holds_neither_a_token_nor_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    log_as_json()
    user = User.objects.create_superuser("ada")
    _, key = keys.create("machine", user=user, actor="ada", scopes=["admin"])
    token = str(AccessToken.for_user(user))
    for headers in ({"Authorization": f"Bearer {token}"}, {"X-API-Key": key}):
        assert crash(headers).status_code == 500
    APIClient().post("/api/token", {"username": "ada", "password": "a-very-secret-one"}, format="json")
    text = "".join(json.dumps(line) for line in lines(capsys))
    assert "Traceback" in text
    for secret in (token, key, "a-very-secret-one"):
        assert secret not in text


@pytest.mark.django_db
async def test_it_is_there_under_asgi_too(async_client: Any) -> None:
    answer = await async_client.get("/healthz", headers={"X-Request-ID": "edge-1"})
    assert answer.headers["X-Request-ID"] == "edge-1"
    assert structlog.contextvars.get_contextvars() == {}


def test_every_line_of_a_step_says_which_also_those_of_libraries(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "close_old_connections", lambda: None)  # the test lives in one open transaction
    monkeypatch.setattr(engine, "close", lambda: None)
    log_as_json()

    def body() -> None:
        get_logger("my.app").info("halfway")
        logging.getLogger("a.library").warning("slow")
        raise ValueError("boom")

    step_task(name="tests.logged")(body)
    try:
        execution = flow.begin({"s": {"task": "tests.logged"}})
        run = StepRun.objects.get(execution=execution)
        report = runner.run(run.pk, worker="w@h/1")
    finally:
        current_app.tasks.pop("tests.logged", None)
    assert report.error == "ValueError: boom"
    said = capsys.readouterr().err.splitlines()  # Celery sets up the logs when the first task is called, as text
    for event in ("step.claimed", "halfway", "slow", "step.failed"):
        (line,) = [one for one in said if event in one]
        assert all(id in line for id in (str(execution.pk), str(run.pk), run.label, "attempt")), line
    assert structlog.contextvars.get_contextvars() == {}
