"""`/api/dead-letters/redrive-jobs`: made, watched, cancelled."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from execution import redrives
from execution.models import DeadLetter
from tests import factories
from tests.api_client import Api
from tests.execution.flow import begin, fail, http

PATH = "/api/dead-letters/redrive-jobs"


def letters(count: int) -> list[DeadLetter]:
    for _ in range(count):
        fail(begin({"a": http()}), "a")
    return list(DeadLetter.objects.order_by("id"))


def test_a_job_is_made_watched_and_cancelled(api: Api) -> None:
    made = letters(2)
    body = {"fingerprint": "f" * 32, "rate_per_minute": 600, "note": "fixed"}
    key = {"HTTP_IDEMPOTENCY_KEY": "once"}
    job = api.ok("post", PATH, body, status=201, **key)
    assert (job["state"], job["total"], job["stage"], job["selection"]) == (
        "running", 2, "canary 1", {"fingerprint": "f" * 32},
    )  # fmt: skip
    assert api.ok("post", PATH, body, status=201, **key)["id"] == job["id"]
    redrives.advance()
    read = api.ok("get", f"{PATH}/{job['id']}/")
    assert (read["started"], read["under_way"], read["created_by"]) == (1, 1, job["created_by"])
    items = api.ok("get", f"{PATH}/{job['id']}/items")["results"]
    assert [(item["letter"], item["state"]) for item in items] == [
        (str(made[0].pk), "redriving"), (str(made[1].pk), "pending"),
    ]  # fmt: skip
    assert [item["position"] for item in api.ok("get", f"{PATH}/{job['id']}/items?state=pending")["results"]] == [1]
    assert [row["id"] for row in api.ok("get", f"{PATH}?state=running")["results"]] == [job["id"]]
    ended = api.ok("post", f"{PATH}/{job['id']}/cancel", {"note": "enough"})
    assert (ended["state"], ended["finished_at"] is not None) == ("cancelled", True)
    api.refused("post", f"{PATH}/{job['id']}/cancel", {}, status=409)
    assert api.ok("get", f"{PATH}?state=running")["results"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"fingerprint": "x", "mode": "again"}, "mode"),
        ({"fingerprint": "x", "rate_per_minute": 0}, "rate_per_minute"),
        ({"fingerprint": "x", "rate_per_minute": "fast"}, "rate_per_minute"),
        ({"fingerprint": "x", "max_failures": 0}, "max_failures"),
        ({"fingerprint": "x", "latest": True}, "latest"),
        ({"fingerprint": "x", "input": []}, "input"),
        ({"fingerprint": "x", "surprise": 1}, "surprise"),
        ({"workflow": "nope"}, "workflow"),
    ],
)
def test_a_bad_job_names_the_field(api: Api, body: dict[str, Any], field: str) -> None:
    factories.make_dead_letter(fingerprint="x")
    api.refused("post", PATH, body, status=400, field=field)


def test_what_is_not_there(api: Api) -> None:
    for path in (f"{PATH}/{uuid4()}", f"{PATH}/{uuid4()}/items", f"{PATH}/odd/items", f"{PATH}/odd"):
        api.refused("get", path, status=404)
    api.refused("post", PATH, {"fingerprint": "x"}, status=409)
