"""A thread that a process keeps beside its work, with a database connection of its own."""

from __future__ import annotations

import abc
import threading

from execution import engine
from scheduling_project.common.logs import get_logger

log = get_logger(__name__)


class Background(threading.Thread, abc.ABC):
    """Takes turn after turn until it is stopped.

    This is the one place that catches everything: a turn that fails, whatever the reason, is logged and taken again.
    Were the thread to end, sweeps, rescues and news would end with it while its process looks alive.
    """

    #: What log lines are named after: ``<area>.postgres_away``, ``<area>.turn_failed``.
    area: str
    #: Seconds until the next turn after one that failed.
    pause_after_failure: float = 1.0

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.over = threading.Event()

    @abc.abstractmethod
    def turn(self) -> float:
        """Do what is to be done now; seconds until the next turn."""

    def run(self) -> None:
        while not self.over.is_set():
            pause = self.pause_after_failure
            try:
                pause = self.turn()
            except engine.DatabaseAway as error:
                log.warning(f"{self.area}.postgres_away", error=str(error).strip())
                engine.close()
            except Exception:
                log.exception(f"{self.area}.turn_failed")
                engine.close()
            self.over.wait(pause)
        engine.close()

    def stop(self, timeout: float = 5.0) -> None:
        """End after the present turn; wait for that at most `timeout` seconds."""
        self.over.set()
        self.join(timeout=timeout)
