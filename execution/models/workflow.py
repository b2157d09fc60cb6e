from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Now

from execution import priority
from scheduling_project.common.ids import uuid7

NAME = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", "Letters, digits, '.', '_' and '-', starting with a letter or digit."
)


class Workflow(models.Model):
    """What can be run: a name and its versions. Executions pin the version that they started with."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200, unique=True, validators=[NAME])
    description = models.TextField(blank=True)
    labels = models.JSONField(default=dict, blank=True)

    published = models.ForeignKey(
        "WorkflowVersion", null=True, blank=True, on_delete=models.PROTECT, related_name="+", editable=False
    )

    priority = priority.field()
    queue = models.CharField(max_length=100, default="default")
    retry_policy = models.JSONField(null=True, blank=True, help_text="Default for its steps (docs: retry policy).")

    revision = models.PositiveIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=models.Q(priority__lte=9), name="workflow_priority_range"),
        ]

    def __str__(self) -> str:
        return self.name


class WorkflowVersion(models.Model):
    """One definition, never changed after it is published (`execution.definitions` checks it)."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField(editable=False)
    definition = models.JSONField()
    note = models.CharField(max_length=500, blank=True)

    published_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    created_by = models.CharField(max_length=200, blank=True, editable=False)

    class Meta:
        ordering = ["workflow", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["workflow", "number"], name="workflow_version_number"),
        ]

    def __str__(self) -> str:
        return f"{self.workflow} v{self.number}"
