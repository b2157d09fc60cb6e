"""The first page stays quick over any past: its statements go by indexes (`bench_dashboard` measures it)."""

from __future__ import annotations

import pytest
from django.db import connection

from execution.models import ProcessReport
from tests.admin_client import Browser
from tests.benchmarks.bench_dashboard import scanned, statements

pytestmark = pytest.mark.django_db


def test_no_statement_of_the_first_page_reads_a_large_table_from_end_to_end() -> None:
    ProcessReport.objects.create(name="w1", kind="worker", host="h", pid=1, queues=["default"], slots=2)
    found = statements(Browser(superuser=True))
    assert len(found) > 15
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")  # small tables are read so wherever there is no other way
    assert scanned(found) == []


def test_one_that_has_no_index_would_be_noticed() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    assert len(scanned([("SELECT 1 FROM execution_steprun WHERE worker = %s", ["w"]), ("SET x = 1", None)])) == 1
