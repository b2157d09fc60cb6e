"""`manage.py drill`: what it offers is what there is, and servers are killed and started by order."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from django.conf import settings
from django.core.management import CommandError, call_command

from execution import dispatch
from execution.broker import key_of
from execution.queue import Hint
from execution.states import ExecutionState
from schedules.models import ScheduleFire
from scheduling_project.common.ids import uuid7
from scheduling_project.drills import faults, message_faults, servers, stock
from scheduling_project.drills.drills import DRILLS
from scheduling_project.drills.environment import CONTROL
from scheduling_project.drills.sabotage import SABOTAGES
from scheduling_project.drills.verdict import Verdict, judge, judge_ledger
from scheduling_project.management.commands import drill
from tests.factories import make_execution
from tests.schedules.builders import MINUTELY, T0, at, schedule


def test_the_command_offers_every_drill() -> None:
    assert set(drill.PLAIN) == set(DRILLS)
    assert set(drill.FAULTS) == {*faults.FAULTS, faults.RANDOM}
    out = StringIO()
    call_command("drill", "list", stdout=out)
    assert set(drill.STOCK) == set(stock.STOCK)
    for name in (*drill.PLAIN, *drill.FAULTS, *drill.STOCK, *SABOTAGES):
        assert name in out.getvalue()


def test_each_waiting_message_is_doubled_once_beside_the_first() -> None:
    broker = redis.Redis.from_url(settings.REDIS_URL)
    broker.flushdb()
    hints = [Hint(uuid7(), "a.b", "default", 6, None, 0) for _ in range(3)]
    dispatch.publish(hints)
    assert message_faults.double_until(time.monotonic() + 3 * message_faults.PAUSE) == 3
    tags = [json.loads(text)["headers"]["id"] for text in broker.lrange(key_of("default", 6), 0, -1)]  # type: ignore[union-attr]
    assert tags == [f"{hint.id}-1" for hint in reversed(hints) for _ in range(2)]
    broker.flushdb()


def test_an_unknown_drill_is_refused() -> None:
    with pytest.raises(CommandError, match="invalid choice"):
        call_command("drill", "earthquake")


def test_a_random_sequence_is_the_same_for_the_same_seed() -> None:
    class Quiet:
        def __init__(self) -> None:
            self.figures: dict[str, Any] = {}

        def run_for(self, seconds: float) -> None:
            raise StopIteration

    drawn = []
    for seed in (1, 1, 2):
        system: Any = Quiet()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(faults, "FAULTS", {name: faults.Fault(lambda _: None) for name in faults.FAULTS})
            with pytest.raises(StopIteration):
                faults.random_sequence(seed).inject(system)
        drawn.append(system.figures["sequence"])
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 12


def test_servers_die_and_come_back_on_their_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o711)
    keeper = servers.Keeper(tmp_path)
    with keeper as env:
        monkeypatch.setenv(CONTROL, env[CONTROL])
        orders = servers.Orders()
        broker = redis.Redis.from_url(env["REDIS_URL"])
        broker.set("kept", 1)
        with psycopg.connect(env["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        for name in ("redis", "postgres"):
            orders.kill(name)
        with pytest.raises(redis.ConnectionError):
            broker.ping()
        for name in ("redis", "postgres"):
            orders.start(name)
        assert broker.get("kept") is None  # a killed Redis comes back empty
        with psycopg.connect(env["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
        broker.set("kept", 1)
        orders.stop("redis")
        copies = [keeper.fresh(name)["DATABASE_URL"] for name in ("one", "two")]
        assert broker.get("kept") is None
        keeper.execute("one", ("DELETE FROM kept", "ALTER SYSTEM SET wal_writer_delay = '2s'"))
        found = []
        for url in copies:
            with psycopg.connect(url) as connection:
                found.append(connection.execute("SELECT count(*) FROM kept").fetchone())
        assert found == [(0,), (1,)]  # a drill sees nothing of another's


@pytest.mark.django_db
def test_the_judge_counts_ranges_and_finds_what_is_missing_or_twice() -> None:
    one = schedule(MINUTELY, name="watched")
    version = one.version
    one.fired_through = at(600)
    one.save()

    def entry(first: int, last: int | None = None, outcome: str = "missed") -> None:
        ScheduleFire.objects.create(
            schedule=one,
            version=version,
            scheduled_for=T0 + timedelta(minutes=first),
            due_at=T0 + timedelta(minutes=first),
            until=None if last is None else T0 + timedelta(minutes=last),
            count=1 if last is None else last - first + 1,
            outcome=outcome,
            reason="outside_window",
        )

    entry(1, 4)
    for minute in range(5, 10):
        entry(minute)
    verdict = judged()
    judge_ledger(verdict, [one])
    assert verdict.figures["instants"] == 10
    assert verdict.figures["instants_lost"] == 1
    assert verdict.problems == ["1 due instants are not in the ledger"]
    entry(10)
    verdict = judged()
    judge_ledger(verdict, [one])
    assert verdict.problems == []


def judged() -> Verdict:
    return judge("x", executions=[], effects=Counter(), recovery_seconds=None)


@pytest.mark.django_db
def test_the_judge_names_what_did_not_succeed_and_a_slow_recovery() -> None:
    failed = make_execution(state=ExecutionState.FAILED)
    verdict = judge("x", executions=[failed.pk], effects=Counter(), recovery_seconds=12.0, recovery_limit=10.0)
    assert not verdict.passed
    assert verdict.problems == [
        "1 of 1 executions did not succeed",
        "recovery took 12.0 s, at most 10 s are promised",
    ]
