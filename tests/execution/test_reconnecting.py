"""A worker asks for a broker that is away often, however long it has been away."""

from __future__ import annotations

import time

import pytest
from kombu import Connection
from kombu.utils.imports import symbol_by_name

from execution.reconnecting import INTERVALS, SteadyConsumer, hasten
from scheduling_project.celery import app
from scheduling_project.embedded.ports import free_port


def test_the_intervals_between_attempts_stay_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    asked: list[float] = []

    class Enough(Exception):
        pass

    def refused(error: Exception, interval: float) -> None:
        asked.append(interval)
        if len(asked) == 8:
            raise Enough

    with pytest.raises(Enough):
        hasten(Connection(f"redis://127.0.0.1:{free_port()}/0")).ensure_connection(refused, None)
    assert asked == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert max(asked) == INTERVALS["interval_max"]


def test_a_worker_connects_through_it() -> None:
    assert symbol_by_name(app.conf.worker_consumer) is SteadyConsumer
    consumer = SteadyConsumer.__new__(SteadyConsumer)  # a whole one needs a worker; connecting needs the app alone
    consumer.app, consumer.first_connection_attempt = app, True
    connection = consumer.ensure_connected(Connection(app.conf.broker_url))
    try:
        assert connection.connected
        assert consumer.broker_connection_retry_attempt == 0
    finally:
        connection.release()
