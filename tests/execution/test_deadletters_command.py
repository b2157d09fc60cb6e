"""`manage.py deadletters`: look, redrive one, many or a group, follow, discard."""

from __future__ import annotations

from datetime import timedelta

import pytest

from execution import engine, redrives
from execution.management.commands import deadletters
from execution.models import DeadLetter, RedriveJob
from tests.commands import ends, read, run
from tests.execution.flow import begin, fail, http, succeed

pytestmark = pytest.mark.django_db
NOBODY = "00000000-0000-7000-8000-000000000000"


def letters(count: int) -> list[DeadLetter]:
    found = []
    for _ in range(count):
        execution = begin({"a": http()}, input={"n": 1})
        fail(execution, "a")
        found.append(DeadLetter.objects.get(execution=execution))
    return found


def turn(job: RedriveJob) -> None:
    RedriveJob.objects.filter(pk=job.pk).update(next_at=engine.now() - timedelta(seconds=1))
    redrives.advance(seconds=60)


def test_letters_are_listed_grouped_and_shown() -> None:
    first, second = letters(2)
    assert [one["id"] for one in read("deadletters", "list")] == [str(second.pk), str(first.pk)]
    assert len(read("deadletters", "list", "--workflow", first.workflow.name)) == 1
    assert read("deadletters", "list", "--since", "1h", "--state", "resolved") == []
    assert len(read("deadletters", "list", "--state", "all", "--execution", first.execution_id)) == 1
    assert "boom" in run("deadletters", "list")
    (group,) = read("deadletters", "groups")
    assert group["count"] == 2
    assert group["fingerprint"] in run("deadletters", "groups")
    assert read("deadletters", "show", first.pk)["history"][0]["number"] == 1
    DeadLetter.objects.filter(pk=first.pk).update(traceback="Traceback [red]")
    run("deadletters", "redrive", first.pk, "--note", "seen")
    told = run("deadletters", "show", first.pk)
    assert "Traceback [red]" in told
    assert "was redriven from the failed step" in told


def test_one_is_redriven_from_its_step_or_anew() -> None:
    first, second = letters(2)
    assert run("deadletters", "redrive", first.pk).strip() == str(first.execution_id)
    again = read("deadletters", "redrive", second.pk, "--mode", "restart", "--latest", "--input", '{"n": 2}')
    assert again["letter"] == str(second.pk)
    second.refresh_from_db()
    assert (second.state, str(second.redrive_execution_id)) == ("redriving", again["execution"])


def test_a_group_is_redriven_as_a_job_and_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = letters(3)
    steps = iter(
        [
            lambda job: turn(job),
            lambda job: succeed(made[0].execution, "a"),
            lambda job: turn(job),
            lambda job: [succeed(letter.execution, "a") for letter in made[1:]],
            lambda job: turn(job),
        ]
    )
    monkeypatch.setattr(deadletters.time, "sleep", lambda _: next(steps)(RedriveJob.objects.get()))
    told = run("deadletters", "redrive-many", "--fingerprint", made[0].fingerprint, "--rate", 60_000, "--follow")
    assert told == "done: 3 succeeded, 0 failed, 0 skipped of 3\n"
    (job,) = read("deadletters", "jobs", "--state", "done")
    assert (job["rate_per_minute"], job["canary"], job["created_by"].startswith("command:")) == (60_000, True, True)
    assert "done" in run("deadletters", "job", job["id"])


def test_a_job_that_stops_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    (letter,) = letters(1)
    made = read("deadletters", "redrive-many", "--id", letter.pk, "--no-canary", "--input-patch", '{"n": 3}')
    job = RedriveJob.objects.get(pk=made["id"])
    turn(job)
    fail(letter.execution, "a")
    turn(job)
    code, out, _ = ends("deadletters", "follow", job.pk)
    assert (code, out.startswith("stopped: 0 succeeded, 1 failed")) == (1, True)


def test_a_job_is_cancelled() -> None:
    letters(2)
    told = run("deadletters", "redrive-many", "--step", "a", "--before", "0s", "--any-failures", "--limit", 1)
    assert told.splitlines()[1] == "1 letters"
    job = RedriveJob.objects.get()
    assert job.max_failures is None
    run("deadletters", "cancel-job", job.pk, "--note", "n")
    assert ends("deadletters", "follow", job.pk)[0] == 1


def test_letters_are_discarded_by_id_or_by_selection() -> None:
    first, second, third = letters(3)
    assert run("deadletters", "discard", first.pk, "--note", "known") == "1 discarded, 0 refused, 0 left\n"
    assert read("deadletters", "discard", "--error-type", second.error_type, "--limit", 1)["left"] == 1
    third.refresh_from_db()
    assert third.state == "open"
    code, _, error = ends("deadletters", "discard", first.pk, third.pk)
    assert (code, "1 of them are not open letters" in error) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["show", "x"], "no dead letter 'x'"),
        (["show", NOBODY], "no dead letter"),
        (["redrive", NOBODY], "no such dead letter"),
        (["redrive", NOBODY, "--input", "1"], "--input must be a JSON object"),
        (["redrive-many"], "name some letters"),
        (["redrive-many", "--id", "x"], "ids"),
        (["redrive-many", "--step", "none"], "No open dead letter is selected"),
        (["redrive-many", "--step", "a", "--rate", "0"], "rate_per_minute"),
        (["redrive-many", "--step", "a", "--max-failures", "2", "--any-failures"], "exclude each other"),
        (["list", "--state", "lost"], "state: "),
        (["job", NOBODY], "no redrive job"),
        (["cancel-job", NOBODY], "no such redrive job"),
        (["discard"], "name some letters"),
        (["discard", NOBODY], "1 of them are not open letters"),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)
def test_a_mistake_is_named_and_changes_nothing(arguments: list[str], error: str) -> None:
    code, _, said = ends("deadletters", *arguments)
    assert (code, error in said) == (1, True), said
    assert not RedriveJob.objects.exists()
