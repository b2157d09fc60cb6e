"""Webhook endpoints: the list, and the page of one with its secrets, deliveries and verbs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from execution.admin import shown
from execution.admin.base import Confirmation, Done, Listed, ReadOnlyAdmin, Verb, WithNote, actor_of, tell
from scheduling_project.common import clock
from scheduling_project.common.errors import Conflict, DomainError
from triggers import endpoints, inspection, self_delivery, signatures
from triggers.admin.parts import MOST_ROWS, deliveries_table, json_block
from triggers.models import Delivery, WebhookEndpoint
from triggers.signatures import SCHEMES
from triggers.states import EndpointState

CHANGE: Final = "triggers.change_webhookendpoint"
ONCE: Final = "It is shown this once."
_FIELDS: Final = ("description", "rate_per_minute", "max_body_bytes", "type_from", "dedup_path")


class CreateForm(Confirmation):
    slug = forms.CharField(max_length=100, widget=UnfoldAdminTextInputWidget)
    scheme = forms.ChoiceField(choices=[(name, name) for name in SCHEMES if name != "hmac"], initial="standard")
    secret = forms.CharField(
        required=False, widget=UnfoldAdminTextInputWidget, help_text="What the sender gave you; else a random one."
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["scheme"].widget = UnfoldAdminSelectWidget(choices=self.fields["scheme"].choices)  # type: ignore[attr-defined]


class SettingsForm(Confirmation):
    description = forms.CharField(required=False, widget=UnfoldAdminTextInputWidget)
    rate_per_minute = forms.IntegerField(required=False, min_value=1)
    max_body_bytes = forms.IntegerField(min_value=1, max_value=5_242_880)
    type_from = forms.CharField(
        required=False, widget=UnfoldAdminTextInputWidget, help_text="header:…, path:…, fixed:…"
    )
    dedup_path = forms.CharField(required=False, widget=UnfoldAdminTextInputWidget)


class TestForm(Confirmation):
    body = forms.JSONField(initial=dict, required=False, label="Body (JSON)")


class RotateForm(Confirmation):
    overlap = forms.IntegerField(
        label="Seconds for which the present secrets stay valid", initial=endpoints.DEFAULT_OVERLAP, min_value=0
    )


def _rotate(endpoint: WebhookEndpoint, values: Mapping[str, Any], actor: str) -> Done:
    made = endpoints.rotate(endpoint, actor=actor, overlap=values["overlap"])
    return Done(f"The new secret is {made.secret} – {ONCE}")


def _pause(endpoint: WebhookEndpoint, values: Mapping[str, Any], actor: str) -> Done:
    endpoints.pause(endpoint, actor=actor, note=values["note"])
    return Done("Paused: senders are told to come again.")


def _resume(endpoint: WebhookEndpoint, values: Mapping[str, Any], actor: str) -> Done:
    endpoints.resume(endpoint, actor=actor)
    return Done("It takes deliveries again.")


def _retire(endpoint: WebhookEndpoint, values: Mapping[str, Any], actor: str) -> Done:
    endpoints.retire(endpoint, actor=actor, note=values["note"])
    return Done("Retired: it answers 410 from now on.")


def _settings(endpoint: WebhookEndpoint, values: Mapping[str, Any], actor: str) -> Done:
    endpoints.update(endpoint, values, actor=actor)
    return Done("Saved.")


def _shell(request: HttpRequest, endpoint: WebhookEndpoint) -> str:
    url = request.build_absolute_uri(endpoint.path)
    return signatures.shell_command(endpoint.scheme, url=url, config=endpoint.scheme_config)


def _test(endpoint: WebhookEndpoint, values: Mapping[str, Any], actor: str) -> Done:
    sent = self_delivery.send(endpoint, values["body"])
    answer = sent.reply.body or {}
    if sent.reply.status >= 400:
        raise Conflict(f"The door answered {sent.reply.status}: {answer.get('detail', '')}")
    started = len(answer.get("execution_ids", ()))
    return Done(f"The door answered {sent.reply.status}; {started} execution(s) started.")


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(ReadOnlyAdmin):
    detail_template = "admin/triggers/webhookendpoint/detail.html"
    verbs = (
        Verb[WebhookEndpoint](
            name="rotate",
            label="New secret",
            icon="key",
            permission="triggers.manage_webhookendpoint",
            perform=_rotate,
            form=RotateForm,
            explanation="The new secret is shown once. Give it to the sender while the present ones are still valid.",
        ),
        Verb[WebhookEndpoint](
            name="test",
            label="Send a test",
            icon="science",
            permission=CHANGE,
            perform=_test,
            form=TestForm,
            explanation="Signed by the server, through the same door. It really happens: what takes it starts.",
            available=lambda endpoint: endpoint.state == EndpointState.ACTIVE,
        ),
        Verb[WebhookEndpoint](
            name="settings",
            label="Settings",
            icon="tune",
            permission=CHANGE,
            perform=_settings,
            form=SettingsForm,
            initial=lambda endpoint: {name: getattr(endpoint, name) for name in _FIELDS},
        ),
        Verb[WebhookEndpoint](
            name="pause",
            label="Pause",
            icon="pause",
            permission="triggers.pause_webhookendpoint",
            perform=_pause,
            form=WithNote,
            explanation="Senders get 503 and come again later.",
            available=lambda endpoint: endpoint.state == EndpointState.ACTIVE,
        ),
        Verb[WebhookEndpoint](
            name="resume",
            label="Resume",
            permission="triggers.pause_webhookendpoint",
            perform=_resume,
            primary=True,
            available=lambda endpoint: endpoint.state == EndpointState.PAUSED,
        ),
        Verb[WebhookEndpoint](
            name="retire",
            label="Retire",
            icon="block",
            permission=CHANGE,
            perform=_retire,
            form=WithNote,
            danger=True,
            explanation="Senders get 410 for good. Events and triggers stay.",
            available=lambda endpoint: endpoint.state != EndpointState.RETIRED,
        ),
    )
    list_display = ("shown_slug", "shown_state", "scheme", "description", "rate", "updated")
    search_fields = ("slug", "description")
    ordering = ("slug",)
    empty_text = "No endpoint yet. Add one here or by the API."

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("triggers.add_webhookendpoint"))

    @admin.display(description="Endpoint")
    def shown_slug(self, endpoint: WebhookEndpoint) -> SafeString:
        return format_html('<a class="sp-link sp-strong" href="{}">{}</a>', shown.page_of(endpoint), endpoint.slug)

    @admin.display(description="State")
    def shown_state(self, endpoint: WebhookEndpoint) -> SafeString:
        tone = "enabled" if endpoint.state == EndpointState.ACTIVE else endpoint.state
        return shown.badge(tone, endpoint.get_state_display(), title=endpoint.state_note)

    @admin.display(description="Rate")
    def rate(self, endpoint: WebhookEndpoint) -> str:
        return "–" if endpoint.rate_per_minute is None else f"{endpoint.rate_per_minute:,} a minute"

    @admin.display(description="Updated")
    def updated(self, endpoint: WebhookEndpoint) -> SafeString:
        return shown.instant(endpoint.updated_at, relative=True)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = CreateForm(request.POST if request.method == "POST" else None, prefix="create")
        if form.is_valid():
            values = dict(form.cleaned_data)
            try:
                made = endpoints.create(
                    values["slug"], actor=actor_of(request), secret=values["secret"] or None, scheme=values["scheme"]
                )
            except DomainError as error:
                tell(form, error) if error.fields else form.add_error(None, error.message)
            else:
                messages.success(request, f"Created. Its secret is {made.secret} – {ONCE}")
                return redirect(shown.page_of(made.endpoint))
        context = {
            **self._page(request, "Add a webhook endpoint"),
            "verb": {"name": "create", "label": "Create"},
            "form": form,
            "subjects": [],
            "back": reverse("admin:triggers_webhookendpoint_changelist"),
        }
        return TemplateResponse(request, "admin/verb.html", context, status=400 if form.is_bound else 200)

    def detail(self, request: HttpRequest, endpoint: WebhookEndpoint) -> dict[str, Any]:
        deliveries = Delivery.objects.filter(endpoint=endpoint).select_related("event").order_by("-pk")[:MOST_ROWS]
        triggers = Listed(("Trigger", "Workflow", "Types"), empty="No trigger takes its events yet.")
        for trigger in endpoint.triggers.select_related("workflow").order_by("name")[:MOST_ROWS]:
            triggers.rows.append(
                (
                    shown.link(trigger, trigger.name),
                    shown.link(trigger.workflow, trigger.workflow.name),
                    ", ".join(trigger.event_types) or "all",
                )
            )
        secrets = Listed(("Secret", "Since", "By", "Until"), empty="None: nothing can be verified.")
        for secret in endpoint.secrets.order_by("-pk"):
            until = shown.instant(secret.expires_at) if secret.expires_at else "replaced"
            secrets.rows.append((f"…{secret.hint}", shown.instant(secret.created_at), secret.created_by, until))
        figures = inspection.endpoint_stats_of(endpoint, now=clock.now(), window=timedelta(days=1))
        by_outcome = [f"{count:,} {name.replace('_', ' ')}" for name, count in figures["deliveries_by_outcome"].items()]
        took = "p50_duration_ms", "p95_duration_ms", "p99_duration_ms"
        quick = " / ".join("–" if figures[name] is None else f"{figures[name]:.1f}" for name in took)
        return {
            "facts": [
                ("Address", format_html('<span class="sp-mono">{}</span>', request.build_absolute_uri(endpoint.path))),
                ("State", self.shown_state(endpoint)),
                ("Scheme", endpoint.scheme),
                ("Scheme's settings", json_block(endpoint.scheme_config)),
                ("API key as well", "yes" if endpoint.require_api_key else "no"),
                ("Methods", ", ".join(endpoint.methods)),
                ("Allowed networks", ", ".join(endpoint.allowed_networks) or "any"),
                ("Largest body", f"{endpoint.max_body_bytes:,} bytes"),
                ("Rate", self.rate(endpoint)),
                ("Type from", endpoint.type_from or "found by itself"),
                ("Repeats known by", endpoint.dedup_path or endpoint.get_dedup_display()),
                ("Description", endpoint.description or shown.NOTHING),
                ("Deliveries of 24 hours", ", ".join(by_outcome) or "none"),
                ("Took p50 / p95 / p99", f"{quick} ms"),
            ],
            "shell": _shell(request, endpoint),
            "tables": [
                ("Latest deliveries", deliveries_table(list(deliveries))),
                ("Triggers", triggers),
                ("Secrets", secrets),
            ],
        }
