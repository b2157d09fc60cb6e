"""A real web process and a real worker: the client of the documentation sees an execution from start to end."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from execution import creation, workflows
from scheduling_project.drills.processes import Processes
from scheduling_project.environment import PROJECT_ROOT
from tests.patience import PATIENCE
from tests.scenarios.test_web import web
from triggers.auth import keys

pytestmark = [pytest.mark.scenario, pytest.mark.django_db(transaction=True)]


def documented_client(port: int, token: str) -> dict[str, Any]:
    text = (PROJECT_ROOT / "docs/reference/live.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    found: dict[str, Any] = {}
    exec(code.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace('"…"', repr(token)), found)
    return found


def test_the_documented_client_sees_an_execution_from_start_to_end(processes: Processes, tmp_path: Path) -> None:
    user = User.objects.create_superuser("ada")
    _, token = keys.create("live", user=user, actor="ada", scopes=["read"])
    steps = {"steps": {"work": {"task": "drill.effect", "with": {"path": str(tmp_path / "effects")}}}}
    workflow = workflows.create("ship", steps, actor="test")
    processes.worker()
    with web(dict(processes.environment), tmp_path / "web.log") as (port, _):
        client = documented_client(port, token)

        async def watch() -> list[str]:
            states: list[str] = []
            rows = client["follow"]("executions")
            first = asyncio.ensure_future(anext(rows))
            await asyncio.sleep(1)  # it has subscribed, or its cursor shows what follows all the same
            execution = await asyncio.to_thread(creation.start, workflow)
            while "succeeded" not in states:
                row = await asyncio.wait_for(first, PATIENCE)
                if row["id"] == str(execution.pk):
                    states.append(row["state"])
                first = asyncio.ensure_future(anext(rows))
            first.cancel()
            return states

        states = asyncio.run(watch())
    assert states[-1] == "succeeded"
    assert states == sorted(states, key=["queued", "running", "succeeded"].index), (
        "nobody hears of an older state later"
    )
