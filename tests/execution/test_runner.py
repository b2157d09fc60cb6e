"""A worker's run of one step, in this process: whatever the step does ends as one row change and one report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import current_app
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from django.db import DataError, OperationalError, connection, connections, transaction

from execution import engine, lifecycle, queue, runner, step_notes, tasks
from execution.models import Attempt, DeadLetter, Execution, StepOutput, StepRun
from execution.runner import Outcome, OutputNotKept, Report, check_output
from execution.step_tasks import step_task
from execution.steps.context import GiveUp, Snooze, current
from tests.execution import flow
from tests.execution.test_failures import Hostile
from tests.patience import PATIENCE

pytestmark = pytest.mark.django_db

Body = Callable[..., Any]


class Flaky(Exception):
    pass


@pytest.fixture
def perform() -> Iterator[Callable[..., Report]]:
    """Run a function as the only step of an execution: ``perform(function, with_={…}, **step options)``."""
    names: list[str] = []

    def run(body: Body, *, with_: Any = None, task: dict[str, Any] | None = None, **step: Any) -> Report:
        name = f"tests.runner_{len(names)}"
        names.append(name)
        body.__name__ = "body"  # Celery evaluates the name, and a lambda's is no name
        step_task(name=name, **(task or {}))(body)
        execution = flow.begin({"s": {"task": name, "with": with_ or {}, **step}})
        return again(execution)

    yield run
    for name in names:
        current_app.tasks.pop(name, None)


@pytest.fixture(autouse=True)
def one_transaction(settings: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Row-level tests live in one open transaction: nobody may drop its connection."""
    if "own_connection" not in request.fixturenames:
        settings.WORKFLOW_LEASE_SECONDS = 1.0
        monkeypatch.setattr(runner, "close_old_connections", lambda: None)
        monkeypatch.setattr(engine, "close", lambda: None)


def again(execution: Execution | None = None) -> Report:
    """Run the step of an execution (of the only one) once more, when it is due."""
    run = StepRun.objects.get(execution=execution) if execution else StepRun.objects.get()
    StepRun.objects.filter(pk=run.pk).update(available_at=engine.now())
    return runner.run(run.pk, worker="w@h/1")


def the_run() -> StepRun:
    return StepRun.objects.get()


def letter() -> DeadLetter:
    return DeadLetter.objects.get()


def attempts() -> list[str]:
    return list(Attempt.objects.order_by("number").values_list("state", flat=True))


# ── Outcomes ──


def test_a_step_that_returns_has_succeeded_and_its_output_is_kept(perform: Any) -> None:
    report = perform(lambda day, n: {"day": day, "n": n + 1}, with_={"day": "Mo", "n": 1})
    assert report == Report(Outcome.SUCCEEDED)
    assert StepOutput.objects.get().data == {"day": "Mo", "n": 2}
    assert (the_run().state, attempts()) == ("succeeded", ["succeeded"])
    assert Execution.objects.get().state == "succeeded"


def test_a_step_that_returns_nothing_keeps_no_output(perform: Any) -> None:
    assert perform(lambda: None).outcome is Outcome.SUCCEEDED
    assert not StepOutput.objects.exists()


def test_expressions_see_input_earlier_steps_and_the_execution(perform: Any) -> None:
    seen: list[Any] = []

    @step_task(name="tests.runner_see")
    def see(**given: Any) -> None:
        seen.append(given)

    at = datetime(2026, 1, 1, tzinfo=UTC)
    execution = flow.begin(
        {
            "a": flow.http(),
            "s": {
                "task": "tests.runner_see",
                "needs": ["a"],
                "with": {
                    "n": "${{ input.n }}",
                    "x": "${{ steps.a.output.x }}",
                    "of": "${{ execution }}",
                    "all": "${{ steps }}",
                },
            },
        },
        input={"n": 5},
        options={"scheduled_for": at},
    )
    flow.succeed(execution, "a", {"x": [1]})
    assert runner.run(flow.step(execution, "s").pk, worker="w@h/1").outcome is Outcome.SUCCEEDED
    (given,) = seen
    assert (given["n"], given["x"]) == (5, [1])
    assert given["all"] == {"a": {"state": "succeeded", "output": {"x": [1]}}}
    assert given["of"] == {
        "id": str(execution.pk),
        "workflow": execution.workflow.name,
        "source": {"kind": "api", "id": ""},
        "scheduled_for": at.isoformat(),
    }
    current_app.tasks.pop("tests.runner_see")


def test_items_see_their_item_and_have_their_own_key() -> None:
    seen: list[Any] = []

    @step_task(name="tests.runner_item")
    def body(item: Any) -> None:
        context = current()
        assert context is not None
        seen.append((item, context.idempotency_key.partition(":")[2]))

    execution = flow.begin(
        {"s": {"task": "tests.runner_item", "for_each": ["x", "y"], "with": {"item": "${{ item }}"}}}
    )
    for index in range(2):
        runner.run(flow.step(execution, "s", index).pk, worker="w@h/1")
    assert seen == [("x", "s:0"), ("y", "s:1")]
    assert flow.fresh(execution).state == "succeeded"
    current_app.tasks.pop("tests.runner_item")


def test_an_expression_that_cannot_be_evaluated_fails_the_step(perform: Any) -> None:
    report = perform(lambda n: n, with_={"n": "${{ abs(input) }}"})
    assert report.outcome is Outcome.FAILED
    assert letter().error_type == "ExpressionError"


def test_a_failure_follows_the_policy_and_then_becomes_a_dead_letter(perform: Any) -> None:
    def body(n: int) -> None:
        raise Flaky(f"no {n}")

    began = engine.now()
    report = perform(body, with_={"n": 1}, retry={"max_attempts": 2, "backoff": 100, "jitter": False})
    assert (report.outcome, report.error) == (Outcome.RETRY, "Flaky: no 1")
    assert report.at is not None
    assert report.at - began >= timedelta(seconds=100)
    run = the_run()
    assert (run.state, run.failures, run.available_at) == ("retryable", 1, report.at)
    attempt = Attempt.objects.get()
    assert (attempt.state, attempt.error_type, attempt.error) == ("retryable", "Flaky", "no 1")
    assert "raise Flaky" in attempt.traceback
    assert attempt.decision["decision"] == "retry"
    assert runner.run(run.pk, worker="w@h/1").outcome is Outcome.NOT_OURS

    report = again()
    assert (report.outcome, report.message) == (Outcome.FAILED, "no 1")
    assert attempts() == ["retryable", "failed"]
    found = letter()
    assert (found.reason, found.error, found.step_input, found.attempts) == ("failed", "no 1", {"n": 1}, 2)
    assert Execution.objects.get().state == "failed"


def test_a_tasks_own_autoretry_is_its_policy_unless_the_step_states_one(perform: Any) -> None:
    def body() -> None:
        raise Flaky

    own = {"autoretry_for": (Flaky,), "retry_backoff": 50, "retry_jitter": False, "max_retries": 1}
    assert perform(body, task=own).outcome is Outcome.RETRY
    assert Attempt.objects.get().decision["policy"]["origin"] == "task"
    assert again().outcome is Outcome.FAILED
    Execution.objects.all().delete()
    assert perform(body, task=own, retry={"max_attempts": 1}).outcome is Outcome.FAILED


def test_self_retry_is_a_row_with_its_time_and_the_tasks_limit(perform: Any) -> None:
    def body(self: Any) -> None:
        try:
            raise Flaky("not yet")
        except Flaky as error:
            raise self.retry(exc=error, countdown=300) from None

    began = engine.now()
    report = perform(body, task={"bind": True, "max_retries": 1})
    assert (report.outcome, report.error) == (Outcome.RETRY, "Flaky: not yet")
    assert report.at is not None
    assert 299 < (report.at - began).total_seconds() < 310
    assert again().outcome is Outcome.FAILED
    assert letter().error_type == "Flaky"


@pytest.mark.parametrize(
    ("asking", "seconds"),
    [
        ({"countdown": 0}, 0),
        ({"countdown": float("inf")}, 31_536_000),
        ({"eta": datetime(2000, 1, 1, tzinfo=UTC)}, 0),
        ({"eta": datetime(2000, 1, 1)}, 0),  # noqa: DTZ001 - Celery takes naive ones, in UTC
        ({}, 180),
    ],
)
def test_self_retry_at_any_time(perform: Any, asking: dict[str, Any], seconds: float) -> None:
    began = engine.now()
    report = perform(lambda self: self.retry(**asking), task={"bind": True})
    assert report.outcome is Outcome.RETRY
    assert report.at is not None
    assert (report.at - began).total_seconds() == pytest.approx(seconds, abs=10)


def test_self_retry_inside_an_except_block_is_about_that_error(perform: Any) -> None:
    def body(self: Any) -> None:
        try:
            raise Flaky("the reason")
        except Flaky:
            self.retry(countdown=1)

    assert perform(body, task={"bind": True}).error == "Flaky: the reason"


def test_self_retry_limits(perform: Any) -> None:
    def body(self: Any) -> None:
        raise self.retry(countdown=0, max_retries=2, throw=False)

    outcomes = [perform(body, task={"bind": True, "max_retries": 9}).outcome, again().outcome, again().outcome]
    assert outcomes == [Outcome.RETRY, Outcome.RETRY, Outcome.FAILED]


def test_the_definition_may_allow_self_retry_more_often_than_the_task(perform: Any) -> None:
    body = lambda self: self.retry(countdown=0)  # noqa: E731
    report = perform(body, task={"bind": True, "max_retries": 0}, retry={"max_attempts": 3})
    assert [report.outcome, again().outcome, again().outcome] == [Outcome.RETRY, Outcome.RETRY, Outcome.FAILED]


def test_a_retry_that_the_task_makes_itself_counts_as_asked(perform: Any) -> None:
    def body() -> None:
        raise Retry(exc=Flaky("by hand"), when=60)

    assert perform(body).error == "Flaky: by hand"


def test_outside_a_step_self_retry_is_celerys_own(perform: Any) -> None:
    perform(lambda self: self.retry(countdown=0), task={"bind": True})
    task = current_app.tasks["tests.runner_0"]
    with pytest.raises(Flaky):
        task.retry(exc=Flaky("called directly"))


def test_a_task_sees_its_request_as_in_a_worker(perform: Any) -> None:
    def body(self: Any) -> Any:
        if self.request.retries == 0:
            raise Flaky
        return [self.request.id, self.request.retries, self.request.delivery_info["routing_key"]]

    perform(body, task={"bind": True}, retry={"max_attempts": 2, "backoff": 0})
    again()
    assert StepOutput.objects.get().data == [the_run().idempotency_key, 1, "default"]


@pytest.mark.parametrize(
    ("error", "outcome", "state", "attempt", "letters"),
    [
        (Snooze(3600, "closed"), Outcome.SNOOZED, "queued", "snoozed", 0),
        (Snooze("x"), Outcome.SNOOZED, "queued", "snoozed", 0),  # type: ignore[arg-type]
        (Reject("later", requeue=True), Outcome.SNOOZED, "queued", "snoozed", 0),
        (Ignore("nothing to do"), Outcome.CANCELLED, "skipped", "cancelled", 0),
        (Reject("no", requeue=False), Outcome.FAILED, "failed", "failed", 1),
        (GiveUp("never"), Outcome.FAILED, "failed", "failed", 1),
        (SystemExit(1), Outcome.FAILED, "failed", "failed", 1),
        (MemoryError(), Outcome.FAILED, "failed", "failed", 1),
        (KeyboardInterrupt(), Outcome.FAILED, "failed", "failed", 1),
        (BaseException("bare"), Outcome.FAILED, "failed", "failed", 1),
        (Hostile(SystemExit()), Outcome.FAILED, "failed", "failed", 1),
        (Hostile(None), Outcome.FAILED, "failed", "failed", 1),
        (ValueError("nul \x00 half \ud800"), Outcome.FAILED, "failed", "failed", 1),
        (ValueError("x" * 5_000_000), Outcome.FAILED, "failed", "failed", 1),
        (ExceptionGroup("several", [ValueError("a"), Flaky("b")]), Outcome.FAILED, "failed", "failed", 1),
    ],
)
def test_whatever_a_step_raises(
    perform: Any, error: BaseException, outcome: Outcome, state: str, attempt: str, letters: int
) -> None:
    def body() -> None:
        raise error

    report = perform(body)
    assert (report.outcome, the_run().state, attempts()) == (outcome, state, [attempt])
    assert DeadLetter.objects.count() == letters
    assert (outcome is not Outcome.SNOOZED) or the_run().failures == 0
    assert type(error).__name__ in report.error


def test_giving_up_goes_before_any_policy(perform: Any) -> None:
    def body() -> None:
        raise GiveUp("never")

    assert perform(body, retry={"max_attempts": 9}).outcome is Outcome.FAILED


def test_a_handled_failure_leaves_no_letter(perform: Any) -> None:
    def body() -> None:
        raise Flaky

    assert perform(body, on_error="continue").outcome is Outcome.FAILED
    assert not DeadLetter.objects.exists()
    assert Execution.objects.get().state == "succeeded"


def test_the_soft_time_limit_is_a_timeout(perform: Any) -> None:
    def body() -> None:
        raise SoftTimeLimitExceeded

    assert perform(body, retry={"max_attempts": 2, "retry_on": ["timeout"]}).outcome is Outcome.RETRY
    assert again().outcome is Outcome.FAILED
    assert letter().reason == "timed_out"


@pytest.mark.parametrize(
    ("task", "with_", "problem"),
    [
        ("tests.nobody_has_it", {}, "is not a task that this worker may run"),
        ("execution.run_step", {}, "is not a task that this worker may run"),
        ("drill.effect", {"wrong": 1}, "cannot be called like this"),
    ],
)
def test_a_task_that_cannot_be_called_is_given_up(task: str, with_: Any, problem: str) -> None:
    execution = flow.begin({"s": {"task": task, "with": with_, "retry": {"max_attempts": 5}}})
    assert again(execution).outcome is Outcome.FAILED
    assert problem in letter().error


# ── Outputs ──


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "output",
    [1, 0, "", [], {}, False, 1.5, "é", {"k": None}, "\\u0000", '\\\\u0000"', "\\", {"a": "\\\\\\u0000"}, nested(100),
     {1: "an int key"}],
)  # fmt: skip
def test_json_outputs_are_kept_as_they_are(perform: Any, output: Any) -> None:
    assert perform(lambda: output).outcome is Outcome.SUCCEEDED
    kept = StepOutput.objects.get().data
    assert kept == ({"1": "an int key"} if output == {1: "an int key"} else output)


@pytest.mark.parametrize(
    ("output", "rule"),
    [
        (object(), "is not JSON"),
        ({1, 2}, "is not JSON"),
        (b"bytes", "is not JSON"),
        (datetime(2026, 1, 1, tzinfo=UTC), "is not JSON"),
        ({(1, 2): 3}, "is not JSON"),
        (float("nan"), "is not JSON"),
        (float("inf"), "is not JSON"),
        (10**5_000, "is not JSON"),
        (nested(200_000), "is not JSON"),
        ("a\x00b", "NUL character"),
        ({"\x00": 1}, "NUL character"),
        ("\\\x00", "NUL character"),
        ("half \ud800", "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        ("x" * 2_000_000, "bytes of JSON; at most"),
    ],
    ids=lambda value: str(type(value).__name__) if not isinstance(value, str) or len(value) > 30 else None,
)
def test_outputs_that_cannot_be_kept_fail_the_step_with_the_rule(perform: Any, output: Any, rule: str) -> None:
    assert perform(lambda: output).outcome is Outcome.FAILED
    assert letter().error_type == "OutputNotKept"
    assert rule in letter().error


def test_the_cap_counts_bytes(settings: Any) -> None:
    settings.WORKFLOW_MAX_PAYLOAD_BYTES = 10
    check_output("éééé")
    with pytest.raises(OutputNotKept, match="12 bytes of JSON; at most 10"):
        check_output("ééééé")


def test_what_a_task_does_to_its_arguments_reaches_neither_the_record_nor_the_next_run(perform: Any) -> None:
    def body(data: dict[str, Any]) -> None:
        seen.append(dict(data))
        data["mess"] = object()
        raise Flaky

    seen: list[Any] = []
    perform(body, with_={"data": '${{ `{"n": 1}` }}'}, retry={"max_attempts": 2, "backoff": 0})
    assert again().outcome is Outcome.FAILED
    assert seen == [{"n": 1}, {"n": 1}]
    assert letter().step_input == {"data": {"n": 1}}


# ── The lease and the world around ──


def test_a_hint_for_what_is_gone_is_not_ours() -> None:
    execution = flow.begin({"s": flow.http()})
    run = flow.step(execution, "s")
    execution.delete()
    assert runner.run(run.pk, worker="w@h/1") == Report(Outcome.NOT_OURS)


def test_a_step_that_was_cancelled_meanwhile_commits_nothing(perform: Any) -> None:
    def body() -> dict[str, int]:
        lifecycle.cancel(Execution.objects.get().pk, actor="tester")
        return {"n": 1}

    assert perform(body).outcome is Outcome.LOST
    assert (the_run().state, attempts()) == ("cancelled", ["cancelled"])
    assert not StepOutput.objects.exists()


@pytest.mark.parametrize("error", [Flaky("x"), Snooze(1), GiveUp("x")])
def test_a_failure_of_a_cancelled_step_is_not_written(perform: Any, error: Exception) -> None:
    def body() -> None:
        lifecycle.cancel(Execution.objects.get().pk, actor="tester")
        raise error

    assert perform(body, retry={"max_attempts": 2}).outcome is Outcome.LOST
    assert the_run().state == "cancelled"
    assert not DeadLetter.objects.exists()


def test_a_step_that_learns_that_it_lost_its_lease_stops_quietly(perform: Any) -> None:
    def body() -> None:
        context = current()
        assert context is not None
        context.lost = True
        context.progress(1)

    assert perform(body).outcome is Outcome.LOST
    assert the_run().state == "running"


def test_progress_is_kept_with_the_attempt(perform: Any) -> None:
    def body() -> None:
        context = current()
        assert context is not None
        context.progress(3, 10, "loading " + "x" * 1_000)

    perform(body)
    assert current() is None
    progress = Attempt.objects.get().progress
    assert (progress["done"], progress["total"], len(progress["note"])) == (3, 10, 500)


def test_progress_does_not_disturb_a_step_while_postgres_is_away(perform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("gone")

    def body() -> int:
        context = current()
        assert context is not None
        with monkeypatch.context() as patch:
            patch.setattr(step_notes, "note_progress", away)
            context.progress(1)
        return 1

    assert perform(body).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("away", [False, True])
def test_a_step_interrupted_by_its_workers_shutdown_is_given_back(
    perform: Any, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise OperationalError("gone")

    def body() -> None:
        if away:
            monkeypatch.setattr(queue, "reschedule", gone)
        raise SystemExit(-(256 - 15))  # as billiard's handler of SIGTERM raises it

    with pytest.raises(SystemExit):
        perform(body)
    run = the_run()
    assert (run.state, run.failures, run.worker_deaths) == ("running" if away else "queued", 0, 0)
    assert attempts() == ["running" if away else "released"]


# ── Postgres away: real connections ──

real = pytest.mark.django_db(transaction=True, databases=["default", "engine"])


@pytest.fixture
def own_connection(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WORKFLOW_ENGINE_DATABASE = "engine"
    monkeypatch.setattr(runner, "COMMIT_RETRY_SECONDS", 0.02)


def cut_engine_connection() -> None:
    """End the engine's session from another connection, as a restart of Postgres does."""
    pid = connections["engine"].connection.info.backend_pid
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 2000)", [pid])


@real
@pytest.mark.usefixtures("own_connection")
@pytest.mark.parametrize("fails", [False, True])
def test_an_outcome_is_written_again_when_the_connection_broke(perform: Any, fails: bool) -> None:
    def body() -> int:
        cut_engine_connection()
        if fails:
            raise Flaky
        return 7

    assert perform(body).outcome is (Outcome.FAILED if fails else Outcome.SUCCEEDED)
    assert attempts() == ["failed" if fails else "succeeded"]


@real
@pytest.mark.usefixtures("own_connection")
@pytest.mark.parametrize("fails", [False, True])
def test_an_ambiguous_commit_is_settled_by_reading_it(
    perform: Any, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement went through, and the connection broke before its answer came back."""
    name = "reschedule" if fails else "finish"
    written = getattr(queue, name)
    calls: list[Any] = []

    def and_then_cut(*args: Any, **kwargs: Any) -> Any:
        calls.append(written(*args, **kwargs))
        if len(calls) == 1:
            cut_engine_connection()
            raise OperationalError("server closed the connection unexpectedly")
        return calls[-1]

    def body() -> int:
        monkeypatch.setattr(queue, name, and_then_cut)
        if fails:
            raise Flaky
        return 7

    report = perform(body, retry={"max_attempts": 2, "backoff": 60})
    assert report.outcome is (Outcome.RETRY if fails else Outcome.SUCCEEDED)
    assert len(calls) == 2
    assert not calls[1]
    assert the_run().state == ("retryable" if fails else "succeeded")
    assert len(attempts()) == 1


@real
@pytest.mark.usefixtures("own_connection")
def test_an_outcome_is_given_up_when_postgres_stays_away_for_the_whole_lease(
    perform: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("gone")

    def body() -> None:
        settings.WORKFLOW_LEASE_SECONDS = 0.1
        monkeypatch.setattr(queue, "finish", away)

    began = time.monotonic()
    assert perform(body).outcome is Outcome.LOST
    assert time.monotonic() - began < PATIENCE
    assert the_run().state == "running"


@real
@pytest.mark.usefixtures("own_connection")
def test_an_output_that_postgres_itself_refuses_fails_the_step(perform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "check_output", lambda output: None)
    assert perform(lambda: "a\x00b").outcome is Outcome.FAILED
    assert letter().error_type == "OutputNotKept"
    assert "Postgres cannot keep" in letter().error


@real
@pytest.mark.usefixtures("own_connection")
def test_a_refusal_that_is_not_about_the_output_is_left_to_the_rescuer(
    perform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "message_of", lambda error: "a\x00b")
    monkeypatch.setattr("execution.failures.message_of", lambda error: "a\x00b")

    def body() -> None:
        raise Flaky

    with pytest.raises((DataError, ValueError)):
        perform(body)
    assert the_run().state == "running"


@real
@pytest.mark.usefixtures("own_connection")
def test_a_time_limit_that_strikes_while_the_outcome_is_written_comes_too_late(
    perform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = queue.finish
    calls: list[int] = []

    def struck(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise SoftTimeLimitExceeded
        return written(*args, **kwargs)

    monkeypatch.setattr(queue, "finish", struck)
    assert perform(lambda: 1).outcome is Outcome.SUCCEEDED


@real
@pytest.mark.usefixtures("own_connection")
def test_a_transaction_that_a_step_left_open_does_not_reach_the_next_one(perform: Any) -> None:
    def body() -> None:
        transaction.atomic().__enter__()
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE left_open (n int)")

    assert perform(body).outcome is Outcome.SUCCEEDED
    assert not connections["default"].in_atomic_block
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT to_regclass('left_open')")
        assert cursor.fetchone() == (None,)


@real
@pytest.mark.usefixtures("own_connection")
def test_a_step_whose_lease_was_taken_is_interrupted_and_commits_nothing(perform: Any, settings: Any) -> None:
    settings.WORKFLOW_HEARTBEAT_SECONDS = 0.05

    def body() -> None:
        run = the_run()
        threading.Thread(
            target=lambda: (lifecycle.cancel(run.execution_id, actor="x"), connections.close_all())
        ).start()
        for _ in range(500):
            time.sleep(0.01)

    assert perform(body).outcome is Outcome.LOST
    assert the_run().state == "cancelled"


# ── The Celery door ──


def door(execution: Execution) -> None:
    tasks.run_step(str(flow.step(execution, "s").pk), 6)


@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (None, None, ""),
        (Flaky("no"), tasks.StepFailed, "Flaky: no"),
        (Hostile(SystemExit()), tasks.StepFailed, "Hostile: <its __str__ raised SystemExit>"),
        (Snooze(5, "closed"), Retry, "closed"),
        (Ignore("x"), Ignore, ""),
    ],
)
def test_celery_is_told_what_became_of_the_step(error: Any, raised: type[Exception] | None, says: str) -> None:
    @step_task(name="tests.door")
    def body() -> None:
        if error is not None:
            raise error

    execution = flow.begin({"s": {"task": "tests.door"}})
    try:
        if raised is None:
            door(execution)
        else:
            with pytest.raises(raised) as told:
                door(execution)
            assert says in str(told.value)
    finally:
        current_app.tasks.pop("tests.door")
    with pytest.raises(Ignore):
        door(execution)  # a second hint finds nothing to do
    assert Attempt.objects.get().worker.startswith("local/")


def test_a_retry_tells_celery_when_and_why() -> None:
    @step_task(name="tests.door")
    def body() -> None:
        raise Flaky("no")

    execution = flow.begin({"s": {"task": "tests.door", "retry": {"max_attempts": 2, "backoff": 60, "jitter": False}}})
    with pytest.raises(Retry) as told:
        door(execution)
    assert isinstance(told.value.exc, tasks.StepFailed)
    assert str(told.value.exc) == "Flaky: no"
    assert told.value.when == flow.step(execution, "s").available_at
    current_app.tasks.pop("tests.door")


def test_a_hint_is_dropped_while_postgres_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("gone")

    execution = flow.begin({"s": flow.http()})
    monkeypatch.setattr(queue, "claim", away)
    with pytest.raises(Ignore):
        door(execution)
    assert the_run().state == "queued"
    assert not tasks.is_prefork_child()
