"""Steps of executions played by hand: what a worker would do, without one."""

from __future__ import annotations

from typing import Any

from execution import advance, creation, engine, queue
from execution.models import Execution, StepRun
from execution.plans import plan_by_id
from execution.queue import Claim
from execution.states import AttemptState, StepState
from tests import factories

Steps = dict[str, Any]


def http(*needs: str, **more: Any) -> dict[str, Any]:
    return {"http": {"url": "https://example.org/"}, "needs": list(needs), **more}


def begin(steps: Steps, *, input: Any = None, options: dict[str, Any] | None = None, **definition: Any) -> Execution:
    workflow = factories.make_workflow(definition={"steps": steps, **definition})
    return creation.start(workflow, input=input, **(options or {}))


def step(execution: Execution, name: str, index: int | None = None) -> StepRun:
    return StepRun.objects.get(execution=execution, name=name, item_index=index)


def claim(execution: Execution, name: str, index: int | None = None, **options: Any) -> Claim | None:
    return queue.claim(step(execution, name, index).pk, worker="w@h/1", lease=30, **options)


def held(execution: Execution, name: str, index: int | None = None) -> Claim:
    found = claim(execution, name, index)
    assert found is not None, f"{name} is {step(execution, name, index).state}"
    return found


def succeed(execution: Execution, name: str, output: Any = None, index: int | None = None) -> bool:
    return finish(held(execution, name, index), output)


def finish(claimed: Claim, output: Any = None) -> bool:
    plan = plan_by_id(claimed.version_id)
    ending = advance.ending_of(
        plan, plan.steps[claimed.name], state=StepState.SUCCEEDED, output=output, has_output=output is not None
    )
    return advance.conclude(claimed, plan, ending) is not None


def fail(execution: Execution, name: str, index: int | None = None, *, error: str = "boom") -> None:
    claimed = held(execution, name, index)
    plan = plan_by_id(claimed.version_id)
    planned = plan.steps[name]
    ending = advance.ending_of(
        plan,
        planned,
        state=StepState.FAILED,
        attempt_state=AttemptState.FAILED,
        reason=error,
        charged=True,
        letter="failed" if planned.writes_letters else "",
        error_type="ValueError",
        error=error,
        fingerprint="f" * 32,
    )
    assert advance.conclude(claimed, plan, ending) is not None


def states(execution: Execution) -> dict[str, str]:
    return dict(StepRun.objects.filter(execution=execution, parent=None).values_list("name", "state"))


def fresh(execution: Execution) -> Execution:
    return Execution.objects.get(pk=execution.pk)


def now() -> Any:
    return engine.now()
