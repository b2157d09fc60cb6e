"""The hand-off to Celery: hints to Redis in batches after the commit, and the sweep that sends what was not claimed.

A hint says "this step run may be ready" and carries ids only. It is the same protocol-2 message that
``apply_async`` makes (a contract test compares them field by field), encoded once and pushed in one round trip:
``apply_async`` one by one costs 0.5 to 1.5 ms a message and would be the bottleneck everywhere.
"""

from __future__ import annotations

import json
import os
import socket
import time
from binascii import b2a_base64
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction

from execution import broker, engine, handoff
from execution.broker import BrokerAway
from execution.priority import LEVELS
from execution.queue import Hint
from scheduling_project.common.logs import get_logger
from scheduling_project.common.outages import OutageLog

log = get_logger(__name__)

DOOR = "execution.run_step"
HARD_LIMIT_GRACE = 10.0  # seconds between a step's soft time limit and the end of its process
EPOCH_KEY = "workflow:broker-epoch"

_ORIGIN = f"gen{os.getpid()}@{socket.gethostname()}"
_PAUSE_AFTER_FAILURE = 1.0  # seconds in which a process does not try again a broker that has just failed
_away_until = 0.0
_publishing, _sweeping = OutageLog("dispatch.broker"), OutageLog("sweep.broker")

# What stands in a template's places; random, so that no label or queue can contain it.
_NOBODY, _NO_TAG = uuid4(), uuid4().hex


def publish_on_commit(hints: Sequence[Hint], *, using: str | None = None) -> None:
    """Publish once the transaction open on `using` has committed; at once when there is none."""
    if hints:
        transaction.on_commit(lambda: publish(hints), using=using or engine.alias(), robust=True)


def publish(hints: Sequence[Hint]) -> int:
    """Send a hint for each, in one round trip. Returns how many were sent.

    Never raises for an absent broker: what could not be sent is unmarked, and the sweep sends it when the
    broker is back.
    """
    global _away_until
    if not hints:
        return 0
    if time.monotonic() >= _away_until:
        try:
            _push(hints)
            _publishing.succeeded()
            return len(hints)
        except BrokerAway as error:
            _away_until = time.monotonic() + _PAUSE_AFTER_FAILURE
            _publishing.failed(error, hints=len(hints))
    handoff.unmark([hint.id for hint in hints])
    return 0


def message(hint: Hint, *, delivery_tag: str) -> dict[str, Any]:
    """The broker message for one hint, as kombu's Redis transport stores it."""
    task_id = f"{hint.id}-{hint.attempt + 1}"
    arguments = [str(hint.id), hint.priority]
    hard, soft = (None, None) if hint.timeout is None else (hint.timeout + HARD_LIMIT_GRACE, hint.timeout)
    body = json.dumps([arguments, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return {
        "body": _base64(body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": DOOR,
            "id": task_id,
            "shadow": hint.label,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": hint.attempt,
            "timelimit": [hard, soft],
            "root_id": task_id,
            "parent_id": None,
            "argsrepr": repr(tuple(arguments)),
            "kwargsrepr": "{}",
            "origin": _ORIGIN,
            "ignore_result": True,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        },
        "properties": {
            "correlation_id": task_id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": hint.queue},
            "priority": hint.priority,
            "body_encoding": "base64",
            "delivery_tag": delivery_tag,
        },
    }


@lru_cache(maxsize=1_000)
def _template(label: str, queue: str, priority: int, timeout: float | None, attempt: int) -> str:
    """The encoded message of all hints that differ in nothing but their id, as a format of `id`, `body` and `tag`.

    The body is base64. `[["` before the id is three bytes long and the id 36, so both end where a group of three
    bytes ends: the id's text can be encoded apart from what stands around it.
    """
    text = json.dumps(message(Hint(_NOBODY, label, queue, priority, timeout, attempt), delivery_tag=_NO_TAG))
    text = text.replace("%", "%%").replace(_base64(str(_NOBODY)), "%(body)s")
    return text.replace(str(_NOBODY), "%(id)s").replace(_NO_TAG, "%(tag)s")


def _base64(text: str) -> str:
    return b2a_base64(text.encode(), newline=False).decode()


def encode(hints: Sequence[Hint]) -> dict[str, list[str]]:
    """The encoded messages of hints, in their order, by the key of the list that they are pushed to.

    What `message` says, made from one template for all hints that differ only by id; delivery tags are random.
    """
    by_key: defaultdict[str, list[str]] = defaultdict(list)
    tags = os.urandom(16 * len(hints)).hex()
    known: tuple[Any, ...] = ()
    for place, hint in enumerate(hints):
        kind = (hint.label, hint.queue, hint.priority, hint.timeout, hint.attempt)
        if kind != known:
            template, messages = _template(*kind), by_key[broker.key_of(hint.queue, hint.priority)]
            known = kind
        run_id = str(hint.id)
        messages.append(template % {"id": run_id, "body": _base64(run_id), "tag": tags[32 * place : 32 * place + 32]})
    return by_key


def _push(hints: Sequence[Hint]) -> None:
    with broker.client().pipeline(transaction=False) as pipeline:
        for key, messages in encode(hints).items():
            pipeline.lpush(key, *messages)
        pipeline.execute()


def withdraw(queue: str, levels: Iterable[int], step_run_ids: Collection[UUID]) -> int:
    """Take the hints of these step runs out of the broker again, as far as nobody has received them. Returns how many.

    Raises:
        BrokerAway: the broker does not answer.
    """
    client, withdrawn = broker.client(), 0
    wanted = {str(step_run_id) for step_run_id in step_run_ids}
    for level in levels if wanted else ():
        key = broker.key_of(queue, level)
        waiting: list[bytes] = client.lrange(key, 0, -1)  # type: ignore[assignment]
        ours = [encoded for encoded in waiting if _step_run_of(encoded) in wanted]
        if ours:
            with client.pipeline(transaction=False) as pipeline:
                for encoded in ours:
                    pipeline.lrem(key, 1, encoded)  # type: ignore[arg-type]
                withdrawn += sum(pipeline.execute())
    return withdrawn


def _step_run_of(encoded: bytes) -> str:
    """The step run that a message in the broker is about; empty for other people's messages."""
    headers = json.loads(encoded).get("headers", {})
    return str(headers.get("id", "")).rpartition("-")[0] if headers.get("task") == DOOR else ""


def depth(queues: Iterable[str]) -> int:
    """How many messages wait in the broker for these queues.

    Raises:
        BrokerAway: the broker does not answer.
    """
    with broker.client().pipeline(transaction=False) as pipeline:
        for name in queues:
            for priority in LEVELS:
                pipeline.llen(broker.key_of(name, priority))
        return sum(pipeline.execute())


# ── The sweep ──


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep did. `backlog`: the windows are full, or were until now; sweep again soon."""

    due: int = 0
    stale: int = 0
    reset: int = 0
    broker_away: bool = False

    @property
    def backlog(self) -> bool:
        return self.due > 0


# One script, so that two sweeps cannot read the same counter. A missing key means that the broker forgot
# everything (FLUSHALL, restarted empty); a counter below the one that Postgres remembers, that it came back with
# an older snapshot.
_EPOCH_SCRIPT = """
if redis.call('HSETNX', KEYS[1], 'id', ARGV[1]) == 1 then redis.call('HSET', KEYS[1], 'counter', 0) end
return {redis.call('HGET', KEYS[1], 'id'), redis.call('HINCRBY', KEYS[1], 'counter', 1)}
"""


def sweep(*, now: datetime | None = None, queues: Iterable[str] | None = None) -> Sweep:
    """Send what is due and was never sent, or sent long ago and never claimed. Safe to run anywhere, at any time."""
    lanes = list(settings.WORKFLOW_QUEUES if queues is None else queues)
    try:
        reset = check_epoch()
    except BrokerAway as error:
        _sweeping.failed(error)
        return Sweep(broker_away=True)
    _sweeping.succeeded()
    due = fill(now=now, queues=lanes)
    stale = handoff.mark_stale(
        queues=lanes,
        patience=settings.WORKFLOW_REDISPATCH_SECONDS,
        limit=settings.WORKFLOW_IN_FLIGHT_PER_LEVEL,
        now=now,
    )
    publish(stale)
    if stale:
        log.info("sweep.sent_again", hints=len(stale))
    return Sweep(due=due, stale=len(stale), reset=reset)


def fill(*, now: datetime | None = None, queues: Iterable[str] | None = None) -> int:
    """Send what is due and was never sent, as far as the in-flight windows have room. Returns how many hints."""
    lanes = list(settings.WORKFLOW_QUEUES if queues is None else queues)
    due = handoff.mark_due(queues=lanes, bound=settings.WORKFLOW_IN_FLIGHT_PER_LEVEL, now=now)
    publish(due)
    return len(due)


def check_epoch() -> int:
    """Compare the broker's life with the one that Postgres remembers; forget all hand-overs when it is another.

    Returns the number of hand-overs that were forgotten.

    Raises:
        BrokerAway: the broker does not answer.
    """
    # Read before the counter is raised: every remembered value comes from an earlier call of the script.
    remembered = handoff.broker_epoch()
    raw_id, counter = broker.client().eval(_EPOCH_SCRIPT, 1, EPOCH_KEY, str(uuid4()))
    epoch = UUID(raw_id.decode() if isinstance(raw_id, bytes) else raw_id)
    if remembered is None:
        handoff.remember_epoch(epoch, counter)
        return 0
    if remembered.epoch == epoch and counter > remembered.counter:
        handoff.remember_epoch(epoch, counter)
        return 0
    with engine.transaction():  # noticed and forgotten together: a crash in between would leave the marks
        if not handoff.change_epoch(expected=remembered, epoch=epoch, counter=counter):
            return 0  # another sweep noticed first
        forgotten = handoff.unmark_all()
    log.warning("sweep.broker_lost_messages", forgotten=forgotten, epoch=str(epoch))
    return forgotten
