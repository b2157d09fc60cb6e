from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import models
from django.db.models.functions import Now

from schedules.timing.calendars import check_names, names_in, normalise_definition
from schedules.timing.spec_reading import Problems


class CalendarQuerySet(models.QuerySet["Calendar"]):
    def definitions(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The definitions of these calendars and of all that they mention, by name, to be pinned in a spec.

        Names that do not exist are left out; `schedules.timing.occurrences.normalise` reports them where they stand.
        """
        found: dict[str, dict[str, Any]] = {}
        wanted = set(names)
        while wanted:
            rows = self.filter(name__in=wanted).values_list("name", "definition")
            read = dict(rows)
            found |= read
            wanted = {name for definition in read.values() for name in names_in(definition)} - found.keys()
        return found


class Calendar(models.Model):
    """A named set of days, shared by schedules. Each schedule version pins the definition it was made with."""

    name = models.CharField(max_length=200, unique=True)
    description = models.CharField(max_length=500, blank=True)
    definition = models.JSONField(help_text="Kind and data, as docs/reference/timetables.md describes.")
    revision = models.PositiveIntegerField(default=1, help_text="Raised by every edit.")
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(auto_now=True)

    objects = CalendarQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=~models.Q(name=""), name="calendar_has_a_name"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def kind(self) -> str:
        """holidays, dates, weekly, union, intersection, difference or complement."""
        return str(self.definition.get("kind", "")) if isinstance(self.definition, dict) else ""

    def clean(self) -> None:
        """Bring the definition into its canonical form; names must exist and not go in circles.

        Raises SpecError with fields under `definition`.
        """
        problems = Problems()
        self.definition = normalise_definition(self.definition, problems=problems, path="definition")
        known = Calendar.objects.using(self._state.db).definitions(names_in(self.definition))
        check_names([("definition", self.name)], known | {self.name: self.definition}, problems=problems)
        problems.raise_if_any()
