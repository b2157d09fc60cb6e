from __future__ import annotations

from typing import Any

from django.apps import AppConfig


class TriggersConfig(AppConfig):
    name = "triggers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from execution.signals import execution_finished

        execution_finished.connect(hasten_chaining, dispatch_uid="triggers.chaining")


def hasten_chaining(**news: Any) -> None:
    """An execution has ended. What follows is loaded by then, and not by processes in which none ends."""
    from triggers import chaining

    chaining.hasten(**news)
