"""What this app's commands share beside `scheduling_project.common.console`: finding things by their names."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from django.core.management.base import CommandError

from scheduling_project.common import console
from triggers.models import Event, Trigger, WebhookEndpoint
from triggers.signatures import SignatureConfigError


class VerbCommand(console.VerbCommand):
    """A command of verbs about triggers: what a signature's settings break is told in a sentence, too."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (*console.VerbCommand.refusals, SignatureConfigError)


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
