"""The reference page tells the truth: its examples are run."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from schedules.timing.cron import MAX_LENGTH, CronError, parse

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cron.md").read_text()
EXPRESSION = re.compile(r"`((?:[^\s`]+ ){4,6}[^\s`]+)`")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_expression_on_the_page_is_accepted() -> None:
    strict = PAGE.replace(section("Importing crontabs: the `vixie` dialect"), "")
    found = EXPRESSION.findall(strict)
    assert len(found) > 20
    for expression in found:
        if expression.count("*") or expression.count("H"):
            parse(expression, seed="page")


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    assert f"{MAX_LENGTH:,} characters" in PAGE


def test_the_table_of_imported_crontabs_is_what_the_dialect_does() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", section("Importing crontabs: the `vixie` dialect"), re.M)
    assert len(rows) == 4
    for crontab, strict in rows:
        assert parse(crontab, dialect="vixie") == parse(strict)
    with pytest.raises(CronError):
        parse("5/20 * * * *")


def test_the_table_of_clock_changes_is_what_happens() -> None:
    new_york = ZoneInfo("America/New_York")

    def fires(expression: str, day: str) -> list[str]:
        start = datetime.fromisoformat(f"{day}T00:59").replace(tzinfo=new_york)
        end = datetime.fromisoformat(f"{day}T03:45").replace(tzinfo=new_york)
        return [f"{moment:%H:%M}" for moment in parse(expression).between(start, end, new_york)]

    assert fires("30 2 * * *", "2025-03-09") == ["03:00"]
    assert fires("30 2 * * *", "2025-11-02") == ["02:30"]
    assert fires("30 1 * * *", "2025-11-02") == ["01:30"]
    assert fires("0 2,3 * * *", "2025-03-09") == ["03:00"]
    assert fires("0 2,3 * * *", "2025-11-02") == ["02:00", "03:00"]
    assert fires("30 * * * *", "2025-03-09") == ["01:30", "03:30"]
    assert fires("30 * * * *", "2025-11-02") == ["01:30", "01:30", "02:30", "03:30"]
    assert fires("*/30 2 * * *", "2025-03-09") == []
    assert fires("* 30 2 * * *", "2025-03-09") == ["03:00"]
    assert len(fires("* 30 2 * * *", "2025-11-02")) == 60
