"""`/metrics`: who may read it, what it says, that counting is exact and cheap."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from rest_framework_simplejwt.tokens import AccessToken

from execution import counters
from execution.models import MetricCounter, MetricMark, ProcessReport
from execution.states import AttemptState, DeadLetterState, ExecutionState, StepState
from schedules.models import LedgerAudit, ScheduleFire
from scheduling_project import metrics
from scheduling_project.common.metrics import SECONDS
from tests import factories
from tests.schedules import builders
from triggers.models import Delivery

pytestmark = pytest.mark.django_db

TOKEN = "a-token-of-sixteen-characters"
Found = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(autouse=True)
def ask_anew(settings: Any) -> Iterator[None]:
    settings.METRICS_CACHE_SECONDS = 0
    metrics.database.forget()
    counters._window.clear()
    yield
    metrics.database.forget()


def scrape(**extra: Any) -> Found:
    answer = Client().get("/metrics", **extra)
    assert answer.status_code == 200, answer.content
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(answer.content.decode())
        for sample in family.samples
    }


def at(found: Found, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def mark(*, seconds: float = 120) -> None:
    """Counting began a while ago."""
    through = factories.now() - timedelta(seconds=seconds)
    for source in metrics.SOURCES:
        MetricMark.objects.update_or_create(source=source.name, defaults={"through": through})


LATELY = timedelta(seconds=30)


def ended(state: ExecutionState, workflow: Any, *, seconds: float = 2.0) -> Any:
    end = factories.now() - LATELY
    return factories.make_execution(workflow, state=state, started_at=end - timedelta(seconds=seconds), finished_at=end)


# ── Who may read it ──────────────────────────────────────────────────────────────────────────────────────────


def test_whoever_comes_from_an_allowed_network_may_read_it_unless_by_an_unknown_proxy(settings: Any) -> None:
    assert Client().get("/metrics").status_code == 200
    assert Client().get("/metrics/").status_code == 200
    assert Client().get("/metrics", REMOTE_ADDR="192.0.2.7").status_code == 401
    assert Client().get("/metrics", HTTP_X_FORWARDED_FOR="127.0.0.1").status_code == 401
    settings.METRICS_ALLOWED_NETWORKS = ["192.0.2.0/24"]
    assert Client().get("/metrics").status_code == 401
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert Client().get("/metrics", HTTP_X_FORWARDED_FOR="127.0.0.1, 192.0.2.9").status_code == 200
    assert Client().get("/metrics", HTTP_X_FORWARDED_FOR="192.0.2.9, 203.0.113.1").status_code == 401
    assert Client().get("/metrics", REMOTE_ADDR="192.0.2.9", HTTP_FORWARDED="for=1.2.3.4").status_code == 401
    assert Client().post("/metrics").status_code == 405


def test_the_token_opens_it_and_another_does_not(settings: Any) -> None:
    settings.METRICS_ALLOWED_NETWORKS = []
    settings.METRICS_TOKEN = TOKEN
    assert Client().get("/metrics", HTTP_AUTHORIZATION=f"Bearer {TOKEN}").status_code == 200
    for wrong in (f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", "Bearer é"):
        answer = Client().get("/metrics", HTTP_AUTHORIZATION=wrong)
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"] == 'Bearer realm="metrics"'
    settings.METRICS_TOKEN = ""
    assert Client().get("/metrics", HTTP_AUTHORIZATION="Bearer ").status_code == 401


def test_people_need_the_permission(settings: Any) -> None:
    settings.METRICS_ALLOWED_NETWORKS = []
    user = User.objects.create(username="grace")
    headers = {"HTTP_AUTHORIZATION": f"Bearer {AccessToken.for_user(user)}"}
    assert Client().get("/metrics", **headers).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_processreport"))
    assert Client().get("/metrics", **headers).status_code == 200


# ── What it says ─────────────────────────────────────────────────────────────────────────────────────────────


def test_both_formats_can_be_parsed_and_every_metric_is_described() -> None:
    text = Client().get("/metrics")
    assert text["Content-Type"].startswith("text/plain")
    assert text["Cache-Control"].startswith("max-age=0")
    names = {family.name for family in parse(text.content.decode())}
    assert {metric.name for metric in (*metrics.METRICS, *metrics.SCRAPE)} <= names
    assert {"python_info", "process_resident_memory_bytes"} <= names
    answer = Client().get("/metrics", HTTP_ACCEPT="application/openmetrics-text; version=1.0.0")
    assert answer["Content-Type"].startswith("application/openmetrics-text")
    assert list(parse_openmetrics(answer.content.decode()))


def test_no_label_can_have_many_values() -> None:
    known = {"workflow", "state", "queue", "priority", "reason", "outcome", "kind", "source"}
    assert {label for metric in metrics.METRICS for label in metric.labels} <= known


def test_ends_of_executions_and_attempts_are_counted_once_and_stay_when_rows_are_pruned() -> None:
    mark()
    workflow = factories.make_workflow("nightly")
    failed = ended(ExecutionState.FAILED, workflow, seconds=400)
    ended(ExecutionState.SUCCEEDED, workflow)
    ended(ExecutionState.SUCCEEDED, workflow)
    run = factories.make_step_run(failed, state=StepState.FAILED)
    for number, state in enumerate((AttemptState.RETRYABLE, AttemptState.LOST), start=2):
        run.attempt = number
        factories.make_attempt(run, state=state, finished_at=factories.now() - LATELY)
    run.attempts.filter(number=1).update(finished_at=factories.now() - LATELY)
    factories.make_dead_letter(run, created_at=factories.now() - LATELY)
    for _ in range(2):  # the second look finds nothing new
        found = scrape()
        assert at(found, "scheduling_executions_total", workflow="nightly", state="succeeded") == 2
        assert at(found, "scheduling_executions_total", workflow="nightly", state="failed") == 1
        assert at(found, "scheduling_attempts_total", workflow="nightly", state="failed") == 1
        assert at(found, "scheduling_retries_total", queue="default") == 1
        assert at(found, "scheduling_rescues_total", queue="default") == 1
        assert at(found, "scheduling_dead_letters_total", reason="failed") == 1
        assert at(found, "scheduling_execution_duration_seconds_count") == 3
        assert at(found, "scheduling_execution_duration_seconds_sum") == pytest.approx(404)
        assert at(found, "scheduling_execution_duration_seconds_bucket", le="300.0") == 2
        assert at(found, "scheduling_execution_duration_seconds_bucket", le="3600.0") == 3
    failed.delete()
    assert at(scrape(), "scheduling_executions_total", workflow="nightly", state="failed") == 1
    assert at(scrape(), "scheduling_dead_letters_open", state="open") == 0


def test_workflows_beyond_the_limit_are_one(settings: Any) -> None:
    settings.METRICS_WORKFLOWS = 1
    mark()
    for name in ("a", "b", "c"):
        ended(ExecutionState.SUCCEEDED, factories.make_workflow(name))
    found = scrape()
    own = [labels for (name, labels) in found if name == "scheduling_executions_total"]
    assert len(own) == 2
    assert at(found, "scheduling_executions_total", workflow="other", state="succeeded") == 2


def test_fires_lateness_and_the_audit() -> None:
    mark()
    builders.workflow()
    schedule = builders.schedule(name="hourly")
    moment = factories.now() - LATELY
    for place, (outcome, reason, count) in enumerate((("started", "", 1), ("missed", "outside_window", 5))):
        first = moment - timedelta(hours=place + 10)
        ScheduleFire.objects.create(
            schedule=schedule,
            version=schedule.version,
            scheduled_for=first,
            until=first + timedelta(minutes=4) if count > 1 else None,
            count=count,
            due_at=moment - timedelta(seconds=7),
            outcome=outcome,
            reason=reason,
            recorded_at=moment,
        )
    LedgerAudit.objects.create(
        since=moment, until=moment, schedules=1, findings=1, differences=3, seconds=1, finished_at=moment
    )
    found = scrape()
    assert at(found, "scheduling_fires_total", outcome="started", reason="") == 1
    assert at(found, "scheduling_fires_total", outcome="missed", reason="outside_window") == 5
    assert at(found, "scheduling_fire_lateness_seconds_count") == 1
    assert at(found, "scheduling_fire_lateness_seconds_sum") == pytest.approx(7)
    assert at(found, "scheduling_fire_lateness_seconds_bucket", le="5.0") == 0
    assert at(found, "scheduling_fire_lateness_seconds_bucket", le="10.0") == 1
    assert at(found, "scheduling_ledger_audit_differences") == 3
    assert at(found, "scheduling_schedules", state="active") == 1


def test_webhooks_by_verdict_and_latency() -> None:
    mark()
    moment = factories.now() - LATELY
    Delivery.objects.create(outcome="accepted", status=202, duration_ms=40, received_at=moment)
    Delivery.objects.create(outcome="unauthenticated", status=401, arrivals=9, received_at=moment)
    found = scrape()
    assert at(found, "scheduling_webhook_deliveries_total", outcome="accepted") == 1
    assert at(found, "scheduling_webhook_deliveries_total", outcome="unauthenticated") == 9
    assert at(found, "scheduling_webhook_duration_seconds_bucket", le="0.05") == 1
    assert at(found, "scheduling_webhook_duration_seconds_bucket", le="0.025") == 0
    assert at(found, "scheduling_event_groups_open") == 0


def test_queues_workers_and_what_is_open() -> None:
    execution = factories.make_execution(state=ExecutionState.RUNNING)
    waiting_since = factories.now() - timedelta(seconds=90)
    factories.make_step_run(execution, queue="io", priority=3, available_at=waiting_since)
    ProcessReport.objects.create(name="w", kind="worker", host="h", pid=1, queues=["io"], slots=4, busy=3)
    long_ago = factories.now() - timedelta(seconds=500)
    ProcessReport.objects.create(name="x", kind="worker", host="h", pid=2, slots=8, seen_at=long_ago)
    ProcessReport.objects.create(name="b", kind="beat", host="h", pid=3, seen_at=long_ago)
    found = scrape()
    assert at(found, "scheduling_queue_depth", queue="io", priority="3", state="waiting") == 1
    age = at(found, "scheduling_queue_oldest_age_seconds", queue="io", priority="3")
    assert age is not None
    assert 89 < age < 200
    assert at(found, "scheduling_queue_slots", queue="io") == 4
    assert at(found, "scheduling_queue_slots_wanted", queue="io") == 1
    assert at(found, "scheduling_queue_workers_wanted", queue="io") == 1
    assert at(found, "scheduling_queue_workers_wanted", queue="default") == 0
    assert at(found, "scheduling_queue_paused", queue="io") == 0
    assert at(found, "scheduling_executions_open", state="running") == 1
    assert (at(found, "scheduling_worker_slots"), at(found, "scheduling_worker_busy")) == (4, 3)
    assert at(found, "scheduling_processes", kind="worker") == 1
    assert at(found, "scheduling_processes", kind="beat") == 0
    age = at(found, "scheduling_heartbeat_age_seconds", kind="beat")
    assert age is not None
    assert age >= 500
    assert at(found, "scheduling_up") == 1


# ── How it counts ────────────────────────────────────────────────────────────────────────────────────────────


def test_counting_begins_now_and_what_nobody_asked_for_in_an_hour_is_passed_over() -> None:
    workflow = factories.make_workflow("w")
    ended(ExecutionState.SUCCEEDED, workflow)
    assert at(scrape(), "scheduling_executions_total", workflow="w", state="succeeded") is None  # it only began
    mark(seconds=9000)
    long_ago = factories.now() - timedelta(seconds=8000)
    factories.make_execution(workflow, state=ExecutionState.SUCCEEDED, started_at=long_ago, finished_at=long_ago)
    found = scrape()
    assert at(found, "scheduling_executions_total", workflow="w", state="succeeded") == 1
    lag = at(found, "scheduling_counter_lag_seconds", source="executions")
    assert lag is not None
    assert lag < 60


def test_what_was_written_a_moment_ago_waits_for_those_that_commit_later() -> None:
    mark()
    workflow = factories.make_workflow("w")
    factories.make_execution(workflow, state=ExecutionState.SUCCEEDED)
    assert at(scrape(), "scheduling_executions_total", workflow="w", state="succeeded") is None


def test_a_source_that_cannot_be_counted_in_time_is_taken_in_smaller_pieces_and_stops_no_other() -> None:
    mark()
    ended(ExecutionState.SUCCEEDED, factories.make_workflow("w"))
    slow = counters.Source("slow", "SELECT pg_sleep(30)::text AS name, %(after)s::text, %(until)s::text", {})
    MetricMark.objects.create(source="slow", through=factories.now() - timedelta(seconds=60))
    bounded = counters.BOUND
    try:
        counters.BOUND = "SET LOCAL statement_timeout = '50ms'"  # type: ignore[misc]
        counters.look([slow])
    finally:
        counters.BOUND = bounded  # type: ignore[misc]
    assert counters._window["slow"] == counters.WINDOW_SECONDS / 4
    counters.look(metrics.SOURCES)
    assert MetricCounter.objects.filter(name="scheduling_executions").exists()


@pytest.mark.django_db(transaction=True)
def test_two_scrapes_at_once_count_once() -> None:
    mark()
    ended(ExecutionState.SUCCEEDED, factories.make_workflow("w"))
    entered, leave = threading.Event(), threading.Event()

    def count() -> None:
        with transaction.atomic():
            counters.look(metrics.SOURCES)
            entered.set()
            leave.wait(10)
        connection.close()

    other = threading.Thread(target=count)
    other.start()
    try:
        assert entered.wait(10)
        counters.look(metrics.SOURCES)  # does not wait for the other, and counts nothing
        assert not MetricCounter.objects.exists()
    finally:
        leave.set()
        other.join(10)
    counters.look(metrics.SOURCES)
    value = MetricCounter.objects.get(name="scheduling_executions", labels=json.dumps(["w", "succeeded"])).value
    assert value == 1


def test_with_postgres_away_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: Any) -> None:
        raise OperationalError("secret host")

    monkeypatch.setattr(metrics, "collect", away)
    found = scrape()
    assert at(found, "scheduling_up") == 0
    assert not any("secret" in name for name, _ in found)


def test_figures_are_kept_for_a_while_and_the_number_of_queries_does_not_grow(settings: Any) -> None:
    scrape()

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            scrape()
        return len(captured)

    before = queries()
    for _ in range(3):
        factories.make_dead_letter(state=DeadLetterState.OPEN)
    assert queries() == before
    settings.METRICS_CACHE_SECONDS = 300
    scrape()
    assert queries() == 0
    assert len(SECONDS) == 15
