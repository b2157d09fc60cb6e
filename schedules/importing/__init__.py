"""Schedules from crontab files and django-celery-beat's tables, with a report of what became of each row."""
