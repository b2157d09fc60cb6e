"""Arrays as text: what Postgres reads back is what was given."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from execution import engine
from execution.states import StepState

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", ["plain", "", "NULL", None, 'say "hi"', "back\\slash", "{a,b}", " lead", "ü\n\t", StepState.QUEUED]),
        ("int", [1, -5, None, 2**31 - 1]),
        ("float8", [1.5, 1e300, None, float("inf")]),
        ("bool", [True, False, None]),
        ("uuid", [UUID(int=0), UUID(int=2**128 - 1), None]),
        ("timestamptz", [datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC), None]),
        ("text", []),
        ("text", ["plain", "a,b", "{c}", ""]),
        ("text", ['one "quoted"', "none"]),
        ("text", ["same", "same", "same"]),
        ("text", ['sa"me'] * 2),
        ("int", [0, 0, 0]),
        ("bool", [True, 1 == 1]),
        ("float8", [0.5, 0.5, 0.25]),
    ],
)
def test_what_is_given_is_read_back(kind, values):
    sql = f"SELECT v FROM unnest(%(values)s::{kind}[]) AS t (v)"
    rows = engine.fetch_all(sql, {"values": engine.array(values)}, using="default")
    assert [row.v for row in rows] == values


def test_what_cannot_be_an_element_is_refused():
    with pytest.raises(TypeError, match="dict"):
        engine.array([{}])
