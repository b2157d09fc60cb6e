"""Two connections against each other: every race that `execution.queue` says it closes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from execution import (
    advance,
    cancellation,
    children,
    clock_repair,
    dispatch,
    engine,
    handoff,
    lifecycle,
    maintenance,
    queue,
    workflows,
)
from execution.models import Attempt, DeadLetter, Execution, News, StepRun, Workflow
from execution.plans import plan_by_id
from execution.queue import Claim
from execution.states import AttemptState, StepState
from execution.steps import workflow as call
from scheduling_project.common.errors import DomainError
from tests import factories
from tests.execution import flow

pytestmark = [
    pytest.mark.race,
    pytest.mark.django_db(transaction=True, databases=["default", "engine"]),
    pytest.mark.usefixtures("engine_connection"),
]

Race = Callable[..., list[Any]]
ROUNDS = range(12)


def claim(run: StepRun, worker: str = "w@h/1", **options: Any) -> Claim | None:
    return queue.claim(run.pk, worker=worker, lease=30, **options)


def lapse(run: StepRun) -> None:
    """Let the lease of a running step run out, as time would."""
    StepRun.objects.filter(pk=run.pk).update(lease_until=engine.now() - timedelta(seconds=1))


def test_one_of_two_claims_gets_the_step(race: Race) -> None:
    for _ in ROUNDS:
        run = flow.step(flow.begin({"a": flow.http()}), "a")
        won = [found for found in race(lambda: claim(run), lambda: claim(run), lambda: claim(run)) if found]  # noqa: B023
        assert len(won) == 1
        assert list(Attempt.objects.filter(step_run=run).values_list("id", flat=True)) == [won[0].token]


def test_first_claims_of_two_steps_of_one_execution_open_it_once(race: Race) -> None:
    for _ in ROUNDS:
        execution = flow.begin({"a": flow.http(), "b": flow.http()})
        a, b = flow.step(execution, "a"), flow.step(execution, "b")
        assert all(race(lambda: claim(a), lambda: claim(b)))  # noqa: B023
        assert flow.fresh(execution).state == "running"


def test_two_last_siblings_never_lose_their_successor(race: Race) -> None:
    for _ in ROUNDS:
        names = ["a", "b", "c"]
        execution = flow.begin({name: flow.http() for name in names} | {"end": flow.http(*names)})
        claims = [flow.held(execution, name) for name in names]
        assert all(race(*[lambda held=held: flow.finish(held) for held in claims]))
        end = flow.step(execution, "end")
        assert (end.state, end.needs_open, end.dispatches) == ("queued", 0, 1)
        assert flow.fresh(execution).open_steps == 1


def test_two_last_steps_end_their_execution_once(race: Race) -> None:
    for _ in ROUNDS:
        execution = flow.begin({"a": flow.http(), "b": flow.http()}, options={"news_topic": "test"})
        claims = [flow.held(execution, name) for name in ("a", "b")]
        assert all(race(*[lambda held=held: flow.finish(held) for held in claims]))
        ended = flow.fresh(execution)
        assert (ended.state, ended.open_steps) == ("succeeded", 0)
        assert News.objects.filter(execution_id=execution.pk).count() == 1


def test_a_failure_and_a_success_of_siblings_end_in_one_failure(race: Race) -> None:
    for _ in ROUNDS:
        execution = flow.begin({"a": flow.http(), "b": flow.http(), "end": flow.http("a", "b")})
        good, bad = flow.held(execution, "a"), flow.held(execution, "b")
        race(lambda: flow.finish(good), lambda: fail(bad))  # noqa: B023
        assert flow.states(execution) == {"a": "succeeded", "b": "failed", "end": "skipped"}
        ended = flow.fresh(execution)
        assert (ended.state, ended.open_steps, ended.failed_steps) == ("failed", 0, 1)
        assert DeadLetter.objects.filter(execution=execution).count() == 1


def fail(held: Claim) -> bool:
    plan = plan_by_id(held.version_id)
    ending = advance.ending_of(
        plan, plan.steps[held.name], state=StepState.FAILED, attempt_state=AttemptState.FAILED, letter="failed",
        error_type="ValueError", error="boom", fingerprint="f" * 32, charged=True,
    )  # fmt: skip
    return advance.conclude(held, plan, ending) is not None


def test_cancel_or_finish_but_never_both(race: Race) -> None:
    seen = set()
    for number in ROUNDS:
        execution = flow.begin({"a": flow.http(), "b": flow.http("a")})
        held = flow.held(execution, "a")
        deeds = [lambda: flow.finish(held), lambda: queue.cancel(execution.pk, reason="x")]  # noqa: B023
        results = race(*(deeds if number % 2 else reversed(deeds)))
        finished, cancelled = results if number % 2 else reversed(results)
        assert cancelled
        seen.add(finished)
        assert flow.fresh(execution).state == "cancelled"
        assert flow.states(execution) == {"a": "succeeded" if finished else "cancelled", "b": "cancelled"}
        assert Attempt.objects.get(step_run__execution=execution).state == ("succeeded" if finished else "cancelled")
    assert seen <= {True, False}


def test_cancel_against_finish_of_the_last_step_leaves_one_end(race: Race) -> None:
    for _ in ROUNDS:
        execution = flow.begin({"a": flow.http()}, options={"news_topic": "test"})
        held = flow.held(execution, "a")
        finished, cancelled = race(lambda: flow.finish(held), lambda: queue.cancel(execution.pk, reason="x"))  # noqa: B023
        assert finished != cancelled
        assert flow.fresh(execution).state == ("succeeded" if finished else "cancelled")
        assert News.objects.filter(execution_id=execution.pk).count() == 1


def test_cancel_against_claim_has_no_deadlock_and_leaves_nothing_running(race: Race) -> None:
    for _ in ROUNDS:
        execution = flow.begin({name: flow.http() for name in "abcd"})
        runs = list(StepRun.objects.filter(execution=execution))
        race(
            *[lambda run=run: claim(run) for run in runs],
            lambda: queue.cancel(execution.pk, reason="x"),  # noqa: B023
        )
        assert flow.fresh(execution).state == "cancelled"
        assert set(flow.states(execution).values()) == {"cancelled"}
        assert not Attempt.objects.filter(step_run__execution=execution, state="running").exists()


def test_the_rescuer_or_the_worker_that_was_thought_lost(race: Race) -> None:
    for _ in ROUNDS:
        execution = flow.begin({"a": flow.http(), "b": flow.http("a")})
        held = flow.held(execution, "a")
        lapse(flow.step(execution, "a"))
        finished, rescued = race(lambda: flow.finish(held), maintenance.rescue)  # noqa: B023
        assert finished == (rescued.queued == 0)
        assert flow.states(execution) == (
            {"a": "succeeded", "b": "queued"} if finished else {"a": "queued", "b": "waiting"}
        )
        assert Attempt.objects.get(step_run__execution=execution).state == ("succeeded" if finished else "lost")


def test_the_rescuer_or_a_heartbeat_that_comes_late(race: Race) -> None:
    for _ in ROUNDS:
        run = flow.step(flow.begin({"a": flow.http()}), "a")
        held = claim(run)
        assert held is not None
        lapse(run)
        beaten, rescued = race(lambda: queue.heartbeat(run.pk, held.token, lease=30), maintenance.rescue)  # noqa: B023
        assert beaten == (rescued.queued == 0)
        run.refresh_from_db()
        assert run.state == ("running" if beaten else "queued")


def test_a_lease_is_cut_after_a_jump_back_while_its_worker_renews_it(race: Race) -> None:
    for _ in ROUNDS:
        run = flow.step(flow.begin({"a": flow.http()}), "a")
        held = claim(run)
        assert held is not None
        now = engine.now()
        StepRun.objects.filter(pk=run.pk).update(lease_until=now + timedelta(hours=1))
        beaten, repaired = race(
            lambda: queue.heartbeat(run.pk, held.token, lease=30, now=now),  # noqa: B023
            lambda: clock_repair.after_jump_back(lease=30, now=now),  # noqa: B023
        )
        assert beaten
        assert repaired.leases in (0, 1)
        run.refresh_from_db()
        assert (run.state, run.lease_until) == ("running", now + timedelta(seconds=30))


def test_several_rescuers_take_a_step_back_once(race: Race) -> None:
    for _ in ROUNDS:
        run = flow.step(flow.begin({"a": flow.http()}), "a")
        assert claim(run) is not None
        lapse(run)
        rescues = race(maintenance.rescue, maintenance.rescue, maintenance.rescue)
        assert sum(rescued.queued for rescued in rescues) == 1
        run.refresh_from_db()
        assert (run.state, run.worker_deaths) == ("queued", 1)


def test_several_rescuers_make_one_dead_letter(race: Race, settings: Any) -> None:
    settings.WORKFLOW_MAX_WORKER_DEATHS = 1
    execution = flow.begin({"a": flow.http(), "b": flow.http("a")})
    assert flow.claim(execution, "a") is not None
    lapse(flow.step(execution, "a"))
    rescues = race(maintenance.rescue, maintenance.rescue, maintenance.rescue)
    assert sum(rescued.failed for rescued in rescues) == 1
    assert DeadLetter.objects.get().reason == "quarantined"
    assert flow.fresh(execution).state == "failed"


def test_sweeps_at_once_send_each_step_once(race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    made = flow.begin({f"s{n}": flow.http() for n in range(60)})
    StepRun.objects.update(dispatched_at=None, dispatches=0)
    sent: list[Any] = []
    monkeypatch.setattr(dispatch, "publish", lambda hints: sent.extend(hint.id for hint in hints))
    race(*[dispatch.sweep] * 4)
    dispatch.sweep()
    assert len(sent) == len(set(sent)) == 60
    assert StepRun.objects.filter(execution=made, dispatches=1).count() == 60


def test_a_broker_that_lost_everything_is_noticed_by_one_of_several_sweeps(race: Race) -> None:
    flow.begin({"a": flow.http()})
    dispatch.sweep()
    for _ in range(4):
        before = handoff.broker_epoch()
        delete_epoch()
        resets = race(*[dispatch.check_epoch] * 4)
        assert sorted(resets) == [0, 0, 0, 1]
        after = handoff.broker_epoch()
        assert before is not None
        assert after is not None
        assert after.epoch != before.epoch
        assert dispatch.check_epoch() == 0
        StepRun.objects.update(dispatched_at=engine.now(), dispatches=1)


def delete_epoch() -> None:
    import redis
    from django.conf import settings

    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(dispatch.EPOCH_KEY)


def test_a_change_of_priority_and_a_claim_agree_on_one_priority(race: Race) -> None:
    for _ in ROUNDS:
        execution = flow.begin({"a": flow.http()})
        run = flow.step(execution, "a")
        held, _changed = race(
            lambda: claim(run, priority=6),  # noqa: B023
            lambda: lifecycle.set_priority(execution.pk, 0, actor="tester"),  # noqa: B023
        )
        run.refresh_from_db()
        if held is None:
            assert (run.state, run.priority) == ("queued", 0)
            assert claim(run, priority=6) is None
            assert claim(run, priority=0) is not None
        else:
            assert run.state == "running"


def test_items_of_a_bounded_fan_out_that_end_together_each_free_the_next(race: Race) -> None:
    for _ in range(5):
        execution = flow.begin({"each": flow.http(for_each=list(range(12)), max_parallel=4)})
        for wave in range(3):
            claims = [flow.held(execution, "each", index) for index in range(wave * 4, wave * 4 + 4)]
            assert all(race(*[lambda held=held: flow.finish(held) for held in claims]))
        assert flow.fresh(execution).state == "succeeded"


def test_two_last_items_never_both_leave_the_fan_in_to_the_other(race: Race) -> None:
    for _ in ROUNDS:
        execution = flow.begin({"a": flow.http(for_each=[1, 2, 3]), "end": flow.http("a")})
        claims = [flow.held(execution, "a", index) for index in range(3)]
        assert all(race(*[lambda held=held: flow.finish(held) for held in claims]))
        assert (flow.step(execution, "a").state, flow.step(execution, "end").state) == ("succeeded", "queued")
        assert flow.step(execution, "a").items_open == 0


def test_items_that_fail_while_others_are_claimed_stop_the_rest_once_and_fan_in_once(race: Race) -> None:
    for _ in ROUNDS:
        each = flow.http(for_each=list(range(8)), on_item_error="stop", max_parallel=4)
        execution = flow.begin({"each": each, "end": flow.http("each")}, options={"news_topic": "test"})
        failing = [flow.held(execution, "each", index) for index in (0, 1)]
        others = [flow.step(execution, "each", index) for index in (2, 3)]
        _, _, *claimed = race(*[lambda held=held: fail(held) for held in failing],
                              *[lambda run=run: claim(run) for run in others])  # fmt: skip
        assert flow.step(execution, "each").items_open == sum(1 for held in claimed if held)
        assert all(race(*[lambda held=held: flow.finish(held) for held in claimed if held]) or [True])
        assert flow.states(execution) == {"each": "failed", "end": "skipped"}
        counts = flow.step(execution, "each").output.data
        assert (counts["failed"], counts["succeeded"] + counts["skipped"]) == (2, 6)
        assert News.objects.filter(topic="test", execution_id=execution.pk).count() == 1


def test_a_fan_out_of_two_hundred_fans_in_once_from_eight_threads(race: Race) -> None:
    execution = flow.begin(
        {"each": flow.http(for_each=list(range(200))), "after": flow.http("each")}, options={"news_topic": "test"}
    )
    waiting = list(StepRun.objects.filter(parent__execution=execution).values_list("id", flat=True))
    lock = threading.Lock()

    def work() -> int:
        done = 0
        while True:
            with lock:
                if not waiting:
                    return done
                run_id = waiting.pop()
            held = queue.claim(run_id, worker="w@h/1", lease=30)
            assert held is not None
            assert flow.finish(held, {"i": held.item_index})
            done += 1

    assert sum(race(*[work] * 8)) == 200
    parent = flow.step(execution, "each")
    assert (parent.state, parent.items_open) == ("succeeded", 0)
    assert parent.output.data["succeeded"] == 200
    assert [result["i"] for result in parent.output.data["results"]] == list(range(200))
    assert flow.states(execution)["after"] == "queued"
    flow.succeed(execution, "after")
    assert News.objects.filter(execution_id=execution.pk).count() == 1


def test_the_same_idempotency_key_in_two_transactions_is_one_execution(race: Race) -> None:
    from execution import creation
    from tests import factories

    workflow = factories.make_workflow()
    for number in ROUNDS:
        key = f"key-{number}"
        start = lambda: creation.start(workflow, idempotency_key=key, using="engine").pk  # noqa: B023, E731
        first, second = race(start, start)
        assert first == second
        assert Execution.objects.filter(idempotency_key=key).count() == 1
        assert StepRun.objects.filter(execution_id=first).count() == 1


def test_news_are_taken_by_one_of_several_consumers(race: Race) -> None:
    from execution import news

    for number in range(40):
        News.objects.create(topic="test", subject=str(number), data={})

    def consume() -> list[str]:
        taken = []
        while True:
            with engine.transaction():
                rows = news.claim("test", limit=3)
            if not rows:
                return taken
            taken += [row.subject for row in rows]

    taken = [subject for subjects in race(*[consume] * 3) for subject in subjects]
    assert sorted(taken, key=int) == [str(number) for number in range(40)]
    assert connections["engine"].alias == "engine"


def test_a_child_is_started_or_its_caller_cancelled_but_never_a_child_left_behind(race: Race) -> None:
    factories.make_workflow("called", {"steps": {"work": flow.http()}})
    for number in ROUNDS:
        execution = flow.begin({"call": {"workflow": "called"}})
        held = flow.held(execution, "call")
        plan = plan_by_id(held.version_id)
        start = call.perform(held, plan.steps["call"], {"name": "called"})
        deeds = [lambda: call.hand_over(held, start), lambda: cancel(execution)]  # noqa: B023
        race(*(deeds if number % 2 else reversed(deeds)))
        assert flow.fresh(execution).state == "cancelled"
        assert not Execution.objects.filter(source_kind="child", finished_at=None).exists()
        assert not Attempt.objects.filter(state="running").exists()


def cancel(execution: Execution) -> bool:
    with engine.transaction():
        return cancellation.cancel(execution.pk, reason="x")


def test_the_end_of_a_child_settles_its_step_once(race: Race) -> None:
    factories.make_workflow("called", {"steps": {"work": flow.http()}})
    for number in ROUNDS:
        execution = flow.begin({"call": {"workflow": "called"}, "end": flow.http("call")})
        held = flow.held(execution, "call")
        plan = plan_by_id(held.version_id)
        assert call.hand_over(held, call.perform(held, plan.steps["call"], {"name": "called"}))
        flow.succeed(Execution.objects.get(pk=held.token), "work")
        others = [lambda: cancel(execution)] if number % 3 == 0 else []  # noqa: B023
        taken = race(children.settle_ended, children.settle_ended, *others)
        assert sum(taken[:2]) == 1
        assert not News.objects.filter(topic="child").exists()
        end = flow.step(execution, "end")
        expected = {("queued", 0), ("cancelled", 0), ("cancelled", 1)} if others else {("queued", 0)}
        assert (end.state, end.needs_open) in expected


def test_a_workflow_is_deleted_or_called_but_not_both(race: Race) -> None:
    def attempt(deed: Callable[[], Any]) -> bool:
        try:
            deed()
        except DomainError:
            return False
        return True

    for _ in ROUNDS:
        called = workflows.create("called", factories.ONE_STEP, actor="ada")
        caller = workflows.create("caller", factories.ONE_STEP, actor="ada")
        definition = {"steps": {"call": {"workflow": "called"}}}
        done = race(
            lambda: attempt(lambda: workflows.publish(caller, definition, actor="ada")),  # noqa: B023
            lambda: attempt(lambda: workflows.delete(called, actor="ada")),  # noqa: B023
        )
        assert sorted(done) == [False, True]
        for made in (caller, called):
            if Workflow.objects.filter(pk=made.pk).exists():
                workflows.delete(made, actor="ada")
