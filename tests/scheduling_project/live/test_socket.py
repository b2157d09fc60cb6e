"""`/ws/`: what clients may ask, what they are told, and when they are shown the door."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client

from execution import lifecycle
from execution.models import Execution
from execution.states import ExecutionState
from scheduling_project.live import access, hub, socket
from scheduling_project.live.access import issue_ticket
from scheduling_project.live.cursors import OVERLAP
from tests import factories
from tests.patience import PATIENCE
from tests.scheduling_project.live.client import LiveClient, Refused, apart
from tests.scheduling_project.live.conftest import STILL

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


async def test_a_transaction_that_commits_late_is_not_stepped_over(ada: User) -> None:
    """Two connections: one writes before the cursor is read and commits after it, and after others."""
    late, early = await make_execution(), await make_execution()
    written, go = threading.Event(), threading.Event()

    def slow() -> None:
        with transaction.atomic():
            ended = factories.now() - OVERLAP / 2
            Execution.objects.filter(pk=late.pk).update(state="failed", finished_at=ended)
            written.set()
            assert go.wait(PATIENCE)

    writing = asyncio.create_task(apart(slow))
    await asyncio.to_thread(written.wait, PATIENCE)
    async with LiveClient(ticket=issue_ticket(ada, None)) as client:
        first = (await client.follow("executions"))["cursor"]
    await apart(lifecycle.pause, early.pk, actor="ada")
    async with LiveClient(ticket=issue_ticket(ada, None)) as client:
        client.say(subscribe="executions", since=first)
        await client.row(early.pk, state="paused")
        second = (await client.hear("caught_up"))["cursor"]
    go.set()
    await writing
    for cursor in (first, second):
        async with LiveClient(ticket=issue_ticket(ada, None)) as client:
            client.say(subscribe="executions", since=cursor)
            await client.row(late.pk, state="failed")


async def test_what_nobody_announced_is_found_by_looking(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PACE", replace(STILL, scan=0.1, poll=0.1))
    letter = await apart(factories.make_dead_letter)
    async with LiveClient(ticket=issue_ticket(ada, None)) as client:
        await client.follow("dead_letters")
        await apart(lambda: type(letter).objects.filter(pk=letter.pk).update(note="seen"))
        await client.row(letter.pk, note="seen")


async def test_a_slow_client_is_cut_and_loses_nothing(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "OUTBOX_MESSAGES", 5)
    execution = await make_execution()
    async with LiveClient(ticket=issue_ticket(ada, None)) as client:
        cursor = (await client.follow("executions"))["cursor"]
        await apart(lifecycle.pause, execution.pk, actor="ada")
        client.reads.clear()
        for number in range(10):
            client.say(ping=number)
        await asyncio.sleep(0.1)
        client.reads.set()
        code, last = await client.closed()
        assert (code, last["type"], last["code"]) == (4008, "closing", 4008)
    async with LiveClient(ticket=issue_ticket(ada, None)) as client:
        client.say(subscribe="executions", since=cursor)
        await client.row(execution.pk, state="paused")


async def test_a_ticket_opens_one_socket_within_thirty_seconds(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = issue_ticket(ada, None)
    async with LiveClient(ticket=ticket):
        pass
    old = issue_ticket(ada, None)
    for bad in (ticket, "forged", ticket[:-1]):
        with pytest.raises(Refused) as refused:
            await LiveClient(ticket=bad).__aenter__()
        assert (refused.value.status, refused.value.code) == (401, "not_authenticated")
    monkeypatch.setattr(access, "TICKET_SECONDS", -1)
    with pytest.raises(Refused, match="older than 30 seconds"):
        await LiveClient(ticket=old).__aenter__()


async def test_a_session_counts_only_with_our_own_origin(ada: User) -> None:
    browser = Client()
    await apart(browser.force_login, ada)
    cookie = f"sessionid={browser.cookies['sessionid'].value}"
    for origin, status in (("http://evil.example", 403), ("", 403), ("http://localhost", 0)):
        headers = {"cookie": cookie, **({"origin": origin} if origin else {})}
        if status:
            with pytest.raises(Refused) as refused:
                await LiveClient(headers=headers).__aenter__()
            assert (refused.value.status, refused.value.code) == (status, "wrong_origin")
        else:
            async with LiveClient(headers=headers) as client:
                assert (await client.follow("queues"))["type"] == "subscribed"
                assert {row["id"] for row in (await client.hear("rows"))["rows"]} >= {"default", "io"}
    for headers, path, status in (({}, "/ws/", 401), ({}, "/elsewhere", 404), ({"host": "evil.example"}, "/ws", 403)):
        with pytest.raises(Refused) as refused:
            await LiveClient(headers=headers, path=path).__aenter__()
        assert refused.value.status == status


async def test_permissions_are_asked_for_each_kind_and_again_while_it_is_open(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "PACE", replace(STILL, recheck=0.1))
    user = await apart(User.objects.create_user, "bob")
    await apart(
        user.user_permissions.add, *await apart(lambda: list(Permission.objects.filter(codename="view_execution")))
    )
    async with LiveClient(ticket=issue_ticket(user, None)) as client:
        assert (await client.follow("executions"))["type"] == "subscribed"
        refused = await client.follow("schedules", id="x")
        assert (refused["code"], refused["permission"]) == ("permission_denied", "schedules.view_schedule")
        await apart(user.user_permissions.clear)
        assert (await client.closed())[0] == 4003


async def test_bad_messages_are_answered_and_the_socket_stays(ticket: str) -> None:
    cases: list[tuple[Any, str]] = [
        ({"subscribe": "dogs"}, "subscribe"),
        ({"subscribe": "executions", "filter": {"color": "red"}}, "filter.color"),
        ({"subscribe": "executions", "filter": {"id": "1"}}, "filter.id"),
        ({"subscribe": "executions", "filter": []}, "filter"),
        ({"subscribe": "executions", "filter": {"state": []}}, "filter.state"),
        ({"subscribe": "executions", "filter": {"state": [1]}}, "filter.state"),
        ({"subscribe": "executions", "since": "yesterday"}, "since"),
        ({"subscribe": "executions", "brief": 1}, "brief"),
        ({"subscribe": "executions", "id": ""}, "id"),
        ({"subscribe": "executions", "colour": 1}, "colour"),
        ({"unsubscribe": 1}, "unsubscribe"),
        ({"subscribe": "executions", "ping": 1}, ""),
        ({}, ""),
    ]
    async with LiveClient(ticket=ticket) as client:
        for message, field in cases:
            client.say(**message)
            answer = await client.hear("error")
            assert list(answer.get("errors", {})) == ([field] if field else []), message
        client.say_raw(text="[" * 9000)
        assert (await client.hear("error"))["code"] == "invalid"
        client.say(subscribe="executions", since="1-1")
        assert (await client.hear("subscribed", "reset"))["type"] in {"subscribed", "reset"}
        client.say(subscribe="executions", since=f"{2**62}-1")
        assert (await client.hear("reset"))["id"] == "executions"
        for number in range(20):
            client.say(subscribe="queues", id=str(number))
        assert (await client.hear("error"))["code"] == "too_many_subscriptions"
        client.say_raw(bytes=b"x" * 20_000)
        assert (await client.closed())[0] == 1009


async def test_redis_away_turns_to_looking_and_back(ada: User, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(hub, "PACE", replace(STILL, poll=0.1))
    there, settings.REDIS_URL = settings.REDIS_URL, "redis://127.0.0.1:1/0"
    execution = await make_execution()
    async with LiveClient(ticket=issue_ticket(ada, None)) as client:
        assert (await client.follow("executions"))["mode"] == "polling"
        await apart(lifecycle.pause, execution.pk, actor="ada")
        await client.row(execution.pk, state="paused")
        settings.REDIS_URL = there
        await client.until("push")
