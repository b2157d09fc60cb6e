"""The thread that takes news, looks at conditions and sends messages, in every worker's and beat's parent process.

It is no Celery task: whoever is to be told that all slots are taken must not wait for one.
"""

from __future__ import annotations

import time
from typing import Final

from execution.background import Background
from execution.notifications import conditions, intake, outbox

TURN_SECONDS: Final = 2.0


class Courier(Background):
    """Any number of them may run at once."""

    area = "courier"

    def __init__(self) -> None:
        super().__init__("workflow-courier")
        self._check_at = 0.0

    def turn(self) -> float:
        """Do what is to be done now; at once again where there may be more."""
        taken = intake.consume(limit=100)
        if time.monotonic() >= self._check_at:
            conditions.check()
            self._check_at = time.monotonic() + conditions.CHECK_SECONDS
        more = taken == 100
        if outbox.is_due():
            from execution.notifications import sending  # with its HTTP client, only where something is to be sent

            more = sending.deliver() > 0
        return 0.0 if more else TURN_SECONDS
