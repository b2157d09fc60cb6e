"""Which Celery tasks may be steps, and the retry policy that they bring along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import celery
import pytest
from celery import current_app, shared_task
from celery.exceptions import Retry

from execution import step_tasks
from execution.retry import UNLIMITED, calculate_retry_delay
from execution.step_tasks import Task, step_task


class Busy(Exception):
    pass


@pytest.fixture
def task() -> Iterator[Any]:
    """Make tasks of this test with `task(**options)(function)`; they are forgotten afterwards."""
    made: list[str] = []

    def make(**options: Any) -> Any:
        name = f"tests.made_{len(made)}"
        made.append(name)
        return current_app.task(name=name, **options)

    yield make
    for name in made:
        current_app.tasks.pop(name, None)


def nothing() -> None:
    """Do nothing."""


@step_task
def bare(day: str, *, copies: int = 1) -> str:
    """Print the day."""
    return day * copies


@step_task(name="tests.step_tasks.named", autoretry_for=(Busy,), max_retries=2)
def named() -> None: ...


@shared_task(name="tests.step_tasks.ordinary")
def ordinary() -> None: ...


@pytest.mark.parametrize(
    ("name", "patterns", "found"),
    [
        ("tests.step_tasks.named", [], True),
        (f"{__name__}.bare", [], True),
        ("tests.step_tasks.ordinary", [], False),
        ("tests.step_tasks.ordinary", ["tests.step_tasks.*"], True),
        ("tests.step_tasks.ordinary", ["TESTS.*", "tests.step"], False),
        ("execution.run_step", [], False),
        ("nobody.knows.it", ["*"], False),
    ],
)
def test_a_task_is_a_step_by_its_mark_or_by_the_deployments_word(
    settings: Any, name: str, patterns: list[str], found: bool
) -> None:
    settings.WORKFLOW_TASKS = patterns
    task = step_tasks.find(name)
    assert (task is not None) is found
    assert task is None or task.name == name


def test_tasks_are_described_for_those_who_choose_them() -> None:
    described = {description.name: description for description in step_tasks.available()}
    assert list(described) == sorted(described)
    plain = described[f"{__name__}.bare"]
    assert (plain.signature, plain.doc) == ("(day: 'str', *, copies: 'int' = 1) -> 'str'", "Print the day.")
    assert plain.policy is None
    assert described["tests.step_tasks.named"].policy is not None
    assert "tests.step_tasks.ordinary" not in described


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"day": "x"}, ""),
        ({"day": "x", "copies": 2}, ""),
        ({}, "missing a required argument: 'day'"),
        ({"day": "x", "size": 3}, "got an unexpected keyword argument 'size'"),
        (["x"], "must be a mapping"),
    ],
)
def test_arguments_are_held_against_the_signature(arguments: Any, problem: str) -> None:
    assert problem in step_tasks.check_arguments(bare, arguments)
    assert bool(step_tasks.check_arguments(bare, arguments)) is bool(problem)


def test_a_bound_tasks_self_is_nobodys_argument(task: Any) -> None:
    @task(bind=True, autoretry_for=(Busy,))
    def bound(self: Task, n: int) -> int:
        return n

    assert step_tasks.check_arguments(bound, {"n": 1}) == ""
    assert step_tasks.body_of(bound)(n=3) == 3


def test_a_task_without_autoretry_brings_no_policy(task: Any) -> None:
    assert step_tasks.policy_of(task(max_retries=9)(nothing)) is None


OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"max_attempts": 4, "backoff": 180.0, "factor": 1.0, "backoff_max": 180.0, "jitter": False}),
    ({"default_retry_delay": 7}, {"backoff": 7.0, "backoff_max": 7.0}),
    ({"retry_backoff": True}, {"backoff": 1.0, "factor": 2.0, "backoff_max": 600.0, "jitter": True}),
    ({"retry_backoff": 5, "retry_jitter": False}, {"backoff": 5.0, "jitter": False}),
    ({"retry_backoff": 2.7, "retry_backoff_max": 99.9}, {"backoff": 2.0, "backoff_max": 99.0}),
    ({"retry_backoff": 0.2}, {"backoff": 1.0}),
    ({"max_retries": 0}, {"max_attempts": 1}),
    ({"max_retries": None}, {"max_attempts": UNLIMITED}),
    ({"retry_kwargs": {"max_retries": 7}}, {"max_attempts": 8}),
    ({"retry_kwargs": {"max_retries": None}}, {"max_attempts": 4}),
    ({"retry_kwargs": {"countdown": 3}}, {"backoff": 3.0, "factor": 1.0}),
    ({"retry_kwargs": {"countdown": 0}}, {"backoff": 0.0}),
    ({"retry_kwargs": {"countdown": 3}, "retry_backoff": 8}, {"backoff": 8.0, "factor": 2.0}),
    ({"dont_autoretry_for": (KeyError,)}, {"give_up_on": ("KeyError",)}),
    ({"autoretry_for": (OSError, Busy)}, {"retry_on": ("OSError", f"{__name__}.Busy")}),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_autoretry_options_become_the_policy(task: Any, options: dict[str, Any], expected: dict[str, Any]) -> None:
    policy = step_tasks.policy_of(task(**{"autoretry_for": (Busy,), **options})(nothing))
    assert policy is not None
    assert policy.origin == "task"
    assert {name: getattr(policy, name) for name in expected} == expected


@pytest.mark.parametrize(("options", "_"), OPTIONS)
def test_the_policy_retries_as_often_and_as_late_as_celery_would(
    task: Any, options: dict[str, Any], _: dict[str, Any]
) -> None:
    """Celery's own wrapper around the task is the oracle; jitter is left out because it draws at random."""

    def busy() -> None:
        raise Busy

    made: celery.Task[Any, Any] = task(**{"autoretry_for": (Busy, OSError), "retry_jitter": False, **options})(busy)
    policy = step_tasks.policy_of(made)
    assert policy is not None
    if policy.jitter:
        pytest.skip("draws at random")
    asked: list[float] = []
    for retries in range(6):
        asked.clear()
        made.push_request(retries=retries, called_directly=False, is_eager=False)
        made.signature_from_request = lambda *_, countdown=None, **__: asked.append(countdown) or _Unsent()  # type: ignore[method-assign]
        try:
            made.run()
        except Retry:
            assert retries + 1 < policy.max_attempts
            assert asked == [calculate_retry_delay(policy, failures=retries + 1)]
        except Busy:
            assert retries + 1 >= policy.max_attempts
        finally:
            made.pop_request()


class _Unsent:
    """The message that Celery would send."""

    def apply_async(self) -> None: ...
