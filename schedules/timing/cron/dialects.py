"""The lenient `vixie` dialect, for importing crontabs: rewritten to the strict form, with a note of each change.

Vixie's cron and its descendants accept, or give another meaning to, a few things that the Open Cron Pattern
Specification rejects. Whoever imports such a crontab gets the strict expression that fires at the same times:

- `X/N` means `X-max/N` (cronie);
- names and numbers may wrap around: `FRI-MON`, `22-2`;
- a day field that begins with `*`, even `*/2`, is a wildcard, so that both day fields must match;
- nicknames are not case-sensitive, and FreeBSD's `@every_minute` exists.
"""

from __future__ import annotations

from schedules.timing.cron.parser import (
    DAY_OF_WEEK,
    NICKNAMES,
    REBOOT,
    SPECS,
    FieldSpec,
    unwrapped,
)

_NICKNAMES = {**NICKNAMES, "@every_minute": "* * * * *"}


def from_vixie(text: str) -> tuple[str, tuple[str, ...]]:
    """The strict expression that does what `text` does under Vixie cron, and a note for each change.

    What this does not recognise is left as it is, for the strict parser to judge.

    >>> from_vixie("0 22-2 * * FRI-MON")
    ('0 22-23,0-2 * * FRI,SAT,SUN,MON', ('hour 22-2 wraps around: 22-23,0-2', ...))
    """
    if text.startswith("@"):
        lowered = text.lower()
        if lowered in _NICKNAMES and lowered not in NICKNAMES:
            return _NICKNAMES[lowered], (f"{text} is {_NICKNAMES[lowered]}",)
        if lowered != text and (lowered in NICKNAMES or lowered == REBOOT):
            return lowered, (f"{text} is {lowered}",)
        return text, ()
    texts = text.split()
    if not 5 <= len(texts) <= 7:
        return text, ()
    specs = SPECS[1:6] if len(texts) == 5 else SPECS[: len(texts)]
    notes: list[str] = []
    fields = [_field(spec, field, notes) for spec, field in zip(specs, texts, strict=True)]
    at = 2 if len(fields) == 5 else 3
    day, weekday = fields[at], fields[at + 2]
    starred = [field for field in (day, weekday) if field[0] == "*" and field != "*" and not field.startswith("*,")]
    if starred and day[0] not in "?" and weekday[0] not in "+?" and "*" not in (day, weekday):
        fields[at + 2] = f"+{weekday}"
        notes.append(f"{starred[0]} is a wildcard to Vixie cron, so both day fields must match: +{weekday}")
    return (" ".join(fields) if notes else text), tuple(notes)


def _field(spec: FieldSpec, text: str, notes: list[str]) -> str:
    plus = "+" if spec is DAY_OF_WEEK and text.startswith("+") else ""
    return plus + ",".join(_item(spec, item, notes) for item in text[len(plus) :].split(","))


def _item(spec: FieldSpec, item: str, notes: list[str]) -> str:
    body, slash, step = item.partition("/")
    first, dash, second = body.partition("-")
    low = _value(spec, first)
    if low is None or (slash and not (step.isdigit() and int(step))):
        return item
    if not dash:
        if not slash:
            return item
        changed = f"{low}-{spec.high}/{step}"
        notes.append(f"{spec.name} {item} runs to the end of its range: {changed}")
        return changed
    high = _value(spec, second)
    if high is None or low <= high or (high == 0 and spec is DAY_OF_WEEK and not second.isdigit()):
        return item
    if not slash:
        changed = unwrapped(spec, low, high)
    else:
        bottom, top = (0, 6) if spec is DAY_OF_WEEK else (spec.low, spec.high)
        size = top - bottom + 1
        values = range(low - bottom, high - bottom + size + 1, int(step))
        changed = ",".join(str(bottom + value % size) for value in values)
    notes.append(f"{spec.name} {item} wraps around: {changed}")
    return changed


def _value(spec: FieldSpec, text: str) -> int | None:
    """The value of a number or a name within the field's bounds, or None."""
    if text.isdigit():
        value = int(text)
        return value if spec.low <= value <= spec.high else None
    return spec.names.get(text.upper())
