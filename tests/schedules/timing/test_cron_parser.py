"""What is rejected, and how the message helps."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.timing.cron import MAX_LENGTH, Cron, CronError, parse
from tests.patience import PATIENCE

# expression, field, text, position, part of the rule, suggestion
REJECTED = [
    ("60 0 * * *", "minute", "60", 0, "0 to 59", ""),
    ("0 24 * * *", "hour", "24", 2, "0 to 23", "0"),
    ("0 1-24 * * *", "hour", "1-24", 2, "0 to 23", ""),
    ("0 0 32 * *", "day-of-month", "32", 4, "1 to 31", ""),
    ("0 0 0 * *", "day-of-month", "0", 4, "1 to 31", ""),
    ("0 0 * 13 *", "month", "13", 6, "1 to 12", ""),
    ("0 0 * 0 *", "month", "0", 6, "1 to 12", ""),
    ("0 0 * * 8", "day-of-week", "8", 8, "0 to 7", ""),
    ("60 * * * * *", "second", "60", 0, "0 to 59", ""),
    ("0 0 0 1 1 * 1969", "year", "1969", 12, "1970 to 2199", ""),
    ("0 0 0 1 1 * 2200", "year", "2200", 12, "1970 to 2199", ""),
    ("*,*,61 * * * *", "minute", "61", 4, "0 to 59", ""),
    # ranges
    ("0 0 10-5 * *", "day-of-month", "10-5", 4, "does not wrap around", "10-31,1-5"),
    ("0 0 * * FRI-MON", "day-of-week", "FRI-MON", 8, "does not wrap around", "FRI,SAT,SUN,MON"),
    ("0 0 * * 5-1", "day-of-week", "5-1", 8, "does not wrap around", "FRI,SAT,SUN,MON"),
    ("0 0 * * 6-0", "day-of-week", "6-0", 8, "does not wrap around", "SAT,SUN"),
    ("0 0 * NOV-FEB *", "month", "NOV-FEB", 6, "does not wrap around", "NOV,DEC,JAN,FEB"),
    ("0 22-2 * * *", "hour", "22-2", 2, "does not wrap around", "22-23,0-2"),
    ("0 23-0 * * *", "hour", "23-0", 2, "does not wrap around", "23,0"),
    ("0 22-2/2 * * *", "hour", "22-2/2", 2, "does not wrap around", ""),
    ("0 0 0 1 1 * 2030-2025", "year", "2030-2025", 12, "does not wrap around", "2030-2199,1970-2025"),
    ("1- * * * *", "minute", "1-", 0, "a first and a last value", ""),
    ("-5 * * * *", "minute", "-5", 0, "a first and a last value", ""),
    ("- * * * *", "minute", "-", 0, "a first and a last value", ""),
    ("1-5-7 * * * *", "minute", "1-5-7", 0, "one dash", ""),
    ("1--5 * * * *", "minute", "1--5", 0, "one dash", ""),
    ("*-5 * * * *", "minute", "*-5", 0, "* stands alone", ""),
    # steps
    ("0 0 /30 * *", "day-of-month", "/30", 4, "a step follows", "*/30"),
    ("0/15 * * * *", "minute", "0/15", 0, "not a single value", "0-59/15"),
    ("10/10 * * * *", "minute", "10/10", 0, "not a single value", "10-59/10"),
    ("0 0 * * MON/2", "day-of-week", "MON/2", 8, "not a single value", "1-6/2"),
    ("*/0 * * * *", "minute", "*/0", 0, "step of 0", ""),
    ("1-5/0 * * * *", "minute", "1-5/0", 0, "step of 0", ""),
    ("*/ * * * *", "minute", "*/", 0, "whole number", ""),
    ("*/-1 * * * *", "minute", "*/-1", 0, "whole number", ""),
    ("*/2/3 * * * *", "minute", "*/2/3", 0, "whole number", ""),
    ("*/x * * * *", "minute", "*/x", 0, "whole number", ""),
    ("0 0 * */JAN *", "month", "*/JAN", 6, "whole number", ""),
    ("70/2 * * * *", "minute", "70/2", 0, "0 to 59", ""),
    # lists
    (", * * * *", "minute", ",", 0, "empty entry", ""),
    ("1,,2 * * * *", "minute", "1,,2", 0, "empty entry", ""),
    ("1, * * * *", "minute", "1,", 0, "empty entry", ""),
    # stray characters
    ("* ** * * *", "hour", "**", 2, "* stands alone", ""),
    ("5* * * * *", "minute", "5*", 0, "* stands alone", ""),
    ("1_0 * * * *", "minute", "1_0", 0, "a number from 0 to 59", ""),
    ("0x5 * * * *", "minute", "0x5", 0, "a number from 0 to 59", ""),
    ("+5 * * * *", "minute", "+5", 0, "+ stands only", ""),
    # names
    ("0 0 * MON *", "month", "MON", 6, "1 to 12 or JAN", ""),
    ("0 0 * * JAN", "day-of-week", "JAN", 8, "0 to 7 or SUN", ""),
    ("0 0 * * MONDAY", "day-of-week", "MONDAY", 8, "three letters, such as MON", "MON"),
    ("0 0 * * mon-friday", "day-of-week", "mon-friday", 8, "three letters, such as FRI", "MON-FRI"),
    ("0 0 * JANUARY *", "month", "JANUARY", 6, "three letters", "JAN"),
    ("0 0 * * WDE", "day-of-week", "WDE", 8, "0 to 7 or SUN", "WED"),
    ("MON * * * *", "minute", "MON", 0, "a number from 0 to 59", ""),
    # L, W, #
    ("0 L * * *", "hour", "L", 2, "day-of-month", ""),
    ("0 0 * L *", "month", "L", 6, "1 to 12", ""),
    ("0 0 * * L", "day-of-week", "L", 8, "5L or FRI#L", "SAT"),
    ("0 0 1-L * *", "day-of-month", "1-L", 4, "a number from 1 to 31", ""),
    ("0 0 L/2 * *", "day-of-month", "L/2", 4, "a number from 1 to 31", ""),
    ("0 0 L-0 * *", "day-of-month", "L-0", 4, "1 to 30", "L"),
    ("0 0 L-31 * *", "day-of-month", "L-31", 4, "1 to 30", "L"),
    ("0 0 L-x * *", "day-of-month", "L-x", 4, "1 to 30", "L"),
    ("0 0 1-15W * *", "day-of-month", "1-15W", 4, "cannot stand in a list", ""),
    ("0 0 1,15W * *", "day-of-month", "15W", 6, "cannot stand in a list", ""),
    ("0 0 15W,LW * *", "day-of-month", "15W", 4, "cannot stand in a list", ""),
    ("0 0 15W/2 * *", "day-of-month", "15W/2", 4, "cannot stand in a list", ""),
    ("0 0 W * *", "day-of-month", "W", 4, "W follows a day", ""),
    ("0 0 *W * *", "day-of-month", "*W", 4, "W follows a day", ""),
    ("0 0 32W * *", "day-of-month", "32W", 4, "1 to 31", ""),
    ("0 0 0W * *", "day-of-month", "0W", 4, "1 to 31", ""),
    ("0 0 * * 1W", "day-of-week", "1W", 8, "0 to 7", ""),
    ("0 0 * * MON#6", "day-of-week", "MON#6", 8, "1 to 5", ""),
    ("0 0 * * MON#0", "day-of-week", "MON#0", 8, "1 to 5", ""),
    ("0 0 * * MON#", "day-of-week", "MON#", 8, "1 to 5", ""),
    ("0 0 * * #1", "day-of-week", "#1", 8, "one day", ""),
    ("0 0 * * 1-5#2", "day-of-week", "1-5#2", 8, "one day", ""),
    ("0 0 * * *#2", "day-of-week", "*#2", 8, "one day", ""),
    ("0 0 * * 8#2", "day-of-week", "8#2", 8, "0 to 7", ""),
    ("0 0 * * MON-FRIL", "day-of-week", "MON-FRIL", 8, "one day", ""),
    ("0 0 1#2 * *", "day-of-month", "1#2", 4, "day-of-week", ""),
    ("0 0 1 * TUE,MON#9", "day-of-week", "MON#9", 12, "1 to 5", ""),
    # + and ?
    ("0 12 +1 * MON", "day-of-month", "+1", 5, "+ stands only", ""),
    ("0 12 1 * MON,+TUE", "day-of-week", "+TUE", 13, "+ stands only", ""),
    ("0 12 1 * ++MON", "day-of-week", "+MON", 10, "+ stands only", ""),
    ("0 12 1 * MON+", "day-of-week", "MON+", 9, "+ stands only", ""),
    ("0 12 1 * +", "day-of-week", "+", 9, "empty entry", ""),
    ("? 12 * * *", "minute", "?", 0, "? stands only", "*"),
    ("0 ?/2 * * *", "hour", "?/2", 2, "? stands only", ""),
    ("0 0 * ? *", "month", "?", 6, "? stands only", "*"),
    ("0 0 0 1 1 * ?", "year", "?", 12, "? stands only", "*"),
    ("0 0 5? * *", "day-of-month", "5?", 4, "? stands only", ""),
    # H
    ("H * * * *", "minute", "H", 0, "needs a seed", ""),
    ("0 H(5) * * *", "hour", "H(5)", 2, "H is written", ""),
    ("0 0 0 1 1 * H", "year", "H", 12, "H is written", ""),
]


@pytest.mark.parametrize(("expression", "field", "text", "position", "rule", "suggestion"), REJECTED)
def test_what_breaks_a_rule_is_rejected_with_its_place_and_the_rule(
    expression: str, field: str, text: str, position: int, rule: str, suggestion: str
) -> None:
    with pytest.raises(CronError) as caught:
        parse(expression)
    error = caught.value
    assert (error.field, error.text, error.position) == (field, text, position)
    assert rule in error.rule
    assert error.suggestion == suggestion
    assert isinstance(error, ValueError)
    assert error.field in str(error)
    assert expression[error.position :].startswith(error.text)


def test_a_suggestion_is_itself_accepted() -> None:
    for expression, _, text, position, _, suggestion in REJECTED:
        if suggestion:
            fixed = expression[:position] + suggestion + expression[position + len(text) :]
            assert parse(fixed), fixed


@pytest.mark.parametrize(
    "expression", ["H(0-99) * * * *", "H(9-5) * * * *", "H/0 * * * *", "H() * * * *", "HH * * * *", "H-5 * * * *"]
)
def test_a_malformed_h_is_rejected_even_with_a_seed(expression: str) -> None:
    with pytest.raises(CronError):
        parse(expression, seed=1)


WHOLE = [
    ("", "empty"),
    (" \t ", "empty"),
    ("*", "5 fields, 6 \\(seconds first\\) or 7 \\(year last\\), this has 1"),
    ("* * * *", "this has 4"),
    ("* * * * * * * *", "this has 8"),
    ("0 0 * * *\n", "spaces and tabs"),
    ("0 0 * * *\u00a0", "spaces and tabs"),
    ("0\v0 * * *", "spaces and tabs"),
    ("0 0 * * *;", "no meaning"),
    ("0 0 * * ١", "no meaning"),
    ("0 0 * * ²", "no meaning"),
    ("0.5 * * * *", "no meaning"),
    ("\0 * * * *", "no meaning"),
    ("* " * 600, "at most 1024"),
    ("@Daily", "lower case.*Try '@daily'"),
    ("@DAILY", "lower case"),
    ("@dayly", "Try '@daily'"),
    ("@", "nicknames are"),
    ("@qqqqqq", "nicknames are"),
    ("@daily 0 0 * * *", "stands alone.*Try '@daily'"),
    ("@reboot now", "stands alone"),
    ("@Reboot", "Try '@reboot'"),
    ("@ daily", "nicknames are"),
    ("0 @daily", "this has 2"),
]


@pytest.mark.parametrize(("expression", "message"), WHOLE)
def test_what_is_no_expression_at_all_is_rejected(expression: str, message: str) -> None:
    with pytest.raises(CronError, match=message):
        parse(expression)


@pytest.mark.parametrize("value", [None, 5, 5.0, b"* * * * *", ["* * * * *"], {}, object()])
def test_only_text_is_an_expression(value: object) -> None:
    with pytest.raises(CronError, match="is text, not"):
        parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("expression", ["0 0 ?/2 * *", "0 0 ?,5 * *", "0 0 * * ?/2", "0 0 ? * +?"])
def test_a_question_mark_is_an_alias_of_the_star_in_day_fields(expression: str) -> None:
    assert parse(expression) == parse(expression.replace("?", "*"))


# The lenient dialect

VIXIE = [
    ("5/20 * * * *", "5-59/20 * * * *", "minute 5/20"),
    ("0 0 * * FRI-MON", "0 0 * * FRI,SAT,SUN,MON", "FRI-MON wraps around"),
    ("0 0 * * 5-1", "0 0 * * FRI,SAT,SUN,MON", "wraps around"),
    ("0 22-2 * * *", "0 22-23,0-2 * * *", "hour 22-2 wraps around"),
    ("0 22-4/2 * * *", "0 22,0,2,4 * * *", "wraps around"),
    ("0 0 * NOV-FEB *", "0 0 * NOV,DEC,JAN,FEB *", "wraps around"),
    ("0 0 * * FRI-MON/2", "0 0 * * 5,0", "wraps around"),
    ("0 0 * * 1/2", "0 0 * * 1-7/2", "runs to the end"),
    ("0 0 */2 * 1", "0 0 */2 * +1", "both day fields must match"),
    ("0 0 13 * */2", "0 0 13 * +*/2", "both day fields must match"),
    ("0 5/10 0 * * *", "0 5-59/10 0 * * *", "minute 5/10"),
    ("0 0 0 1 1 * 2030/5", "0 0 0 1 1 * 2030-2199/5", "year 2030/5"),
    ("@Daily", "@daily", "@Daily is @daily"),
    ("@every_minute", "* * * * *", "@every_minute"),
    ("0 0 1 * +FRI-MON", "0 0 1 * +FRI,SAT,SUN,MON", "wraps around"),
]


@pytest.mark.parametrize(("lenient", "strict", "note"), VIXIE)
def test_the_vixie_dialect_is_rewritten_with_a_note(lenient: str, strict: str, note: str) -> None:
    schedule = parse(lenient, dialect="vixie")
    assert schedule == parse(strict)
    assert any(note in text for text in schedule.notes)
    assert schedule.source == lenient
    if lenient not in ("0 0 */2 * 1", "0 0 13 * */2"):  # strict too, with another meaning
        with pytest.raises(CronError):
            parse(lenient)


@pytest.mark.parametrize(
    "expression",
    ["0 0 * * *", "@daily", "0 0 * * FRI-SUN", "0 0 */2 * *", "0 0 1 * +*/2", "0 0 *,1 * MON", "H 1 * * 1"],
)
def test_what_is_strict_already_is_left_alone_by_the_vixie_dialect(expression: str) -> None:
    schedule = parse(expression, dialect="vixie", seed=1)
    assert schedule == parse(expression, seed=1)
    assert schedule.notes == ()


@pytest.mark.parametrize(
    "expression",
    ["60/5 * * * *", "5/0 * * * *", "5/x * * * *", "a-b * * * *", "1-99 * * * *", "@Dayly", "* *", "1,/2 * * * *"],
)
def test_the_vixie_dialect_does_not_accept_nonsense(expression: str) -> None:
    with pytest.raises(CronError):
        parse(expression, dialect="vixie")


# Fuzz

WORDS = ["MON", "fri", "JAN", "60", "2025", "*/5", "1-5", "FRI#L", "15W"]
PIECES = st.sampled_from([*"0123456789*,-/#?+LWH() \t@", *WORDS])


@settings(max_examples=400)
@given(st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=60)), st.sampled_from(["ocps", "vixie"]))
def test_any_text_is_parsed_or_rejected_quickly_and_nothing_else(text: str, dialect: str) -> None:
    began = time.perf_counter()
    outcome: Cron | CronError
    try:
        outcome = parse(text, dialect=dialect, seed="fuzz")  # type: ignore[arg-type]
    except CronError as error:
        outcome = error
    assert time.perf_counter() - began < PATIENCE
    if isinstance(outcome, CronError):
        assert outcome.rule
        if dialect == "ocps":
            assert text[outcome.position :].startswith(outcome.text) or outcome.text == text.strip(" \t")
        return
    assert outcome.describe()
    assert parse(str(outcome), seed="fuzz") == outcome
    outcome.next_epoch(1_800_000_000, "UTC")


token = st.one_of(
    st.just("*"),
    st.integers(0, 59).map(str),
    st.tuples(st.integers(0, 59), st.integers(0, 59), st.integers(0, 9)).map(
        lambda given: f"{given[0]}-{given[1]}" + (f"/{given[2]}" if given[2] else "")
    ),
    st.integers(0, 70).map(lambda step: f"*/{step}"),
)


@settings(max_examples=300)
@given(st.lists(st.lists(token, min_size=1, max_size=4).map(",".join), min_size=5, max_size=7).map(" ".join))
def test_an_accepted_expression_equals_its_canonical_text(text: str) -> None:
    try:
        schedule = parse(text)
    except CronError:
        return
    again = parse(str(schedule))
    assert again == schedule
    assert str(again) == str(schedule)
    assert again.is_interval_like == schedule.is_interval_like
    fields, other = schedule.fields, again.fields
    assert fields is not None
    assert other is not None
    assert fields[:7] == other[:7]
    assert len(str(schedule)) <= MAX_LENGTH
