"""What the commands share: verbs, tables or JSON, progress bars, and errors that name what is wrong.

Exit codes: 0 it is done; 1 it was refused, or what was asked for has failed; 2 the command line cannot be read. Errors
go to the standard error, so that what ``--json`` prints can always be read by a program.
"""

from __future__ import annotations

import abc
import argparse
import getpass
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, ClassVar, Final, cast
from uuid import UUID

import yaml
from django.core.management.base import BaseCommand, CommandError, CommandParser, DjangoHelpFormatter
from django.db import InterfaceError, OperationalError
from django.db.models import QuerySet
from django_filters.rest_framework import FilterSet
from rest_framework import exceptions, serializers
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from scheduling_project.common.errors import DomainError, InvalidInput
from scheduling_project.common.problems import flatten
from scheduling_project.common.vault import VaultError

#: Columns where the output is no terminal: nothing is cut or wrapped that somebody greps for.
PLAIN_WIDTH: Final = 200


class ExamplesFormatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Django's help, with the examples below it as they are written."""


class ExampleCommand(BaseCommand):
    """A command whose `examples`, a line each, stand below its ``--help``."""

    examples: ClassVar[str] = ""

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        if self.examples:
            lines = "\n".join(f"  manage.py {line}" for line in self.examples.strip().splitlines())
            options |= {"epilog": f"examples:\n{lines}", "formatter_class": ExamplesFormatter}
        parser: CommandParser = super().create_parser(prog_name, subcommand, **options)
        return parser


class ConsoleCommand(ExampleCommand, abc.ABC):
    """A command that does one thing: `run`."""

    #: What is told in one sentence instead of a traceback.
    refusals: ClassVar[tuple[type[Exception], ...]] = (DomainError, VaultError)

    def handle(self, *args: Any, **options: Any) -> None:
        self.as_json = bool(options.get("json"))
        is_terminal = getattr(self.stdout, "isatty", lambda: False)()
        self.console = Console(
            file=cast(IO[str], self.stdout), width=None if is_terminal else PLAIN_WIDTH, highlight=False
        )
        try:
            self.run(options)
        except self.refusals as error:
            raise CommandError(said(error)) from None
        except (OperationalError, InterfaceError) as error:
            # The first line alone, without what the driver knows of the server's address.
            raise CommandError(f"Postgres is away ({type(error.__cause__ or error).__name__}).") from None

    @abc.abstractmethod
    def run(self, options: dict[str, Any]) -> None:
        """Do it."""

    @property
    def actor(self) -> str:
        """Who does it, for the audit trail."""
        return f"command:{getpass.getuser()}"

    # ── What is shown ──

    def print_json(self, value: Any) -> None:
        """A value for programs: UTF-8, instants as RFC 3339."""
        self.stdout.write(json.dumps(value, default=text_of, indent=2, ensure_ascii=False))

    def show(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        """Rows as a table of these columns (all of the first row's when none is named), or all of them as JSON."""
        found = [dict(row) for row in rows]
        if self.as_json:
            self.print_json(found)
            return
        names = columns or (tuple(found[0]) if found else ())
        table = Table(*[name.replace("_", " ").capitalize() for name in names], box=None)
        for row in found:
            table.add_row(*[escape(cell(row[name])) for name in names])
        self.console.print(table)

    def show_one(self, facts: Mapping[str, Any]) -> None:
        """One thing, member by member."""
        if self.as_json:
            self.print_json(dict(facts))
            return
        table = Table(show_header=False, box=None)
        for name, value in facts.items():
            table.add_row(name.replace("_", " "), escape(cell(value)))
        self.console.print(table)

    def tell(self, sentence: str, facts: Any = None) -> None:
        """What was done: a sentence, or with ``--json`` the facts."""
        if self.as_json and facts is not None:
            self.print_json(facts)
        else:
            self.stdout.write(sentence)

    # ── How far it is ──

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, float, float], None] | None]:
        """A bar per stage on a terminal, None elsewhere: call it with the stage, what is done of it, and its total."""
        if self.as_json or not sys.stderr.isatty():
            yield None
            return
        bars: dict[str, TaskID] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as shown:

            def told(what: str, done: float, total: float) -> None:
                if what not in bars:
                    bars[what] = shown.add_task(what, total=total)
                shown.update(bars[what], completed=done, total=total)

            yield told


class VerbCommand(ConsoleCommand):
    """A command of verbs: ``do_<verb>`` for each."""

    @abc.abstractmethod
    def add_verbs(self, parser: CommandParser) -> None:
        """Name the verbs and what they take."""

    def add_arguments(self, parser: CommandParser) -> None:
        self.verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
        self.add_verbs(parser)

    def verb(self, name: str, help: str, *, shows: bool = False) -> CommandParser:
        """A new verb; one that `shows` something takes ``--json``."""
        made: CommandParser = self.verbs.add_parser(name, help=help, description=help)
        if shows:
            made.add_argument("--json", action="store_true", help="JSON instead of a table")
        return made

    def run(self, options: dict[str, Any]) -> None:
        getattr(self, "do_" + options["verb"].replace("-", "_"))(options)


# ── Texts ────────────────────────────────────────────────────────────────────────────────────────────────────


def said(error: Exception) -> str:
    """An error in one text, each field on a line of its own."""
    fields = getattr(error, "fields", None) or {}
    lines = [f"  {field}: {'; '.join(rules)}" for field, rules in sorted(fields.items())]
    return "\n".join([str(getattr(error, "message", "") or error), *lines])


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%SZ}"
    return value if isinstance(value, str) else json.dumps(value, default=text_of, ensure_ascii=False).strip('"')


def text_of(value: Any) -> str:
    """What JSON has no form for: instants, ids, exact numbers."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def ago(instant: datetime | None, now: datetime) -> str:
    """How long ago, in the unit that fits.

    >>> from datetime import UTC
    >>> ago(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 2, 30, tzinfo=UTC))
    '2 h 30 min'
    """
    return "" if instant is None else span((now - instant).total_seconds())


def span(seconds: float | None) -> str:
    """A time in the two units that fit.

    >>> span(0.25), span(59), span(3599), span(90000), span(None)
    ('0.25 s', '59 s', '59 min 59 s', '1 d 1 h', '')
    """
    if seconds is None:
        return ""
    if abs(seconds) < 10:
        return f"{seconds:.3g} s"
    rest, parts = round(abs(seconds)), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return ("-" if seconds < 0 else "") + " ".join(parts[:2])


# ── Arguments ────────────────────────────────────────────────────────────────────────────────────────────────


def checked(serializer: type[serializers.Serializer[Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values in the shape that the API takes them in; those that are None were not given.

    Raises:
        InvalidInput: naming each field that is wrong.
    """
    one = serializer(data={name: value for name, value in values.items() if value is not None})
    try:
        one.is_valid(raise_exception=True)
    except exceptions.ValidationError as error:
        problems: dict[str, list[str]] = {}
        for path, rule in flatten(error.detail):
            problems.setdefault(path or "selection", []).append(rule)
        raise InvalidInput(fields=problems) from None
    return dict(one.validated_data)


def narrowed(filters: type[FilterSet], rows: QuerySet[Any], values: Mapping[str, Any]) -> QuerySet[Any]:
    """The rows that the filters of the API's list leave; values that are None are not asked for.

    Raises:
        InvalidInput: naming each filter that cannot be read.
    """
    chosen = filters({name: str(value) for name, value in values.items() if value is not None}, queryset=rows)
    if not chosen.is_valid():
        problems = {name: [str(rule) for rule in rules] for name, rules in chosen.errors.items()}
        raise InvalidInput(fields=problems)
    found: QuerySet[Any] = chosen.qs
    return found


def read_text(name: str) -> str:
    """The text of a file, ``-`` for the standard input.

    Raises:
        CommandError: it cannot be read.
    """
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CommandError(f"{name} is not UTF-8.") from None


def read_document(name: str) -> Any:
    """What a YAML or JSON file holds, ``-`` for the standard input.

    Raises:
        CommandError: it cannot be read, or is neither.
    """
    try:
        return yaml.safe_load(read_text(name))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CommandError(f"{name} is neither YAML nor JSON: {error}") from None


def write_yaml(value: Any) -> str:
    """A document as people edit it: members in their order, block style, Unicode as it is."""
    return yaml.dump(value, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


class _Plain(yaml.SafeDumper):
    """YAML without anchors: a definition that is used twice stands there twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def json_argument(text: str, *, name: str) -> Any:
    """A JSON value from the command line, ``-`` for standard input, ``@path`` for a file.

    Raises:
        CommandError: it is no JSON, or the file cannot be read.
    """
    if text == "-" or text.startswith("@"):
        text = read_text(text.removeprefix("@"))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{name} is not JSON: {error}") from None


def object_argument(text: str | None, *, name: str) -> dict[str, Any] | None:
    """A JSON object from the command line, as `json_argument`; None for None.

    Raises:
        CommandError: it is none.
    """
    if text is None:
        return None
    value = json_argument(text, name=name)
    if not isinstance(value, dict):
        raise CommandError(f"{name} must be a JSON object.")
    return value


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


def since_argument(text: str, *, name: str, now: datetime) -> datetime:
    """An instant with its offset, or how long before `now` (``90s``, ``15m``, ``2h``, ``7d``).

    Raises:
        CommandError: it is neither.
    """
    seconds = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}.get(text[-1:])
    if seconds is not None and text[:-1].isascii() and text[:-1].isdecimal() and len(text) <= 7:
        return now - timedelta(seconds=int(text[:-1]) * seconds)
    return instant_argument(text, name=name)


def id_argument(text: str, *, what: str) -> UUID:
    """An id.

    Raises:
        CommandError: it is none, so there is no such thing.
    """
    try:
        return UUID(text)
    except ValueError:
        raise CommandError(f"There is no {what} {text!r}.") from None


def limit_argument(text: str) -> int:
    """How many rows at most (an argparse type)."""
    if not text.isascii() or not text.isdecimal() or len(text) > 6 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 999999")
    return int(text)


def priority_argument(text: str | None) -> int | str | None:
    """A priority as the domain takes it: a number, or its name."""
    return int(text) if text is not None and text.isascii() and text.isdecimal() else text


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
