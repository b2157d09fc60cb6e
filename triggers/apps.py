from __future__ import annotations

from django.apps import AppConfig


class TriggersConfig(AppConfig):
    name = "triggers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from execution.signals import execution_finished
        from triggers import chaining
        from triggers.auth import schema  # noqa: F401 - tells the API's description of API keys

        execution_finished.connect(chaining.hasten, dispatch_uid="triggers.chaining")
