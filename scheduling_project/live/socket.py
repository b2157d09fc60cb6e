"""`/ws/` as an ASGI application: lets visitors in, reads what they ask, sends what the hub has for them.

Nobody waits for a slow client: what is to be sent to it waits in a bounded outbox, and when that is full the socket
is closed with code 4008. Nothing is lost by it: the client comes back with the last cursor that it has read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from scheduling_project.common.errors import DomainError, Unavailable
from scheduling_project.common.logs import get_logger
from scheduling_project.common.permissions import Forbidden
from scheduling_project.common.problems import MEDIA_TYPE, problem
from scheduling_project.live import hub as hubs
from scheduling_project.live import messages
from scheduling_project.live.access import Visitor, visitor_of
from scheduling_project.live.looks import whole
from scheduling_project.live.messages import MOST_BYTES, Ping, Subscribe, Unsubscribe

log = get_logger(__name__)

PATHS: Final = ("/ws", "/ws/")
MOST_SUBSCRIPTIONS: Final = 20
#: What waits to be sent to one client, at most.
OUTBOX_MESSAGES: Final = 1_000
OUTBOX_CHARACTERS: Final = 1_000_000
#: Client messages in a second, on average over ten.
MESSAGES_A_SECOND: Final = 10
#: What the last message and the close frame get to go out.
CLOSE_SECONDS: Final = 2.0

#: Close codes, beside those of the hub.
TOO_SLOW: Final = 4008
TOO_MANY_MESSAGES: Final = 4029
MESSAGE_TOO_LONG: Final = 1009

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_door = ThreadPoolExecutor(2, thread_name_prefix="live-door")


class NoSuchSocket(DomainError):
    """There is one socket, at /ws/."""

    code = "not_found"
    status = 404


class TooManySubscriptions(DomainError):
    """A socket may have 20 subscriptions."""

    code = "too_many_subscriptions"


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one socket."""
    await receive()  # websocket.connect
    hub = hubs.of_loop()
    try:
        if scope["path"] not in PATHS:
            raise NoSuchSocket
        if hub.is_full:
            raise Unavailable("This process serves as many sockets as it may.")
        visitor = await asyncio.get_running_loop().run_in_executor(_door, whole, visitor_of, scope)
    except DomainError as error:
        await _refuse(scope, send, error)
        return
    except Exception as error:
        log.error("live.door_failed", exc_info=error)
        await _refuse(scope, send, Unavailable())
        return
    await send({"type": "websocket.accept"})
    await Socket(visitor, hub, receive, send).serve()


async def _refuse(scope: Scope, send: Send, error: DomainError) -> None:
    """Answer the handshake with a problem document where the server can, with a bare 403 otherwise."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": hubs.FORBIDDEN})
        return
    body = json.dumps(problem(error.status, error.code, error.message)).encode()
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


class Socket:
    """One client that was let in."""

    def __init__(self, visitor: Visitor, hub: hubs.Hub, receive: Receive, send: Send) -> None:
        self.visitor = visitor
        self.subscriptions: dict[str, Subscribe] = {}
        self._hub = hub
        self._receive = receive
        self._send = send
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._waiting = 0  # characters in the outbox
        self._closing: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    async def serve(self) -> None:
        """Read and write until either side ends it."""
        self._hub.join(self)
        self.offer(
            messages.write(
                "hello",
                mode=self._hub.mode,
                heartbeat=self._hub.pace.heartbeat,
                subscriptions=MOST_SUBSCRIPTIONS,
                message_bytes=MOST_BYTES,
            )
        )
        reader, writer = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        try:
            ends: set[asyncio.Future[Any]] = {reader, writer, self._closing}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(self)
            for task in (reader, writer):
                task.cancel()
            for error in await asyncio.gather(reader, writer, return_exceptions=True):
                if isinstance(error, Exception) and not isinstance(error, OSError):  # OSError: the client is gone
                    log.error("live.socket_failed", exc_info=error)
                    self.end(hubs.BROKEN, "something went wrong here; come back")
        if self._closing.done():
            await self._close(*self._closing.result())

    def offer(self, text: str) -> None:
        """Send it soon; a client for which too much waits already is cut."""
        if self._closing.done():
            return
        self._waiting += len(text)
        self._outbox.put_nowait(text)
        if self._outbox.qsize() > OUTBOX_MESSAGES or self._waiting > OUTBOX_CHARACTERS:
            self.end(TOO_SLOW, "too slow: come back with your last cursor")

    def end(self, code: int, reason: str) -> None:
        """Close it with a last message that says why; what still waits is not sent."""
        if not self._closing.done():
            self._closing.set_result((code, reason))

    async def _write(self) -> None:
        while True:
            text = await self._outbox.get()
            await self._send({"type": "websocket.send", "text": text})
            self._waiting -= len(text)

    async def _close(self, code: int, reason: str) -> None:
        log.info("live.socket_cut", user=str(self.visitor.user), code=code, reason=reason)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                last = messages.write("closing", code=code, detail=reason)
                await self._send({"type": "websocket.send", "text": last})
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except (OSError, RuntimeError):  # it is gone, or takes nothing at all (TimeoutError)
            log.info("live.socket_gone", user=str(self.visitor.user))

    async def _read(self) -> None:
        clock = asyncio.get_running_loop().time
        spared, at = 10.0 * MESSAGES_A_SECOND, clock()
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                return
            spared, at = min(spared + (clock() - at) * MESSAGES_A_SECOND, 10.0 * MESSAGES_A_SECOND), clock()
            spared -= 1
            if spared < 0:
                self.end(TOO_MANY_MESSAGES, f"at most {MESSAGES_A_SECOND} messages a second are taken")
                return
            try:
                self._obey(messages.read(event.get("text") or event.get("bytes")))
            except messages.TooLong as error:
                self.end(MESSAGE_TOO_LONG, error.message)
                return
            except DomainError as error:
                self.offer(messages.error(error))

    def _obey(self, message: messages.Message) -> None:
        match message:
            case Subscribe(id=id, kind=kind):
                if kind.permission not in self.visitor.allowed:
                    raise Forbidden(f"This needs the permission {kind.permission}.", permission=kind.permission, id=id)
                if id not in self.subscriptions and len(self.subscriptions) >= MOST_SUBSCRIPTIONS:
                    raise TooManySubscriptions(id=id)
                self._hub.subscribe(self, message)
            case Unsubscribe(id=id):
                self.subscriptions.pop(id, None)
                self.offer(messages.write("unsubscribed", id=id))
            case Ping(value=value):
                self.offer(messages.write("pong", pong=value))
