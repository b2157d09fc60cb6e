"""Each drill in a process of its own, on servers that all of them share and a database that none shares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scheduling_project.drills.environment import INSIDE, SABOTAGE
from scheduling_project.drills.sabotage import SABOTAGES
from scheduling_project.drills.servers import Keeper
from scheduling_project.drills.verdict import Verdict
from scheduling_project.environment import PROJECT_ROOT

APP: Final = "scheduling_project.drills"
MANAGE: Final = (sys.executable, "manage.py")
#: Short leases and outages, so that a drill takes half a minute.
SHORT_SETTINGS: Final = {
    "WORKFLOW_LEASE_SECONDS": "3",
    "WORKFLOW_HEARTBEAT_SECONDS": "1",
    "WORKFLOW_RESCUE_SECONDS": "0.5",
    "WORKFLOW_SWEEP_SECONDS": "0.2",
    "WORKFLOW_REDISPATCH_SECONDS": "2",
    "WORKFLOW_SHUTDOWN_GRACE_SECONDS": "6",
}
#: Seconds that a sabotaged drill waits for what may never come.
SABOTAGED_PATIENCE: Final = 45.0


@dataclass(slots=True)
class Runs:
    """Runs drills one after the other. Use `on_own_servers` to get one."""

    folder: Path
    keeper: Keeper
    environment: Mapping[str, str]
    short: bool = False
    seed: int = 1
    logs: Path | None = None
    verdicts: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    @contextmanager
    def on_own_servers(cls, **options: Any) -> Iterator[Runs]:
        """Start Postgres and Redis and migrate a database, which each drill gets a copy of."""
        with tempfile.TemporaryDirectory(prefix="drill-") as name:
            folder = Path(name)
            folder.chmod(0o711)
            keeper = Keeper(folder)
            with keeper as servers:
                own = {"EXTRA_APPS": APP, "DEMO": "0", "LOG_LEVEL": "ERROR", INSIDE: "1"}
                environment = {**os.environ, **servers, **own}
                environment.pop(SABOTAGE, None)
                subprocess.run([*MANAGE, "migrate", "-v", "0"], check=True, cwd=PROJECT_ROOT, env=environment)
                yield cls(folder, keeper, environment, **options)

    def run(self, drill: str, *, sabotage: str | None = None) -> dict[str, Any]:
        """Run one drill and return its verdict as JSON; a drill that broke off has failed, and says so."""
        number = len(self.verdicts)
        report = self.folder / f"verdict-{number}.json"
        arguments = ["drill", drill, "--json", str(report), "--seed", str(self.seed)]
        env = {**self.environment, **self.keeper.fresh(f"drill_{number}")}
        if self.short:
            arguments.append("--short")
            env |= SHORT_SETTINGS
        if self.logs is not None:
            arguments += ["--logs", str(self.logs.absolute() / (sabotage or ""))]
        if sabotage is not None:
            self.keeper.execute(f"drill_{number}", SABOTAGES[sabotage].sql)
            arguments += ["--patience", str(SABOTAGED_PATIENCE)]
            env[SABOTAGE] = sabotage
        code = subprocess.run([*MANAGE, *arguments], cwd=PROJECT_ROOT, env=env, check=False).returncode
        if report.exists():
            verdict: dict[str, Any] = json.loads(report.read_text())[0]
        else:
            broken = Verdict(drill, 0, 0, 0, 0, 0, 0, None, problems=[f"ended with {code} and without a verdict"])
            verdict = broken.as_json()
        self.verdicts.append(verdict)
        return verdict
