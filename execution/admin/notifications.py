"""Who is told of what: rules with their verbs, and every message with what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from execution.admin import shown
from execution.admin.base import Confirmation, Done, JSONText, Listed, ReadOnlyAdmin, Verb, actor_of, tell
from execution.models import Notification, NotificationRule, Workflow
from execution.notifications import rules
from execution.notifications.kinds import NotificationKind
from execution.notifications.rules import Made
from execution.notifications.sending import title_of
from scheduling_project.common.errors import DomainError

CHANGE: Final = "execution.change_notificationrule"
MOST_ROWS: Final = 50
ONCE: Final = "It is shown this once."
TONES: Final[Mapping[str, str]] = {"sent": "succeeded", "pending": "queued", "failed": "failed"}


class RuleForm(Confirmation):
    """Everything that people decide about a rule."""

    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    kind = forms.ChoiceField(label="Tell when", choices=NotificationKind.choices, widget=UnfoldAdminSelectWidget)
    workflow = forms.ModelChoiceField(
        Workflow.objects.order_by("name"), required=False, empty_label="Any", widget=UnfoldAdminSelectWidget
    )
    schedule = forms.CharField(
        required=False, max_length=200, widget=UnfoldAdminTextInputWidget, help_text="Id or name; empty: any."
    )
    queue = forms.ChoiceField(
        required=False,
        choices=lambda: [("", "Any"), *((name, name) for name in settings.WORKFLOW_QUEUES)],
        widget=UnfoldAdminSelectWidget,
    )
    threshold = forms.IntegerField(
        label="How many times",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "number"}),
        help_text="For several failures in a row.",
    )
    seconds = forms.FloatField(
        label="How long (seconds)",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "number", "step": "any"}),
        help_text="For lateness, silence, long runs and old queues.",
    )
    window = forms.IntegerField(
        label="Seconds within which news become one message",
        initial=60,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "number"}),
    )
    emails = forms.CharField(
        label="Email addresses",
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Separated by commas or lines.",
    )
    webhook_url = forms.CharField(
        label="Webhook",
        required=False,
        max_length=2000,
        widget=UnfoldAdminTextInputWidget,
        help_text="Messages are signed (Standard Webhooks); the secret is shown once.",
    )
    labels = JSONText(label="Labels (JSON)", required=False, help_text="Of the workflow or schedule, all must fit.")

    def clean_emails(self) -> list[str]:
        texts = self.cleaned_data["emails"].replace("\n", ",").split(",")
        return [text.strip() for text in texts if text.strip()]

    def clean_labels(self) -> Any:
        value = self.cleaned_data["labels"]
        if value is not None and not isinstance(value, dict):
            raise forms.ValidationError("must be an object of texts")
        return value or {}


def _initial(rule: NotificationRule) -> dict[str, Any]:
    values = {name: getattr(rule, name) for name in RuleForm.base_fields}
    return values | {"emails": "\n".join(rule.emails), "labels": rule.labels or None}


def _told(made: Made, done: str) -> str:
    return f"{done} The secret of its webhook is {made.secret} – {ONCE}" if made.secret else done


def _edit(rule: NotificationRule, values: Mapping[str, Any], actor: str) -> Done:
    return Done(_told(rules.update(rule, values, actor=actor), "Saved."))


def _rotate(rule: NotificationRule, values: Mapping[str, Any], actor: str) -> Done:
    return Done(_told(rules.rotate(rule, actor=actor), "For a day messages carry the signature of the old one, too."))


def _switch(enabled: bool) -> Any:
    def switch(rule: NotificationRule, values: Mapping[str, Any], actor: str) -> Done:
        rules.switch(rule, enabled=enabled, actor=actor)
        return Done("It tells again." if enabled else "It tells nobody until it is resumed.")

    return switch


def _test(rule: NotificationRule, values: Mapping[str, Any], actor: str) -> Done:
    sent = rules.test(rule, actor=actor)
    told = (f"{message.channel}: {message.error or message.get_state_display().lower()}" for message in sent)
    return Done(f"Tried: {'; '.join(told)}.")


def _delete(rule: NotificationRule, values: Mapping[str, Any], actor: str) -> Done:
    rules.delete(rule, actor=actor)
    return Done(f"Rule {rule.name} is deleted.", reverse("admin:execution_notificationrule_changelist"))


@admin.register(NotificationRule)
class NotificationRuleAdmin(ReadOnlyAdmin):
    verbs: ClassVar[Any] = (
        Verb[NotificationRule](
            name="edit", label="Edit", icon="edit", permission=CHANGE, perform=_edit, form=RuleForm, initial=_initial,
            as_page=True,
        ),
        Verb[NotificationRule](
            name="test",
            label="Send a test",
            icon="science",
            permission="execution.run_notificationrule",
            perform=_test,
            explanation="One message through each channel, now.",
        ),
        Verb[NotificationRule](
            name="pause",
            label="Pause",
            icon="pause",
            permission="execution.pause_notificationrule",
            perform=_switch(False),
            available=lambda rule: rule.enabled,
        ),
        Verb[NotificationRule](
            name="resume",
            label="Resume",
            permission="execution.pause_notificationrule",
            perform=_switch(True),
            primary=True,
            available=lambda rule: not rule.enabled or rule.webhook_disabled_at is not None,
            explanation="Also a webhook that had been switched off is tried again.",
        ),
        Verb[NotificationRule](
            name="rotate",
            label="New secret",
            icon="key",
            permission="execution.manage_notificationrule",
            perform=_rotate,
            available=lambda rule: bool(rule.webhook_url),
        ),
        Verb[NotificationRule](
            name="delete",
            label="Delete",
            icon="delete",
            permission="execution.delete_notificationrule",
            perform=_delete,
            danger=True,
            explanation="Its messages go too.",
        ),
    )  # fmt: skip
    list_display = ("shown_name", "shown_state", "kind", "about", "whom")
    list_select_related = ("workflow",)
    list_filter = ("kind", "enabled")
    search_fields = ("name",)
    ordering = ("name",)
    add_text = "Add a rule"
    empty_text = (
        "Nobody is told of anything yet. A rule tells by email or signed webhook of failures, recoveries, dead "
        "letters, missed or late fires, runs that take too long or do not come, and old queues."
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("execution.add_notificationrule"))

    @admin.display(description="Rule", ordering="name")
    def shown_name(self, rule: NotificationRule) -> SafeString:
        return shown.link(rule)

    @admin.display(description="State")
    def shown_state(self, rule: NotificationRule) -> SafeString:
        if not rule.enabled:
            return shown.badge("retryable", "paused")
        if rule.webhook_disabled_at is not None:
            return shown.badge("failed", "webhook given up", title=rule.webhook_note)
        return shown.badge("enabled", "active")

    @admin.display(description="About")
    def about(self, rule: NotificationRule) -> str:
        return _about(rule)

    @admin.display(description="Whom")
    def whom(self, rule: NotificationRule) -> str:
        return ", ".join([*rule.emails[:3], *([rule.webhook_url[:60]] if rule.webhook_url else [])])

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = RuleForm(request.POST if request.method == "POST" else None, prefix="rule")
        if form.is_valid():
            try:
                made = rules.create(form.cleaned_data, actor=actor_of(request))
            except DomainError as error:
                tell(form, error) if error.fields else form.add_error(None, error.message)
            else:
                messages.success(request, _told(made, "It tells from now on."))
                return redirect(shown.page_of(made.rule))
        context = {
            **self._page(request, "Add a rule"),
            "verb": {"name": "rule", "label": "Create"},
            "form": form,
            "subjects": [],
            "back": reverse("admin:execution_notificationrule_changelist"),
        }
        return TemplateResponse(request, "admin/verb.html", context, status=400 if form.is_bound else 200)

    def detail(self, request: HttpRequest, rule: NotificationRule) -> dict[str, Any]:
        sent = rule.notifications.select_related("rule").order_by("-id")[:MOST_ROWS]
        holding = Listed(("What holds at present", "Since"), empty="Nothing that it looks for holds at present.")
        holding.rows.extend((alert.subject, shown.instant(alert.since)) for alert in rule.alerts.all()[:MOST_ROWS])
        optional: tuple[tuple[str, Any], ...] = (
            ("How many times", rule.threshold),
            ("How long", rule.seconds and shown.seconds_text(rule.seconds)),
            ("Webhook failing since", rule.webhook_failing_since and shown.instant(rule.webhook_failing_since)),
            ("Webhook given up", rule.webhook_disabled_at and shown.instant(rule.webhook_disabled_at)),
            ("Webhook says", rule.webhook_note),
        )
        return {
            "facts": [
                ("State", self.shown_state(rule)),
                ("Tells when", rule.get_kind_display()),
                ("About", _about(rule)),
                ("By email to", ", ".join(rule.emails) or "nobody"),
                ("By webhook to", rule.webhook_url or "nobody"),
                ("One message for", f"{rule.window} s"),
                *((label, value) for label, value in optional if value),
                ("Made by", rule.created_by or shown.NOTHING),
            ],
            "tables": [("Latest messages", listed_messages(sent)), ("Holding", holding)],
        }


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin):
    list_display = ("shown_title", "rule", "channel", "shown_state", "attempts", "created")
    list_select_related = ("rule__workflow",)
    list_filter = ("channel",)
    ordering = ("-id",)
    chips_field = "state"
    empty_text = "No message yet. Notification rules say who is told of what."

    @admin.display(description="Message")
    def shown_title(self, message: Notification) -> SafeString:
        return shown.link(message, title_of(message)[:120])

    @admin.display(description="State")
    def shown_state(self, message: Notification) -> SafeString:
        return _state(message)

    @admin.display(description="Since")
    def created(self, message: Notification) -> SafeString:
        return shown.instant(message.created_at, relative=True)

    def title_of(self, message: Notification) -> str:
        return title_of(message)

    def facts(self, message: Notification) -> list[tuple[str, Any]]:
        return [
            ("State", _state(message)),
            ("Rule", shown.link(message.rule)),
            ("Channel", message.get_channel_display()),
            ("Tells of", f"{message.count:,} event{'s' if message.count != 1 else ''}"),
            ("Attempts", message.attempts),
            ("Answer", message.status or shown.NOTHING),
            ("Error", message.error or shown.NOTHING),
            ("Created", shown.instant(message.created_at)),
            ("Due", shown.instant(message.due_at)),
            ("Finished", shown.instant(message.finished_at)),
        ]

    def detail(self, request: HttpRequest, message: Notification) -> dict[str, Any]:
        events = Listed(("At", "Title", "Details"), empty="It tells nothing.")
        for event in message.events:
            details = {name: value for name, value in event.items() if name not in {"at", "title"}}
            events.rows.append(
                (event.get("at", ""), event.get("title", ""), format_html("<pre>{}</pre>", shown.json_text(details)))
            )
        return {"facts": self.facts(message), "tables": [("What it tells", events)]}


def _about(rule: NotificationRule) -> str:
    parts = [
        f"workflow {rule.workflow.name}" if rule.workflow else "",
        f"schedule {rule.schedule}" if rule.schedule else "",
        f"queue {rule.queue}" if rule.queue else "",
        *(f"{name}: {value}" for name, value in rule.labels.items()),
    ]
    return ", ".join(part for part in parts if part) or "everything"


def _state(message: Notification) -> SafeString:
    return shown.badge(TONES.get(message.state, ""), message.get_state_display(), title=message.error)


def listed_messages(sent: Iterable[Notification]) -> Listed:
    """Messages as a table for a detail page."""
    table = Listed(("Message", "Channel", "State", "Attempts", "Answer", "When"), empty="It has told nobody yet.")
    for message in sent:
        table.rows.append(
            (
                shown.link(message, title_of(message)),
                message.get_channel_display(),
                _state(message),
                message.attempts,
                message.error or message.status or shown.NOTHING,
                shown.instant(message.created_at, relative=True),
            )
        )
    return table
