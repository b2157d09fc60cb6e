"""The Celery application. Its settings are the ``CELERY_…`` names of `settings.py`."""

from __future__ import annotations

import os
import sys

from scheduling_project.process_role import is_beat, lean_command

if (_arguments := lean_command(sys.argv, sys.orig_argv)) is not None:
    # The same process, begun anew: Celery's command line has loaded more than a beat needs.
    os.execv(sys.executable, [sys.executable, *_arguments])  # noqa: S606 - no shell, and our own arguments

from celery import Celery
from django.apps import apps
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduling_project.settings")


def apps_with_tasks() -> list[str]:
    """Whose ``tasks`` modules to load. A beat sends the project's own tasks by their names; what a stranger's tasks
    say of their queue and priority stands in their code."""
    demo = ["scheduling_project.demo"] if settings.DEMO else []
    return [*demo, *settings.EXTRA_APPS] if is_beat(sys.argv) else [config.name for config in apps.get_app_configs()]


app = Celery("scheduling_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(apps_with_tasks)
# Celery's Django fixup closes every connection around every task unless told how often to. Reconnecting
# costs more than a step: the runner closes what is old or broken between steps, by Django's own rule.
app.conf.CELERY_DB_REUSE_MAX = 1_000_000_000
if not is_beat(sys.argv):
    from execution.worker_events import EventBundles
    from execution.worker_hints import WithoutReceipts

    app.steps["consumer"].update({EventBundles, WithoutReceipts})
