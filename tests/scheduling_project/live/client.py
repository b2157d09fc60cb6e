"""A client of `/ws/` for tests: the ASGI application itself, without a server between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.db import connections

from scheduling_project.asgi import application
from tests.patience import PATIENCE


async def apart(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call it in a thread of its own, whose connections are closed afterwards."""

    def call() -> Any:
        try:
            return function(*args, **kwargs)
        finally:
            connections.close_all()

    return await asyncio.to_thread(call)


class Refused(Exception):
    """The handshake was answered with a problem document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.code = problem.get("code")
        super().__init__(f"{status} {problem}")


class LiveClient:
    """One socket. Messages of the server's own heart (hello, mode, heartbeat) are passed over unless asked for."""

    def __init__(self, *, path: str = "/ws/", headers: dict[str, str] | None = None, **query: str) -> None:
        given = {"host": "localhost", **(headers or {})}
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": path,
            "scheme": "ws",
            "query_string": urlencode(query).encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("localhost", 80),
            "extensions": {"websocket.http.response": {}},
        }
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.mode = ""
        self.reads = asyncio.Event()
        self.reads.set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LiveClient:
        self._task = asyncio.create_task(application(self.scope, self._in.get, self._take))  # type: ignore[arg-type]
        self._in.put_nowait({"type": "websocket.connect"})
        answer = await self.event()
        if answer["type"] != "websocket.accept":
            problem = {}
            if answer["type"] == "websocket.http.response.start":
                problem = json.loads((await self.event())["body"])
            await self._task
            raise Refused(answer.get("status", 403), problem)
        return self

    async def _take(self, event: dict[str, Any]) -> None:
        await self.reads.wait()
        self._out.put_nowait(event)

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self.reads.set()
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(self._task, PATIENCE)

    async def event(self) -> dict[str, Any]:
        return await asyncio.wait_for(self._out.get(), PATIENCE)

    def say(self, **message: Any) -> None:
        self._in.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def say_raw(self, **event: Any) -> None:
        self._in.put_nowait({"type": "websocket.receive", **event})

    async def hear(self, *types: str, where: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The next message of one of these types."""
        while True:
            event = await self.event()
            assert event["type"] == "websocket.send", event
            message: dict[str, Any] = json.loads(event["text"])
            self.mode = message.get("mode", self.mode)
            if message["type"] in types and where(message):
                return message

    async def until(self, mode: str) -> None:
        """Wait until news come in this way."""
        while self.mode != mode:
            await self.hear("mode")

    async def row(self, id: object, **members: Any) -> dict[str, Any]:
        """The next row with this id whose members have these values; the message it came with is in ``message``."""
        while True:
            message = await self.hear("rows")
            for row in message["rows"]:
                if row["id"] == str(id) and members.items() <= row.items():
                    return {**row, "message": message}

    async def closed(self) -> tuple[int, dict[str, Any]]:
        """The close code, and the last message before it."""
        last: dict[str, Any] = {}
        while True:
            event = await self.event()
            if event["type"] == "websocket.close":
                return event["code"], last
            last = json.loads(event["text"])

    async def follow(self, kind: str, **more: Any) -> dict[str, Any]:
        """Subscribe and wait until that has begun."""
        self.say(subscribe=kind, **more)
        return await self.hear("subscribed", "error")
