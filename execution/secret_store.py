"""Secrets by reference: ``${{ secrets.NAME }}`` in the arguments of a step, resolved by the worker that runs it.

A secret is a row, encrypted, or else ``WORKFLOW_SECRET_<NAME>`` in the environment of the worker. Its value is never
shown: people see names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, Final

from execution import audit, engine
from execution.expressions import Template
from execution.models import Secret
from execution.models.secret import SECRET_NAME
from execution.redaction import SHORTEST
from execution.steps.context import GiveUp
from scheduling_project.common import clock, vault
from scheduling_project.common.errors import InvalidInput, NotFound

ENVIRONMENT: Final = "WORKFLOW_SECRET_"
LONGEST: Final = 65_536  # characters


class UnknownSecret(GiveUp):
    """A step refers to a secret that does not exist, or cannot be opened."""


def set_secret(name: str, value: Any, *, actor: str, note: str = "") -> Secret:
    """Keep a secret under a name, or give it another value.

    Raises:
        InvalidInput: the name or the value breaks a rule. The value is not repeated.
    """
    problems: dict[str, list[str]] = {}
    if not isinstance(name, str) or not re.match(SECRET_NAME, name):
        problems["name"] = ["must be 1 to 100 letters, digits and _, not starting with a digit"]
    if not isinstance(value, str) or not SHORTEST <= len(value) <= LONGEST or "\0" in value:
        problems["value"] = [f"must be a text of {SHORTEST} to {LONGEST} characters without NUL"]
    if problems:
        raise InvalidInput(fields=problems)
    with engine.transaction(using="default"):
        fields = {
            "ciphertext": vault.encrypt(value),
            "note": note[:500],
            "updated_at": clock.now(),
            "updated_by": actor[:200],
        }
        secret, created = Secret.objects.update_or_create(name=name, defaults=fields)
        _audit("create" if created else "change", secret, actor, note)
    return secret


def delete_secret(name: str, *, actor: str, note: str = "") -> None:
    """Forget a secret. Steps that refer to it fail from now on.

    Raises:
        NotFound: there is none of this name.
    """
    with engine.transaction(using="default"):
        secret = Secret.objects.filter(name=name).first()
        if secret is None:
            raise NotFound(f"There is no secret {name:.100}.")
        _audit("delete", secret, actor, note)
        secret.delete()


def encrypt_again(*, actor: str) -> int:
    """Close every secret with the newest key; returns how many.

    Raises:
        VaultError: one was closed with a key that is no longer known; nothing has changed.
    """
    with engine.transaction(using="default"):
        secrets = list(Secret.objects.select_for_update())
        for secret in secrets:
            secret.ciphertext = vault.rotate(secret.ciphertext)
            secret.save(update_fields=["ciphertext"])
            _audit("encrypt_again", secret, actor, "")
    return len(secrets)


def exists(name: str) -> bool:
    """Whether a secret of this name is kept, or stands in the environment of this process."""
    return bool(os.environ.get(ENVIRONMENT + name)) or Secret.objects.filter(name=name).exists()


def names_in(template: Template) -> list[str]:
    """The secrets that a template refers to."""
    return sorted({reference.member for reference in template.references if _is_secret(reference) and reference.member})


def _is_secret(reference: Any) -> bool:
    return bool(reference.root == "secrets")


def resolve(names: Iterable[str]) -> dict[str, str]:
    """The values of these secrets; what is kept comes before the environment.

    Raises:
        UnknownSecret: naming the one that is missing or cannot be opened.
    """
    wanted = list(names)
    if not wanted:
        return {}
    kept = dict(Secret.objects.using(engine.alias()).filter(name__in=wanted).values_list("name", "ciphertext"))
    found = {}
    for name in wanted:
        try:
            value = vault.decrypt(kept[name]) if name in kept else os.environ.get(ENVIRONMENT + name)
        except vault.VaultError:
            raise UnknownSecret(f"secret {name} was encrypted with a key that this worker does not have") from None
        if not value:
            raise UnknownSecret(f"there is no secret {name}, nor {ENVIRONMENT}{name} in the worker's environment")
        found[name] = value
    return found


def _audit(verb: str, secret: Secret, actor: str, note: str) -> None:
    audit.record(
        actor=actor,
        action=f"secret.{verb}",
        subject_kind="secret",
        subject_id=secret.name,
        subject_label=secret.name,
        note=note,
    )
