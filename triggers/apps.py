from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig


class TriggersConfig(AppConfig):
    name = "triggers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from execution import news
        from execution.signals import execution_finished

        execution_finished.connect(hasten_chaining, dispatch_uid="triggers.chaining")
        if wanted not in news.SUBSCRIBERS:
            news.SUBSCRIBERS.append(wanted)


def hasten_chaining(**news: Any) -> None:
    """An execution has ended. What follows is loaded by then, and not by processes in which none ends."""
    from triggers import chaining

    chaining.hasten(**news)


def wanted(types: Sequence[str], using: str) -> set[str]:
    """Which types of news triggers want; asked only by who has some, so that nobody else loads what answers."""
    from triggers import chaining

    return chaining.wanted(types, using)
