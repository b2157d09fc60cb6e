"""What is installed: migrations, settings, time zone data, the rows of django-celery-beat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, F
from django_celery_beat.models import PeriodicTask

from schedules import periodic_tasks
from schedules.models import Schedule
from schedules.timing.zones import TZDATA_VERSION
from scheduling_project.diagnosis.finding import Finding, error, hint, ok, warning
from scheduling_project.environment import LAPTOP_SECRET_KEY

NAMED: Final = 5


def migrations() -> Iterator[Finding]:
    """Whether the tables are what this code expects."""
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        named = ", ".join(f"{one.app_label}.{one.name}" for one, _ in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        yield error("migrations", f"{len(missing)} are not applied: {named}{more}", "run manage.py migrate")
    else:
        yield ok("migrations", "all are applied")


def configuration() -> Iterator[Finding]:
    """Settings that are unsafe outside a laptop: our own, and what Django's deployment checks say."""
    if settings.DEBUG:
        yield hint("settings", "DEBUG is on: this is a laptop's installation", "in production set DEBUG=0")
    else:
        for message in checks.run_checks(tags=[checks.Tags.security], include_deployment_checks=True):
            if not message.is_silenced() and message.level >= checks.WARNING:
                told = f"{message.msg} ({message.id})".splitlines()[0]
                todo = (message.hint or "see docs/how-to/deploy.md").splitlines()[0]
                yield (
                    error("settings", told, todo) if message.level >= checks.ERROR else warning("settings", told, todo)
                )
        if settings.SECRET_KEY == LAPTOP_SECRET_KEY:
            yield error("settings", "SECRET_KEY is the one of the source code", "set SECRET_KEY")
        if "*" in settings.ALLOWED_HOSTS:
            yield warning("settings", "ALLOWED_HOSTS takes any name", "name the hosts")
    if not settings.WORKFLOW_ENCRYPTION_KEYS:
        yield (hint if settings.DEBUG else warning)(
            "settings",
            "secrets are encrypted with a key made from SECRET_KEY: another SECRET_KEY would lose them",
            "set WORKFLOW_ENCRYPTION_KEYS, then manage.py secrets encrypt-again and manage.py triggers encrypt-again",
        )
    lease = settings.WORKFLOW_LEASE_SECONDS
    visible: Any = settings.CELERY_BROKER_TRANSPORT_OPTIONS.get("visibility_timeout", 3600)
    if visible < lease:
        yield warning(
            "settings",
            f"the broker's visibility timeout ({visible} s) is shorter than a lease ({lease:g} s)",
            "raise visibility_timeout, or messages come twice for nothing",
        )
    if settings.USE_TZ and settings.CELERY_ENABLE_UTC:
        yield ok("settings", f"{len(settings.WORKFLOW_QUEUES)} queues, leases of {lease:g} s")
    else:
        yield error("settings", "USE_TZ or CELERY_ENABLE_UTC is off: instants would be ambiguous", "set both to True")


def time_zones() -> Iterator[Finding]:
    """Whether schedules were computed with the time zone data that is installed now."""
    # Only what has a wake-up: a schedule that never fires again is computed by nobody.
    rows = Schedule.objects.filter(enabled=True, version__isnull=False).exclude(version__tzdata=TZDATA_VERSION)
    counted = rows.order_by().values_list("version__tzdata").annotate(count=Count("pk"))
    others = {str(version): int(count) for version, count in counted}
    if not others:
        yield ok("time zones", f"tzdata {TZDATA_VERSION} for all schedules")
        return
    named = ", ".join(f"{count} with {version}" for version, count in sorted(others.items()))
    yield hint(
        "time zones",
        f"tzdata is {TZDATA_VERSION}, but schedules were saved {named}; they fire by the new rules from here on",
        "where a zone's rules have changed, compare with manage.py schedules audit",
    )


def mirror() -> Iterator[Finding]:
    """Whether django-celery-beat's rows show the schedules as they are, and our housekeeping is there."""
    strays = PeriodicTask.objects.filter(task=periodic_tasks.FIRE, workflow_schedule__isnull=True).count()
    if periodic_tasks.enabled():
        missing = Schedule.objects.filter(periodic_task__isnull=True).count()
        differing = Schedule.objects.exclude(periodic_task__enabled=F("enabled")).filter(periodic_task__isnull=False)
        told = {"missing": missing, "different": differing.count(), "without a schedule": strays}
    else:
        told = {"superfluous": Schedule.objects.filter(periodic_task__isnull=False).count() + strays}
    wrong = ", ".join(f"{count} {what}" for what, count in told.items() if count)
    if wrong:
        yield warning("periodic tasks", f"rows of schedules: {wrong}", "run manage.py schedules reconcile")
    else:
        yield ok("periodic tasks", "the rows show the schedules as they are")
    wanted = {**periodic_tasks.HOUSEKEEPING, **settings.HOUSEKEEPING_TASKS}
    present = dict(PeriodicTask.objects.filter(name__in=wanted).values_list("name", "enabled"))
    absent = sorted(set(wanted) - set(present))
    if absent:
        yield warning(
            "housekeeping", f"missing: {', '.join(absent)}", "start a beat, or run manage.py schedules reconcile"
        )
    off = sorted(name for name, enabled in present.items() if not enabled)
    if off:
        yield warning("housekeeping", f"switched off: {', '.join(off)}", "enable these periodic tasks in the admin")
