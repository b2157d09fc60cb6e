"""What this app's commands share: verbs, tables or JSON, and errors that name what is wrong (exit code 1)."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import IO, Any, cast
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scheduling_project.common.errors import DomainError
from scheduling_project.common.vault import VaultError
from triggers.models import Event, Trigger, WebhookEndpoint
from triggers.signatures import SignatureConfigError


class VerbCommand(BaseCommand):
    """A command of verbs: ``do_<verb>`` for each, a table for people or JSON with ``--json``."""

    def add_verbs(self, parser: CommandParser) -> None:
        """Name the verbs and what they take."""
        raise NotImplementedError

    def add_arguments(self, parser: CommandParser) -> None:
        self.verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
        self.add_verbs(parser)

    def verb(self, name: str, help: str, *, shows: bool = False) -> CommandParser:
        """A new verb; one that `shows` something takes ``--json``."""
        made: CommandParser = self.verbs.add_parser(name, help=help)
        if shows:
            made.add_argument("--json", action="store_true", help="JSON instead of a table")
        return made

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        self.as_json = bool(options.get("json"))
        self.console = Console(file=cast(IO[str], self.stdout), width=None if sys.stdout.isatty() else 160)
        try:
            getattr(self, "do_" + verb.replace("-", "_"))(options)
        except (DomainError, VaultError, SignatureConfigError) as error:
            raise CommandError(said(error)) from None

    @property
    def actor(self) -> str:
        return f"command:{getpass.getuser()}"

    def show(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        """Rows as a table of these columns (all of the first row's when none is named), or all of them as JSON."""
        found = list(rows)
        if self.as_json:
            self.stdout.write(json.dumps(found, default=text_of, indent=2))
            return
        names = columns or (tuple(found[0]) if found else ())
        table = Table(*[name.replace("_", " ").capitalize() for name in names])
        for row in found:
            table.add_row(*[escape(cell(row[name])) for name in names])
        self.console.print(table)

    def show_one(self, facts: Mapping[str, Any]) -> None:
        """One thing, member by member."""
        if self.as_json:
            self.stdout.write(json.dumps(dict(facts), default=text_of, indent=2))
            return
        table = Table(show_header=False)
        for name, value in facts.items():
            table.add_row(name.replace("_", " "), escape(cell(value)))
        self.console.print(table)


def said(error: Exception) -> str:
    """An error in one text, each field on a line of its own."""
    fields = getattr(error, "fields", None) or {}
    lines = [f"  {field}: {'; '.join(rules)}" for field, rules in sorted(fields.items())]
    return "\n".join([str(getattr(error, "message", "") or error), *lines])


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=text_of, ensure_ascii=False).strip('"')


def text_of(value: Any) -> str:
    """What JSON has no form for: instants, ids."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def json_argument(text: str, *, name: str) -> Any:
    """A JSON value from the command line, ``-`` for standard input, ``@path`` for a file.

    Raises:
        CommandError: it is no JSON, or the file cannot be read.
    """
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            with open(text[1:], encoding="utf-8") as file:
                text = file.read()
        return json.loads(text)
    except (OSError, ValueError) as error:
        raise CommandError(f"{name} is not JSON: {error}") from None


def instant_argument(text: str, *, name: str) -> datetime:
    """An instant with its offset.

    Raises:
        CommandError: it is none.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise CommandError(f"{name} must be an instant with its offset, such as 2026-03-01T09:00:00Z; got {text}.")
    return instant


def settings_argument(pairs: Sequence[str]) -> dict[str, Any]:
    """Values from ``name=value`` pairs: the value as JSON where it is JSON, else the text itself.

    >>> settings_argument(["rate_per_minute=60", "type_from=header:X-Kind"])
    {'rate_per_minute': 60, 'type_from': 'header:X-Kind'}

    Raises:
        CommandError: a pair without its sign.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name:
            raise CommandError(f"--set takes name=value, got {pair}.")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def find_trigger(name: str) -> Trigger:
    """Raises: CommandError: there is none of this name."""
    found = Trigger.objects.select_related("workflow", "endpoint").filter(name=name).first()
    if found is None:
        raise CommandError(f"There is no trigger {name}.")
    return found


def find_endpoint(slug: str) -> WebhookEndpoint:
    """Raises: CommandError: there is none of this slug."""
    found = WebhookEndpoint.objects.filter(slug=slug).first()
    if found is None:
        raise CommandError(f"There is no webhook endpoint {slug}.")
    return found


def find_event(text: str) -> Event:
    """Raises: CommandError: there is none of this id."""
    try:
        found = Event.objects.filter(pk=UUID(text)).first()
    except ValueError:
        found = None
    if found is None:
        raise CommandError("There is no such event.")
    return found
