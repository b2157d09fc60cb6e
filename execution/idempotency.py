"""Requests with an `Idempotency-Key`: done once, however often they are sent; the repeat gets the first answer.

After draft-ietf-httpapi-idempotency-key-header: the same key with another request is refused. Keys live seven days.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.db import connections, transaction

from execution.models import IdempotencyKey
from scheduling_project.common.errors import DomainError, InvalidInput

KEPT_FOR: Final = timedelta(days=7)
MAX_LENGTH: Final = 255


class KeyReused(DomainError):
    """This Idempotency-Key was used for another request."""

    code = "idempotency_key_reused"
    status = 422


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered. `replayed`: to an earlier request with the same key."""

    status: int
    body: Any
    replayed: bool = False


def check_key(key: str) -> str:
    """The key, if it can be one.

    Raises:
        InvalidInput: it is empty, too long, or not printable ASCII.
    """
    if not 1 <= len(key) <= MAX_LENGTH or not key.isascii() or not key.isprintable():
        raise InvalidInput(fields={"Idempotency-Key": [f"must be 1 to {MAX_LENGTH} printable ASCII characters"]})
    return key


def request_hash(body: Any, query: str = "") -> str:
    """One value for all requests that ask for the same."""
    text = json.dumps([body, query], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def once(
    scope: str, key: str, request: str, perform: Callable[[], tuple[int, Any]], *, using: str = "default"
) -> Answer:
    """Perform and keep the answer in one transaction; or give the answer kept from the first time.

    Race: two requests with one key at once. The unique row is inserted before anything is done: the second waits
    for the first's transaction and then reads its answer, or performs if the first failed and left nothing.

    Args:
        scope: who asked for what: actor, method and path.
        request: the `request_hash`.
        perform: does it and returns status and JSON body; what it raises undoes everything.

    Raises:
        KeyReused: the key came with another request before.
    """
    scope = scope if len(scope) <= 200 else hashlib.sha256(scope.encode()).hexdigest()
    with transaction.atomic(using=using):
        if not _reserve(scope, key, request, using):
            kept = IdempotencyKey.objects.using(using).get(scope=scope, key=key)
            if kept.request_hash != request:
                raise KeyReused
            return Answer(kept.status, kept.response, replayed=True)
        status, body = perform()
        IdempotencyKey.objects.using(using).filter(scope=scope, key=key).update(status=status, response=body)
    return Answer(status, body)


def _reserve(scope: str, key: str, request: str, using: str) -> bool:
    with connections[using].cursor() as cursor:
        # Whoever waits for the first request longer than this is told to come back (503 with Retry-After).
        cursor.execute("SET LOCAL lock_timeout = '10s'")
        cursor.execute(
            """
            INSERT INTO execution_idempotencykey (scope, key, request_hash, status, response, created_at)
            VALUES (%s, %s, %s, 0, NULL, clock_timestamp()) ON CONFLICT (scope, key) DO NOTHING
            """,
            [scope, key, request],
        )
        return bool(cursor.rowcount)
