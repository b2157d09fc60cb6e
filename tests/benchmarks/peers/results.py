"""Celery with django-celery-results: every result becomes a row in Postgres, nothing else is recorded.

python -m tests.benchmarks.peers.results prepare         make the table
python -m tests.benchmarks.peers.results send COUNT      send so many calls
celery -A tests.benchmarks.peers.results worker          run them
"""

from __future__ import annotations

import os
import sys
from urllib.parse import unquote, urlsplit

import django
from celery import Celery
from django.conf import settings

from tests.benchmarks.execution_app import stamp

QUEUE = "results"

_database = urlsplit(os.environ["DATABASE_URL"])
if not settings.configured:
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django_celery_results"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": _database.path.lstrip("/"),
                "USER": unquote(_database.username or ""),
                "PASSWORD": unquote(_database.password or ""),
                "HOST": _database.hostname or "",
                "PORT": _database.port or "",
                "CONN_MAX_AGE": None,
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()

app = Celery("results", broker=os.environ["BARE_BROKER_URL"], backend="django-db", set_as_current=True)
app.conf.task_default_queue = QUEUE
# Else Celery closes the connection after every task: slower, and not what anybody wants of it.
app.conf.db_reuse_max = 1_000_000


@app.task(name="results.stamp")
def task() -> None:
    """Note when it ran."""
    stamp.write()


def main() -> None:
    """``prepare`` or ``send COUNT``, from the command line."""
    command = sys.argv[1]
    if command == "prepare":
        from django.core.management import call_command

        call_command("migrate", "django_celery_results", verbosity=0)
    elif command == "send":
        for _ in range(int(sys.argv[2])):
            task.apply_async()
