"""Dead letters are told of once, from the statement that makes them; groups are reported as they grow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from execution import alerts, broken, children, dead_letters, engine, signals
from execution.models import AuditEntry, DeadLetter, Execution, News
from execution.states import DeadLetterState
from tests.execution import flow

pytestmark = pytest.mark.django_db


class Heard:
    """What receivers of the two signals were told."""

    def __init__(self) -> None:
        self.arrived: list[tuple[int, str]] = []
        self.grew: list[tuple[int, int]] = []

    def on_arrival(self, letter_ids: Any, fingerprint: str, **_: Any) -> None:
        self.arrived.append((len(letter_ids), fingerprint))

    def on_growth(self, fingerprint: str, size: int, threshold: int, **_: Any) -> None:
        self.grew.append((size, threshold))


@pytest.fixture
def heard() -> Iterator[Heard]:
    found = Heard()
    signals.dead_letters_arrived.connect(found.on_arrival)
    signals.dead_letter_group_grew.connect(found.on_growth)
    yield found
    signals.dead_letters_arrived.disconnect(found.on_arrival)
    signals.dead_letter_group_grew.disconnect(found.on_growth)


def fail(count: int = 1) -> list[DeadLetter]:
    found = []
    for _ in range(count):
        execution = flow.begin({"a": flow.http()})
        flow.fail(execution, "a")
        found.append(DeadLetter.objects.get(execution=execution))
    return found


def tell(capture: Any) -> int:
    with capture(execute=True):
        return alerts.tell(seconds=3_600)


def reports() -> list[int]:
    entries = AuditEntry.objects.filter(action=alerts.ACTION).order_by("id")
    return [entry.changes["threshold"]["after"] for entry in entries]


@pytest.mark.parametrize(
    ("size", "thresholds", "reported", "expected"),
    [
        (0, [1, 10], [], None),
        (1, [1, 10], [], 1),
        (9, [1, 10], [1], None),
        (500, [1, 10, 100], [1], 100),
        (50, [10, 100], [100], None),
        (5, [], [], None),
    ],
)
def test_a_size_is_reported_once_and_smaller_ones_with_it(
    size: int, thresholds: list[int], reported: list[int], expected: int | None
) -> None:
    assert alerts.reached(size, thresholds, reported) == expected


def test_a_letter_leaves_news_that_name_it_and_is_told_of_once(
    heard: Heard, django_capture_on_commit_callbacks: Any
) -> None:
    (letter,) = fail()
    news = News.objects.get()
    assert (news.topic, news.subject, news.execution_id) == ("dead_letter", str(letter.pk), letter.execution_id)
    assert news.data == {
        "fingerprint": "f" * 32,
        "workflow_id": str(letter.workflow_id),
        "step": "a",
        "reason": "failed",
        "error_type": "ValueError",
    }
    assert tell(django_capture_on_commit_callbacks) == 1
    assert tell(django_capture_on_commit_callbacks) == 0
    assert heard.arrived == [(1, "f" * 32)]
    assert reports() == []


def test_a_letter_that_is_open_again_is_no_new_one() -> None:
    (letter,) = fail()
    News.objects.all().delete()
    dead_letters.redrive(letter.pk, actor="ada")
    flow.fail(letter.execution, "a")
    letter.refresh_from_db()
    assert letter.state == DeadLetterState.OPEN
    assert not News.objects.exists()


def test_a_growing_group_is_reported_at_each_size_until_it_begins_anew(
    settings: Any, heard: Heard, django_capture_on_commit_callbacks: Any
) -> None:
    settings.WORKFLOW_DEAD_LETTER_ALERTS = [2, 4]
    capture = django_capture_on_commit_callbacks
    fail(1)
    tell(capture)
    assert reports() == []
    fail(2)
    tell(capture)
    assert reports() == [2]
    fail(2)
    tell(capture)
    fail(1)
    tell(capture)
    assert reports() == [2, 4]
    assert heard.grew == [(3, 2), (5, 4)]  # no more is counted than is needed to know
    entry = AuditEntry.objects.filter(action=alerts.ACTION).latest("id")
    assert (entry.actor, entry.subject_id, entry.subject_label) == ("system", "f" * 32, "a: ValueError")
    assert entry.changes == {"threshold": {"before": 2, "after": 4}}

    dead_letters.discard_many(dead_letters.Selection(fingerprint="f" * 32), actor="ada", limit=100, note="known")
    AuditEntry.objects.filter(action=alerts.ACTION).update(created_at="2020-01-01T00:00Z")
    fail(2)
    tell(capture)
    assert reports() == [2, 4, 2]


def test_without_sizes_nothing_is_counted_and_a_group_that_is_decided_by_then_is_not_reported(
    settings: Any, django_capture_on_commit_callbacks: Any
) -> None:
    settings.WORKFLOW_DEAD_LETTER_ALERTS = []
    fail(1)
    assert tell(django_capture_on_commit_callbacks) == 1
    settings.WORKFLOW_DEAD_LETTER_ALERTS = [1]
    (letter,) = fail()
    DeadLetter.objects.update(state=DeadLetterState.DISCARDED, decided_at=engine.now())
    assert tell(django_capture_on_commit_callbacks) == 1
    assert reports() == []
    assert letter.fingerprint


def test_more_letters_than_a_batch_are_told_of_in_one_turn(
    monkeypatch: pytest.MonkeyPatch, heard: Heard, django_capture_on_commit_callbacks: Any
) -> None:
    monkeypatch.setattr(alerts, "BATCH", 2)
    fail(5)
    assert tell(django_capture_on_commit_callbacks) == 5
    assert [count for count, _ in heard.arrived] == [2, 2, 1]


def test_letters_of_whole_executions_are_told_of_too() -> None:
    execution = flow.begin({"a": flow.http()}, output="${{ steps.a.output.rows[0] | length(@) }}")
    flow.succeed(execution, "a", {"rows": [1]})
    assert flow.fresh(execution).state == "failed"
    other = flow.begin({"a": flow.http()})
    broken.fail(other.pk, ValueError("unreadable"))
    told = {news.execution_id: news.data["reason"] for news in News.objects.filter(topic="dead_letter")}
    assert told == {execution.pk: "output", other.pk: "unrunnable"}
    assert {str(letter.pk) for letter in DeadLetter.objects.all()} == set(
        News.objects.values_list("subject", flat=True)
    )


def test_an_output_that_cannot_be_told_changes_no_news_but_those_of_the_end() -> None:
    execution = flow.begin(
        {"say": {"emit": {"type": "said"}}, "a": flow.http("say")},
        output="${{ length(steps.a.output) }}",
        options={"news_topic": children.TOPIC},
    )
    flow.succeed(execution, "a", 7)
    told = {news.topic: news.data for news in News.objects.exclude(topic="dead_letter")}
    assert told[children.TOPIC] == {"state": "failed"}
    assert told["emit"]["type"] == "said"
    assert Execution.objects.get(pk=execution.pk).state == "failed"
