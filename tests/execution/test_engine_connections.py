"""What the connections of the engine's statements prepare, and how they plan."""

from __future__ import annotations

import pytest
from django.db import connections

from execution import engine
from execution.models import Execution
from scheduling_project.common.ids import uuid7

PREPARED = "SELECT statement FROM pg_prepared_statements"


def prepared(using: str) -> list[str]:
    with connections[using].cursor() as cursor:
        cursor.execute(PREPARED)
        return [row[0] for row in cursor.fetchall()]


@pytest.mark.django_db
def test_an_engine_statement_is_prepared_on_the_connection_of_a_request_too() -> None:
    engine.fetch_all("SELECT 'kept for next time' AS probe", {}, using="default")
    assert "SELECT 'kept for next time' AS probe" in prepared("default")


@pytest.mark.django_db
def test_the_texts_of_the_orm_are_never_prepared() -> None:
    for _ in range(10):  # twice what the driver waits for unless told otherwise
        assert not Execution.objects.filter(source_label="nobody's").exists()
    assert not [text for text in prepared("default") if "nobody" in text or "source_label" in text]


@pytest.mark.django_db(databases=["default", "engine"])
def test_an_engine_statement_finds_its_rows_by_an_index_though_the_table_is_small_or_was_when_it_was_planned() -> None:
    with connections["engine"].cursor() as cursor:
        cursor.execute("EXPLAIN UPDATE execution_attempt SET state = state WHERE id = %s", [uuid7()])
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("SELECT current_setting('enable_seqscan'), current_setting('jit')")
        assert cursor.fetchone() == ("off", "off")
    connections["engine"].close()
    assert "Index Scan" in plan
