"""`/ws/`: what clients may ask, what they are told, and when they are shown the door."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User

from execution import lifecycle
from execution.models import Execution
from execution.states import ExecutionState
from scheduling_project.live.access import issue_ticket
from tests import factories
from tests.scheduling_project.live.client import LiveClient, apart

pytestmark = pytest.mark.django_db(transaction=True)


async def make_execution(**fields: Any) -> Execution:
    return await apart(factories.make_execution, **fields)


async def test_what_is_announced_arrives_as_it_is_in_the_database_now(ticket: str) -> None:
    execution = await make_execution()
    async with LiveClient(ticket=ticket) as client:
        hello = await client.hear("hello")
        assert (hello["subscriptions"], hello["message_bytes"]) == (20, 16384)
        started = await client.follow("executions", id="a", filter={"state": ["queued", "paused"]})
        assert (started["id"], started["kind"]) == ("a", "executions")
        await client.until("push")
        await apart(lifecycle.pause, execution.pk, actor="ada")
        row = await client.row(execution.pk, state="paused")
        assert row["message"]["id"] == "a"
        assert row["workflow_name"] == execution.workflow.name
        assert row["source"] == {"kind": "api", "id": "", "label": "", "scheduled_for": None}
        assert "input" not in row
        client.say(unsubscribe="a")
        assert (await client.hear("unsubscribed"))["id"] == "a"
        client.say(ping=[1])
        assert (await client.hear("pong"))["pong"] == [1]


async def test_a_client_that_comes_back_is_told_what_has_changed_and_nothing_else(ada: User) -> None:
    before = await make_execution(state=ExecutionState.SUCCEEDED)
    changed = await make_execution()
    async with LiveClient(ticket=issue_ticket(ada, None)) as client:
        cursor = (await client.follow("executions"))["cursor"]
    new = await make_execution(state=ExecutionState.FAILED)
    await apart(lifecycle.pause, changed.pk, actor="ada")
    async with LiveClient(ticket=issue_ticket(ada, None)) as client:
        client.say(subscribe="executions", since=cursor)
        message = await client.hear("rows")
        assert {row["id"] for row in message["rows"]} == {str(new.pk), str(changed.pk)}
        assert str(before.pk) not in json.dumps(message)
        caught_up = await client.hear("caught_up")
        client.say(subscribe="executions", id="again", since=caught_up["cursor"], brief=True)
        assert (await client.hear("caught_up"))["id"] == "again"
        client.say(subscribe="executions", id="brief", since=cursor, brief=True, filter={"id": str(new.pk)})
        message = await client.hear("rows", where=lambda message: message["id"] == "brief")
        assert message["rows"] == [{"id": str(new.pk)}]
