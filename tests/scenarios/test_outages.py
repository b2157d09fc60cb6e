"""Redis away, Postgres away: what is due is recorded and runs later, and no process needs to be restarted."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from execution import workflows
from execution.models import Execution
from schedules import lifecycle
from schedules.models import ScheduleFire
from scheduling_project.common import clock
from scheduling_project.drills import effects
from scheduling_project.drills.processes import Processes, Service, environment, wait_until
from scheduling_project.embedded import EmbeddedPostgres, EmbeddedRedis
from scheduling_project.environment import PROJECT_ROOT
from tests.scenarios.conftest import SHORT

pytestmark = pytest.mark.scenario


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    folder = tmp_path / "servers"
    folder.mkdir(mode=0o711)
    redis = EmbeddedRedis(folder / "redis", durable=False)
    redis.start()
    yield redis
    redis.stop()


def steps(path: Path) -> dict[str, Any]:
    return {"steps": {"work": {"task": "drill.effect", "with": {"path": str(path)}}}}


@pytest.mark.django_db(transaction=True)
def test_with_redis_away_fires_are_recorded_and_run_when_it_is_back(
    transactional_db: None, own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    path = tmp_path / "effects"
    processes = Processes(tmp_path, environment(**SHORT, REDIS_URL=own_redis.url))
    try:
        workflow = workflows.create("outage", steps(path), actor="test")
        anchor = (clock.now() + timedelta(seconds=1)).isoformat()
        schedule = lifecycle.create(
            actor="test",
            name="outage",
            workflow=workflow,
            overlap_policy="allow_all",
            spec={"timetables": [{"kind": "interval", "every": 1, "anchor": anchor}]},
        )
        worker = processes.worker()
        processes.beat()
        wait_until("it runs", lambda: len(effects.ended(path)) >= 2, timeout=30)

        own_redis.stop()
        before = ScheduleFire.objects.filter(schedule=schedule).count()
        time.sleep(5)
        fires = ScheduleFire.objects.filter(schedule=schedule)
        assert fires.count() >= before + 4
        assert set(fires.values_list("outcome", flat=True)) == {"started"}
        assert Execution.objects.filter(state="queued").count() >= 3

        own_redis.start()
        lifecycle.pause(schedule.pk, actor="test")
        wait_until("all have run", lambda: not Execution.objects.exclude(state="succeeded").exists(), timeout=60)
        assert set(effects.ended(path).values()) == {1}
        assert len(effects.ended(path)) == Execution.objects.count() == fires.filter(outcome="started").count()
        assert "dispatch.broker_away" in worker.log.read_text() or "sweep.broker_away" in worker.log.read_text()
    finally:
        processes.stop()


MAKE = """
from datetime import timedelta
from execution import workflows
from scheduling_project.common import clock
from schedules import lifecycle
workflow = workflows.create("outage", {definition!r}, actor="test")
lifecycle.create(actor="test", name="outage", workflow=workflow, overlap_policy="allow_all",
    spec={{"timetables": [{{"kind": "interval", "every": 1, "anchor": clock.now().isoformat()}}]}})
"""


def test_with_postgres_away_processes_wait_say_so_and_recover(tmp_path: Path) -> None:
    path = tmp_path / "effects"
    folder = tmp_path / "servers"
    folder.mkdir(mode=0o711)
    postgres = EmbeddedPostgres(folder / "postgres", durable=False)
    redis = EmbeddedRedis(folder / "redis", durable=False)
    with postgres, redis:
        assert postgres.url is not None
        assert redis.url is not None
        url = postgres.url
        env = environment(**SHORT, REDIS_URL=redis.url, DATABASE_URL=url)
        for arguments in (
            ["migrate", "-v", "0"],
            ["shell", "-c", MAKE.format(definition=steps(path))],
        ):
            subprocess.run([sys.executable, "manage.py", *arguments], check=True, cwd=PROJECT_ROOT, env=env)
        processes = Processes(tmp_path, env)
        try:
            command = ["worker", "-Q", "default,io", "-c", "2", "-n", "w1@drill", "-l", "INFO"]
            services = [processes._start("w1", command, {}), processes._start("b1", ["beat", "-l", "INFO"], {})]
            wait_until("it runs", lambda: len(effects.ended(path)) >= 2, timeout=60)

            postgres.stop()
            time.sleep(4)
            done = len(effects.ended(path))
            assert all(alive(service) for service in services)
            assert postgres.start() == url

            wait_until("it runs again", lambda: len(effects.ended(path)) >= done + 5, timeout=60)
            assert all(alive(service) for service in services)
            for service in services:
                assert "away" in service.log.read_text()
            check_ledger(url)
        finally:
            processes.stop()


def alive(service: Service) -> bool:
    return service.process.poll() is None


def check_ledger(url: str) -> None:
    """Every second between the first and the last instant is in the ledger exactly once, and started once."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT extract(epoch FROM scheduled_for)::bigint, outcome, count FROM schedules_schedulefire ORDER BY 1"
        ).fetchall()
        instants = [instant for instant, _, _ in rows]
        assert instants == list(range(instants[0], instants[-1] + 1))
        assert {outcome for _, outcome, _ in rows} == {"started"}
        twice = connection.execute(
            "SELECT count(*) FROM (SELECT scheduled_for FROM execution_execution GROUP BY 1 HAVING count(*) > 1) t"
        ).fetchone()
        assert twice == (0,)
