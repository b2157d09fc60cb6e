"""The audit trail: who did what to what. Read only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from execution.admin import shown
from execution.admin.base import Listed, ReadOnlyAdmin, one_of
from execution.models import AuditEntry

#: Kinds of subjects, each with the page of its objects in this admin, by name: the apps above are not imported.
PAGES: Final[Mapping[str, str]] = {
    "execution": "execution_execution",
    "workflow": "execution_workflow",
    "dead_letter": "execution_deadletter",
    "queue": "execution_queuesettings",
    "pool": "execution_pool",
    "schedule": "schedules_schedule",
    "calendar": "schedules_calendar",
    "trigger": "triggers_trigger",
    "endpoint": "triggers_endpoint",
    "step_run": "",
    "firing": "",
    "api_key": "",
}


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("when", "actor", "shown_action", "subject", "note")
    list_display_links = ("when",)
    list_filter = (one_of("subject_kind", tuple(PAGES), title="subject"),)
    search_fields = ("subject_id", "actor")
    search_help_text = "Exact id of a subject, or exact actor"
    empty_text = "Nobody has done anything yet. Every deed of a person or an API key will stand here."

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEntry], search_term: str
    ) -> tuple[QuerySet[AuditEntry], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if AuditEntry.objects.filter(actor=term).exists():
            return queryset.filter(actor=term), False
        return queryset.filter(subject_id=term), False

    @admin.display(description="When")
    def when(self, entry: AuditEntry) -> SafeString:
        return shown.instant(entry.created_at)

    @admin.display(description="Action")
    def shown_action(self, entry: AuditEntry) -> SafeString:
        return format_html('<span class="sp-strong">{}</span>', entry.action)

    @admin.display(description="Subject")
    def subject(self, entry: AuditEntry) -> SafeString:
        label = entry.subject_label or f"{entry.subject_kind} {shown.short_id(entry.subject_id)}"
        page = PAGES.get(entry.subject_kind)
        try:
            url = reverse(f"admin:{page}_change", args=[entry.subject_id])
        except NoReverseMatch:
            return format_html("{}", label)
        return format_html('<a class="sp-link" href="{}">{}</a>', url, label)

    def title_of(self, entry: AuditEntry) -> str:
        return f"{entry.action} by {entry.actor}"

    def detail(self, request: HttpRequest, entry: AuditEntry) -> dict[str, Any]:
        changes = Listed(("Member", "Before", "After"), empty="No values were changed.")
        for name, change in entry.changes.items():
            before, after = (change.get("before"), change.get("after")) if isinstance(change, dict) else ("", change)
            changes.rows.append((name, code(before), code(after)))
        return {
            "facts": [
                ("When", shown.instant(entry.created_at)),
                ("Actor", entry.actor),
                ("Action", entry.action),
                ("Subject", self.subject(entry)),
                ("Subject id", entry.subject_id),
                ("Note", entry.note or shown.NOTHING),
            ],
            "tables": [("Changes", changes)],
        }


def code(value: Any) -> SafeString:
    """A JSON value in a table."""
    return shown.NOTHING if value is None else format_html('<pre class="sp-pre">{}</pre>', shown.json_text(value))
