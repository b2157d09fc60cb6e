"""The thread that takes news, looks at conditions and sends messages, in every worker's and beat's parent process.

It is no Celery task: whoever is to be told that all slots are taken must not wait for one.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from execution import engine
from execution.notifications import conditions, intake, outbox
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)

TURN_SECONDS: Final = 2.0
AWAY_SECONDS: Final = 5.0


class Courier(threading.Thread):
    """Any number of them may run at once."""

    def __init__(self) -> None:
        super().__init__(name="workflow-courier", daemon=True)
        self.over = threading.Event()
        self._check_at = 0.0

    def run(self) -> None:
        while not self.over.is_set():
            pause = AWAY_SECONDS
            try:
                pause = 0.0 if self.turn() else TURN_SECONDS
            except engine.DatabaseAway as error:
                log.warning("courier.postgres_away", error=str(error).strip())
                engine.close()
            except Exception:
                log.exception("courier.turn_failed")
                engine.close()
            self.over.wait(pause)
        engine.close()

    def turn(self) -> bool:
        """Do what is to be done now. Whether there may be more."""
        taken = intake.consume(limit=100)
        if time.monotonic() >= self._check_at:
            conditions.check()
            self._check_at = time.monotonic() + conditions.CHECK_SECONDS
        if outbox.is_due():
            from execution.notifications import sending  # with its HTTP client, only where something is to be sent

            return sending.deliver() > 0
        return taken == 100

    def stop(self) -> None:
        """End after the present turn."""
        self.over.set()
        self.join(timeout=2)
