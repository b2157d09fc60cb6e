"""Executions: the list, and the page of one with its graph, timeline, steps, attempts and verbs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from execution.admin import shown
from execution.admin.base import ReadOnlyAdmin, one_of
from execution.admin.execution_page import page
from execution.admin.execution_verbs import VERBS
from execution.admin.step_verbs import step_verb
from execution.models import Execution, StepRun, Workflow
from scheduling_project.common.ids import uuid7_floor

SOURCES: Final = ("api", "admin", "schedule", "trigger", "rerun", "redrive", "child")


class CreatedFilter(SimpleListFilter):
    """Created within the last hour, day, week: a range of the primary key, for a UUIDv7 begins with its time."""

    title = "created"
    parameter_name = "created"
    SPANS: Final = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1h", "Last hour"), ("24h", "Last 24 hours"), ("7d", "Last 7 days")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        span = self.SPANS.get(self.value() or "")
        return queryset if span is None else queryset.filter(pk__gte=uuid7_floor(datetime.now(UTC) - span))


@admin.register(Execution)
class ExecutionAdmin(ReadOnlyAdmin):
    verbs = VERBS
    detail_template = "admin/execution/execution/detail.html"
    list_display = ("shown_id", "shown_workflow", "shown_state", "source", "shown_priority", "created", "took")
    list_display_links = None
    list_select_related = ("workflow",)
    list_filter = (
        ("workflow", AutocompleteSelectFilter),
        one_of("source_kind", SOURCES, title="source"),
        CreatedFilter,
    )
    list_filter_submit = True
    search_fields = ("id",)
    search_help_text = "Id, name of a workflow, or idempotency key"
    chips_field = "state"
    empty_text = "No execution here yet. Run a workflow from its page, or let a schedule fire."

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.step_view)
        return [
            path("<uuid:execution_id>/steps/<uuid:step_id>/<slug:name>/", view, name="execution_execution_step"),
            *super().get_urls(),
        ]

    def step_view(self, request: HttpRequest, execution_id: UUID, step_id: UUID, name: str) -> HttpResponseBase:
        """Do a verb to one step, or show its form."""
        verb = step_verb(name)
        if verb is None:
            raise Http404
        if not (self.may_view(request) and request.user.has_perm(verb.permission)):
            raise PermissionDenied
        runs = StepRun.objects.select_related("execution__workflow", "execution__version")
        run = runs.filter(pk=step_id, execution=execution_id).first()
        if run is None:
            raise Http404
        return self.perform_verb(request, verb, run, page=run.execution, title=str(run), prefix="")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Execution]:
        found: QuerySet[Execution] = super().get_queryset(request)
        match = request.resolver_match
        if match is not None and match.url_name == "execution_execution_changelist":
            return found.defer("input", "retry_policy", "workflow__labels", "workflow__description")
        return found.select_related("workflow", "version")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Execution], search_term: str
    ) -> tuple[QuerySet[Execution], bool]:
        """Exact ids and keys, or executions of workflows whose name contains the term: each uses an index."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            return queryset.filter(pk=UUID(term)), False
        except ValueError:
            pass
        workflows = list(Workflow.objects.filter(name__icontains=term).values_list("pk", flat=True)[:50])
        if workflows:
            return queryset.filter(workflow__in=workflows), False
        return queryset.filter(idempotency_key=term), False

    @admin.display(description="Execution")
    def shown_id(self, execution: Execution) -> SafeString:
        return format_html(
            '<a class="sp-link sp-mono" href="{}" title="{}">{}</a>',
            shown.page_of(execution),
            execution.pk,
            shown.short_id(execution.pk),
        )

    @admin.display(description="Workflow")
    def shown_workflow(self, execution: Execution) -> SafeString:
        return format_html('<span class="sp-strong">{}</span>', execution.workflow.name)

    @admin.display(description="State")
    def shown_state(self, execution: Execution) -> SafeString:
        return shown.badge(execution.state, execution.get_state_display(), title=execution.state_reason)

    @admin.display(description="Source")
    def source(self, execution: Execution) -> SafeString:
        return format_html(
            '{}<span class="sp-faint"> {}</span>', execution.source_kind, execution.source_label or execution.source_id
        )

    @admin.display(description="Priority")
    def shown_priority(self, execution: Execution) -> str:
        return shown.priority_text(execution.priority)

    @admin.display(description="Created")
    def created(self, execution: Execution) -> SafeString:
        return shown.instant(execution.created_at, relative=True)

    @admin.display(description="Took")
    def took(self, execution: Execution) -> SafeString:
        return shown.duration(execution.started_at, execution.finished_at, now=datetime.now(UTC))

    def title_of(self, execution: Execution) -> str:
        return f"{execution.workflow.name} {shown.short_id(execution.pk)}"

    def detail(self, request: HttpRequest, execution: Execution) -> dict[str, Any]:
        return page(request, execution)
