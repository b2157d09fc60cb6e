"""The drills in their short form: nothing is lost, nothing is doubled."""

from __future__ import annotations

import pytest

from scheduling_project.drills.drills import DRILLS, SHORT
from scheduling_project.drills.processes import Processes
from tests.scenarios.conftest import SHORT as SHORT_SETTINGS

pytestmark = [pytest.mark.scenario, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("name", list(DRILLS))
def test_a_drill_loses_and_doubles_nothing(name: str, processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in SHORT_SETTINGS.items():
        monkeypatch.setenv(variable, value)  # the promise on recovery is counted with the leases of this run
    verdict = DRILLS[name](processes, **SHORT[name])
    assert verdict.problems == []
