"""What people can do to an open step of an execution: approve, reject, skip it, or mark it as succeeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from django.http import HttpRequest
from django.urls import reverse

from execution import lifecycle
from execution.admin.base import Confirmation, Done, JSONText, Verb, WithNote, note_field
from execution.models import Execution, StepRun
from execution.states import STEP_OPEN, WaitingFor

INTERVENE: Final = "execution.intervene_execution"
APPROVE: Final = "execution.approve_execution"


class OutputForm(Confirmation):
    output = JSONText(label="Output", required=False, help_text="What the steps that need it will read as its output.")
    note = note_field("Note (kept in the audit trail)")


def _skip(run: StepRun, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.skip_step(run.pk, actor=actor, note=values["note"])
    return Done(f"Step {run} is skipped; what needs it goes on.")


def _succeed(run: StepRun, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.succeed_step(run.pk, actor=actor, note=values["note"], output=values["output"])
    return Done(f"Step {run} counts as succeeded.")


def _approve(run: StepRun, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.approve(run.pk, actor=actor, note=values["note"])
    return Done(f"Step {run} is approved.")


def _reject(run: StepRun, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.reject(run.pk, actor=actor, note=values["note"])
    return Done(f"Step {run} is rejected.")


def awaits_approval(run: StepRun) -> bool:
    """Whether somebody has to decide about it."""
    return run.state in STEP_OPEN and run.waiting_for == WaitingFor.APPROVAL


def _is_open(run: StepRun) -> bool:
    return run.state in STEP_OPEN


STEP_VERBS: Final[tuple[Verb[StepRun], ...]] = (
    Verb[StepRun](
        name="approve",
        label="Approve",
        icon="check",
        permission=APPROVE,
        perform=_approve,
        form=WithNote,
        primary=True,
        available=awaits_approval,
    ),
    Verb[StepRun](
        name="reject",
        label="Reject",
        icon="close",
        permission=APPROVE,
        perform=_reject,
        form=WithNote,
        danger=True,
        explanation="The step fails, and with it what needs it.",
        available=awaits_approval,
    ),
    Verb[StepRun](
        name="skip",
        label="Skip",
        icon="skip_next",
        permission=INTERVENE,
        perform=_skip,
        form=WithNote,
        explanation="The step ends without an output. What needs it goes on. If it runs, its result is refused.",
        available=_is_open,
    ),
    Verb[StepRun](
        name="succeed",
        label="Mark as succeeded",
        icon="task_alt",
        permission=INTERVENE,
        perform=_succeed,
        form=OutputForm,
        explanation="The step ends with the output that you give. If it runs, its own result is refused.",
        available=_is_open,
    ),
)


class StepLink(NamedTuple):
    """The way to one verb of one step."""

    verb: Verb[StepRun]
    url: str


def step_verb(name: str) -> Verb[StepRun] | None:
    """The verb of this name."""
    return next((verb for verb in STEP_VERBS if verb.name == name), None)


def step_links(request: HttpRequest, run: StepRun) -> list[StepLink]:
    """What this user may do to a step in its present state, but for decisions, which stand above the page."""
    if not (_is_open(run) and request.user.has_perm(INTERVENE)):
        return []
    verbs = (verb for verb in STEP_VERBS if verb.name in {"skip", "succeed"})
    return [StepLink(verb, url_of(run, verb)) for verb in verbs]


def url_of(run: StepRun, verb: Verb[StepRun]) -> str:
    """Where a verb of a step is done."""
    return reverse("admin:execution_execution_step", args=[run.execution_id, run.pk, verb.name])


def decisions(request: HttpRequest, execution: Execution, runs: Sequence[StepRun]) -> list[dict[str, Any]]:
    """The steps that wait for somebody's decision, with what the definition asks, and the buttons."""
    steps = execution.version.definition.get("steps", {})
    may = request.user.has_perm(APPROVE)
    found = []
    for run in filter(awaits_approval, runs):
        asked = steps.get(run.name, {}).get("approval")
        links = [StepLink(verb, url_of(run, verb)) for verb in STEP_VERBS if verb.name in {"approve", "reject"}]
        message = asked.get("message", "") if isinstance(asked, Mapping) else ""
        found.append({"run": run, "message": message, "links": links if may else []})
    return found
