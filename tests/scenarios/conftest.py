"""Real workers and beats on the tests' own servers. A scenario commits for real, so its tables are emptied after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings

from scheduling_project.drills.processes import Processes, environment

SHORT = {
    "WORKFLOW_LEASE_SECONDS": "3",
    "WORKFLOW_HEARTBEAT_SECONDS": "1",
    "WORKFLOW_RESCUE_SECONDS": "0.5",
    "WORKFLOW_SWEEP_SECONDS": "0.2",
    "WORKFLOW_REDISPATCH_SECONDS": "2",
    "WORKFLOW_SHUTDOWN_GRACE_SECONDS": "2",
}


@pytest.fixture
def processes(transactional_db: None, tmp_path: Path) -> Iterator[Processes]:
    """Start workers and beats with these; they stop before the tables are emptied."""
    redis.Redis.from_url(settings.REDIS_URL).flushdb()
    started = Processes(tmp_path, environment(**SHORT))
    try:
        yield started
    finally:
        started.stop()
