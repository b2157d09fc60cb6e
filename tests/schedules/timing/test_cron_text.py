"""Canonical texts and plain English."""

from __future__ import annotations

import pytest

from schedules.timing.cron import parse
from schedules.timing.cron.text import starred, values_text

CANONICAL = [
    ("00 05 * * *", "0 5 * * *"),
    ("0 5 * * mon-fri", "0 5 * * 1-5"),
    ("0 0 * JAN,feb,Mar *", "0 0 * 1-3 *"),
    ("@yearly", "0 0 1 1 *"),
    ("0 0 0 * * *", "0 0 * * *"),
    ("0 0 0 * * * *", "0 0 * * *"),
    ("5 0 0 * * *", "5 0 0 * * *"),
    ("0 0 0 * * * 2025-2026", "0 0 0 * * * 2025,2026"),
    ("0 0 0 1 1 * */2", "0 0 0 1 1 * */2"),
    ("0 0 0 1 1 * 2001-2099/2", "0 0 0 1 1 * 2001-2099/2"),
    ("0-59 0-23 * 1-12 *", "* * * * *"),
    ("*/1 */1 * * *", "* * * * *"),
    ("*/15 * * * *", "*/15 * * * *"),
    ("0-59/15 1 * * *", "0,15,30,45 1 * * *"),
    ("0-59/5 1 * * *", "0-59/5 1 * * *"),
    ("10-50/5 1 * * *", "10-50/5 1 * * *"),
    ("*/60 1 * * *", "*/60 1 * * *"),
    ("*/20,7 1 * * *", "*/20,7 1 * * *"),
    ("3,1,2,9 1 * * *", "1-3,9 1 * * *"),
    ("* * 1-31 * *", "* * 1-31 * *"),
    ("* * */1 * 0-6", "* * 1-31 * 0-6"),
    ("0 0 */2 * *", "0 0 */2 * *"),
    ("0 0 ? * ?", "0 0 * * *"),
    ("0 0 *,5 * *", "0 0 * * *"),
    ("0 0 L,1,l-3 * *", "0 0 1,L,L-3 * *"),
    ("0 0 lw * *", "0 0 LW * *"),
    ("0 0 05w * *", "0 0 5W * *"),
    ("0 0 * * 7L,fri#2", "0 0 * * 0#L,5#2"),
    ("0 0 1 * +mon", "0 0 1 * +1"),
    ("0 0 * * +mon", "0 0 * * 1"),
    ("0 0 * * SUN", "0 0 * * 0"),
    ("0 0 * * 5-7", "0 0 * * 0,5,6"),
]


@pytest.mark.parametrize(("expression", "canonical"), CANONICAL)
def test_the_canonical_text_is_short_and_means_the_same(expression: str, canonical: str) -> None:
    schedule = parse(expression)
    assert str(schedule) == canonical
    assert parse(canonical) == schedule


def test_hashed_fields_keep_their_text() -> None:
    for expression in ["H H * * *", "H(0-29)/10 2 * * *", "30 H 9 * * *", "0 0 H * *", "0 0 * * H", "0 0 0 H H * 2030"]:
        schedule = parse(expression, seed="report")
        assert str(schedule) == expression
        assert parse(str(schedule), seed="report") == schedule


def test_a_fixed_list_never_turns_into_a_wildcard() -> None:
    assert starred((1 << 60) - 1, 0, 59, star=True) == "*"
    assert starred(sum(1 << value for value in range(0, 60, 2)), 0, 59, star=False) == "0-59/2"
    assert starred(1, 0, 59, star=True) == "*/60"
    assert starred(0b10000010, 0, 59, star=True) == "1,7"  # H/6 has no value at 0
    assert values_text(0b110, 0, 59) == "1,2"
    assert values_text(sum(1 << value for value in range(0, 60, 2)), 0, 59) == "*/2"


DESCRIBED = [
    ("* * * * *", "Every minute"),
    ("* * * * * *", "Every second"),
    ("*/10 * * * * *", "Every 10 seconds"),
    ("5-59/10 * * * * *", "Every 10 seconds from second 5"),
    ("5,10 * * * * *", "At seconds 5 and 10 of every minute"),
    ("7 * * * * *", "At second 7 of every minute"),
    ("* 0-29 * * * *", "Every second of minutes 0 to 29 of every hour"),
    ("*/20 */15 * * * *", "Every 20 seconds of every 15 minutes"),
    ("30 2 * * *", "At 02:30"),
    ("30 15 10 * * *", "At 10:15:30"),
    ("0 0,12 * * *", "At 00:00 and 12:00"),
    ("*/15 * * * *", "Every 15 minutes"),
    ("7-59/15 * * * *", "Every 15 minutes from minute 7"),
    ("*/40 * * * *", "At minutes 0 and 40 of every hour"),
    ("0 * * * *", "Every hour, on the hour"),
    ("15 * * * *", "At minute 15 of every hour"),
    ("0,15,20 * * * *", "At minutes 0, 15 and 20 of every hour"),
    ("*/5 9-17 * * 1-5", "Every 5 minutes from 09:00 to 17:59, Monday to Friday"),
    ("* 2 * * *", "Every minute from 02:00 to 02:59"),
    ("*/5 0-2,4,6-8,10 * * *", "Every 5 minutes of hours 0 to 2, 4, 6 to 8 and 10"),
    ("0 */2 * * *", "At minute 0 of every 2nd hour"),
    ("0 1-23/2 * * *", "At minute 0 of every 2nd hour from 01:00"),
    ("* */2 * * *", "Every minute of every 2nd hour"),
    ("10 8-18 * * *", "At minute 10 of hours 8 to 18"),
    ("0 9 * * SAT,SUN", "At 09:00, Saturday and Sunday"),
    ("0 9 * * MON,WED,FRI", "At 09:00, Monday, Wednesday and Friday"),
    ("0 0 1 * *", "At 00:00, on the 1st of the month"),
    ("0 0 1,2,3,11,22,23 * *", "At 00:00, on the 1st to 3rd, 11th, 22nd and 23rd of the month"),
    ("0 0 L * *", "At 00:00, on the last day of the month"),
    ("0 0 1,L-1,L-4 * *",
     "At 00:00, on the 1st, the day before the last and the day 4 days before the last of the month"),
    ("0 0 15W * *", "At 00:00, on the weekday nearest the 15th of the month"),
    ("0 0 LW * *", "At 00:00, on the last weekday of the month"),
    ("0 0 * * FRI#L", "At 00:00, on the last Friday of the month"),
    ("0 0 * * MON#1,TUE#5", "At 00:00, on the first Monday and the fifth Tuesday of the month"),
    ("0 0 13 * 5", "At 00:00, on the 13th of the month or on Friday"),
    ("0 0 13 * +5", "At 00:00, on the 13th of the month if that is Friday"),
    ("0 0 29 2 *", "At 00:00, on the 29th of the month, in February"),
    ("0 0 * 1-3,12 *", "At 00:00, in January to March and December"),
    ("0 0 0 * * * 2025,2027", "At 00:00, in 2025 and 2027"),
    ("0 0 0 * * * 2000-2098/2", "At 00:00, every 2nd year from 2000 to 2098"),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "text"), DESCRIBED)
def test_an_expression_is_said_in_plain_english(expression: str, text: str) -> None:
    assert parse(expression).describe() == text
