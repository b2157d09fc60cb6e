from __future__ import annotations

from django.apps import AppConfig


class SchedulingProjectConfig(AppConfig):
    """Makes the commands and templates of the composition root findable. It has no models."""

    name = "scheduling_project"
    verbose_name = "Scheduling"
