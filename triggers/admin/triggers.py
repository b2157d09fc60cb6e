"""Triggers: the list, and the page of one with what it did and its verbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from execution.admin import shown
from execution.admin.base import Confirmation, Done, JSONText, ReadOnlyAdmin, Verb, WithNote, actor_of, tell
from execution.models import Workflow
from scheduling_project.common import clock
from scheduling_project.common.errors import DomainError, InvalidInput
from triggers import ingest, inspection, lifecycle, replay
from triggers.admin.parts import MOST_ROWS, activations_table, json_block
from triggers.models import Activation, Trigger, WebhookEndpoint

CHANGE: Final = "triggers.change_trigger"


class RuleForm(Confirmation):
    """What an edit asks for; the rest is set by the API."""

    workflow = forms.ModelChoiceField(Workflow.objects.order_by("name"), widget=UnfoldAdminSelectWidget)
    endpoint = forms.ModelChoiceField(
        WebhookEndpoint.objects.order_by("slug"), required=False, widget=UnfoldAdminSelectWidget
    )
    event_types = forms.CharField(
        required=False, widget=UnfoldAdminTextInputWidget, help_text="Separated by commas; order.* takes all of them."
    )
    pattern = JSONText(required=False, help_text="An event pattern; empty takes every event.")
    input = JSONText(required=False, help_text="A template over the event; empty hands over its data.")

    def values(self) -> dict[str, Any]:
        """As the lifecycle functions take them."""
        found = dict(self.cleaned_data)
        found["event_types"] = [part.strip() for part in found["event_types"].split(",") if part.strip()]
        found["pattern"] = {} if found["pattern"] is None else found["pattern"]
        return found


class CreateForm(RuleForm):
    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    field_order = ("name", "workflow", "endpoint", "event_types", "pattern", "input")


class TestForm(Confirmation):
    type = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    data = JSONText(required=False)  # type: ignore[assignment]


class DeleteForm(Confirmation):
    name = forms.CharField(label="Type its name to confirm", widget=UnfoldAdminTextInputWidget)


class FlowForm(Confirmation):
    throttle = JSONText(required=False, help_text='{"limit": 10, "period": 60}')
    debounce = JSONText(required=False, help_text='{"period": 5, "timeout": 60}')
    batch = JSONText(required=False, help_text='{"size": 100, "timeout": 30}')
    max_activations = forms.IntegerField(required=False, min_value=1)
    description = forms.CharField(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}))


def _pause(trigger: Trigger, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.pause(trigger, actor=actor, note=values["note"])
    return Done("Paused: it takes no events.")


def _resume(trigger: Trigger, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.resume(trigger, actor=actor)
    return Done("It takes events again.")


def _edit(trigger: Trigger, values: Mapping[str, Any], actor: str) -> Done:
    found = dict(values)
    found["event_types"] = [part.strip() for part in found["event_types"].split(",") if part.strip()]
    found["pattern"] = {} if found["pattern"] is None else found["pattern"]
    lifecycle.update(trigger, found, actor=actor)
    return Done("Saved; in force at once.")


def _flow(trigger: Trigger, values: Mapping[str, Any], actor: str) -> Done:
    lifecycle.update(trigger, values, actor=actor)
    return Done("Saved; in force at once.")


def _test(trigger: Trigger, values: Mapping[str, Any], actor: str) -> Done:
    arrival = ingest.internal(values["type"], values["data"], source="/admin/test")
    trial = inspection.try_trigger(trigger, arrival, now=clock.now())
    if not trial.matched:
        raise InvalidInput(f"It would not take this event: {trial.reason}")
    receipt = replay.deliver_to(trigger, arrival, actor=actor)
    return Done(f"It took the event; {len(receipt.execution_ids)} execution(s) started.")


def _delete(trigger: Trigger, values: Mapping[str, Any], actor: str) -> Done:
    if values["name"] != trigger.name:
        raise InvalidInput(fields={"name": [f"is not {trigger.name}"]})
    lifecycle.delete(trigger, actor=actor)
    return Done(f"Trigger {trigger.name} is deleted.", reverse("admin:triggers_trigger_changelist"))


@admin.register(Trigger)
class TriggerAdmin(ReadOnlyAdmin):
    verbs = (
        Verb[Trigger](
            name="pause",
            label="Pause",
            icon="pause",
            permission="triggers.pause_trigger",
            perform=_pause,
            form=WithNote,
            many=True,
            explanation="It takes no events until it is resumed. What waits in its groups is still started.",
            available=lambda trigger: trigger.enabled,
        ),
        Verb[Trigger](
            name="resume",
            label="Resume",
            permission="triggers.pause_trigger",
            perform=_resume,
            primary=True,
            many=True,
            available=lambda trigger: not trigger.enabled,
        ),
        Verb[Trigger](
            name="edit",
            label="Edit rule",
            icon="edit",
            permission=CHANGE,
            perform=_edit,
            form=RuleForm,
            as_page=True,
            initial=lambda trigger: {
                "workflow": trigger.workflow_id,
                "endpoint": trigger.endpoint_id,
                "event_types": ", ".join(trigger.event_types),
                "pattern": trigger.pattern,
                "input": trigger.input,
            },
        ),
        Verb[Trigger](
            name="flow",
            label="How often",
            icon="tune",
            permission=CHANGE,
            perform=_flow,
            form=FlowForm,
            as_page=True,
            initial=lambda trigger: {
                name: getattr(trigger, name)
                for name in ("throttle", "debounce", "batch", "max_activations", "description")
            },
        ),
        Verb[Trigger](
            name="test",
            label="Send a test event",
            icon="science",
            permission="triggers.run_trigger",
            perform=_test,
            form=TestForm,
            explanation="Stores an event that this trigger alone gets. A matching one really starts the workflow.",
            initial=lambda trigger: {"type": next(iter(trigger.event_types), "webhook.received"), "data": {}},
        ),
        Verb[Trigger](
            name="delete",
            label="Delete",
            icon="delete",
            permission="triggers.delete_trigger",
            perform=_delete,
            form=DeleteForm,
            danger=True,
            explanation="Its activations go with it; its executions stay.",
        ),
    )
    list_display = ("shown_name", "shown_state", "events", "shown_workflow", "activations", "updated")
    list_select_related = ("workflow", "endpoint")
    search_fields = ("name", "description", "workflow__name")
    ordering = ("name",)
    empty_text = "No trigger yet. Add one here or by the API."

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("triggers.add_trigger"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Trigger]:
        found: QuerySet[Trigger] = super().get_queryset(request)
        return found.select_related("workflow", "endpoint")

    @admin.display(description="Trigger")
    def shown_name(self, trigger: Trigger) -> SafeString:
        return format_html('<a class="sp-link sp-strong" href="{}">{}</a>', shown.page_of(trigger), trigger.name)

    @admin.display(description="State")
    def shown_state(self, trigger: Trigger) -> SafeString:
        state = inspection.state_of(trigger, now=timezone.now())
        return shown.badge("enabled" if state == "active" else state, state, title=trigger.pause_note)

    @admin.display(description="Events")
    def events(self, trigger: Trigger) -> str:
        parts = ([] if trigger.endpoint is None else [f"webhook {trigger.endpoint.slug}"]) + list(trigger.event_types)
        return ", ".join(parts)[:200]

    @admin.display(description="Workflow")
    def shown_workflow(self, trigger: Trigger) -> SafeString:
        return shown.link(trigger.workflow, trigger.workflow.name)

    @admin.display(description="Counted")
    def activations(self, trigger: Trigger) -> str:
        return "–" if trigger.max_activations is None else f"{trigger.activation_count} of {trigger.max_activations}"

    @admin.display(description="Updated")
    def updated(self, trigger: Trigger) -> SafeString:
        return shown.instant(trigger.updated_at, relative=True)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = CreateForm(request.POST if request.method == "POST" else None, prefix="create")
        if form.is_valid():
            try:
                values = form.values()
                created = lifecycle.create(values.pop("name"), actor=actor_of(request), **values)
            except DomainError as error:
                tell(form, error) if error.fields else form.add_error(None, error.message)
            else:
                messages.success(request, "Created; it takes events from now on.")
                return redirect(shown.page_of(created))
        context = {
            **self._page(request, "Add a trigger"),
            "verb": {"name": "create", "label": "Create"},
            "form": form,
            "subjects": [],
            "back": reverse("admin:triggers_trigger_changelist"),
        }
        return TemplateResponse(request, "admin/verb.html", context, status=400 if form.is_bound else 200)

    def detail(self, request: HttpRequest, trigger: Trigger) -> dict[str, Any]:
        latest = Activation.objects.filter(trigger=trigger).select_related("trigger", "event", "execution")
        status = inspection.status_of(trigger, now=clock.now())
        optional: tuple[tuple[str, Any], ...] = (
            ("Description", trigger.description or shown.NOTHING),
            ("Pattern", json_block(trigger.pattern)),
            ("Input", json_block(trigger.input)),
            ("Sender", json_block(trigger.authentication)),
            ("Throttle", json_block(trigger.throttle)),
            ("Debounce", json_block(trigger.debounce)),
            ("Batch", json_block(trigger.batch)),
            ("From", shown.instant(trigger.start_at)),
            ("Until", shown.instant(trigger.end_at)),
        )
        return {
            "facts": [
                ("State", self.shown_state(trigger)),
                ("Takes", ", ".join(trigger.event_types) or "events of every type"),
                ("From", shown.link(trigger.endpoint) if trigger.endpoint else "any origin"),
                ("Starts", self.shown_workflow(trigger)),
                ("Activations", self.activations(trigger)),
                ("Waiting groups", status["waiting_groups"]),
                ("Failed activations", status["failed_activations"]),
                *((label, value) for label, value in optional if value != shown.NOTHING),
                ("Id", format_html('<span class="sp-mono">{}</span>', trigger.pk)),
            ],
            "tables": [("Latest activations", activations_table(list(latest.order_by("-pk")[:MOST_ROWS])))],
        }
