"""`/healthz` and `/readyz`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.db import OperationalError
from django.test import Client

from execution.models import ProcessReport
from tests import factories

pytestmark = pytest.mark.django_db


def report(kind: str, *, age: float = 0, **fields: Any) -> None:
    seen_at = factories.now() - timedelta(seconds=age)
    ProcessReport.objects.create(name=f"{kind}@h", kind=kind, host="h", pid=1, seen_at=seen_at, **fields)


def ready() -> tuple[int, dict[str, bool]]:
    answer = Client().get("/readyz")
    return answer.status_code, {name: check["ok"] for name, check in answer.json()["checks"].items()}


def test_a_living_process_is_healthy_with_and_without_slash_and_asks_nobody() -> None:
    with patch("scheduling_project.health.clock.now", side_effect=OperationalError):
        for path in ("/healthz", "/healthz/"):
            assert Client().get(path).json() == {"status": "ok"}
    assert Client().post("/healthz").status_code == 405


def test_work_can_flow_when_beat_and_worker_were_seen() -> None:
    report("beat")
    report("worker")
    assert ready() == (200, {"postgres": True, "redis": True, "beat": True, "worker": True})
    assert Client().get("/readyz/").json()["status"] == "ready"


def test_each_missing_part_is_named() -> None:
    assert ready() == (503, {"postgres": True, "redis": True, "beat": False, "worker": False})
    report("beat", age=60)
    report("worker", stopped_at=factories.now())
    answer = Client().get("/readyz")
    assert answer["Retry-After"] == "2"
    checks = answer.json()["checks"]
    assert "was seen 60 s ago" in checks["beat"]["detail"]
    assert "no worker has reported" in checks["worker"]["detail"]


def test_postgres_away_is_named_without_its_address() -> None:
    with patch("scheduling_project.health.clock.now", side_effect=OperationalError("secret host")):
        answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert "secret" not in answer.content.decode()
    assert answer.json()["checks"]["beat"]["detail"] == "not known while Postgres is away"


def test_redis_away_is_named(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    report("beat")
    report("worker")
    assert ready() == (503, {"postgres": True, "redis": False, "beat": True, "worker": True})
