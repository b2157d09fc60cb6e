"""API keys: the list, a new one, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextInputWidget

from execution.admin import shown
from execution.admin.base import Confirmation, Done, ReadOnlyAdmin, Verb, WithNote, actor_of, tell
from scheduling_project.common.errors import DomainError
from triggers.auth import keys
from triggers.models import ApiKey


class CreateForm(Confirmation):
    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    scopes = forms.MultipleChoiceField(
        choices=[(name, f"{name}: {text}") for name, text in keys.SCOPES.items()],
        initial=["read"],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )


def _revoke(key: ApiKey, values: Mapping[str, Any], actor: str) -> Done:
    keys.revoke(key, actor=actor, note=values["note"])
    return Done("Revoked: nobody can use it any more.")


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    verbs = (
        Verb[ApiKey](
            name="revoke",
            label="Revoke",
            icon="block",
            permission="triggers.delete_apikey",
            perform=_revoke,
            form=WithNote,
            danger=True,
            explanation="It ends at once, for good.",
            available=lambda key: key.revoked_at is None,
        ),
    )
    list_display = ("shown_name", "prefix", "user", "shown_scopes", "shown_state", "used", "expires")
    search_fields = ("name", "prefix")
    ordering = ("-pk",)
    empty_text = "No API key yet."

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("triggers.add_apikey"))

    @admin.display(description="Key")
    def shown_name(self, key: ApiKey) -> SafeString:
        return shown.link(key, key.name)

    @admin.display(description="Scopes")
    def shown_scopes(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description="State")
    def shown_state(self, key: ApiKey) -> SafeString:
        return shown.badge("enabled", "valid") if key.revoked_at is None else shown.badge("", "revoked")

    @admin.display(description="Last used")
    def used(self, key: ApiKey) -> SafeString:
        return shown.instant(key.last_used_at, relative=True)

    @admin.display(description="Until")
    def expires(self, key: ApiKey) -> SafeString:
        return shown.instant(key.expires_at)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = CreateForm(request.POST if request.method == "POST" else None, prefix="create")
        if form.is_valid():
            assert isinstance(request.user, User)
            try:
                key, text = keys.create(
                    form.cleaned_data["name"],
                    user=request.user,
                    actor=actor_of(request),
                    scopes=form.cleaned_data["scopes"],
                )
            except DomainError as error:
                tell(form, error)
            else:
                messages.success(request, f"The key is {text} – it is shown this once.")
                return redirect(shown.page_of(key))
        context = {
            **self._page(request, "Add an API key"),
            "verb": {"name": "create", "label": "Create"},
            "form": form,
            "subjects": [],
            "back": reverse("admin:triggers_apikey_changelist"),
        }
        return TemplateResponse(request, "admin/verb.html", context, status=400 if form.is_bound else 200)

    def detail(self, request: HttpRequest, key: ApiKey) -> dict[str, Any]:
        return {
            "facts": [
                ("Name", key.name),
                ("Prefix", key.prefix),
                ("User", str(key.user)),
                ("Scopes", self.shown_scopes(key)),
                ("Allowed networks", ", ".join(key.allowed_networks) or "any"),
                ("State", self.shown_state(key)),
                ("Created", shown.instant(key.created_at)),
                ("Created by", key.created_by),
                ("Last used", shown.instant(key.last_used_at)),
                ("Until", shown.instant(key.expires_at)),
                ("Revoked", shown.instant(key.revoked_at)),
            ]
        }
