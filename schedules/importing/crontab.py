"""Crontab files, as Vixie's cron and its descendants read them, into schedules. Pure.

    >>> (row,) = read("# Nightly report\\n30 2 * * * report --all\\n", choose=lambda command: ("report", {})).rows
    >>> row.name, row.values["input"]["command"]
    ('Nightly report', 'report --all')

A line's command becomes the input of a workflow that the caller chooses: `command`, `stdin` (what stands behind the
first %), `environment` (the settings above it) and, in the form of /etc/crontab, `user`. Runs may overlap, as in cron.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from schedules.importing.report import Row
from schedules.states import CatchUpPolicy, OverlapPolicy
from schedules.timing import cron
from schedules.timing.zones import UnknownZone, zone_of

LONGEST: Final = 200
SOURCE: Final = "crontab"
#: Which workflow runs a command, and what its input has beside the command; None: none does.
Choose = Callable[[str], tuple[str, Mapping[str, Any]] | None]

_SETTING: Final = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z_][A-Za-z0-9_]*))\s*=\s*(.*?)\s*\Z""")
_RANDOM: Final = re.compile(r"(\d+)?~(\d+)?")
_RANGES: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NAMES: Final = ("minute", "hour", "day of month", "month", "day of week")


class Crontab:
    """The rows of a file, and what of it as a whole has no counterpart."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.notes: list[str] = []


def read(
    text: str,
    *,
    choose: Choose,
    label: str = "crontab",
    timezone: str = "UTC",
    is_system: bool = False,
    overlap_policy: str = OverlapPolicy.ALLOW_ALL.value,
    catch_up: str = CatchUpPolicy.LATEST.value,
) -> Crontab:
    """The schedules that a crontab means.

    Args:
        label: the file's name among others; part of what a schedule is recognised by on the next import.
        timezone: the clock of the machine that cron ran on; ``CRON_TZ`` in the file overrides it.
        is_system: the form of /etc/crontab, with a user before the command.
    """
    found = Crontab()
    settings: dict[str, str] = {}
    above = ""
    seen: Counter[tuple[str, str]] = Counter()
    names: Counter[str] = Counter()
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line:
            above = ""
            continue
        if line.startswith("#"):
            comment = line.lstrip("#").strip()
            above = "" if _looks_like_a_line(comment) else comment
            continue
        setting = _SETTING.fullmatch(raw)
        if setting is not None and not line.startswith("@"):
            name = next(group for group in setting.groups()[:3] if group is not None)
            settings[name] = _unquoted(setting.group(4))
            above = ""
            continue
        row = Row(source=f"line {number}", text=line)
        found.rows.append(row)
        parts = _split(line, is_system)
        if isinstance(parts, str):
            row.reason, above = parts, ""
            continue
        expression, user, command = parts
        _translate(row, expression, command, user, settings, timezone, choose)
        seen[user, command] += 1
        key = hashlib.sha256(f"{user}\0{command}\0{seen[user, command]}".encode()).hexdigest()[:16]
        row.name = _name(above or command, names)
        above = ""
        if not row.reason:
            row.values |= {
                "name": row.name,
                "external_id": f"{SOURCE}:{label[:120]}:{key}",
                "description": f"Imported from {label}, line {number}: {line}"[:10_000],
                "labels": {"imported-from": SOURCE},
                "overlap_policy": overlap_policy,
                "catch_up": catch_up,
            }
    if settings.get("MAILTO"):
        found.notes.append("MAILTO has no counterpart: outcomes stand in the executions, failures in the dead letters.")
    return found


def _split(line: str, is_system: bool) -> tuple[str, str, str] | str:
    """(expression, user, command) of a line, or why it is none."""
    fields = 1 if line.startswith("@") else 5
    parts = line.split(None, fields + is_system)
    if len(parts) <= fields + is_system:
        wanted = "a nickname" if fields == 1 else "five fields"
        return f"is no crontab line: {wanted}{', a user' if is_system else ''} and a command are needed"
    return " ".join(parts[:fields]), parts[fields] if is_system else "", parts[-1]


def _looks_like_a_line(comment: str) -> bool:
    """Whether a comment is a job that somebody has switched off, and so no name."""
    parts = _split(comment, False)
    if isinstance(parts, str):
        return False
    try:
        cron.parse(parts[0], dialect="vixie", seed="")
    except cron.CronError:
        return False
    return True


def _translate(
    row: Row,
    expression: str,
    command: str,
    user: str,
    settings: Mapping[str, str],
    timezone: str,
    choose: Choose,
) -> None:
    spec = _spec(row, expression, settings, timezone)
    if spec is None:
        return
    run, stdin = _percent(command)
    chosen = choose(run)
    if chosen is None:
        row.reason = "no workflow was chosen for this command"
        return
    workflow, further = chosen
    environment = {
        name: value for name, value in settings.items() if name not in {"CRON_TZ", "RANDOM_DELAY", "MAILTO", "MAILFROM"}
    }
    data: dict[str, Any] = {"command": run}
    if stdin is not None:
        data["stdin"] = stdin
    if environment:
        data["environment"] = environment
    if user:
        data["user"] = user
    row.workflow = workflow
    row.values = {"workflow": workflow, "input": {**data, **further}, "spec": spec}
    if "TZ" in environment and "CRON_TZ" not in settings:
        row.notes.append(f"TZ only sets the command's clock, as in cron; the line's times are in {spec['timezone']}")


def _spec(row: Row, expression: str, settings: Mapping[str, str], timezone: str) -> dict[str, Any] | None:
    if expression.lower() == "@reboot":
        row.reason = "@reboot is not about time: nothing here ever reboots"
        return None
    if expression.startswith("-"):
        expression = expression[1:]
        row.notes.append("the leading - (no log entry) has no counterpart")
    fields = [_spread(row, index, field) for index, field in enumerate(expression.split())]
    zone = settings.get("CRON_TZ") or timezone
    try:
        name = zone_of(zone).name
        translated = str(cron.parse(" ".join(fields), dialect="vixie", seed=""))
    except UnknownZone as error:
        row.reason = f"CRON_TZ: {error}"
        return None
    except cron.CronError as error:
        row.reason = str(error)
        return None
    spec: dict[str, Any] = {"timezone": name, "timetables": [{"kind": "cron", "expression": translated}]}
    delay = settings.get("RANDOM_DELAY", "")
    if delay.isdecimal() and 0 < int(delay) <= 10_080:
        spec["jitter"] = int(delay) * 60
        row.notes.append(
            f"RANDOM_DELAY={delay} is a jitter of up to {int(delay) * 60} seconds, the same for an instant"
        )
    elif delay:
        row.notes.append(f"RANDOM_DELAY={delay[:40]} is no number of minutes and is left out")
    return spec


def _spread(row: Row, index: int, field: str) -> str:
    """cronie's random values (``0~30``) as a value that the schedule's identity settles."""
    match = _RANDOM.fullmatch(field)
    if match is None or index >= len(_RANGES):
        return field
    low, high = (given or str(end) for given, end in zip(match.groups(), _RANGES[index], strict=True))
    row.notes.append(f"{_NAMES[index]} {field}: cron picks it anew at each start, here it stays the same")
    return f"H({low}-{high})"


def _percent(command: str) -> tuple[str, str | None]:
    r"""The command, and its standard input: what stands behind the first % that is not escaped; further ones end lines.

    >>> _percent(r"mail -s 50\% ann%hello%you")
    ('mail -s 50% ann', 'hello\nyou')
    """
    parts = re.split(r"(?<!\\)%", command)
    cleaned = [part.replace(r"\%", "%") for part in parts]
    return cleaned[0].strip(), "\n".join(cleaned[1:]) if len(cleaned) > 1 else None


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'" else value


def _name(text: str, names: Counter[str]) -> str:
    """A name that no line before has."""
    name = " ".join(text.split())[: LONGEST - 10]
    names[name] += 1
    return name if names[name] == 1 else f"{name} ({names[name]})"
