"""Secrets by name: kept, given another value, forgotten. A value goes in and is never shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextInputWidget

from execution import secret_store
from execution.admin import shown
from execution.admin.base import (
    Confirmation,
    Done,
    Listed,
    ReadOnlyAdmin,
    Verb,
    WithNote,
    actor_of,
    note_field,
    tell,
)
from execution.models import Secret, Workflow
from scheduling_project.common.errors import DomainError

MANAGE: Final = "execution.manage_secret"
MOST_USERS: Final = 50


class ValueForm(Confirmation):
    value = forms.CharField(
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password", "spellcheck": "false"}),
        help_text="Stored encrypted. Nobody can read it here again; steps get it when they run.",
    )
    note = note_field("Note (what it is for)")


class NewForm(ValueForm):
    name = forms.CharField(
        max_length=100,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Steps refer to it as ${{ secrets.NAME }}.",
    )
    field_order = ("name", "value", "note")


def _change(secret: Secret, values: Mapping[str, Any], actor: str) -> Done:
    secret_store.set_secret(secret.name, values["value"], actor=actor, note=values["note"])
    return Done("It has another value. Steps that begin from now on get that.")


def _delete(secret: Secret, values: Mapping[str, Any], actor: str) -> Done:
    secret_store.delete_secret(secret.name, actor=actor, note=values["note"])
    return Done(f"Secret {secret.name} is forgotten.", reverse("admin:execution_secret_changelist"))


@admin.register(Secret)
class SecretAdmin(ReadOnlyAdmin):
    verbs: ClassVar[Any] = (
        Verb[Secret](
            name="change",
            label="Another value",
            icon="key",
            permission=MANAGE,
            perform=_change,
            form=ValueForm,
            initial=lambda secret: {"note": secret.note},
            primary=True,
        ),
        Verb[Secret](
            name="delete",
            label="Delete",
            icon="delete",
            permission=MANAGE,
            perform=_delete,
            form=WithNote,
            danger=True,
            explanation="Steps that refer to it fail from now on.",
        ),
    )
    list_display = ("name", "note", "updated", "updated_by")
    list_display_links = ("name",)
    search_fields = ("name",)
    ordering = ("name",)
    add_text = "Add a secret"
    empty_text = (
        "No secret yet. Passwords and tokens belong here rather than into definitions: a step that says "
        "${{ secrets.NAME }} gets the value when it runs, and logs and outputs show it as [redacted]."
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(MANAGE))

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(request.user.has_perm(MANAGE))

    @admin.display(description="Changed")
    def updated(self, secret: Secret) -> SafeString:
        return shown.instant(secret.updated_at, relative=True)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewForm(request.POST if request.method == "POST" else None, prefix="secret")
        if form.is_valid() and Secret.objects.filter(name=form.cleaned_data["name"]).exists():
            form.add_error("name", "There is a secret of this name; give it another value on its own page.")
        elif form.is_valid():
            try:
                kept = secret_store.set_secret(actor=actor_of(request), **form.cleaned_data)
            except DomainError as error:
                tell(form, error)
            else:
                messages.success(request, f"Kept. Steps may refer to it as ${{{{ secrets.{kept.name} }}}}.")
                return redirect(shown.page_of(kept))
        context = {
            **self._page(request, "Add a secret"),
            "verb": {"name": "secret", "label": "Keep"},
            "form": form,
            "subjects": [],
            "back": reverse("admin:execution_secret_changelist"),
        }
        return TemplateResponse(request, "admin/verb.html", context, status=400 if form.is_bound else 200)

    def detail(self, request: HttpRequest, secret: Secret) -> dict[str, Any]:
        users = Listed(("Workflow", "Version"), empty="No published workflow refers to it.")
        users.rows.extend((shown.link(workflow), f"v{number}") for workflow, number in _users(secret))
        return {
            "facts": [
                ("Refer to it as", f"${{{{ secrets.{secret.name} }}}}"),
                ("Value", "never shown"),
                ("Note", secret.note or shown.NOTHING),
                ("Kept since", shown.instant(secret.created_at)),
                ("Changed", shown.instant(secret.updated_at)),
                ("Changed by", secret.updated_by or shown.NOTHING),
            ],
            "tables": [("Used by", users)],
        }


def _users(secret: Secret) -> list[tuple[Workflow, int]]:
    """Workflows whose published definition names the secret."""
    found = Workflow.objects.filter(published__definition__icontains=f"secrets.{secret.name}")
    return [
        (workflow, workflow.published.number)
        for workflow in found.select_related("published").order_by("name")[:MOST_USERS]
        if workflow.published is not None
    ]
