"""Whatever a step raises becomes a value that can be stored and decided about."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

from execution import failures
from execution.failures import ends_process, failure_of, message_of, shown, storable, traceback_of
from execution.steps.context import GiveUp, Snooze
from execution.steps.http import AddressRefused, HttpError
from execution.steps.task_request import RetryAsked


class Shop:
    class Closed(LookupError):
        pass


HERE = f"{__name__}.Shop.Closed"


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (ValueError("x"), ("ValueError", "Exception", "BaseException")),
        (Shop.Closed(), (HERE, "LookupError", "Exception", "BaseException")),
        (KeyboardInterrupt(), ("KeyboardInterrupt", "BaseException")),
        (SystemExit(3), ("SystemExit", "BaseException")),
        (TimeoutError(), ("timeout", "TimeoutError", "OSError", "Exception", "BaseException")),
        (ConnectionResetError(), ("connection", "ConnectionResetError", "ConnectionError")),
        (httpx.ReadTimeout("slow"), ("connection", "timeout", "httpx.ReadTimeout", "httpx.TimeoutException")),
        (httpx.ConnectError("no"), ("connection", "httpx.ConnectError", "httpx.NetworkError")),
        (SoftTimeLimitExceeded(), ("timeout", "billiard.exceptions.SoftTimeLimitExceeded", "Exception")),
        (HttpError(503, "busy", retry_after=7.0), ("503", "5xx", "execution.steps.http.HttpError")),
        (HttpError(429, "slow down", retry_after=None), ("429", "4xx", "execution.steps.http.HttpError")),
    ],
)
def test_an_error_answers_to_its_classes_and_to_what_it_stands_for(
    error: BaseException, names: tuple[str, ...]
) -> None:
    assert failure_of(error).names[: len(names)] == names


@pytest.mark.parametrize(
    ("error", "asked", "retry_after", "attempts"),
    [
        (ValueError("x"), None, None, (None, None)),
        (Snooze(30, "gate closed"), "snooze", 30.0, (None, None)),
        (Snooze("soon"), "snooze", 0.0, (None, None)),  # type: ignore[arg-type]
        (RetryAsked(delay=5, max_attempts=4), "retry", 5, (4, None)),
        (RetryAsked(delay=5, cause=ValueError("x"), task_attempts=2), "retry", 5, (None, 2)),
        (Ignore("nothing to do"), "ignore", None, (None, None)),
        (Reject("not me", requeue=False), "fail", None, (None, None)),
        (Reject("later", requeue=True), "snooze", 0.0, (None, None)),
        (GiveUp("never"), "fail", None, (None, None)),
        (AddressRefused("loopback"), "fail", None, (None, None)),
        (HttpError(503, "", retry_after=9.0), None, 9.0, (None, None)),
    ],
)
def test_what_the_raiser_asked_for(
    error: BaseException, asked: str | None, retry_after: float | None, attempts: tuple[int | None, int | None]
) -> None:
    found = failure_of(error)
    assert (found.asked, found.retry_after) == (asked, retry_after)
    assert (found.max_attempts, found.task_attempts) == attempts


def test_people_see_the_error_behind_a_retry() -> None:
    cause = Shop.Closed("until nine")
    asked = RetryAsked(delay=1, cause=cause)
    assert shown(asked) is cause
    assert (failure_of(asked).names[0], failure_of(asked).message) == (HERE, "until nine")
    plain = RetryAsked(delay=1)
    assert shown(plain) is plain
    assert failure_of(plain).message == "retry asked for in 1 s"


class Hostile(Exception):
    """Everything that an error class can do wrong."""

    def __init__(self, how: BaseException | Any) -> None:
        self.how = how
        self.cause = "not an exception"
        self.lock = threading.Lock()  # cannot be pickled

    def __str__(self) -> str:
        if isinstance(self.how, BaseException):
            raise self.how
        return self.how  # type: ignore[no-any-return]

    __repr__ = __str__


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        (ValueError(), "ValueError"),
        (SystemExit(), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (RecursionError(), "RecursionError"),
        (17, "TypeError"),
        (None, "TypeError"),
    ],
)
def test_an_error_whose_text_cannot_be_had_is_described_all_the_same(how: Any, kind: str) -> None:
    error = Hostile(how)
    assert message_of(error) == f"<its __str__ raised {kind}>"
    assert "Hostile" in traceback_of(error) or kind in traceback_of(error)
    assert failure_of(error).names[0] == f"{__name__}.Hostile"
    assert shown(error) is error


def test_a_class_with_an_unstorable_name_has_a_storable_one() -> None:
    named = type("Odd", (Exception,), {"__module__": "a\x00b" + "c" * 1_000})
    name = failure_of(named("x")).names[0]
    assert name.startswith("a\\x00bccc")
    assert len(name) <= failures.MAX_NAME


class Unformattable(Exception):
    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise SystemExit


def test_a_traceback_that_cannot_be_formatted_is_said_to_be() -> None:
    assert traceback_of(Unformattable()) == "<its traceback could not be formatted: SystemExit>"


def test_a_traceback_keeps_its_end() -> None:
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError("z" * 30_000 + "the end")

    with pytest.raises(ValueError, match="the end") as caught:
        deep(200)
    text = traceback_of(caught.value)
    assert len(text) <= failures.MAX_TEXT + 1
    assert text.startswith("…")
    assert text.rstrip().endswith("the end")


@given(st.text(st.characters(codec=None), max_size=200))
def test_any_text_can_be_stored(text: str) -> None:
    kept = storable(text)
    assert "\x00" not in kept
    kept.encode("utf-8")


def test_a_text_of_fifty_megabytes_is_cut() -> None:
    assert len(message_of(ValueError("x" * 50_000_000))) == failures.MAX_TEXT + 1


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (SystemExit(-(256 - 15)), True),
        (SystemExit(-(256 - 3)), True),
        (SystemExit(3), False),
        (SystemExit(-1), False),
        (SystemExit("message"), False),
        (SystemExit(), False),
        (ValueError("x"), False),
        (None, False),
    ],
)
def test_a_signal_that_ends_the_process_is_told_from_a_step_that_exits(error: BaseException | None, ends: bool) -> None:
    assert ends_process(error) is ends
