"""Make the database ready for the processes: tables, the first administrator, and the demo when asked for."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command, get_commands
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection
from rest_framework_simplejwt.tokens import AccessToken

from execution.models import Workflow

#: Serialises ``prepare`` between machines that are deployed at the same moment; any number will do.
ADVISORY_LOCK = 7_203_114_201
TOKEN_LIFETIME = timedelta(days=1)
#: The label of the workflow that is shown first to somebody who has just arrived.
SHOWCASE_LABEL = "showcase"


class Command(BaseCommand):
    """Migrate, make the administrator, seed the demo. Safe to run again, and on many machines at once."""

    help = (
        "Migrate the database, make sure that the administrator exists (ADMIN_USER, ADMIN_PASSWORD) and, "
        "with DEMO=1, seed the demo."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--initial-password",
            action="store_true",
            help="use ADMIN_PASSWORD only for an administrator that does not exist yet",
        )
        parser.add_argument("--report", type=Path, help="write the token and what was found to this file (JSON)")

    def handle(self, *args: Any, **options: Any) -> None:
        name, password = os.environ.get("ADMIN_USER") or "admin", os.environ.get("ADMIN_PASSWORD")
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
                try:
                    call_command("migrate", interactive=False, verbosity=options["verbosity"])
                    user, valid = self.ensure_administrator(name, password, only_initially=options["initial_password"])
                    self.seed_demo()
                finally:
                    cursor.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])
        except OperationalError as error:
            raise CommandError(f"Postgres does not serve us: {error}".strip()) from error
        if options["report"] is not None:
            self.write_report(options["report"], user, password_is_known=valid)

    def ensure_administrator(self, name: str, password: str | None, *, only_initially: bool) -> tuple[Any, bool]:
        """Return the administrator and whether ``password`` is theirs."""
        users = get_user_model()._default_manager
        user = users.filter(username=name).first()
        if user is None:
            if not password:
                raise CommandError(f"Set ADMIN_PASSWORD: the administrator {name!r} does not exist yet.")
            user = get_user_model().objects.create_superuser(name, f"{name}@localhost", password)
            self.stdout.write(f"administrator {name!r} created")
            return user, True
        if password and user.check_password(password):
            return user, True
        if password and not only_initially:
            user.set_password(password)
            user.is_staff = user.is_superuser = user.is_active = True
            user.save()
            self.stdout.write(f"administrator {name!r} has a new password")
            return user, True
        return user, False

    def seed_demo(self) -> None:
        """Seed the demo when it is installed."""
        if settings.DEMO and "demo" in get_commands():
            call_command("demo", "seed")

    def write_report(self, path: Path, user: Any, *, password_is_known: bool) -> None:
        """Write what ``manage.py up`` shows at the end; the file holds a token, so only its maker may read
        it."""
        token = AccessToken.for_user(user)
        token.set_exp(lifetime=TOKEN_LIFETIME)
        published = Workflow.objects.exclude(published=None).order_by("name")
        workflow = published.filter(labels__has_key=SHOWCASE_LABEL).first() or published.first()
        report = {
            "token": str(token),
            "password_is_known": password_is_known,
            "workflow": workflow.name if workflow else None,
        }
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(report, file)
