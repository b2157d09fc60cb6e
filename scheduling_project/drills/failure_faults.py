"""Steps that fail for good, while the processes that run them die: each leaves exactly one dead letter."""

from __future__ import annotations

import random
from typing import Final

import psutil

from execution import creation, workflows
from scheduling_project.drills.load import ACTOR, unique_name
from scheduling_project.drills.system import System

COUNT: Final = 60
KILLS: Final = 8


def permanent_failures(system: System) -> None:
    """Sixty steps fail for good under load, while pool processes are killed at random."""
    steps = {"fails": {"task": "drill.fail", "with": {"path": str(system.path), "seconds": 0.3}}}
    workflow = workflows.create(unique_name(), {"steps": steps}, actor=ACTOR)
    system.to_fail += [creation.start(workflow).pk for _ in range(COUNT)]
    dice = random.Random(1)
    for _ in range(KILLS):
        system.run_for(dice.uniform(0.6, 1.4))
        pool = [child for worker in system.workers for child in worker.children()]
        try:
            dice.choice(pool).kill()
        except psutil.NoSuchProcess:
            continue  # it has just been replaced
