"""The flat way to say when: `cron_expression`, `timezone`, `start_date` … as members of a spec, and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

#: Flat field → member of the spec.
MEMBERS: Final[Mapping[str, str]] = {
    "timezone": "timezone",
    "timetables": "timetables",
    "start_date": "start",
    "end_date": "end",
    "dst_gap": "gap",
    "dst_overlap": "overlap",
    "jitter": "jitter",
    "calendars": "calendars",
    "blackouts": "blackouts",
}
#: The ways to give timetables; one of them at a time.
TIMETABLES: Final = ("cron_expression", "interval", "timetables", "spec")
FIELDS: Final = ("spec", "cron_expression", "interval", *MEMBERS)


def spec_of(given: Mapping[str, Any], base: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The spec that flat fields make of `base`, None when none of them is given. A field that is null is left out.

    >>> spec_of({"cron_expression": "0 2 * * *", "end_date": None}, {"timezone": "UTC", "end": "…"})
    {'timezone': 'UTC', 'timetables': [{'kind': 'cron', 'expression': '0 2 * * *'}]}
    """
    if not any(name in given for name in FIELDS):
        return None
    spec: dict[str, Any] = dict(given["spec"] if given.get("spec") is not None else base or {})
    if given.get("cron_expression") is not None:
        spec["timetables"] = [{"kind": "cron", "expression": given["cron_expression"]}]
    if given.get("interval") is not None:
        spec["timetables"] = [{"kind": "interval", "every": given["interval"]}]
    for name, member in MEMBERS.items():
        if name not in given:
            continue
        if given[name] is None:
            spec.pop(member, None)
        else:
            spec[member] = given[name]
    return spec


def contradictions(given: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is given twice."""
    chosen = [name for name in TIMETABLES if given.get(name) is not None]
    return {name: [f"cannot be given together with {chosen[0]}"] for name in chosen[1:]}


def errors_of(fields: Mapping[str, Sequence[str]], given: Mapping[str, Any]) -> dict[str, list[str]]:
    """A spec's problems under the names of the flat fields that were given."""
    found: dict[str, list[str]] = {}
    for path, rules in fields.items():
        found.setdefault(_flat_name(path, given), []).extend(rules)
    return found


def _flat_name(path: str, given: Mapping[str, Any]) -> str:
    head, _, rest = path.partition(".")
    if head == "timetables":
        for name, leaf in (("cron_expression", "0.expression"), ("interval", "0.every")):
            if given.get(name) is not None and rest.startswith(leaf):
                return name
    for name, member in MEMBERS.items():
        if member == head and given.get(name) is not None:
            return f"{name}.{rest}" if rest else name
    if given.get("spec") is not None and head in {*MEMBERS.values()}:
        return f"spec.{path}"
    if path == "timetables":
        return "cron_expression"
    return path


def flat_of(spec: Mapping[str, Any] | None) -> dict[str, Any]:
    """The flat fields of a canonical spec. `cron_expression` and `interval` only where they say everything."""
    spec = spec or {}
    timetables = spec.get("timetables", [])
    only = timetables[0] if len(timetables) == 1 else {}
    every = only.get("every") if only.get("kind") == "interval" else None
    return {
        "cron_expression": only.get("expression") if only.get("kind") == "cron" else None,
        "interval": every if isinstance(every, int) else None,
        "timezone": spec.get("timezone", "UTC"),
        "timetables": timetables,
        "start_date": spec.get("start"),
        "end_date": spec.get("end"),
        "dst_gap": spec.get("gap", "fire_at_end"),
        "dst_overlap": spec.get("overlap", "first"),
        "jitter": spec.get("jitter", 0),
        "calendars": spec.get("calendars"),
        "blackouts": spec.get("blackouts", []),
    }
