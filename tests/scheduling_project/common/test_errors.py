"""Errors that people are meant to read."""

from __future__ import annotations

import pytest

from scheduling_project.common import errors
from scheduling_project.common.errors import DomainError, InvalidInput, NotFound

KINDS = {
    errors.DomainError: ("error", 400, "The request cannot be carried out."),
    errors.InvalidInput: ("invalid", 400, "Some values are not acceptable."),
    errors.NotFound: ("not_found", 404, "There is no such thing."),
    errors.Conflict: ("conflict", 409, "The present state does not allow this."),
    errors.StaleVersion: (
        "stale_version",
        412,
        "It was changed by somebody else in the meantime; read it again first.",
    ),
    errors.Unavailable: ("unavailable", 503, "A server that this needs is away; try again shortly."),
}


@pytest.mark.parametrize(("kind", "expected"), KINDS.items())
def test_each_has_a_code_a_status_and_a_message(kind: type[DomainError], expected: tuple[str, int, str]) -> None:
    error = kind()
    assert (error.code, error.status, error.message) == expected
    assert str(error) == expected[2]


def test_codes_are_not_shared() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)


def test_its_own_message_comes_first() -> None:
    assert str(NotFound("There is no workflow x.")) == "There is no workflow x."


def test_the_fields_and_their_rules_are_in_the_text() -> None:
    error = InvalidInput("The input is wrong.", fields={"a.b": ["must be a number", "is required"], "c": ["no"]})
    assert error.fields == {"a.b": ["must be a number", "is required"], "c": ["no"]}
    assert str(error) == "The input is wrong. a.b: must be a number is required; c: no"


def test_further_members_are_kept_for_the_problem_document() -> None:
    error = DomainError("no", retry_after=3)
    assert (error.extra, error.args) == ({"retry_after": 3}, ("no",))
