"""Retry policies and the one place that decides what follows a failed attempt. Pure: values in, a decision out.

A policy has one shape everywhere (`POLICY_SCHEMA`) and one precedence: the step in the definition, then the
trigger or schedule, then the workflow, then the Celery task's own autoretry options, then none.
Delays come from Celery's own backoff function, so that a task moved into a workflow keeps its rhythm.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from celery.utils.time import get_exponential_backoff_interval

UNLIMITED = 1_000_000  # Celery's ``max_retries=None``
WORKER_DEATH = "worker_death"
MAX_DELAY = 31_536_000.0  # seconds; nobody's wish for later reaches further than a year

POLICY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "max_attempts": {"type": "integer", "minimum": 1, "maximum": UNLIMITED},
        "backoff": {"type": "number", "minimum": 0, "maximum": 86_400, "description": "First delay in seconds."},
        "factor": {"type": "number", "minimum": 1, "maximum": 10, "description": "Growth per further retry."},
        "backoff_max": {"type": "number", "minimum": 0, "maximum": 604_800, "description": "Cap in seconds."},
        "jitter": {"type": "boolean", "description": "Full jitter: anywhere between 0 and the delay."},
        "retry_on": {"$ref": "#/$defs/failures"},
        "give_up_on": {"$ref": "#/$defs/failures"},
    },
}
FAILURES_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": 300},
    "maxItems": 50,
    "description": "Exception class paths, HTTP statuses (503, 5xx), timeout, connection, memory, worker_death.",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """How often and when an attempt is made again. Times are seconds; the defaults are PROTOCOL's."""

    max_attempts: int = 3
    backoff: float = 2.0
    factor: float = 2.0
    backoff_max: float = 600.0
    jitter: bool = True
    retry_on: tuple[str, ...] = ()
    give_up_on: tuple[str, ...] = ()
    origin: str = "default"

    @classmethod
    def of(cls, options: Mapping[str, Any], *, origin: str) -> Policy:
        """A policy from its JSON form, which `POLICY_SCHEMA` has accepted."""
        values: dict[str, Any] = {
            name: tuple(value) if name in {"retry_on", "give_up_on"} else value for name, value in options.items()
        }
        return cls(**values, origin=origin)

    @property
    def on_worker_death(self) -> Literal["retry", "give_up", "run_again"]:
        """What follows the death of a worker: only where the policy names ``worker_death`` is it the step's failure.

        ``run_again``: at once, uncharged, until too many have died of the step (it is quarantined then).
        """
        if WORKER_DEATH in self.give_up_on:
            return "give_up"
        return "retry" if WORKER_DEATH in self.retry_on else "run_again"

    def as_json(self) -> dict[str, Any]:
        """For people: the effective policy and where it came from."""
        lists = {"retry_on": list(self.retry_on), "give_up_on": list(self.give_up_on)}
        return asdict(self) | lists | {"on_worker_death": self.on_worker_death}


NONE = Policy(max_attempts=1, origin="none")


class Decision(enum.StrEnum):
    """What follows an attempt that did not succeed."""

    RETRY = "retry"
    SNOOZE = "snooze"
    FAIL = "fail"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, as far as a policy can tell failures apart.

    `names`: every name the failure answers to, the most exact first: exception class paths along the MRO,
    ``503`` and ``5xx``, ``timeout``, ``connection``, ``memory``, ``worker_death``.
    `retry_after`: seconds that the step's own code or the server asked for, None where nobody did.
    `asked`: what the step's code asked for itself (`self.retry()`, `Ignore`, `Reject`, snooze), else None.
    `max_attempts`: the limit that came with that wish; `task_attempts`: the task's own, where no policy was stated.
    """

    names: tuple[str, ...]
    message: str
    retry_after: float | None = None
    asked: Literal["retry", "snooze", "ignore", "fail"] | None = None
    max_attempts: int | None = None
    task_attempts: int | None = None


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """The verdict, with what a person needs to understand it later (stored with the attempt)."""

    decision: Decision
    reason: str
    at: datetime | None = None
    policy: Policy = field(default=NONE)

    def as_json(self) -> dict[str, Any]:
        return {
            "decision": self.decision.value,
            "reason": self.reason,
            "at": self.at.isoformat() if self.at else None,
            "policy": self.policy.as_json(),
        }


def effective_policy(
    *,
    step: Mapping[str, Any] | None,
    source: Mapping[str, Any] | None,
    workflow: Mapping[str, Any] | None,
    task: Policy | None,
) -> Policy:
    """The first policy that anybody stated, in the order of precedence. No merging: one place decides."""
    for options, origin in ((step, "step"), (source, "source"), (workflow, "workflow")):
        if options is not None:
            return Policy.of(options, origin=origin)
    return task or NONE


def should_retry(policy: Policy, failure: Failure, *, failures: int) -> tuple[bool, str]:
    """Whether another attempt is due after `failures` charged ones, and why (not)."""
    name = failure.names[0] if failure.names else "failure"
    if failure.asked == "fail":
        return False, "the step asked to be rejected"
    limit = _limit(policy, failure)
    if failure.asked != "retry":
        if any(listed in failure.names for listed in policy.give_up_on):
            return False, f"{name} is in give_up_on"
        if policy.retry_on and not any(listed in failure.names for listed in policy.retry_on):
            return False, f"{name} is not in retry_on"
    if failures >= limit:
        return False, f"attempt {failures} of {limit} was the last" if limit > 1 else "the policy allows one attempt"
    return True, f"attempt {failures} of {limit} failed with {name}" if limit < UNLIMITED else f"failed with {name}"


def _limit(policy: Policy, failure: Failure) -> int:
    if failure.max_attempts is not None:
        return failure.max_attempts
    if failure.task_attempts is not None and policy.origin in {"task", "none"}:
        return failure.task_attempts
    return policy.max_attempts


def calculate_retry_delay(policy: Policy, *, failures: int) -> float:
    """Seconds until the next attempt after `failures` charged ones (1 or more).

    Celery's exponential backoff, ``factor ** n`` scaled by the first delay and capped, with full jitter where
    the policy has it (Exponential Backoff and Jitter, M. Brooker, AWS Architecture Blog, 2015).
    """
    if policy.backoff <= 0:
        return 0.0
    if policy.factor == 2 and float(policy.backoff).is_integer() and float(policy.backoff_max).is_integer():
        return float(
            get_exponential_backoff_interval(
                factor=int(policy.backoff),
                retries=min(failures - 1, 64),
                maximum=int(policy.backoff_max),
                full_jitter=policy.jitter,
            )
        )
    # Celery's function counts in whole seconds and by two: scale it to thousandths where the policy is finer.
    delay = min(policy.backoff * policy.factor ** min(failures - 1, 64), policy.backoff_max)
    return (
        get_exponential_backoff_interval(
            factor=round(delay * 1000),
            retries=0,
            maximum=round(policy.backoff_max * 1000),
            full_jitter=policy.jitter,
        )
        / 1000
    )


def decide(policy: Policy, failure: Failure, *, failures: int, now: datetime) -> RetryDecision:
    """What follows an attempt that ended with `failure`, `failures` counting it if it is charged.

    A delay that the step or the server asked for is honoured before the policy's own.
    """
    if failure.asked == "snooze":
        return RetryDecision(Decision.SNOOZE, failure.message, _later(now, failure.retry_after or 0.0), policy)
    if failure.asked == "ignore":
        return RetryDecision(Decision.CANCEL, failure.message or "the step asked to be ignored", None, policy)
    again, reason = should_retry(policy, failure, failures=failures)
    if not again:
        return RetryDecision(Decision.FAIL, reason, None, policy)
    delay = calculate_retry_delay(policy, failures=failures) if failure.retry_after is None else failure.retry_after
    return RetryDecision(Decision.RETRY, reason, _later(now, delay), policy)


def decide_worker_death(
    policy: Policy, reason: str, *, deaths: int, most_deaths: int, failures: int, now: datetime
) -> RetryDecision:
    """What follows when an attempt's worker was lost.

    A lost worker says little about the step, so it is run again at once and uncharged; but a step that takes worker
    after worker with it is taken for the cause and fails. A policy that names ``worker_death`` decides instead, by
    `should_retry` and `calculate_retry_delay`, as for any failure.

    Args:
        deaths: workers that this step run has lost, this one included.
        most_deaths: after so many it fails, where the policy does not name them.
        failures: charged attempts, this one included if it is charged (``on_worker_death`` is ``retry``).
    """
    if policy.on_worker_death != "run_again":
        decided = decide(policy, Failure((WORKER_DEATH,), reason), failures=failures, now=now)
        return replace(decided, reason=f"{reason}; {decided.reason}")
    if deaths < most_deaths:
        return RetryDecision(Decision.RETRY, reason, now, policy)
    return RetryDecision(Decision.FAIL, f"{reason}: {deaths} workers died in this step", None, policy)


def _later(now: datetime, delay: float) -> datetime:
    """`now` plus `delay` seconds, whatever number somebody's code asked for (negative, infinite, not a number)."""
    return now + timedelta(seconds=max(0.0, min(delay, MAX_DELAY)) if delay == delay else 0.0)
