"""What there is to see in the demo, where, and whether it has happened yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from django.urls import reverse

from execution import creation
from execution.admin import shown
from execution.creation import Source
from execution.models import DeadLetter, Execution, Workflow
from execution.states import DeadLetterState, ExecutionState, WaitingFor
from schedules.models import Schedule
from scheduling_project.common.errors import NotFound
from scheduling_project.demo.models import Order
from scheduling_project.demo.schedules import BERLIN
from scheduling_project.demo.workflows import SHOWCASE, TRY_IT

DRILLS: Final = ("manage.py drill kill-worker", "manage.py drill flush-redis")


@dataclass(frozen=True, slots=True)
class Stop:
    """One thing to see. `now` says how far it has come; `deed` names a button of the tour's page."""

    title: str
    text: str
    icon: str
    url: str = ""
    link: str = "Look"
    now: str = ""
    is_done: bool = False
    deed: str = ""
    label: str = ""
    commands: tuple[str, ...] = ()
    is_webhook: bool = False


def break_a_step(*, actor: str) -> Execution:
    """Start the workflow whose step breaks.

    Raises:
        NotFound: somebody has deleted it.
    """
    workflow = Workflow.objects.filter(name=TRY_IT).first()
    if workflow is None:
        raise NotFound(f"There is no workflow {TRY_IT}: manage.py demo seed makes it.")
    return creation.start(workflow, source=Source("admin", actor, actor), input={"broken": True})


def stops() -> Iterator[Stop]:
    """What to look at, in a good order."""
    yield _moving()
    yield _recovered()
    yield _poisoned()
    yield _broken()
    yield _webhook()
    yield Stop(
        "Flatten the hot spot at two o'clock",
        "Eight jobs want 02:00, and a worker has two slots for them. The optimiser measures what each takes, "
        "simulates the week and proposes minutes at which nothing waits. “Apply all” moves them; “Revert all” puts "
        "them back.",
        "balance",
        url=reverse("admin:schedules_schedule_agenda"),
        link="The agenda",
        deed="spread",
        label="Measure and propose",
    )
    yield _berlin()
    yield _approval()
    yield Stop(
        "Break the machinery",
        "Drills start servers of their own, kill a worker in the middle of its steps or wipe Redis, and count what was "
        "lost and doubled in the ledger: nothing. Type one in another terminal.",
        "skull",
        commands=DRILLS,
    )
    yield Stop(
        "Everything over HTTP",
        "Whatever a page shows or a button does, the API does too; its documentation can be tried out.",
        "api",
        url="/api/docs/",
        link="API docs",
    )


def _page(subject: Schedule | Execution | DeadLetter | None) -> str:
    return shown.page_of(subject) if subject is not None else ""


def _latest(workflow: str, **filters: object) -> Execution | None:
    return Execution.objects.filter(workflow__name=workflow, **filters).order_by("-id").first()


def _moving() -> Stop:
    schedule = Schedule.objects.filter(workflow__name=SHOWCASE).order_by("name").first()
    started = schedule.started_count if schedule else 0
    return Stop(
        "Bars that move by themselves",
        "A schedule fires every twenty seconds. Its page shows each run as a bar (height: how long, colour: how it "
        "ended), every due instant in a ledger, and what comes next.",
        "bar_chart",
        url=_page(schedule),
        link="The schedule",
        now=f"{started} runs so far",
        is_done=started > 0,
    )


def _recovered() -> Stop:
    found = _latest(SHOWCASE, state=ExecutionState.SUCCEEDED)
    return Stop(
        "A step that fails twice and recovers",
        "The same runs fan out over three shops, while the partner's HTTP service answers 503 twice. The timeline "
        "shows the attempts and the waiting between them; tidying up runs last, however the rest ends.",
        "replay",
        url=_page(found),
        link="The latest run",
        now="recovered" if found else "in some seconds",
        is_done=found is not None,
    )


def _poisoned() -> Stop:
    letters = DeadLetter.objects.filter(workflow__name="invoice").order_by("-id")
    is_open = letters.filter(state=DeadLetterState.OPEN).first()
    resolved = letters.filter(state=DeadLetterState.RESOLVED).first()
    return Stop(
        "A poisoned payload, edited and redriven",
        "An invoice says “twelve” where a number belongs, and trying again does not help: it waits in the dead "
        'letters. Press Redrive, write 12 for "twelve", and it goes on at the step that failed.',
        "mail_off",
        url=_page(is_open or resolved),
        link="The dead letter",
        now="redriven to green" if resolved else "open" if is_open else "in some seconds",
        is_done=resolved is not None,
    )


def _broken() -> Stop:
    letter = DeadLetter.objects.filter(workflow__name=TRY_IT).order_by("-id").first()
    execution = _latest(TRY_IT)
    now = ""
    if execution is not None:
        now = "redriven to green" if execution.state == ExecutionState.SUCCEEDED else execution.get_state_display()
    is_open = letter is not None and letter.state == DeadLetterState.OPEN
    return Stop(
        "Break a step yourself",
        "Starts a workflow whose second step asks a broken partner: three attempts with growing pauses, then a dead "
        'letter. Redrive it with {"broken": false}: the first step is not run again, the last one follows.',
        "handyman",
        url=_page(letter if is_open else execution),
        link="Its dead letter" if is_open else "The execution",
        now=now,
        is_done=execution is not None and execution.state == ExecutionState.SUCCEEDED,
        deed="break",
        label="Break it",
    )


def _webhook() -> Stop:
    orders = Order.objects.count()
    return Stop(
        "A signed webhook",
        "Paste the line into a terminal: the shop's order is verified, stored and started before the answer comes "
        "(202). Its charge fails once and recovers; when it is booked, another workflow ships it. Paste it again: 200, "
        "with the same ids. Change a letter: 401.",
        "webhook",
        url=reverse("admin:triggers_event_changelist"),
        link="The events",
        now=f"{orders} order{'s' if orders != 1 else ''} taken",
        is_done=orders > 0,
        deed="deliver",
        label="Deliver it from here",
        is_webhook=True,
    )


def _berlin() -> Stop:
    schedule = Schedule.objects.filter(name=BERLIN).first()
    return Stop(
        "Half past two in Berlin",
        "The last Sunday of March has no 02:30, that of October has two. The page says for each change of the clocks "
        "what this schedule does: nothing is doubled, nothing silently dropped.",
        "more_time",
        url=f"{_page(schedule)}#clock-changes" if schedule else "",
        link="Clock changes",
        is_done=schedule is not None,
    )


def _approval() -> Stop:
    waiting = Execution.objects.filter(step_runs__waiting_for=WaitingFor.APPROVAL, finished_at__isnull=True)
    found = waiting.order_by("-id").first()
    latest = found or _latest("close-month")
    return Stop(
        "A step that waits for people",
        "The month's sums wait for somebody's approval; nothing holds a worker meanwhile. Approve, reject, or skip the "
        "step on the execution's page.",
        "approval",
        url=_page(latest),
        link="The execution",
        now="waits for you" if found else latest.get_state_display() if latest else "in some seconds",
        is_done=latest is not None and found is None,
    )
