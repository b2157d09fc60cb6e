"""From a delivery's bytes to events: CloudEvents in three modes, JSON, forms and texts. Pure.

Nothing is guessed that a sender could use against us: JSON must be JSON that can be kept (`json_values`), texts
must be UTF-8 without U+0000, forms are bounded. Whatever breaks a rule is `Malformed` (400) or `Unsupported` (415).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import parse_qsl

from scheduling_project.common import json_values
from scheduling_project.common.errors import DomainError
from triggers import cloudevents
from triggers.arrivals import MAX_TEXT, MAX_TYPE, Arrival, at_path, dedup_key
from triggers.cloudevents import CloudEvent, Malformed

DEFAULT_TYPE: Final = "webhook.received"
MAX_FIELDS: Final = 1_000
MAX_HEADERS: Final = 60
REDACTED: Final = "[redacted]"

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_CREDENTIAL: Final = re.compile(r"authori[sz]ation|cookie|signature|token|secret|api-?key|password|hmac|credential")
_BORING: Final = frozenset({"accept", "accept-encoding", "connection", "content-length", "host"})
_CHARSETS: Final = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})
_TYPE_HEADERS: Final = {
    "github": ("x-github-event",),
    "gitlab": ("x-gitlab-event",),
    "shopify": ("x-shopify-topic",),
}
_TYPE_MEMBERS: Final = {"slack": ("event.type", "type"), "stripe": ("type",)}
_ID_MEMBERS: Final = {"slack": "event_id", "stripe": "id"}
_ID_HEADERS: Final = (
    "idempotency-key",
    "webhook-id",
    "svix-id",
    "x-github-delivery",
    "x-gitlab-event-uuid",
    "x-shopify-webhook-id",
    "x-delivery-id",
)


class Unsupported(DomainError):
    """Deliveries of this content type are not taken."""

    code = "unsupported_media_type"
    status = 415


@dataclass(frozen=True, slots=True)
class Reading:
    """How an endpoint reads its deliveries (fields of `WebhookEndpoint`)."""

    slug: str
    scheme: str
    type_from: str = ""
    dedup: str = "auto"
    dedup_path: str = ""


def read(
    body: bytes,
    *,
    headers: Mapping[str, str],
    reading: Reading,
    delivery_id: str | None,
    query: str = "",
    secret_headers: frozenset[str] = frozenset(),
) -> list[Arrival]:
    """The events of a delivery; none only for an empty batch.

    Args:
        headers: names in small letters.
        delivery_id: as the verified signature covers it; else headers and body are asked.
        query: the query string, which is the data of a delivery by GET.
        secret_headers: further headers that are credentials and must not be kept.

    Raises:
        Malformed: the body is not what it says it is, or cannot be kept.
        Unsupported: its content type or encoding is not taken.
    """
    kept = kept_headers(headers, secret_headers)
    content_type = headers.get("content-type", "")[:200]
    media, charset = _media(content_type)
    if headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise Unsupported("Deliveries must not be compressed.")
    if media == cloudevents.BATCH:
        return [_from_cloudevent(event, body, kept, reading) for event in cloudevents.batch(_json(body))]
    if media == cloudevents.STRUCTURED:
        return [_from_cloudevent(cloudevents.structured(_json(body)), body, kept, reading)]
    if cloudevents.is_binary(headers):
        data = _data(media, charset, body, strict=False)
        event = cloudevents.binary(headers, content_type=content_type, data=data)
        return [_from_cloudevent(event, body, kept, reading)]
    data = _form(query.encode("latin-1", "replace")) if query and not body else _data(media, charset, body)
    return [replace(_plain(data, body, headers, reading, delivery_id), content_type=content_type, headers=kept)]


def _plain(data: Any, body: bytes, headers: Mapping[str, str], reading: Reading, delivery_id: str | None) -> Arrival:
    found = delivery_id or _delivery_id(data, headers, reading)
    return Arrival(
        type=_type_of(data, headers, reading),
        source=f"/webhooks/{reading.slug}",
        data=data,
        raw=body,
        delivery_id=found[:256],
        dedup_key=_dedup_key(data, body, found, reading),
    )


def _from_cloudevent(event: CloudEvent, body: bytes, kept: Mapping[str, str], reading: Reading) -> Arrival:
    data = event.data
    if event.binary is not None:
        media, charset = _media(event.content_type)
        data = _data(media, charset, event.binary, strict=False)
    key = None if reading.dedup == "none" else dedup_key("ce", event.source, event.id)
    if reading.dedup_path and reading.dedup != "none":
        key = _dedup_key(data, body, "", reading) or key
    return Arrival(
        type=event.type,
        source=event.source,
        subject=event.subject,
        time=event.time,
        data=data,
        extensions=event.extensions,
        content_type=event.content_type,
        raw=body,
        headers=kept,
        delivery_id=event.id[:256],
        dedup_key=key,
    )


def _data(media: str, charset: str, body: bytes, *, strict: bool = True) -> Any:
    if not body:
        return None
    if media == "application/json" or media.endswith("+json"):
        if charset not in _CHARSETS:
            raise Unsupported("JSON must be UTF-8.")
        return _json(body)
    if media == "application/x-www-form-urlencoded":
        return _form(body)
    if media.startswith("text/") or media == "application/x-ndjson":
        return _text(body, charset)
    if media:
        if strict:
            raise Unsupported(
                "Deliveries are JSON, CloudEvents, application/x-www-form-urlencoded or text.",
            )
        return None
    try:
        return json_values.parse(body)
    except json_values.JSONProblem:
        return _text(body, "")


def _json(body: bytes) -> Any:
    try:
        return json_values.parse(body)
    except json_values.JSONProblem as error:
        if error.path:
            raise Malformed("The body cannot be kept.", fields={error.path: [error.rule]}) from None
        raise Malformed(f"The body {error.rule}.") from None


def _text(body: bytes, charset: str) -> str:
    if charset not in _CHARSETS and charset not in {"iso-8859-1", "latin1", "latin-1"}:
        raise Unsupported("Texts must be UTF-8 or ISO-8859-1.")
    try:
        text = body.decode("utf-8" if charset in _CHARSETS else "latin-1")
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not UTF-8 at byte {error.start}.") from None
    if "\x00" in text:
        raise Malformed("The body holds U+0000, which cannot be kept.")
    return text


def _form(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode("utf-8")
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:  # UnicodeDecodeError among them
        raise Malformed(f"The body is not a form: {str(error)[:100]}.") from None
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if _UNSTORABLE.search(name) or _UNSTORABLE.search(value):
            raise Malformed("The body holds U+0000, which cannot be kept.")
        if name not in fields:
            fields[name] = value
        elif isinstance(fields[name], list):
            fields[name].append(value)
        else:
            fields[name] = [fields[name], value]
    # Slack, GitHub and others put JSON into one field of a form.
    if set(fields) == {"payload"} and isinstance(fields["payload"], str):
        try:
            payload = json_values.parse(fields["payload"])
        except json_values.JSONProblem:
            return fields
        return payload if isinstance(payload, dict) else fields
    return fields


def _type_of(data: Any, headers: Mapping[str, str], reading: Reading) -> str:
    kind, _, rest = reading.type_from.partition(":")
    candidates: list[Any] = []
    if kind == "fixed":
        candidates.append(rest)
    elif kind == "header":
        candidates.append(headers.get(rest.lower()))
    elif kind == "path":
        candidates.append(at_path(data, rest))
    else:
        candidates.extend(headers.get(name) for name in _TYPE_HEADERS.get(reading.scheme, ()))
        candidates.extend(at_path(data, path) for path in _TYPE_MEMBERS.get(reading.scheme, ()))
        candidates.extend(headers.get(name) for name in ("x-event-type", "x-github-event", "x-event-name"))
        if isinstance(data, dict):
            candidates.extend(data.get(name) for name in ("type", "event", "event_type"))
    return next((text for text in candidates if is_type(text)), DEFAULT_TYPE)


def is_type(text: Any) -> bool:
    """Whether it can be the type of an event: a printable text of at most 200 characters.

    >>> is_type("order.paid"), is_type(""), is_type({"a": 1})
    (True, False, False)
    """
    return isinstance(text, str) and 1 <= len(text) <= MAX_TYPE and text.isprintable() and text == text.strip()


def _delivery_id(data: Any, headers: Mapping[str, str], reading: Reading) -> str:
    path = _ID_MEMBERS.get(reading.scheme)
    if path is not None:
        found = at_path(data, path)
        if isinstance(found, str) and found.isprintable():
            return found[:MAX_TEXT]
    return next((headers[name][:MAX_TEXT] for name in _ID_HEADERS if _printable(headers.get(name))), "")


def _printable(text: str | None) -> bool:
    return bool(text) and str(text).isascii() and str(text).isprintable()


def _dedup_key(data: Any, body: bytes, delivery_id: str, reading: Reading) -> str | None:
    if reading.dedup == "none":
        return None
    if reading.dedup_path:
        value = at_path(data, reading.dedup_path)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
            return dedup_key("path", str(value))
    if delivery_id:
        return dedup_key("id", delivery_id)
    if reading.dedup == "body":
        return dedup_key("body", body.hex() if len(body) < 64 else body.decode("latin-1"))
    return None


def kept_headers(headers: Mapping[str, str], secret: frozenset[str] = frozenset()) -> dict[str, str]:
    """The headers as they are stored: credentials redacted, bounded, without the boring ones.

    >>> kept_headers({"authorization": "Bearer x", "x-a": "1", "host": "h"})
    {'authorization': '[redacted]', 'x-a': '1'}
    """
    kept: dict[str, str] = {}
    for name, value in headers.items():
        if name in _BORING or name.startswith("ce-"):
            continue
        if len(kept) >= MAX_HEADERS:
            break
        kept[_UNSTORABLE.sub("�", name[:100])] = (
            REDACTED if name in secret or _CREDENTIAL.search(name) else _UNSTORABLE.sub("�", value[:1_000])
        )
    return kept


def _media(content_type: str) -> tuple[str, str]:
    """Media type and charset, in small letters.

    >>> _media('Text/Plain; charset="UTF-8"')
    ('text/plain', 'utf-8')
    """
    media, *parameters = content_type.split(";")
    charset = ""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return media.strip().lower(), charset
