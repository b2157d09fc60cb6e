"""Ids: UUIDs of version 7 that sort by creation."""

from __future__ import annotations

import threading
import time
import uuid

import pytest

from scheduling_project.common import ids
from scheduling_project.common.ids import uuid7, uuid7s


def milliseconds(value: uuid.UUID) -> int:
    return value.int >> 80


def test_it_is_a_uuid_of_version_7_and_the_rfc_variant() -> None:
    value = uuid7()
    assert value.version == 7
    assert value.variant == uuid.RFC_4122


def test_it_begins_with_the_time() -> None:
    before = time.time_ns() // 1_000_000
    value = uuid7()
    # An id may be ahead by as much as earlier tests have counted on.
    assert before <= milliseconds(value) <= time.time_ns() // 1_000_000 + 1


def test_ids_of_one_process_rise_strictly_also_within_a_millisecond() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert made == sorted(set(made))
    assert [value.bytes for value in made] == sorted(value.bytes for value in made)


def test_many_at_once_go_on_from_the_last_one_and_are_gone_on_from() -> None:
    made = [uuid7(), *uuid7s(5_000), uuid7(), *uuid7s(2)]
    assert made == sorted(set(made))
    assert {value.version for value in made} == {7}
    assert {value.variant for value in made} == {uuid.RFC_4122}
    assert uuid7s(0) == []


def test_ids_of_many_threads_are_distinct() -> None:
    made: list[uuid.UUID] = []
    threads = [threading.Thread(target=lambda: made.extend([uuid7() for _ in range(2_000)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 16_000


@pytest.mark.parametrize("now", [0, 1_000_000_000])
def test_a_clock_that_goes_back_counts_on(now: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last", ids._last)
    last = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    first, second = uuid7(), uuid7()
    assert last < first < second
    assert first.version == second.version == 7


def test_the_counter_carries_over_into_the_next_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    full = (5 << 74) | ((1 << 74) - 1)
    monkeypatch.setattr(ids, "_last", full)
    monkeypatch.setattr(time, "time_ns", lambda: 5_000_000)
    value = uuid7()
    assert (milliseconds(value), value.version, value.variant) == (6, 7, uuid.RFC_4122)
