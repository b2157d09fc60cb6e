"""The one clock is Postgres's."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import connection

from scheduling_project.common import clock

pytestmark = pytest.mark.django_db


def test_it_is_aware_and_in_utc() -> None:
    now = clock.now()
    assert now.tzinfo is UTC
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)


def test_it_goes_on_within_a_transaction() -> None:
    first = clock.now()
    time.sleep(0.01)
    assert clock.now() - first >= timedelta(seconds=0.01)


def test_it_is_in_utc_whatever_zone_the_connection_has() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL TIME ZONE 'Asia/Tokyo'")
    assert clock.now().utcoffset() == timedelta(0)


def test_this_machines_clock_has_no_say() -> None:
    true = clock.now()
    with time_machine.travel("2001-01-01T00:00:00Z", tick=False):
        assert clock.now() - true < timedelta(seconds=5)
