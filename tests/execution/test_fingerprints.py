"""Failures that are alike share a fingerprint."""

from __future__ import annotations

import pytest

from execution.fingerprints import LENGTH, fingerprint, normalise


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("order 4711 not found", "order <n> not found"),
        ("took 3.5 s of 1,000", "took <n> s of <n>"),
        ("0198c0de-7000-7abc-8def-0123456789ab gone", "<uuid> gone"),
        ("<object at 0x7F3A12>", "<object at <hex>>"),
        ("commit deadbeef01 lost", "commit <hex> lost"),
        ("the facade decade", "the facade decade"),
        ("at 2026-11-22T16:05:33.12Z", "at <time>"),
        ("  two\n\tlines ", "two lines"),
        ("", ""),
    ],
)
def test_what_changes_between_occurrences_is_taken_out(message: str, expected: str) -> None:
    assert normalise(message) == expected


def test_failures_that_differ_in_numbers_only_are_alike() -> None:
    assert fingerprint("KeyError", "order 1", "load") == fingerprint("KeyError", "order 22", "load")


@pytest.mark.parametrize(
    "other",
    [("ValueError", "order 1", "load"), ("KeyError", "no order", "load"), ("KeyError", "order 1", "store")],
)
def test_type_message_and_step_tell_failures_apart(other: tuple[str, str, str]) -> None:
    assert fingerprint("KeyError", "order 1", "load") != fingerprint(*other)


def test_a_fingerprint_is_short_and_survives_any_text() -> None:
    assert len(fingerprint("E", "x" * 100_000 + "\udcff\0", "s")) == LENGTH
    assert fingerprint("a", "bc", "") != fingerprint("ab", "c", "")
