from __future__ import annotations

from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "scheduling_project.demo"
    label = "demo"
    verbose_name = "Demo"
    default_auto_field = "django.db.models.BigAutoField"
