"""The Celery application. Its settings are the ``CELERY_…`` names of `settings.py`."""

from __future__ import annotations

import os

from celery import Celery

from execution.worker_events import EventBundles

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduling_project.settings")


app = Celery("scheduling_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# Celery's Django fixup closes every connection around every task unless told how often to. Reconnecting
# costs more than a step: the runner closes what is old or broken between steps, by Django's own rule.
app.conf.CELERY_DB_REUSE_MAX = 1_000_000_000
app.steps["consumer"].add(EventBundles)
