"""Sockets read with connections of their own, so what they are to see is committed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import User
from django.db import connections

from scheduling_project.live import hub, socket
from scheduling_project.live.access import issue_ticket
from scheduling_project.live.hub import Pace

#: Nothing happens by the clock.
STILL = Pace(gather=0.01, scan=3600, poll=3600, queues=3600, heartbeat=3600, recheck=3600, retry=0.05)


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hub, "PACE", STILL)
    door = ThreadPoolExecutor(1)
    monkeypatch.setattr(socket, "_door", door)
    yield
    door.submit(connections.close_all).result()
    door.shutdown()


@pytest.fixture
def ada(transactional_db: None) -> User:
    return User.objects.create_superuser("ada")


@pytest.fixture
def ticket(ada: User) -> str:
    return issue_ticket(ada, None)
