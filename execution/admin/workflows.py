"""Workflows: the list, and the page of one with its graph, definition, versions, runs and verbs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse, reverse_lazy
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from execution import creation, definitions, priority, workflows
from execution.admin import shown
from execution.admin.base import Confirmation, Done, JSONText, Listed, ReadOnlyAdmin, Verb, actor_of, note_field, tell
from execution.admin.graph_svg import all_steps, draw, in_order, kind_of, target_of
from execution.admin.timeline_svg import Run, history
from execution.creation import Source
from execution.models import Execution, Workflow, WorkflowVersion
from scheduling_project.common import json_values
from scheduling_project.common.errors import DomainError, InvalidInput

CHANGE: Final = "execution.change_workflow"
HISTORY: Final = 60
LATEST: Final = 12
MOST_USERS: Final = 50
MOST_PROBLEMS: Final = 20
#: Members of a step that a version's table names where they are stated.
SHOWN_OPTIONS: Final = ("for_each", "max_failed", "on_item_error", "when", "retry", "timeout", "queue", "on_error")

EXAMPLE: Final[dict[str, Any]] = {
    "input": {"type": "object", "properties": {"day": {"type": "string"}}},
    "steps": {
        "first": {"http": {"method": "GET", "url": "https://example.org/"}},
        "second": {"needs": ["first"], "wait": 5},
    },
}


class DefinitionForm(Confirmation):
    definition = JSONText(
        label="Definition",
        widget=UnfoldAdminTextareaWidget(
            attrs={
                "rows": 28,
                "class": "sp-code",
                "spellcheck": "false",
                "data-checked-by": reverse_lazy("admin:execution_workflow_check"),
            }
        ),
    )
    note = note_field("What changes (kept with the version)")


class CreateForm(DefinitionForm):
    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    description = forms.CharField(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}))
    queue = forms.CharField(max_length=100, initial="default", widget=UnfoldAdminTextInputWidget)
    priority = forms.TypedChoiceField(
        choices=[(level, shown.priority_text(level)) for level in priority.LEVELS],
        coerce=int,
        initial=priority.NORMAL,
        widget=UnfoldAdminSelectWidget,
    )
    field_order = ("name", "description", "queue", "priority", "definition", "note")


class SettingsForm(Confirmation):
    description = forms.CharField(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}))
    queue = forms.CharField(max_length=100, widget=UnfoldAdminTextInputWidget)
    priority = forms.TypedChoiceField(
        choices=[(level, shown.priority_text(level)) for level in priority.LEVELS],
        coerce=int,
        widget=UnfoldAdminSelectWidget,
    )


class RunForm(Confirmation):
    input = JSONText(label="Input", required=False, help_text="Checked against the definition's input schema.")


class VersionForm(Confirmation):
    number = forms.IntegerField(
        label="Version", min_value=1, widget=UnfoldAdminTextInputWidget(attrs={"type": "number"})
    )
    note = note_field()


class DeleteForm(Confirmation):
    name = forms.CharField(label="Type its name to confirm", widget=UnfoldAdminTextInputWidget)


def _run(workflow: Workflow, values: Mapping[str, Any], actor: str) -> Done:
    data = values.get("input")
    started = creation.start(workflow, source=Source("admin", actor, actor), input={} if data is None else data)
    return Done("Started. This page follows it.", shown.page_of(started))


def _publish(workflow: Workflow, values: Mapping[str, Any], actor: str) -> Done:
    version = workflows.publish(workflow, values["definition"], actor=actor, note=values["note"])
    return Done(f"Version {version.number} is what new executions run.")


def _publish_version(workflow: Workflow, values: Mapping[str, Any], actor: str) -> Done:
    version = workflows.publish_version(workflow, values["number"], actor=actor, note=values["note"])
    return Done(f"Version {version.number} is what new executions run.")


def _update(workflow: Workflow, values: Mapping[str, Any], actor: str) -> Done:
    workflows.update(workflow, values, actor=actor)
    return Done("Saved.")


def _delete(workflow: Workflow, values: Mapping[str, Any], actor: str) -> Done:
    if values["name"] != workflow.name:
        raise InvalidInput(fields={"name": [f"is not {workflow.name}"]})
    workflows.delete(workflow, actor=actor)
    return Done(f"Workflow {workflow.name} is deleted.", reverse("admin:execution_workflow_changelist"))


def _definition(workflow: Workflow) -> dict[str, Any]:
    latest = workflow.published or workflow.versions.order_by("-number").first()
    return {"definition": latest.definition if latest else EXAMPLE}


def _sample_input(workflow: Workflow) -> dict[str, Any]:
    """An input to start from: the schema's defaults, and what is required with an empty value of its type."""
    schema = workflow.published.definition.get("input", {}) if workflow.published else {}
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    empty: Mapping[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": [], "object": {}}
    sample = {
        name: rule.get("default", empty.get(str(rule.get("type")), None))
        for name, rule in properties.items()
        if isinstance(rule, dict) and ("default" in rule or name in schema.get("required", ()))
    }
    return {"input": sample}


VERBS: Final = (
    Verb[Workflow](
        name="run",
        label="Run now",
        permission="execution.run_workflow",
        perform=_run,
        form=RunForm,
        initial=_sample_input,
        primary=True,
        available=lambda workflow: workflow.published_id is not None,
    ),
    Verb[Workflow](
        name="edit",
        label="Edit definition",
        icon="edit",
        permission=CHANGE,
        perform=_publish,
        form=DefinitionForm,
        initial=_definition,
        as_page=True,
        explanation="Publishes a new version. Executions that run keep the version that they started with.",
    ),
    Verb[Workflow](
        name="version",
        label="Publish a version",
        icon="history",
        permission=CHANGE,
        perform=_publish_version,
        form=VersionForm,
        explanation="Publishes a draft, or goes back to an earlier version.",
    ),
    Verb[Workflow](
        name="settings",
        label="Settings",
        icon="tune",
        permission=CHANGE,
        perform=_update,
        form=SettingsForm,
        initial=lambda workflow: {
            "description": workflow.description,
            "queue": workflow.queue,
            "priority": workflow.priority,
        },
    ),
    Verb[Workflow](
        name="delete",
        label="Delete",
        icon="delete",
        permission="execution.delete_workflow",
        perform=_delete,
        form=DeleteForm,
        danger=True,
        explanation="Possible while nothing uses it: no schedule, no trigger, no execution.",
    ),
)


def problems_in(text: str) -> list[dict[str, str]]:
    """What is wrong with the text of a definition: where (a dotted path), and the rule that it breaks."""
    try:
        definition = json_values.parse(text)
    except json_values.JSONProblem as problem:
        return [{"at": problem.path, "rule": str(problem)}]
    found = definitions.problems_of(definition)
    return [{"at": at, "rule": rule} for at, rules in found.items() for rule in rules][:MOST_PROBLEMS]


@admin.register(Workflow)
class WorkflowAdmin(ReadOnlyAdmin):
    verbs = VERBS
    detail_template = "admin/execution/workflow/detail.html"
    list_display = ("shown_name", "description", "published_version", "steps", "queue", "shown_priority", "updated")
    list_select_related = ("published",)
    search_fields = ("name", "description")
    ordering = ("name",)
    empty_text = "No workflow yet. Add one here, by the API, or start with DEMO=1 for some to try."

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("execution.add_workflow"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Workflow]:
        found: QuerySet[Workflow] = super().get_queryset(request)
        return found.select_related("published")

    @admin.display(description="Workflow")
    def shown_name(self, workflow: Workflow) -> SafeString:
        return format_html('<a class="sp-link sp-strong" href="{}">{}</a>', shown.page_of(workflow), workflow.name)

    @admin.display(description="Published")
    def published_version(self, workflow: Workflow) -> SafeString:
        if workflow.published is None:
            return shown.badge("", "draft")
        return shown.badge("published", f"v{workflow.published.number}")

    @admin.display(description="Steps")
    def steps(self, workflow: Workflow) -> str:
        return str(len(workflow.published.definition.get("steps", {}))) if workflow.published else "–"

    @admin.display(description="Priority")
    def shown_priority(self, workflow: Workflow) -> str:
        return shown.priority_text(workflow.priority)

    @admin.display(description="Updated")
    def updated(self, workflow: Workflow) -> SafeString:
        return shown.instant(workflow.updated_at, relative=True)

    # ── Checked while it is typed ────────────────────────────────────────────────────────────────────────────

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.check_view)
        return [path("check/", view, name="execution_workflow_check"), *super().get_urls()]

    def check_view(self, request: HttpRequest) -> HttpResponseBase:
        """What is wrong with a definition as it is typed: `{"problems": [{"at", "rule"}]}`. Saves nothing."""
        if not (request.user.has_perm(CHANGE) or self.has_add_permission(request)):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return JsonResponse({"problems": problems_in(request.POST.get("definition", ""))})

    # ── A new one ────────────────────────────────────────────────────────────────────────────────────────────

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        bound = request.POST if request.method == "POST" else None
        form = CreateForm(bound, initial={"definition": EXAMPLE}, prefix="create")
        if form.is_valid():
            try:
                created = workflows.create(actor=actor_of(request), **form.cleaned_data)
            except DomainError as error:
                tell(form, error) if error.fields else form.add_error(None, error.message)
            else:
                messages.success(request, "Created, and published as version 1.")
                return redirect(shown.page_of(created))
        context = {
            **self._page(request, "Add a workflow"),
            "verb": {"name": "create", "label": "Create"},
            "form": form,
            "subjects": [],
            "back": reverse("admin:execution_workflow_changelist"),
        }
        return TemplateResponse(request, "admin/verb.html", context, status=400 if form.is_bound else 200)

    # ── The page of one ──────────────────────────────────────────────────────────────────────────────────────

    def detail(self, request: HttpRequest, workflow: Workflow) -> dict[str, Any]:
        versions = list(workflow.versions.order_by("-number")[:20])
        wanted = request.GET.get("version", "")
        chosen = next((version for version in versions if str(version.number) == wanted), None)
        version = chosen or workflow.published or next(iter(versions), None)
        definition: Mapping[str, Any] = version.definition if version else {}
        runs = Execution.objects.filter(workflow=workflow).order_by("-id").defer("input", "retry_policy")
        latest = list(runs[:HISTORY])
        return {
            "workflow": workflow,
            "version": version,
            "facts": [
                ("Published", self.published_version(workflow)),
                ("Description", workflow.description or shown.NOTHING),
                ("Queue", workflow.queue),
                ("Priority", shown.priority_text(workflow.priority)),
                ("Created", shown.instant(workflow.created_at)),
                ("Updated", shown.instant(workflow.updated_at)),
                ("Id", format_html('<span class="sp-mono">{}</span>', workflow.pk)),
            ],
            "graph": draw(definition),
            "definition": shown.json_text(definition),
            "compared": _compared(workflow, version),
            "history": history_of(latest[::-1]),
            "tables": [
                ("Steps", _steps(definition)),
                ("Latest executions", listed_executions(latest[:LATEST])),
                ("Used by", _users(workflow)),
                ("Versions", _versions(workflow, versions)),
            ],
        }


def _steps(definition: Mapping[str, Any]) -> Listed:
    table = Listed(("Step", "Kind", "Runs", "Needs", "Options"), empty="This version has no steps.")
    steps = all_steps(definition)
    for name in in_order(definition):
        step = steps[name]
        options = [option for option in SHOWN_OPTIONS if option in step]
        table.rows.append(
            (
                format_html('<span class="sp-strong">{}</span>', name),
                kind_of(step),
                format_html('<span class="sp-mono">{}</span>', target_of(step)),
                ", ".join(step.get("needs", ())) or shown.NOTHING,
                ", ".join(options) or shown.NOTHING,
            )
        )
    return table


def listed_executions(executions: list[Execution]) -> Listed:
    """Executions as a table for a detail page."""
    now = datetime.now(UTC)
    table = Listed(("Execution", "State", "Source", "Created", "Took"), empty="It has not run yet.")
    for execution in executions:
        table.rows.append(
            (
                format_html(
                    '<a class="sp-link sp-mono" href="{}">{}</a>',
                    shown.page_of(execution),
                    shown.short_id(execution.pk),
                ),
                shown.badge(execution.state, execution.get_state_display(), title=execution.state_reason),
                execution.source_label or execution.source_kind,
                shown.instant(execution.created_at, relative=True),
                shown.duration(execution.started_at, execution.finished_at, now=now),
            )
        )
    return table


def history_of(executions: list[Execution]) -> SafeString | str:
    """Executions, oldest first, as bars."""
    now = datetime.now(UTC)
    runs = []
    for execution in executions:
        begin = execution.started_at or execution.created_at
        seconds = max(((execution.finished_at or now) - begin).total_seconds(), 0)
        created = f"{execution.created_at:%Y-%m-%d %H:%M:%S} UTC"
        title = f"{execution.get_state_display()}, {shown.seconds_text(seconds)}, {created}"
        runs.append(Run(seconds, execution.state, shown.page_of(execution), title))
    return history(runs, slots=HISTORY) if runs else ""


def _users(workflow: Workflow) -> Listed:
    """What points at the workflow from the apps above, found without importing them."""
    table = Listed(("What", "Name"), empty="No schedule and no trigger starts it.")
    for relation in Workflow._meta.related_objects:
        model = relation.related_model
        if model._meta.app_label == Workflow._meta.app_label or not relation.one_to_many:
            continue
        users = model._default_manager.filter(**{relation.field.name: workflow})
        table.rows.extend((str(model._meta.verbose_name), shown.link(user)) for user in users[:MOST_USERS])
    return table


def _versions(workflow: Workflow, versions: list[WorkflowVersion]) -> Listed:
    table = Listed(
        ("Version", "State", "Created", "By", "Note", "Differs from the one before"), empty="No version yet."
    )
    for version, before in zip_longest(versions, versions[1:]):
        changes = [] if before is None else workflows.diff(before.definition, version.definition)
        table.rows.append(
            (
                format_html('<a class="sp-link" href="?version={0}">v{0}</a>', version.number),
                _version_badge(workflow, version),
                shown.instant(version.created_at),
                version.created_by or shown.NOTHING,
                version.note or shown.NOTHING,
                shown.differences(changes),
            )
        )
    return table


def _compared(workflow: Workflow, version: WorkflowVersion | None) -> SafeString | None:
    """What would change if a version that is not published took the published one's place."""
    if version is None or workflow.published is None or version.pk == workflow.published_id:
        return None
    return shown.differences(workflows.diff(workflow.published.definition, version.definition))


def _version_badge(workflow: Workflow, version: WorkflowVersion) -> SafeString:
    if version.pk == workflow.published_id:
        return shown.badge("published")
    return shown.badge("", "earlier" if version.published_at else "draft")
