"""The thread that fires: it sleeps until the earliest wake-up, or until Postgres says that something changed.

Any number of these run at once, in any number of processes. The wait is computed by Postgres (`next_fire_at - now`)
and slept on the monotonic clock. NOTIFY makes an edit take effect at once; where LISTEN is not to be had (a
transaction pooler), looking every second is the fallback. While Postgres is away the loop backs off and says so once;
the watermarks keep the debt.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import suppress
from importlib.metadata import version

import psycopg
from django.db import connections

from execution import engine, process_reports
from execution.background import Background
from schedules import backfill, claims, firing, outcomes
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

CHANNEL = "schedules"
#: Seconds between looks when nothing is due and nobody notifies.
LOOK_SECONDS = 1.0
#: Seconds between steps of running backfills.
BACKFILL_SECONDS = 0.25
#: Seconds between signs of life.
REPORT_SECONDS = 5.0
#: Seconds to wait, first and at most, while others hold what is due.
CONTENDED = (0.005, 0.1)
#: Seconds for which the second visit's connection is kept after its last use.
MATE_SECONDS = 60.0
#: Seconds to wait, first and at most, while Postgres is away or something unexpected was raised.
BACKOFF = (0.1, 2.0)
VERSIONS = {name: version(name) for name in ("celery", "django", "django-celery-beat")}


class Mate(Background):
    """Fires along with the loop, on a connection of its own, while more is due than one transaction takes.

    What Python makes up for one visit and what Postgres writes for the other then happen at the same time. Its
    connection is closed when nobody has called for a while.
    """

    area = "firing_mate"
    pause_after_failure = BACKOFF[0]

    def __init__(self) -> None:
        super().__init__("schedule-firing-mate")
        self._called = threading.Event()

    def call(self) -> None:
        """Help with what is due now."""
        if not self._called.is_set():
            self._called.set()

    def turn(self) -> float:
        if not self._called.wait(MATE_SECONDS):
            engine.close()
            self._called.wait()
        self._called.clear()
        while not self.over.is_set() and firing.fire_due(limit=firing.SLICE).schedules == firing.SLICE:
            pass
        return 0.0

    def stop(self, timeout: float = 5.0) -> None:
        self.over.set()
        self._called.set()
        super().stop(timeout)


class FiringLoop(threading.Thread):
    """Fires what is due until `stop` is called. Start it with `start`."""

    def __init__(self, *, look_seconds: float = LOOK_SECONDS) -> None:
        host = socket.gethostname()
        super().__init__(name="schedule-firing", daemon=True)
        self.process_name = f"beat@{host}/{os.getpid()}"
        self.host = host
        self.look_seconds = look_seconds
        self.over = threading.Event()
        self.listening = False
        self._listener: psycopg.Connection | None = None
        self._listen_at = 0.0
        self._report_at = 0.0
        self._news_at = 0.0
        self._backfill_at = 0.0
        self._failures = 0
        self._mate: Mate | None = None
        self._wake_end, self._wait_end = socket.socketpair()

    def stop(self, timeout: float | None = 8.0) -> None:
        """End the loop after the transaction in progress, and wait for it up to `timeout` seconds."""
        self.over.set()
        self.wake()
        if self.is_alive():
            self.join(timeout)

    def wake(self) -> None:
        """Look at once."""
        with suppress(OSError):
            self._wake_end.send(b"!")

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self._turn()
        finally:
            if self._mate is not None:
                self._mate.stop()
            with suppress(*engine.DatabaseAway):
                process_reports.report_stopped(self.process_name)
            self._drop_listener()
            connections.close_all()

    def _turn(self) -> None:
        try:
            wait = self.look()
        except engine.DatabaseAway as error:
            self._fail("beat.database_away", error)
        except Exception as error:  # noqa: BLE001 - this thread must outlive whatever one turn can raise
            self._fail("beat.turn_failed", error, exc_info=True)
        else:
            if self._failures:
                log.info("beat.recovered", failures=self._failures)
                self._failures = 0
            self._sleep(wait)

    def _fail(self, event: str, error: Exception, *, exc_info: bool = False) -> None:
        first, most = BACKOFF
        wait = min(first * 2**self._failures, most)
        if not self._failures:
            log.error(event, error=str(error).strip(), retry_in=wait, exc_info=exc_info)
        self._failures = min(self._failures + 1, 30)
        self._drop_listener()
        connections.close_all()
        self._sleep(wait)

    def look(self) -> float:
        """Do what is to be done now. Returns the seconds until the next look."""
        now = time.monotonic()
        self._listen(now)
        if now >= self._report_at:
            process_reports.report_process(
                self.process_name, kind="beat", host=self.host, pid=os.getpid(), slots=1, versions=VERSIONS
            )
            self._report_at = now + REPORT_SECONDS
        waiting = claims.waiting(topic=firing.NEWS_TOPIC)
        if (waiting.news or waiting.buffered) and now >= self._news_at:
            outcomes.take_news()
            self._news_at = now + (0.05 if waiting.news else self.look_seconds)
        wait = self._fire(waiting.seconds)
        return self._backfill(wait) if waiting.backfills else wait

    def _backfill(self, wait: float) -> float:
        """Take backfills further, after what is due has fired. Returns what is left of the wait."""
        began = time.monotonic()
        if began >= self._backfill_at:
            backfill.advance_all()
            self._backfill_at = began + BACKFILL_SECONDS
        return max(0.0, min(wait - (time.monotonic() - began), BACKFILL_SECONDS))

    def _fire(self, seconds: float | None) -> float:
        patience, most = CONTENDED
        while seconds is not None and seconds <= 0 and not self.over.is_set():
            report = firing.fire_due(limit=firing.SLICE, on_full=self._call_mate)
            if report.schedules:
                patience = CONTENDED[0]
                if report.started or report.quarantined:
                    log.debug("beat.fired", schedules=report.schedules, started=report.started, missed=report.missed)
            else:  # another beat has them; its commit moves the wake-up
                self._sleep(patience)
                patience = min(patience * 2, most)
            seconds = claims.seconds_to_next()
        return self.look_seconds if seconds is None else min(seconds, self.look_seconds)

    def _call_mate(self) -> None:
        if self._mate is None:
            self._mate = Mate()
            self._mate.start()
        self._mate.call()

    def _sleep(self, seconds: float) -> None:
        """Wait, at most so long, for a notification or a call of `wake`."""
        sources: list[socket.socket | psycopg.Connection] = [self._wait_end]
        if self._listener is not None:
            sources.append(self._listener)
        ready, _, _ = select.select(sources, [], [], max(seconds, 0))
        if self._wait_end in ready:
            self._wait_end.recv(1024)
        if self._listener is not None and self._listener in ready:
            try:
                self._listener.pgconn.consume_input()
                while self._listener.pgconn.notifies() is not None:
                    pass
            except psycopg.Error as error:
                log.warning("beat.listening_lost", error=str(error).strip())
                self._drop_listener()

    def _listen(self, now: float) -> None:
        """Open the LISTEN connection if there is none, at most once a second: it is only for speed."""
        if self._listener is not None or now < self._listen_at:
            return
        self._listen_at = now + 1
        connection = connections[engine.alias()]
        params = connection.get_connection_params()
        for name in ("pool", "context", "cursor_factory", "prepare_threshold", "server_side_binding"):
            params.pop(name, None)
        params["application_name"] = "scheduling-listen"
        try:
            listener = psycopg.connect(**params, autocommit=True)
            listener.execute(f"LISTEN {CHANNEL}")
        except psycopg.Error as error:
            log.warning("beat.not_listening", error=str(error).strip(), look_seconds=self.look_seconds)
            return
        self._listener, self.listening = listener, True

    def _drop_listener(self) -> None:
        if self._listener is not None:
            with suppress(psycopg.Error):
                self._listener.close()
        self._listener, self.listening = None, False
