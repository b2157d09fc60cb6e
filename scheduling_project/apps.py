from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class SchedulingProjectConfig(AppConfig):
    """Makes the commands, templates and roles of the composition root findable. It has no models."""

    name = "scheduling_project"
    verbose_name = "Scheduling"

    def ready(self) -> None:
        # Django tells only apps with models that a migration has ended; once is enough.
        post_migrate.connect(keep_roles, sender=apps.get_app_config("auth"), dispatch_uid="scheduling_project.roles")


def keep_roles(**kwargs: Any) -> None:
    """After every migration the roles hold what they should."""
    from scheduling_project import roles

    roles.keep(**kwargs)
