from __future__ import annotations

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class SchedulingProjectConfig(AppConfig):
    """Makes the commands, templates and roles of the composition root findable. It has no models."""

    name = "scheduling_project"
    verbose_name = "Scheduling"

    def ready(self) -> None:
        from scheduling_project import roles

        # Django tells only apps with models that a migration has ended; once is enough.
        post_migrate.connect(roles.keep, sender=apps.get_app_config("auth"), dispatch_uid="scheduling_project.roles")
