"""A page of the admin that applies a file: what would change is seen before it is done."""

from __future__ import annotations

from typing import Any, Final

import yaml
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextareaWidget

from execution.admin import shown
from execution.admin.base import Listed, actor_of
from execution.applying import Applied
from execution.workflows import Change
from scheduling_project import as_code
from scheduling_project.common.errors import DomainError
from scheduling_project.unfold import APPLY

#: Bytes of a file, and lines of a told refusal.
MOST_BYTES: Final = 2_000_000
MOST_PROBLEMS: Final = 40
PRUNE: Final = "schedules.delete_schedule"

EXAMPLE: Final = """\
workflows:
  - name: hello
    definition:
      steps:
        pause: {wait: 5}
schedules:
  - name: Hello every hour
    workflow: hello
    spec:
      timezone: Europe/Berlin
      timetables:
        - {kind: cron, expression: "0 * * * *"}
"""


class ApplyForm(forms.Form):
    document = forms.CharField(
        required=False,
        label="YAML or JSON",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 22, "class": "sp-code", "spellcheck": "false"}),
        help_text="As `manage.py export` prints it. Sections and things that it does not name stay as they are.",
    )
    file = forms.FileField(
        required=False, label="Or a file", widget=forms.FileInput(attrs={"accept": ".yaml,.yml,.json"})
    )
    prune = forms.BooleanField(
        required=False, label="Delete schedules that were applied before and that the document no longer names"
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        upload = cleaned.get("file")
        if upload is not None:
            if upload.size > MOST_BYTES:
                raise forms.ValidationError({"file": f"is {upload.size:,} bytes; at most {MOST_BYTES:,} are taken"})
            try:
                cleaned["document"] = upload.read().decode()
            except UnicodeDecodeError as error:
                raise forms.ValidationError({"file": f"is not UTF-8: {error}"}) from None
        if not cleaned.get("document", "").strip():
            raise forms.ValidationError({"document": "Give a document, or a file."})
        try:
            cleaned["parsed"] = read(cleaned["document"])
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise forms.ValidationError({"document": f"This cannot be read: {error}"}) from None
        return cleaned


def read(text: str) -> Any:
    """What a YAML or JSON text holds.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is neither, or refers to parts of itself: a few lines of such
            references stand for more than any memory holds.
    """
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise ValueError("references (*name) are not taken; write each part out")
    return yaml.safe_load(text)


def apply_page(request: HttpRequest) -> HttpResponse:
    """Show what a document would change, or do it: all of it or nothing."""
    if not request.user.has_perms(APPLY):
        raise PermissionDenied
    is_bound = request.method == "POST"
    form = ApplyForm(request.POST, request.FILES) if is_bound else ApplyForm(initial={"document": EXAMPLE})
    tables: list[tuple[str, Listed]] = []
    if is_bound and form.is_valid():
        is_trial = "apply" not in request.POST
        prune = form.cleaned_data["prune"]
        if prune and not request.user.has_perm(PRUNE):
            raise PermissionDenied
        try:
            done = as_code.apply(form.cleaned_data["parsed"], actor=actor_of(request), dry_run=is_trial, prune=prune)
        except DomainError as error:
            _tell(form, error)
        else:
            if not is_trial:
                messages.success(request, _sum(done))
                return redirect(reverse("apply"))
            tables = [(name.capitalize(), _table(section)) for name, section in done.items()]
            form = ApplyForm(initial={"document": form.cleaned_data["document"], "prune": prune})
    context = {
        **admin.site.each_context(request),
        "title": "Apply a file",
        "content_title": "Apply a file",
        "form": form,
        "tables": tables,
    }
    status = 400 if form.is_bound and form.errors else 200
    return TemplateResponse(request, "admin/apply.html", context, status=status)


def _tell(form: ApplyForm, error: DomainError) -> None:
    problems = [f"{name}: {rule}" for name, rules in error.fields.items() for rule in rules] or [error.message]
    for problem in problems[:MOST_PROBLEMS]:
        form.add_error("document", problem)


def _sum(done: dict[str, Applied]) -> str:
    created = sum(len(section.created) for section in done.values())
    changed = sum(len(section.updated) for section in done.values())
    pruned = sum(len(section.pruned) for section in done.values())
    return f"Applied: {created} created, {changed} changed, {pruned} deleted."


def _table(section: Applied) -> Listed:
    table = Listed(("What", "Name", "Changes"), empty="Everything is as it should be.")
    table.rows += [(shown.badge("succeeded", "create"), name, shown.NOTHING) for name in section.created]
    for name, differences in section.updated.items():
        changes = [Change(label, "changed", change["before"], change["after"]) for label, change in differences.items()]
        table.rows.append((shown.badge("retryable", "change"), name, shown.differences(changes)))
    table.rows += [(shown.badge("failed", "delete"), name, shown.NOTHING) for name in section.pruned]
    if table.rows and section.unchanged:
        table.more = f"{len(section.unchanged)} more are as they should be."
    return table
