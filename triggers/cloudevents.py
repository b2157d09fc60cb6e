"""CloudEvents 1.0.2 over HTTP: structured, binary and batch content mode. Pure.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, bindings/http-protocol-binding.md and
formats/json-format.md. Hostile input is refused with `Malformed`, never read leniently, and ids are never made up.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from scheduling_project.common.errors import DomainError
from triggers.arrivals import MAX_TEXT, MAX_TYPE

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
MAX_BATCH: Final = 100
MAX_EXTENSIONS: Final = 50

_NAME: Final = re.compile(r"[a-z0-9]{1,64}", re.ASCII)
_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,30})?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_KNOWN: Final = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64"}
)


class Malformed(DomainError):
    """The body cannot be read as what its content type says."""

    code = "malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """A CloudEvent that keeps the rules. `data` is a JSON value; `binary` the bytes of ``data_base64``."""

    id: str
    source: str
    type: str
    subject: str = ""
    time: datetime | None = None
    content_type: str = ""
    data: Any = None
    binary: bytes | None = None
    extensions: dict[str, Any] = field(default_factory=dict)


def structured(value: Any, *, at: str = "") -> CloudEvent:
    """The event in JSON format.

    Raises:
        Malformed: naming the attribute and the rule.
    """
    if not isinstance(value, dict):
        raise _wrong(at or "body", "must be an object")
    members = {name: member for name, member in value.items() if member is not None or name == "data"}
    if "data" in members and "data_base64" in members:
        raise _wrong(_at(at, "data_base64"), "must not stand beside data")
    binary = None
    if "data_base64" in members:
        try:
            binary = base64.b64decode(members["data_base64"], validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise _wrong(_at(at, "data_base64"), "must be base64") from None
    attributes = {name: member for name, member in members.items() if name not in {"data", "data_base64"}}
    return _event(attributes, data=members.get("data"), binary=binary, at=at)


def batch(value: Any) -> list[CloudEvent]:
    """The events of a batch in JSON format.

    Raises:
        Malformed: naming the place and the rule.
    """
    if not isinstance(value, list):
        raise _wrong("body", "must be an array of events")
    if len(value) > MAX_BATCH:
        raise _wrong("body", f"holds {len(value)} events; at most {MAX_BATCH} are taken at once")
    return [structured(item, at=str(position)) for position, item in enumerate(value)]


def is_binary(headers: Mapping[str, str]) -> bool:
    """Whether the headers (names in small letters) carry an event in binary content mode."""
    return "ce-specversion" in headers


def binary(headers: Mapping[str, str], *, content_type: str, data: Any) -> CloudEvent:
    """The event whose attributes stand in ``ce-…`` headers (names in small letters), around `data`.

    Raises:
        Malformed: naming the header and the rule.
    """
    attributes: dict[str, Any] = {}
    for name, value in headers.items():
        if name.startswith("ce-"):
            try:
                attributes[name[3:]] = unquote_to_bytes(value.encode("latin-1", "replace")).decode("utf-8")
            except UnicodeDecodeError:
                raise _wrong(name, "must be percent-encoded UTF-8") from None
    if content_type:
        attributes["datacontenttype"] = content_type
    return _event(attributes, data=data, binary=None, at="")


def _event(attributes: Mapping[str, Any], *, data: Any, binary: bytes | None, at: str) -> CloudEvent:
    if attributes.get("specversion") != "1.0":
        raise _wrong(_at(at, "specversion"), 'must be "1.0"')
    extensions = {name: value for name, value in attributes.items() if name not in _KNOWN}
    if len(extensions) > MAX_EXTENSIONS:
        raise _wrong(at or "body", f"has more than {MAX_EXTENSIONS} extension attributes")
    for name, value in extensions.items():
        if not _NAME.fullmatch(name):
            raise _wrong(_at(at, name[:80]), "is not a name of an attribute: small letters and digits")
        if not isinstance(value, str | bool | int):
            raise _wrong(_at(at, name), "must be a text, a whole number or a boolean")
    return CloudEvent(
        id=_text(attributes, "id", at, MAX_TEXT),
        source=_text(attributes, "source", at, MAX_TEXT),
        type=_text(attributes, "type", at, MAX_TYPE),
        subject=_text(attributes, "subject", at, MAX_TEXT) if "subject" in attributes else "",
        time=_time(attributes["time"], at) if "time" in attributes else None,
        content_type=_text(attributes, "datacontenttype", at, 200) if "datacontenttype" in attributes else "",
        data=data,
        binary=binary,
        extensions=({"dataschema": _text(attributes, "dataschema", at, MAX_TEXT)} if "dataschema" in attributes else {})
        | extensions,
    )


def _text(attributes: Mapping[str, Any], name: str, at: str, longest: int) -> str:
    value = attributes.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise _wrong(_at(at, name), f"must be a text of 1 to {longest} characters")
    if _CONTROL.search(value):
        raise _wrong(_at(at, name), "must not hold control characters")
    return value


def _time(value: Any, at: str) -> datetime:
    instant = parse_time(value)
    if instant is None:
        raise _wrong(_at(at, "time"), "must be an instant of RFC 3339 with its offset")
    return instant


def parse_time(value: Any) -> datetime | None:
    """The instant of an RFC 3339 text with an offset, None if it is none.

    >>> parse_time("2026-03-01T09:00:00+02:00").isoformat()
    '2026-03-01T09:00:00+02:00'
    """
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        return None
    try:
        instant = datetime.fromisoformat(value.upper())
    except ValueError:
        return None
    return instant if 1 < instant.year < 9999 else None


def _at(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _wrong(path: str, rule: str) -> Malformed:
    return Malformed("The body is not a CloudEvent of version 1.0.", fields={path: [rule]})
