"""An API key from the command line, shown once."""

from __future__ import annotations

import getpass
import json
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError, CommandParser
from django.utils.dateparse import parse_datetime

from scheduling_project.common import clock
from scheduling_project.common.console import ExampleCommand
from scheduling_project.common.errors import DomainError
from triggers.auth import keys
from triggers.scopes import SCOPES


class Command(ExampleCommand):
    help = "Make an API key for a user and print it; it cannot be shown again."
    examples = """
createapikey ci --user admin --scope operate --scope read --days 90
createapikey erp --user admin --scope events --network 192.0.2.0/24 --json
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what the key is for")
        parser.add_argument("--user", required=True, help="in whose name it is used; it never may more than they may")
        parser.add_argument(
            "--scope", action="append", choices=sorted(SCOPES), help="may be given several times; read when left out"
        )
        ends = parser.add_mutually_exclusive_group()
        ends.add_argument("--days", type=float, help="for so many days")
        ends.add_argument("--expires-at", help="until an instant, as RFC 3339 with its offset")
        parser.add_argument(
            "--network", action="append", default=[], help="CIDR block from which alone it may come; several times"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        user = User.objects.filter(username=options["user"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no active user {options['user']!r}.")
        try:
            key, text = keys.create(
                name,
                user=user,
                actor=f"cli:{getpass.getuser()}",
                scopes=options["scope"] or ["read"],
                expires_at=_end(options),
                allowed_networks=options["network"],
            )
        except DomainError as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            shown = {
                "id": str(key.pk),
                "name": key.name,
                "prefix": key.prefix,
                "user": user.username,
                "scopes": key.scopes,
                "allowed_networks": key.allowed_networks,
                "expires_at": key.expires_at and key.expires_at.isoformat(),
                "key": text,
            }
            self.stdout.write(json.dumps(shown))
            return
        self.stdout.write(text)
        until = f" until {key.expires_at.isoformat()}" if key.expires_at else ""
        self.stderr.write(f"{key.name}: {', '.join(key.scopes)} as {user.username}{until}. It is shown this once.")


def _end(options: dict[str, Any]) -> datetime | None:
    """The instant from which the key is void.

    Raises:
        CommandError: it cannot be read, or has no offset.
    """
    if options["days"] is not None:
        if not 0 < options["days"] <= 36_500:
            raise CommandError("--days must be more than 0 and at most 36500.")
        return clock.now() + timedelta(days=options["days"])
    if options["expires_at"] is None:
        return None
    try:
        found = parse_datetime(options["expires_at"])
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise CommandError("--expires-at must be an instant with its offset, such as 2027-01-31T00:00:00Z.")
    return found
