"""`manage.py secrets`: set, list and delete what steps refer to as ``${{ secrets.NAME }}``."""

from __future__ import annotations

import getpass
import json
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from execution import secret_store
from execution.api.secrets import StepSecretSerializer
from execution.models import Secret
from scheduling_project.common.console import ExampleCommand
from scheduling_project.common.errors import DomainError
from scheduling_project.common.vault import VaultError


class Command(ExampleCommand):
    help = "Set, list (names only), delete and encrypt again the secrets of steps."
    examples = """
secrets set RECEIVER_TOKEN --note "of the report's receiver" < token.txt
secrets list --json
secrets encrypt-again
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--actor", default=f"{getpass.getuser()} (command)", help="who, for the audit trail")
        verbs = parser.add_subparsers(dest="verb", required=True)
        setting = verbs.add_parser("set", help="the value is read from the standard input, without its last line end")
        setting.add_argument("name")
        setting.add_argument("--note", default="")
        verbs.add_parser("list").add_argument("--json", action="store_true", help="as the API shows them")
        verbs.add_parser("delete").add_argument("name")
        verbs.add_parser("encrypt-again", help="close all with the newest of WORKFLOW_ENCRYPTION_KEYS")

    def handle(self, *_: Any, verb: str, actor: str, **options: Any) -> None:
        try:
            if verb == "set":
                value = sys.stdin.read().removesuffix("\n")
                secret_store.set_secret(options["name"], value, actor=actor, note=options["note"])
                self.stdout.write(f"{options['name']} is set")
            elif verb == "list" and options["json"]:
                rows = StepSecretSerializer(Secret.objects.order_by("name"), many=True).data
                self.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False))
            elif verb == "list":
                for secret in Secret.objects.all():
                    self.stdout.write(f"{secret.name}\t{secret.updated_at:%Y-%m-%d %H:%M} UTC\t{secret.note}")
            elif verb == "delete":
                secret_store.delete_secret(options["name"], actor=actor)
                self.stdout.write(f"{options['name']} is deleted")
            else:
                self.stdout.write(
                    f"{secret_store.encrypt_again(actor=actor)} secrets are encrypted with the newest key"
                )
        except (DomainError, VaultError) as error:
            raise CommandError(str(error)) from None
