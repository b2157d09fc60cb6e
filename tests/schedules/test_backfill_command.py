"""`manage.py schedules backfill`, `backfills` and `cancel-backfill`."""

from __future__ import annotations

import io
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from execution.models import Execution
from schedules import backfill, firing, versions
from schedules.management import backfills
from schedules.models import Backfill
from tests.schedules.builders import MINUTELY, at, end_executions, schedule, workflow

pytestmark = pytest.mark.django_db

RANGE = ("--since", "2026-03-04T12:00:01", "--until", "2026-03-04T13:00:00+00:00")


@pytest.fixture
def missed():
    versions.forget()
    workflow()
    made = schedule(MINUTELY, catch_up="latest")
    firing.fire_due(at(600))
    return made


def run(*arguments: Any) -> str:
    out = io.StringIO()
    call_command("schedules", *arguments, stdout=out)
    return out.getvalue()


def test_it_shows_first_and_begins_only_when_told(missed):
    told = run("backfill", "nightly", *RANGE)
    assert "9 executions, 9 steps, priority 9" in told
    assert "1 instants started before, 0 are left out" in told
    assert "queue default: no slots now" in told
    assert "--yes begins it" in told
    assert not Backfill.objects.exists()
    end_executions()
    Execution.objects.update(started_at=at(0), finished_at=at(20))
    told = run("backfill", str(missed.pk), *RANGE, "--yes", "--per-minute", "5", "--priority", "3", "--input", "{}")
    made = Backfill.objects.get()
    assert str(made.pk) in told
    assert "takes 180 s at least (20 s each, 1 at once)" in told
    assert (made.priority, made.per_minute, made.input, made.total) == (3, 5, {}, 9)
    assert str(made.pk) in run("backfills")
    assert "cancelled" in run("cancel-backfill", str(made.pk), "--stop-running")
    with pytest.raises(CommandError, match="cancelled already"):
        run("cancel-backfill", str(made.pk))


def test_it_can_be_followed_to_its_end(missed, monkeypatch):
    def work(seconds):
        backfill.advance_all()
        end_executions()

    monkeypatch.setattr(backfills.time, "sleep", work)
    told = run("backfill", "nightly", *RANGE, "--yes", "--follow", "--max-running", "4", "--all", "--priority", "low")
    assert "finished: 10 started" in told


def test_a_range_without_gaps_says_so(missed):
    told = run("backfill", "nightly", "--since", "2026-03-04T12:10:00Z", "--until", "2026-03-04T12:10:00Z")
    assert "0 executions" in told
    assert "from" not in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("backfill", "nightly", *RANGE, "--input", "{"), "--input must be JSON"),
        (("backfill", "nightly", "--since", "soon", "--until", "later"), "not an ISO 8601 instant"),
        (("backfill", "nightly", *RANGE, "--max-running", "0"), "max_running"),
        (("backfill", "nothing", *RANGE), "no schedule"),
        (("cancel-backfill", str(uuid4())), "no backfill"),
    ],
)
def test_bad_arguments_are_told(missed, arguments, told):
    with pytest.raises(CommandError, match=told):
        run(*arguments)
    assert not Backfill.objects.exists()
