"""Word for those who watch: which rows a committed transaction has changed. A courier thread publishes it in batches.

No work hangs on it. A word may be lost (the process died, Redis is away): watchers find what changed in the rows
themselves within seconds (`scheduling_project.live`). So nothing here waits, raises or is retried: `announce` adds
ids to a set, a daemon thread of this process sends what has gathered with one plain PUBLISH, and while nobody listens
it asks only once a second.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from django.conf import settings
from django.db import connections, transaction

from execution import broker, engine
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

#: What a word can be about. Ids of executions stand for their step runs and dead letters too; queues have no ids.
EXECUTIONS: Final = "executions"
STEP_RUNS: Final = "step_runs"
DEAD_LETTERS: Final = "dead_letters"
SCHEDULES: Final = "schedules"
QUEUES: Final = "queues"

#: Kinds of rows as audit entries name them.
SUBJECTS: Final = {
    "execution": EXECUTIONS,
    "step_run": STEP_RUNS,
    "dead_letter": DEAD_LETTERS,
    "schedule": SCHEDULES,
    "queue": QUEUES,
}

#: More ids of one kind than this are told as null: many, look yourself.
MANY: Final = 500
GATHER_SECONDS: Final = 0.05
#: While nobody listens, or Redis is away, words gather for so long.
QUIET_SECONDS: Final = 1.0


def channel() -> str:
    """The Redis channel of this installation: publish and subscribe know no database numbers, so it has the number."""
    prefix = str(settings.CELERY_BROKER_TRANSPORT_OPTIONS.get("global_keyprefix", ""))
    number = broker.client().connection_pool.connection_kwargs.get("db") or 0
    return f"{prefix}workflow:live:{number}"


def announce(kind: str, ids: Iterable[Any] = (), *, using: str | None = None) -> None:
    """Tell watchers that rows have changed, once the open transaction on `using` has committed.

    Args:
        kind: `EXECUTIONS`, `STEP_RUNS`, `DEAD_LETTERS`, `SCHEDULES` or `QUEUES`.
        ids: of the rows (UUIDs or their texts); none for queues.
        using: database alias of the transaction; the engine's when left out.
    """
    alias = using or engine.alias()
    if connections[alias].in_atomic_block:
        kept = list(ids)
        transaction.on_commit(lambda: _courier.add(kind, kept), using=alias)
    else:
        _courier.add(kind, ids)


class Courier:
    """Gathers words and publishes them from a thread of its own, which begins with the first word."""

    def __init__(self, publish: Callable[[str], int]) -> None:
        """
        Args:
            publish: sends a text and returns how many listen; raises what `broker.BrokerAway` names.
        """
        self._publish = publish
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[str, set[Any] | None] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._away = False

    def add(self, kind: str, ids: Iterable[Any]) -> None:
        """Have it told soon."""
        with self._lock:
            gathered = self._pending.setdefault(kind, set())
            if gathered is not None:
                gathered.update(ids)
                if len(gathered) > MANY:
                    self._pending[kind] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="live-courier", daemon=True)
                self._thread.start()
        if not self._wake.is_set():
            self._wake.set()

    def send(self) -> int:
        """Publish what has gathered. Returns how many listen; 0 also when Redis is away and the words are lost."""
        with self._lock:
            self._wake.clear()
            pending, self._pending = self._pending, {}
        if not pending:
            return 0
        words = {kind: None if ids is None else sorted(map(str, ids)) for kind, ids in pending.items()}
        try:
            heard = self._publish(json.dumps(words, separators=(",", ":")))
        except broker.BrokerAway as error:
            if not self._away:
                log.warning("live.redis_away", error=str(error))
            self._away = True
            return 0
        self._away = False
        return heard

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(GATHER_SECONDS)
            if not self.send():
                time.sleep(QUIET_SECONDS)


def _publish(text: str) -> int:
    return int(broker.client().publish(channel(), text))


_courier = Courier(_publish)
os.register_at_fork(after_in_child=_courier._start)  # a child has neither the thread nor the parent's words
