"""A browser of the admin for tests: who is signed in, pages that must answer, verbs that are posted."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission, User
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse


class Browser(Client):
    """Signed in as a superuser, or as staff with exactly the given permissions (`app.codename`)."""

    def __init__(self, *permissions: str, superuser: bool = False, anonymous: bool = False) -> None:
        super().__init__()
        if anonymous:
            return
        name = "root" if superuser else "staff"
        self.user = User.objects.create_user(name, f"{name}@example.org", "x", is_staff=True, is_superuser=superuser)
        for permission in permissions:
            app, codename = permission.split(".")
            self.user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
        self.force_login(self.user)

    def page(self, path: str, **query: Any) -> str:
        """The text of a page that must be there."""
        answer = self.get(path, query)
        assert answer.status_code == 200, (path, answer.status_code, answer.headers.get("Location"))
        return answer.content.decode()

    def do(self, subject: Model, verb: str, **values: Any) -> HttpResponse:
        """Post a verb to an object."""
        return self.post(verb_url(subject, verb), {f"{verb}-{name}": value for name, value in values.items()})

    def choose(self, model: type[Model], verb: str, subjects: list[Any], **values: Any) -> HttpResponse:
        """Choose an action for rows of a list."""
        data = {"action": verb, "_selected_action": [str(subject.pk) for subject in subjects], **values}
        return self.post(list_url(model), data)


def list_url(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def page_url(subject: Model) -> str:
    meta = subject._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[subject.pk])


def verb_url(subject: Model, verb: str) -> str:
    meta = subject._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_verb", args=[subject.pk, verb])


def told(answer: Any) -> list[str]:
    """The messages that the next page shows."""
    return [str(message) for message in answer.wsgi_request._messages]
