"""What clients and the server say to each other: client messages read and checked, server messages as JSON texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scheduling_project.common.errors import DomainError, InvalidInput
from scheduling_project.live import cursors
from scheduling_project.live.cursors import Cursor
from scheduling_project.live.kinds import KINDS, Kind, Row, check_filters

#: Bytes of one client message.
MOST_BYTES: Final = 16_384
MOST_ID: Final = 64


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow a kind from now on, or from `since` on. `brief`: ids alone."""

    id: str
    kind: Kind
    filters: Mapping[str, list[str]] = field(default_factory=dict)
    since: Cursor | None = None
    brief: bool = False


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Follow no longer."""

    id: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? The value comes back."""

    value: Any


Message = Subscribe | Unsubscribe | Ping


class TooLong(DomainError):
    """A message may have 16384 bytes."""

    code = "too_long"


def read(text: str | bytes | None) -> Message:
    """A client's message.

    Raises:
        InvalidInput: it is none; per field what rule it breaks.
        TooLong: it has more than `MOST_BYTES`.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text or b""
    if len(raw) > MOST_BYTES:
        raise TooLong
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise InvalidInput("A message is a JSON object.")
    verbs = [name for name in ("subscribe", "unsubscribe", "ping") if name in data]
    if len(verbs) != 1:
        raise InvalidInput("A message has one of the members subscribe, unsubscribe and ping.")
    match verbs[0]:
        case "subscribe":
            return _subscribe(data)
        case "unsubscribe":
            _only(data, "unsubscribe")
            return Unsubscribe(_id(data["unsubscribe"], "unsubscribe"))
    _only(data, "ping")
    return Ping(data["ping"])


def _subscribe(data: Mapping[str, Any]) -> Subscribe:
    _only(data, "subscribe", "id", "filter", "since", "brief")
    wrong: dict[str, list[str]] = {}
    name = data["subscribe"]
    kind = KINDS.get(name) if isinstance(name, str) else None
    filters: dict[str, list[str]] = {}
    since = None
    if kind is None:
        wrong["subscribe"] = [f"must be one of {', '.join(KINDS)}"]
    else:
        try:
            filters = check_filters(kind, data.get("filter", {}))
        except ValueError as error:
            wrong |= {field: [rule] for field, rule in error.args[0].items()}
    if data.get("since") is not None:
        try:
            since = cursors.parse(data["since"])
        except ValueError as error:
            wrong["since"] = [str(error)]
    if not isinstance(data.get("brief", False), bool):
        wrong["brief"] = ["must be true or false"]
    if wrong or kind is None:
        raise InvalidInput(fields=wrong)
    return Subscribe(_id(data.get("id", kind.name), "id"), kind, filters, since, data.get("brief", False))


def _id(value: Any, name: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MOST_ID:
        raise InvalidInput(fields={name: [f"must be a text of 1 to {MOST_ID} characters"]})
    return value


def _only(data: Mapping[str, Any], *names: str) -> None:
    unknown = {str(name): ["is not a known member"] for name in data if name not in names}
    if unknown:
        raise InvalidInput(fields=unknown)


def write(type: str, **members: Any) -> str:
    """A message of the server's.

    >>> write("pong", pong=1)
    '{"type":"pong","pong":1}'
    """
    return json.dumps({"type": type, **members}, separators=(",", ":"), default=str)


def error(problem: DomainError, id: str | None = None) -> str:
    """Tells what was wrong with a message, as the API's problem documents do."""
    members: dict[str, Any] = {"code": problem.code, "detail": problem.message}
    if problem.fields:
        members["errors"] = problem.fields
    return write("error", **members, **problem.extra, **({} if id is None else {"id": id}))


def rows_tail(kind: str, rows: Iterable[Row], cursor: Cursor, *, brief: bool) -> str:
    """The part of a `rows` message that all who follow the same share; `rows_message` puts the id before it."""
    texts = ",".join(row.brief if brief else row.text for row in rows)
    return f'"kind":"{kind}","rows":[{texts}],"cursor":"{cursor}"}}'


def rows_message(id: str, tail: str) -> str:
    return f'{{"type":"rows","id":{json.dumps(id)},{tail}'
