"""The states of an execution, a step run, an attempt and a dead letter, and how each may change.

Nobody else lists states. The diagram in `docs/explanation/states.md` is made from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.db import models


class ExecutionState(models.TextChoices):
    SCHEDULED = "scheduled", "Scheduled"
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    PAUSED = "paused", "Paused"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class StepState(models.TextChoices):
    WAITING = "waiting", "Waiting"
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    RETRYABLE = "retryable", "Retryable"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    SKIPPED = "skipped", "Skipped"
    CANCELLED = "cancelled", "Cancelled"


class WaitingFor(models.TextChoices):
    """What a waiting step run waits for."""

    NEEDS = "needs", "Earlier steps"
    TIMER = "timer", "Timer"
    APPROVAL = "approval", "Approval"
    CHILD = "child", "Child execution or items"
    POOL = "pool", "Pool slot"
    KEY = "key", "Concurrency key"


class AttemptState(models.TextChoices):
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    RETRYABLE = "retryable", "Failed, will be retried"
    FAILED = "failed", "Failed"
    SNOOZED = "snoozed", "Snoozed"
    RELEASED = "released", "Released"
    LOST = "lost", "Worker lost"
    CANCELLED = "cancelled", "Cancelled"


class DeadLetterState(models.TextChoices):
    OPEN = "open", "Open"
    REDRIVING = "redriving", "Redriving"
    RESOLVED = "resolved", "Resolved"
    DISCARDED = "discarded", "Discarded"


class RedriveJobState(models.TextChoices):
    RUNNING = "running", "Running"
    DONE = "done", "Done"
    STOPPED = "stopped", "Stopped by failures"
    CANCELLED = "cancelled", "Cancelled"


class RedriveItemState(models.TextChoices):
    """What became of one letter of a redrive job."""

    PENDING = "pending", "Pending"
    REDRIVING = "redriving", "Redriving"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed again"
    REFUSED = "refused", "Refused"
    SKIPPED = "skipped", "Decided otherwise"


Transitions = Mapping[str, frozenset[str]]

_E, _S, _D = ExecutionState, StepState, DeadLetterState

EXECUTION_TRANSITIONS: Transitions = {
    _E.SCHEDULED: frozenset({_E.QUEUED, _E.RUNNING, _E.PAUSED, _E.SUCCEEDED, _E.FAILED, _E.CANCELLED}),
    _E.QUEUED: frozenset({_E.RUNNING, _E.PAUSED, _E.SUCCEEDED, _E.FAILED, _E.CANCELLED}),
    _E.RUNNING: frozenset({_E.PAUSED, _E.SUCCEEDED, _E.FAILED, _E.CANCELLED}),
    _E.PAUSED: frozenset({_E.SCHEDULED, _E.QUEUED, _E.RUNNING, _E.SUCCEEDED, _E.FAILED, _E.CANCELLED}),
    _E.SUCCEEDED: frozenset(),
    _E.FAILED: frozenset({_E.RUNNING}),  # resume from the failed step
    _E.CANCELLED: frozenset(),
}
STEP_TRANSITIONS: Transitions = {
    _S.WAITING: frozenset({_S.QUEUED, _S.RETRYABLE, _S.SUCCEEDED, _S.FAILED, _S.SKIPPED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.RUNNING, _S.WAITING, _S.SUCCEEDED, _S.FAILED, _S.SKIPPED, _S.CANCELLED}),
    _S.RUNNING: frozenset(
        {_S.QUEUED, _S.WAITING, _S.RETRYABLE, _S.SUCCEEDED, _S.FAILED, _S.SKIPPED, _S.CANCELLED},
    ),
    _S.RETRYABLE: frozenset({_S.RUNNING, _S.WAITING, _S.SUCCEEDED, _S.SKIPPED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset({_S.WAITING}),  # a `finally` section runs again after a resumption
    _S.FAILED: frozenset({_S.QUEUED, _S.WAITING}),  # resume, redrive
    _S.SKIPPED: frozenset({_S.QUEUED, _S.WAITING}),  # resume brings back what was skipped behind the failure
    _S.CANCELLED: frozenset({_S.WAITING}),  # as a step of a section that was cut short and runs again
}
DEAD_LETTER_TRANSITIONS: Transitions = {
    _D.OPEN: frozenset({_D.REDRIVING, _D.DISCARDED}),
    _D.REDRIVING: frozenset({_D.RESOLVED, _D.OPEN, _D.DISCARDED}),
    _D.RESOLVED: frozenset(),
    _D.DISCARDED: frozenset(),
}

EXECUTION_TERMINAL = frozenset({_E.SUCCEEDED, _E.FAILED, _E.CANCELLED})
EXECUTION_OPEN = frozenset(ExecutionState) - EXECUTION_TERMINAL
STEP_TERMINAL = frozenset({_S.SUCCEEDED, _S.FAILED, _S.SKIPPED, _S.CANCELLED})
STEP_OPEN = frozenset(StepState) - STEP_TERMINAL
STEP_CLAIMABLE = frozenset({_S.QUEUED, _S.RETRYABLE})
REDRIVE_JOB_TERMINAL = frozenset(RedriveJobState) - {RedriveJobState.RUNNING}
DEAD_LETTER_UNDECIDED = frozenset({_D.OPEN, _D.REDRIVING})


def may(transitions: Transitions, current: str, to: str) -> bool:
    """Whether `to` can directly follow `current`.

    >>> may(STEP_TRANSITIONS, StepState.RUNNING, StepState.SUCCEEDED)
    True
    """
    return to in transitions[current]


def mermaid() -> str:
    """The three transition tables as Mermaid state diagrams, for the documentation."""
    blocks = []
    for title, transitions in (
        ("Execution", EXECUTION_TRANSITIONS),
        ("Step run", STEP_TRANSITIONS),
        ("Dead letter", DEAD_LETTER_TRANSITIONS),
    ):
        arrows = [f"    {start} --> {end}" for start, ends in transitions.items() for end in sorted(ends)]
        finals = [f"    {state} --> [*]" for state, ends in transitions.items() if not ends]
        first = next(iter(transitions))
        lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}", *arrows, *finals, "```"]
        blocks.append("\n".join([f"## {title}", "", *lines]))
    return "\n\n".join(blocks) + "\n"
