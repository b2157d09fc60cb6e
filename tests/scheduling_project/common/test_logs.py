"""Logs: an event name plus ids, one line each; also those of libraries."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
from collections.abc import Iterator

import pytest
import structlog
from celery.utils.log import LoggingProxy

from scheduling_project.common.logs import get_logger, logging_config, stderr_handler


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, before = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers, root.level = handlers, level
    structlog.configure(**before)


def configure(form: str, level: str = "INFO") -> None:
    logging.config.dictConfig(logging_config(level=level, form=form))  # type: ignore[arg-type]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_machines_get_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    get_logger("a.module").info("step.claimed", step_run_id="1", attempt=2)
    (line,) = lines(capsys)
    found = json.loads(line)
    assert found.pop("timestamp").endswith("Z")
    assert found == {"attempt": 2, "event": "step.claimed", "level": "info", "logger": "a.module", "step_run_id": "1"}


def test_a_traceback_stays_in_its_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    try:
        raise ValueError("boom")
    except ValueError:
        get_logger("a.module").exception("duty.failed")
    (line,) = lines(capsys)
    assert "ValueError: boom" in json.loads(line)["exception"]


def test_people_get_the_event_and_its_ids(capsys: pytest.CaptureFixture[str]) -> None:
    configure("console")
    get_logger("a.module").warning("lease.lost", step_run_id="1")
    (line,) = lines(capsys)
    assert "lease.lost" in line
    assert "step_run_id=1" in line
    assert "\x1b" not in line


def test_people_get_a_plain_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure("console")
    try:
        raise ValueError("boom")
    except ValueError:
        get_logger("a.module").exception("duty.failed")
    assert lines(capsys)[-1] == "ValueError: boom"


@pytest.mark.parametrize("form", ["json", "console"])
def test_libraries_speak_in_the_same_form(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure(form)
    logging.getLogger("celery.worker").info("Task %s received", "x")
    (line,) = lines(capsys)
    assert "Task x received" in line
    if form == "json":
        assert json.loads(line)["logger"] == "celery.worker"


def test_what_is_below_the_level_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", level="WARNING")
    get_logger("a.quiet.module").info("not.said")
    logging.getLogger("httpx").info("not said either")
    assert lines(capsys) == []


def test_ids_bound_to_the_context_come_along(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    with structlog.contextvars.bound_contextvars(execution_id="e1"):
        get_logger("a.module").info("step.claimed")
    assert json.loads(lines(capsys)[0])["execution_id"] == "e1"


def test_a_handler_that_is_made_where_celery_took_stderr_does_not_write_to_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert stream_of(stderr_handler()) is sys.stderr
    monkeypatch.setattr(sys, "stderr", LoggingProxy(logging.getLogger("celery.redirected")))
    assert stream_of(stderr_handler()) is sys.__stderr__


def stream_of(handler: logging.Handler) -> object:
    assert isinstance(handler, logging.StreamHandler)
    return handler.stream
