"""What the demo's tour promises happens: real worker, beat and web process, each stop played as a visitor would."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.urls import reverse

from execution import creation
from execution.models import Attempt, DeadLetter, Execution, StepRun, Workflow
from execution.states import DeadLetterState, ExecutionState
from schedules import lifecycle
from schedules.models import OptimizationReport, Schedule, ScheduleFire
from scheduling_project.common import clock
from scheduling_project.demo import tour
from scheduling_project.demo.models import Order, Product, Sale
from scheduling_project.drills.processes import Processes, wait_until
from scheduling_project.embedded.ports import free_port
from tests.admin_client import Browser, page_url, told
from tests.patience import PATIENCE

pytestmark = [pytest.mark.scenario, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def address(processes: Processes, tmp_path: Path) -> Iterator[str]:
    """A seeded demo at work; where its web process is."""
    call_command("demo", "seed", stdout=io.StringIO())
    for name in ("Roll up the last hours", "Close the month"):  # their own times are no part of the test
        lifecycle.delete(Schedule.objects.get(name=name).pk, actor="test")
    creation.start(Workflow.objects.get(name="night-job"), input={})
    port = free_port()
    for start in (processes.worker, processes.beat):
        start(DEMO="1", DATA_DIR=str(tmp_path))
    processes.web(port)
    yield f"http://127.0.0.1:{port}"
    for service in processes.services:
        print(service.tail(15))


def eventually(what: str, condition: Callable[[], Any]) -> Any:
    """What the condition gives once it is true."""
    found: list[Any] = []

    def look() -> Any:
        found[:] = [condition()]
        return found[0]

    wait_until(what, look, timeout=2 * PATIENCE)
    return found[0]


def ended(workflow: str, state: ExecutionState, **filters: Any) -> Execution:
    runs = Execution.objects.filter(workflow__name=workflow, state=state, **filters)
    found: Execution = eventually(f"{workflow} {state}", lambda: runs.order_by("id").first())
    return found


def states_of(execution: Execution, step: str) -> list[str]:
    attempts = Attempt.objects.filter(step_run__execution=execution, step_run__name=step).order_by("number")
    return list(attempts.values_list("state", flat=True))


def deliver(line: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        ["bash", "-c", f"{line} -w '\\n%{{http_code}}'"], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def spot_is_hot(browser: Browser) -> bool:
    """Whether the agenda of a working day that is not today marks two o'clock in Berlin."""
    cache.clear()
    address = reverse("admin:schedules_schedule_agenda")
    text = browser.page(address, zone="Europe/Berlin", **{"from": date.fromordinal(clock.now().toordinal() + 2)})
    return "sp-hot" in text


def test_the_tour_of_the_demo_keeps_its_promises(address: str, tmp_path: Path) -> None:
    browser = Browser(superuser=True)
    assert len(Schedule.objects.all()) >= 12
    broken = io.StringIO()
    call_command("demo", "break", stdout=broken)

    # 1. Bars move by themselves: what is due is in the ledger, and runs.
    report = ended("sales-report", ExecutionState.SUCCEEDED)
    fire = ScheduleFire.objects.get(execution=report)
    assert (fire.outcome, fire.schedule.name) == ("started", "Sales report every 20 seconds")
    assert "sp-bar" in browser.page(page_url(fire.schedule))

    # 2. A fan-out, with a step that fails twice and recovers, and what runs at the end in any case.
    assert states_of(report, "ask_partner") == ["retryable", "retryable", "succeeded"]
    assert states_of(report, "load") == ["succeeded"] * 3
    assert states_of(report, "tidy_up") == ["succeeded"]
    assert Sale.objects.count() >= 60
    file = tmp_path / "demo" / f"report-{fire.scheduled_for.date()}.json"
    assert report.output.data is not None
    assert json.loads(file.read_text()).keys() == report.output.data.keys() == {"day", "eur", "usd"}
    creation.start(Workflow.objects.get(name="close-month"), input={})

    # 3. A poisoned payload: edited, redriven, green; and its failure opened a ticket.
    letter = eventually("a poisoned invoice", DeadLetter.objects.filter(workflow__name="invoice").first)
    edited = '{"invoice": {"number": "A-4711", "amount": 12}}'
    assert "Redriven" in told(browser.do(letter, "redrive", mode="resume", input=edited))[-1]
    again = ended("invoice", ExecutionState.SUCCEEDED, pk=letter.execution_id)
    letter.refresh_from_db()
    assert (letter.state, again.input["invoice"]["amount"]) == (DeadLetterState.RESOLVED, 12)
    ended("open-ticket", ExecutionState.SUCCEEDED)
    assert (tmp_path / "demo" / f"ticket-{letter.execution_id}.txt").exists()

    # 4. A step broken on purpose: three attempts, a dead letter, redriven to green without the first step.
    execution = Execution.objects.get(pk=broken.getvalue().split()[0])
    letter = eventually("the broken step", execution.dead_letters.first)
    assert states_of(execution, "fragile") == ["retryable", "retryable", "failed"]
    browser.do(letter, "redrive", mode="resume", input='{"broken": false}')
    ended("try-it", ExecutionState.SUCCEEDED, pk=execution.pk)
    assert (len(states_of(execution, "before")), len(states_of(execution, "after"))) == (1, 1)

    # 5. A signed webhook by the printed line; again: the same ids; changed: refused. Booked orders are shipped.
    printed = io.StringIO()
    call_command("demo", "curl", url=address, stdout=printed)
    line = printed.getvalue().strip()
    status, answer = deliver(line)
    assert (status, answer["duplicate"], len(answer["execution_ids"])) == (202, False, 1)
    assert deliver(line) == (200, answer | {"duplicate": True})
    assert deliver(line.replace("tea", "tee"))[0] == 401
    eventually("the order is shipped", Order.objects.filter(state="shipped").exists)
    assert Product.objects.get(name="tea").units == 38

    # 6. A hot spot at two o'clock, that applying the optimiser's proposals flattens, and putting back raises again.
    ended("night-job", ExecutionState.SUCCEEDED)
    assert spot_is_hot(browser)
    assert browser.post(reverse("admin:demo_tour_deed", args=["spread"])).status_code == 302
    found = OptimizationReport.objects.get()
    assert found.changes.filter(kind="move").count() >= 4
    browser.do(found, "apply", changes="", note="")
    assert not spot_is_hot(browser)
    browser.do(found, "revert", changes="", note="")
    assert spot_is_hot(browser)

    # 7. What summer time does to half past two.
    berlin = browser.page(page_url(Schedule.objects.get(name__contains="Berlin")))
    assert "its time does not exist" in berlin
    assert "the first of two" in berlin

    # 8. A step that waits for people.
    waits = eventually("an approval", StepRun.objects.filter(state="waiting", waiting_for="approval").first)
    assert "Are these sums right?" in browser.page(page_url(waits.execution))
    url = reverse("admin:execution_execution_step", args=[waits.execution_id, waits.pk, "approve"])
    browser.post(url, {"note": "they are"})
    ended("close-month", ExecutionState.SUCCEEDED)
    assert set(json.loads((tmp_path / "demo" / "month.json").read_text())) == {"Berlin", "Lisbon", "Oslo"}

    # And the tour says so.
    stops = {stop.title: stop for stop in tour.stops()}
    assert [stop.title for stop in stops.values() if stop.now and not stop.is_done] == []
    text = browser.page(reverse("admin:demo_tour"))
    assert re.search(r"curl -sS .*/hooks/", text)
    assert Workflow.objects.filter(labels__has_key="showcase").count() == 1
