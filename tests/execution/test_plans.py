"""Compiled definitions are kept in memory, and no more of them than there is room for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from execution import plans
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    plans._plans.clear()
    yield
    plans._plans.clear()


def version() -> Any:
    return factories.make_workflow(definition=factories.CHAIN).published


def test_a_plan_is_compiled_once(django_assert_num_queries: Any) -> None:
    made = version()
    with django_assert_num_queries(0):
        first = plans.plan_of(made)
        assert plans.plan_of(made) is first
        assert plans.plan_by_id(made.pk) is first
    assert list(first.steps) == ["a", "b", "c"]


def test_a_plan_that_is_not_in_memory_is_read_by_its_id(django_assert_num_queries: Any) -> None:
    made = version()
    with django_assert_num_queries(1):
        found = plans.plan_by_id(made.pk)
    with django_assert_num_queries(0):
        assert plans.plan_by_id(made.pk) is found


def test_the_plan_that_was_used_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "CAPACITY", 2)
    first, second, third = version(), version(), version()
    kept = plans.plan_of(first)
    plans.plan_of(second)
    plans.plan_of(first)
    plans.plan_of(third)
    assert plans.plan_of(first) is kept
    assert set(plans._plans) == {first.pk, third.pk}
