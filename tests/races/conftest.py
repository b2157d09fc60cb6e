"""Races: threads with connections of their own, on committed rows of a real Postgres."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections

from execution import dispatch

Action = Callable[[], Any]


@pytest.fixture
def engine_connection(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The engine on its own alias, as in a worker; hints are not sent, because nobody listens."""
    settings.WORKFLOW_ENGINE_DATABASE = "engine"
    settings.WORKFLOW_LEASE_SECONDS = 0.1  # Postgres must have been up for so long before anything is rescued
    monkeypatch.setattr(dispatch, "publish", lambda hints: len(hints))
    yield
    connections["engine"].close()


@pytest.fixture
def race(engine_connection: None) -> Callable[..., list[Any]]:
    """Call every action in a thread of its own at the same moment; returns what each returned, in order.

    The first error of any of them is raised, a deadlock among them too.
    """

    def run(*actions: Action) -> list[Any]:
        barrier = threading.Barrier(len(actions))
        results: list[Any] = [None] * len(actions)
        errors: list[BaseException] = []

        def call(index: int, action: Action) -> None:
            try:
                connections["engine"].ensure_connection()
                barrier.wait(timeout=10)
                results[index] = action()
            except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
                errors.append(error)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=call, args=pair) for pair in enumerate(actions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        if errors:
            raise errors[0]
        return results

    return run
