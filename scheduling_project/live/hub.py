"""The one who watches for all sockets of a web process: hears what is announced, looks it up, tells who follows it.

One task pumps: it gathers words from Redis, new subscriptions and what is due by the clock, asks the database once
for all of them, in one thread, and hands the rows out in the order in which they were read; so nobody is told of
an older state after a newer one. Words only hasten it: every few seconds it looks up all that has changed since its
cursor, so a lost word costs seconds and no row. The cursor moves when everything before it has been handed out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID
from weakref import WeakKeyDictionary

import redis.asyncio
from django.conf import settings
from django.db import connections
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from execution import broker, engine, live
from scheduling_project.common.logs import get_logger
from scheduling_project.live import messages
from scheduling_project.live.access import Visitor
from scheduling_project.live.cursors import Cursor
from scheduling_project.live.kinds import KINDS, Row
from scheduling_project.live.looks import Answer, Question, Seen, call, shared_filters, whole
from scheduling_project.live.messages import Subscribe

log = get_logger(__name__)

#: Sockets of one process.
MOST_SOCKETS: Final = 1_000
#: Rows in one message.
ROWS_A_MESSAGE: Final = 200
#: The close code of a socket whose user may not watch any more.
FORBIDDEN: Final = 4003
BROKEN: Final = 1011


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: how long words gather; between looks at all changes while Redis is there, and while it is away; between
    counts of the queues, heartbeats, and looks at what users may; how long Redis may be silent; between tries."""

    gather: float = 0.05
    scan: float = 5.0
    poll: float = 2.0
    queues: float = 2.0
    heartbeat: float = 15.0
    recheck: float = 30.0
    silence: float = 5.0
    retry: float = 1.0


PACE: Final = Pace()


class Watcher(Protocol):
    """A socket, as the hub knows it."""

    visitor: Visitor
    subscriptions: dict[str, Subscribe]

    def offer(self, text: str) -> None:
        """Send it soon; never waits."""

    def end(self, code: int, reason: str) -> None:
        """Close it."""


class Hub:
    """Starts with the first socket of its event loop and rests after the last."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.watchers: set[Watcher] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="live")
        self._reset()

    def _reset(self) -> None:
        self.cursor: Cursor | None = None
        self.mode = "polling"
        self._seen = Seen()
        self._words: dict[str, set[str] | None] = {}
        self._fresh: list[tuple[Watcher, Subscribe]] = []
        self._wake = asyncio.Event()
        self._due: dict[str, float] = {}
        self._postgres_away = False
        self._redis_away = False

    # ── What sockets call ────────────────────────────────────────────────────────────────────────────────────────

    def join(self, watcher: Watcher) -> None:
        """Take a socket in."""
        self.watchers.add(watcher)
        if not self._tasks:
            self._reset()
            self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._pump())]
            for task in self._tasks:
                task.add_done_callback(self._ended)

    def leave(self, watcher: Watcher) -> None:
        """Forget a socket; after the last one nothing is heard or looked up any more."""
        self.watchers.discard(watcher)
        if not self.watchers:
            self._stop()

    def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        self._thread.submit(connections.close_all)

    def subscribe(self, watcher: Watcher, wish: Subscribe) -> None:
        """Let a socket follow something; the answer comes with the next look."""
        watcher.subscriptions[wish.id] = wish
        self._fresh.append((watcher, wish))
        self._wake.set()

    @property
    def is_full(self) -> bool:
        return len(self.watchers) >= MOST_SOCKETS

    # ── Hearing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        while True:
            try:
                await self._hear()
            except broker.BrokerAway as error:
                if not self._redis_away:
                    log.warning("live.redis_away", error=str(error))
                self._redis_away = True
                self._turn("polling")
                await asyncio.sleep(self.pace.retry)

    async def _hear(self) -> None:
        """Take in what is announced until Redis goes away.

        Raises:
            redis.RedisError, OSError: it is.
        """
        client = redis.asyncio.Redis.from_url(
            str(settings.REDIS_URL).replace("redis+socket://", "unix://", 1),
            socket_connect_timeout=broker.CONNECT_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        async with client, client.pubsub() as pubsub:
            await asyncio.wait_for(pubsub.subscribe(live.channel()), broker.CONNECT_TIMEOUT)
            is_silent = False
            while True:
                message = await pubsub.get_message(timeout=self.pace.silence)
                if message is None:
                    if is_silent:
                        raise ConnectionError("Redis has been silent for too long")
                    is_silent = True
                    await asyncio.wait_for(pubsub.ping(), broker.SOCKET_TIMEOUT)
                    continue
                is_silent = False
                if message["type"] == "subscribe":
                    self._redis_away = False
                    self._turn("push")
                    self._look_at_everything()  # what was announced before has not been heard
                elif message["type"] == "message":
                    self._take(message["data"])

    def _take(self, text: bytes) -> None:
        try:
            words = {kind: ids and [str(UUID(id)) for id in ids] for kind, ids in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError):
            log.warning("live.not_understood", text=text[:200])  # another version's word: look for oneself
            self._look_at_everything()
            return
        for kind, ids in words.items():
            known = self._words.setdefault(kind, set())
            if ids is None or known is None or len(known) + len(ids) > 4 * live.MANY:
                self._words[kind] = None
            else:
                known.update(ids)
        self._wake.set()

    def _look_at_everything(self) -> None:
        self._due["scan"] = 0.0
        self._wake.set()

    def _turn(self, mode: str) -> None:
        if mode != self.mode:
            self.mode = mode
            self._broadcast(self.mode_message())
            self._wake.set()

    def mode_message(self) -> str:
        """Tells how news come: pushed as they happen, or looked up every few seconds while Redis is away."""
        return messages.write("mode", mode=self.mode, every=self.every)

    @property
    def every(self) -> float:
        """Seconds between looks at all changes."""
        return self.pace.scan if self.mode == "push" else self.pace.poll

    # ── Looking and telling ──────────────────────────────────────────────────────────────────────────────────────

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            due = {name for name in ("scan", "queues", "heartbeat", "recheck") if self._due.get(name, 0.0) <= now}
            if not due and not self._wake.is_set():
                await self._rest(min(self._due.values()) - now)
                continue
            self._wake.clear()
            try:
                await self._round(due)
            except engine.DatabaseAway as error:
                log.warning("live.postgres_away", error=str(error))
                if not self._postgres_away:
                    self._broadcast(messages.write("mode", mode="waiting", every=self.pace.retry))
                self._postgres_away = True
                self._due["scan"] = 0.0  # the words of this round are gone: look at everything
                await asyncio.sleep(self.pace.retry)
            else:
                if self._postgres_away:
                    self._postgres_away = False
                    self._broadcast(self.mode_message())
                await asyncio.sleep(self.pace.gather)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(seconds, 0.001))

    async def _round(self, due: set[str]) -> None:
        loop = asyncio.get_running_loop()
        fresh = [pair for pair in self._fresh if self._holds(*pair)]
        wishes = self._wishes()
        words, self._words = self._words, {}
        many = {kind for kind, ids in words.items() if ids is None} & set(KINDS)
        if live.EXECUTIONS in many:
            many |= {live.STEP_RUNS, live.DEAD_LETTERS}
        scanned = {name for name in wishes if name != live.QUEUES and ("scan" in due or name in many)}
        if live.QUEUES in wishes and ("queues" in due or live.QUEUES in words):
            scanned.add(live.QUEUES)
        if fresh or scanned or (wishes and words):
            question = Question(
                followed=wishes,
                words=words,
                scan={name: shared_filters(wishes[name]) for name in sorted(scanned)},
                cursor=self.cursor,
                fresh=[wish for _, wish in fresh],
            )
            answer = await loop.run_in_executor(self._thread, call, question)
            self._fresh = [pair for pair in self._fresh if pair not in fresh]
            self._tell(answer, fresh, is_whole="scan" in due)
            if "scan" in due:
                pause = 6 * self.pace.scan if answer.overflowed else max(self.every, 20 * answer.seconds)
                self._due["scan"] = loop.time() + pause
        else:
            self._fresh = [pair for pair in self._fresh if pair not in fresh]
            if "scan" in due:
                self.cursor = None  # nobody follows anything: the next subscription begins with a new one
                self._due["scan"] = loop.time() + self.every
        if "queues" in due:
            self._due["queues"] = loop.time() + self.pace.queues
        if "recheck" in due:
            await self._recheck()
            self._due["recheck"] = loop.time() + self.pace.recheck
        if "heartbeat" in due:
            self._beat()
            self._due["heartbeat"] = loop.time() + self.pace.heartbeat

    def _wishes(self) -> dict[str, list[Subscribe]]:
        found: dict[str, list[Subscribe]] = {}
        for watcher in self.watchers:
            for wish in watcher.subscriptions.values():
                found.setdefault(wish.kind.name, []).append(wish)
        return found

    def _holds(self, watcher: Watcher, wish: Subscribe) -> bool:
        return watcher in self.watchers and watcher.subscriptions.get(wish.id) is wish

    def _tell(self, answer: Answer, fresh: list[tuple[Watcher, Subscribe]], *, is_whole: bool) -> None:
        """Hand out what was found: beginnings and catch-ups first, as they were read first. The cursor moves last."""
        if self.cursor is None:
            self.cursor = answer.cursor
        for (watcher, wish), rows in zip(fresh, answer.caught_up, strict=True):
            if self._holds(watcher, wish):
                self._begin(watcher, wish, rows, answer.cursor)
        for name, rows in answer.rows.items():
            self._hand_out(name, self._seen.fresh(name, rows))
        for name in answer.overflowed:
            for watcher, wish in self._following(name):
                watcher.offer(messages.write("reset", id=wish.id, cursor=answer.cursor, reason=TOO_MUCH))
        if is_whole:
            self.cursor = answer.cursor
            self._seen.forget(answer.cursor)

    def _begin(self, watcher: Watcher, wish: Subscribe, rows: list[Row] | None, now: Cursor) -> None:
        cursor = now if wish.since is None else wish.since
        watcher.offer(messages.write("subscribed", id=wish.id, kind=wish.kind.name, cursor=cursor, mode=self.mode))
        if rows is None:
            watcher.offer(messages.write("reset", id=wish.id, cursor=now, reason=TOO_MUCH))
            return
        for part in _parts(rows):
            tail = messages.rows_tail(wish.kind.name, part, cursor, brief=wish.brief)
            watcher.offer(messages.rows_message(wish.id, tail))
        if wish.since is not None:
            watcher.offer(messages.write("caught_up", id=wish.id, cursor=now))

    def _hand_out(self, kind: str, rows: list[Row]) -> None:
        if not rows:
            return
        assert self.cursor is not None
        tails: dict[tuple[bool, str], list[str]] = {}  # those who ask for the same share the work
        for watcher, wish in self._following(kind):
            key = (wish.brief, json.dumps(wish.filters))
            if key not in tails:
                wanted = [row for row in rows if row.matches(wish.filters, wish.kind.shown_as)]
                tails[key] = [messages.rows_tail(kind, part, self.cursor, brief=wish.brief) for part in _parts(wanted)]
            for tail in tails[key]:
                watcher.offer(messages.rows_message(wish.id, tail))

    def _following(self, kind: str) -> list[tuple[Watcher, Subscribe]]:
        waiting = {id(wish) for _, wish in self._fresh}  # those have not begun
        return [
            (watcher, wish)
            for watcher in self.watchers
            for wish in watcher.subscriptions.values()
            if wish.kind.name == kind and id(wish) not in waiting
        ]

    def _beat(self) -> None:
        text = messages.write("heartbeat", cursor=self.cursor and str(self.cursor), mode=self.mode)
        bare = messages.write("heartbeat", cursor=None, mode=self.mode)
        waiting = {id(watcher) for watcher, _ in self._fresh}
        for watcher in list(self.watchers):
            watcher.offer(bare if id(watcher) in waiting or self.cursor is None else text)

    async def _recheck(self) -> None:
        """End the sockets of users who may not watch any more what they watch."""
        loop = asyncio.get_running_loop()
        watchers = list(self.watchers)
        visitors = {(watcher.visitor.user.pk, id(watcher.visitor.still)): watcher.visitor for watcher in watchers}
        found = await loop.run_in_executor(self._thread, whole, _again, list(visitors.values()))
        now = dict(zip(visitors, found, strict=True))
        for watcher in watchers:
            visitor = now[watcher.visitor.user.pk, id(watcher.visitor.still)]
            needed = {wish.kind.permission for wish in watcher.subscriptions.values()}
            if visitor is None or not needed <= visitor.allowed:
                watcher.end(FORBIDDEN, "you may not watch this any more")
            else:
                watcher.visitor = visitor

    def _broadcast(self, text: str) -> None:
        for watcher in list(self.watchers):
            watcher.offer(text)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task of ours has ended: told to, or by a mistake, which must not leave sockets open and deaf."""
        if task.cancelled() or task not in self._tasks:
            return
        log.error("live.hub_failed", exc_info=task.exception())
        self._stop()  # the next socket starts anew
        for watcher in list(self.watchers):
            watcher.end(BROKEN, "something went wrong here; come back")


TOO_MUCH: Final = "too much has changed since, or the cursor is of another database: read the list anew"


def _parts(rows: list[Row]) -> Iterable[list[Row]]:
    return [rows[start : start + ROWS_A_MESSAGE] for start in range(0, len(rows), ROWS_A_MESSAGE)]


def _again(visitors: list[Visitor]) -> list[Visitor | None]:
    """Each visitor with its permissions of this moment."""
    return [visitor.again() for visitor in visitors]


def of_loop() -> Hub:
    """The hub of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = Hub(PACE)
    return _hubs[loop]


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()
