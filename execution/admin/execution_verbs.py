"""What people can do to an execution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget

from execution import lifecycle, priority
from execution.admin import shown
from execution.admin.base import Confirmation, Done, JSONText, Verb, WithNote, note_field
from execution.models import Execution
from execution.states import ExecutionState


class RerunForm(Confirmation):
    input = JSONText(label="Input", required=False, help_text="Checked against the version's schema.")
    latest = forms.BooleanField(label="Run the version that is published now", required=False)


class PriorityForm(Confirmation):
    priority = forms.TypedChoiceField(
        choices=[(level, shown.priority_text(level)) for level in priority.LEVELS],
        coerce=int,
        widget=UnfoldAdminSelectWidget,
    )


class ResumeForm(Confirmation):
    input = JSONText(label="Input", required=False, help_text="Change it where it was the reason of the failure.")
    note = note_field("Note (kept in the audit trail)")


def _cancel(execution: Execution, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.cancel(execution.pk, actor=actor, reason=values["note"])
    return Done("The execution is cancelled.")


def _pause(execution: Execution, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.pause(execution.pk, actor=actor, note=values["note"])
    return Done("No further step starts until you resume it.")


def _resume(execution: Execution, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.resume(execution.pk, actor=actor)
    return Done("The execution goes on.")


def _rerun(execution: Execution, values: Mapping[str, Any], actor: str) -> Done:
    edited = values.get("input")
    started = lifecycle.rerun(
        execution.pk,
        actor=actor,
        input=None if edited is None or edited == execution.input else edited,
        latest=values["latest"],
    )
    return Done(f"This is the new execution; the earlier one was {execution.pk}.", shown.page_of(started))


def _resume_from_failure(execution: Execution, values: Mapping[str, Any], actor: str) -> Done:
    edited = values.get("input")
    steps = lifecycle.resume_from_failure(
        execution.pk,
        actor=actor,
        input=None if edited is None or edited == execution.input else edited,
        note=values["note"],
    )
    return Done(f"{steps} step{'s are' if steps != 1 else ' is'} open again.")


def _set_priority(execution: Execution, values: Mapping[str, Any], actor: str) -> Done:
    level = lifecycle.set_priority(execution.pk, values["priority"], actor=actor)
    return Done(f"The priority is {shown.priority_text(level)} now.")


def _is_open(execution: Execution) -> bool:
    return not execution.is_terminal


def _input(execution: Execution) -> dict[str, Any]:
    return {"input": execution.input}


VERBS: Final = (
    Verb[Execution](
        name="resume-from-failure",
        label="Resume from failure",
        icon="resume",
        permission="execution.redrive_execution",
        perform=_resume_from_failure,
        form=ResumeForm,
        initial=_input,
        primary=True,
        explanation="The failed steps run again, then what was skipped behind them. Finished steps keep their output.",
        available=lambda execution: execution.state == ExecutionState.FAILED,
    ),
    Verb[Execution](
        name="resume",
        label="Resume",
        permission="execution.pause_execution",
        perform=_resume,
        primary=True,
        available=lambda execution: execution.state == ExecutionState.PAUSED,
    ),
    Verb[Execution](
        name="rerun",
        label="Rerun",
        icon="replay",
        permission="execution.run_execution",
        perform=_rerun,
        form=RerunForm,
        initial=_input,
        explanation="Starts a new execution with the same version and policy.",
    ),
    Verb[Execution](
        name="pause",
        label="Pause",
        icon="pause",
        permission="execution.pause_execution",
        perform=_pause,
        form=WithNote,
        explanation="Steps that run are left to end; no further step starts.",
        available=lambda execution: _is_open(execution) and execution.state != ExecutionState.PAUSED,
    ),
    Verb[Execution](
        name="priority",
        label="Priority",
        icon="low_priority",
        permission="execution.prioritize_execution",
        perform=_set_priority,
        form=PriorityForm,
        initial=lambda execution: {"priority": execution.priority},
        available=_is_open,
    ),
    Verb[Execution](
        name="cancel",
        label="Cancel",
        icon="cancel",
        permission="execution.cancel_execution",
        perform=_cancel,
        form=WithNote,
        danger=True,
        many=True,
        explanation="Everything open in it ends. Running steps lose their lease: their result is refused.",
        available=_is_open,
    ),
)
