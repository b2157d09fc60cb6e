"""The composition root: settings, the Celery app, URLs and the one-command supervisor."""

from scheduling_project.celery import app as celery_app

__all__ = ["celery_app"]
