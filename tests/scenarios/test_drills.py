"""The drills in their short form: nothing is lost, nothing is doubled; and without a safeguard they say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduling_project.drills.drills import DRILLS, SHORT, flush_redis
from scheduling_project.drills.environment import CONTROL, SABOTAGE
from scheduling_project.drills.processes import Processes
from scheduling_project.drills.sabotage import SABOTAGES
from tests.scenarios.conftest import SHORT as SHORT_SETTINGS

pytestmark = [pytest.mark.scenario, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("name", list(DRILLS))
def test_a_drill_loses_and_doubles_nothing(name: str, processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in SHORT_SETTINGS.items():
        monkeypatch.setenv(variable, value)  # the promise on recovery is counted with the leases of this run
    verdict = DRILLS[name](processes, **SHORT[name])
    assert verdict.problems == []


def test_without_the_second_dispatch_the_drill_says_what_was_lost(processes: Processes) -> None:
    """The worker's process runs without the safeguard: what Redis forgot is never sent again."""
    sabotaged = {**processes.environment, SABOTAGE: "re-dispatch", CONTROL: "this test"}
    verdict = flush_redis(replace(processes, environment=sabotaged), backlog=100, whole_server=False, patience=5.0)
    assert not verdict.passed
    assert verdict.lost > 0
    assert SABOTAGES["re-dispatch"].is_noticed(verdict.problems)
