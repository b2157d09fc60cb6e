"""How values look on the admin's pages: states, instants, durations, JSON, links. Pure; every text is escaped.

Instants are written in UTC and carry their ISO form: the page's script shows them in the viewer's zone and keeps
UTC for the pointer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db.models import Model
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from execution import priority
from execution.workflows import Change

NOTHING: Final = SafeString('<span class="sp-faint">–</span>')
MOST_JSON: Final = 20_000
#: Differences of one table cell, and characters of a value in one.
MOST_DIFFERENCES: Final = 40
MOST_VALUE: Final = 300
_PRIORITY_NAMES: Final[Mapping[int, str]] = {level: name for name, level in priority.NAMES.items()}

#: The look of a state: one of the tones that the style sheet knows. Anything else is neutral.
TONES: Final[Mapping[str, str]] = {
    "scheduled": "wait",
    "waiting": "wait",
    "queued": "wait",
    "buffered": "wait",
    "running": "busy",
    "redriving": "busy",
    "started": "good",
    "succeeded": "good",
    "resolved": "good",
    "alive": "good",
    "enabled": "good",
    "published": "good",
    "retryable": "warn",
    "snoozed": "warn",
    "lost": "warn",
    "open": "bad",
    "failed": "bad",
    "missed": "bad",
    "silent": "bad",
}


def tone(state: str) -> str:
    """The tone of a state: good, bad, warn, busy, wait or calm."""
    return TONES.get(state, "calm")


def badge(state: str, label: str = "", *, title: str = "") -> SafeString:
    """A state as a coloured word."""
    return format_html(
        '<span class="sp-badge sp-{}"{}>{}</span>',
        tone(state),
        format_html(' title="{}"', title) if title else "",
        label or state.replace("_", " "),
    )


def instant(value: datetime | None, *, relative: bool = False) -> SafeString:
    """An instant; `relative` asks for "3 min ago" with the exact time behind it."""
    if value is None:
        return NOTHING
    utc = value.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{} UTC"{}>{}</time>',
        utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        f"{utc:%Y-%m-%d %H:%M:%S}",
        SafeString(" data-relative") if relative else "",
        f"{utc:%Y-%m-%d %H:%M:%S}",
    )


def seconds_text(seconds: float) -> str:
    """A duration for people.

    >>> seconds_text(0.0123), seconds_text(59.94), seconds_text(3_725), seconds_text(200_000)
    ('12 ms', '59.9 s', '1 h 02 min', '2 d 7 h')
    """
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def duration(begin: datetime | None, end: datetime | None, *, now: datetime | None = None) -> SafeString:
    """How long something took, or has taken up to `now`."""
    if begin is None or (end or now) is None:
        return NOTHING
    span: timedelta = (end or now) - begin  # type: ignore[operator]
    text = seconds_text(span.total_seconds())
    return format_html('<span class="sp-nowrap{}">{}</span>', *(("", text) if end else (" sp-faint", f"{text} …")))


def json_text(value: Any) -> str:
    """JSON, indented for people; cut where it would be too long for a page."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_JSON else f"{text[:MOST_JSON]}\n… ({len(text):,} characters; read it by the API)"


def differences(changes: Iterable[Change]) -> SafeString:
    """Differences of two documents, one a line: where, from and to."""
    found = list(changes)
    lines = [
        (
            change.path or "all of it",
            SafeString("") if change.kind == "added" else format_html("<s>{}</s> ", _value_text(change.before)),
            "" if change.kind != "changed" else "→ ",
            SafeString("") if change.kind == "removed" else format_html("<b>{}</b>", _value_text(change.after)),
        )
        for change in found[:MOST_DIFFERENCES]
    ]
    told = format_html_join("", '<div class="sp-change"><span class="sp-mono">{}</span> {}{}{}</div>', lines)
    if len(found) > MOST_DIFFERENCES:
        told += format_html('<div class="sp-faint">and {} more</div>', len(found) - MOST_DIFFERENCES)
    return told or NOTHING


def _value_text(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_VALUE else f"{text[:MOST_VALUE]}…"


def priority_text(level: int) -> str:
    """A priority with its name, if it has one.

    >>> priority_text(0), priority_text(4)
    ('0 critical', '4')
    """
    name = _PRIORITY_NAMES.get(level)
    return f"{level} {name}" if name else str(level)


def page_of(subject: Model) -> str:
    """The address of an object's page in the admin."""
    return address(type(subject), subject.pk)


def address(model: type[Model], key: object) -> str:
    """The address of an object's page in the admin, from its model and primary key."""
    meta = model._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[key])


def list_address(model: type[Model], **filters: object) -> str:
    """The address of a model's list in the admin, filtered."""
    meta = model._meta
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist") + (f"?{query}" if query else "")


def link(subject: Model | None, text: str = "") -> SafeString:
    """A link to an object's page; its name alone where it has none."""
    if subject is None:
        return NOTHING
    try:
        url = page_of(subject)
    except NoReverseMatch:
        return format_html("{}", text or str(subject))
    return format_html('<a class="sp-link" href="{}">{}</a>', url, text or str(subject))


def short_id(key: object) -> str:
    """The end of a UUIDv7: its start is only the time.

    >>> short_id("0199c1a2-7a5b-7c3d-8e9f-0123456789ab")
    '…456789ab'
    """
    return f"…{str(key)[-8:]}"
