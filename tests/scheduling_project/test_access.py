"""Who may do what: every operation of the API's own document, asked by everybody who might."""

from __future__ import annotations

import functools
import re
from datetime import timedelta
from typing import Any, Final

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken

from execution.models import QueueSettings
from scheduling_project import roles
from scheduling_project.common.permissions import SIGNED_IN, USUAL, VERBS, Forbidden, may, verb_of
from scheduling_project.common.problems import MEDIA_TYPE
from tests import factories
from tests.admin_client import Browser, list_url
from tests.api_client import Api
from triggers.auth import keys
from triggers.scopes import SCOPES, VERBS_OF, verbs_of

#: What needs no credential: the ways to get one, and to give one back.
PUBLIC: Final = {"POST /api/token", "POST /api/token/refresh", "POST /api/token/blacklist"}
#: Which roles have a verb, told a second time on purpose. Keys and secrets (`manage`) are the admin's alone.
WHO: Final = {
    "view": {"viewer", "operator", "editor", "admin"},
    "run": {"operator", "editor", "admin"},
    "cancel": {"operator", "editor", "admin"},
    "pause": {"operator", "editor", "admin"},
    "redrive": {"operator", "editor", "admin"},
    "approve": {"operator", "editor", "admin"},
    "intervene": {"operator", "editor", "admin"},
    "prioritize": {"operator", "editor", "admin"},
    "publish": {"operator", "editor", "admin"},
    "add": {"editor", "admin"},
    "change": {"editor", "admin"},
    "delete": {"editor", "admin"},
    "manage": {"admin"},
}


@functools.cache
def operations() -> dict[str, str | None]:
    """``GET /api/executions/{id}`` → the permission that it says it needs."""
    document: dict[str, Any] = SchemaGenerator().get_schema(public=True)
    return {
        f"{method.upper()} {path}": operation.get("x-permission")
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def ask(operation: str, headers: dict[str, str]) -> Any:
    """The status of an operation on something that does not exist, with an empty body: who may, gets further."""
    method, _, path = operation.partition(" ")
    path = path.replace("{number}", "1").replace("{secret}", "0" * 8 + "-0000-0000-0000-" + "0" * 12)
    path = re.sub(r"\{\w+\}", "00000000-0000-0000-0000-000000000000", path)
    client = APIClient(headers=headers)
    body = {} if method in {"GET", "DELETE"} else {"data": {}, "format": "json"}
    return getattr(client, method.lower())(path, **body)


def bearer(user: User) -> dict[str, str]:
    return {"Authorization": f"Bearer {AccessToken.for_user(user)}"}


def test_every_operation_says_which_permission_it_needs() -> None:
    forgotten = {name for name, needed in operations().items() if needed is None} - PUBLIC
    assert not forgotten, f"name their verbs in `action_verbs` of their viewset: {sorted(forgotten)}"
    assert {verb_of(needed) for needed in operations().values() if needed and needed != SIGNED_IN} <= VERBS
    assert not [label for label, needed in roles.actions() if needed is None]
    assert set(WHO) == VERBS >= set(USUAL.values())


@pytest.mark.django_db
def test_every_permission_that_is_asked_for_exists() -> None:
    there = {f"{app}.{name}" for app, name in Permission.objects.values_list("content_type__app_label", "codename")}
    assert roles.declared() <= there
    assert {row.name for row in Group.objects.all()} >= set(roles.ROLES)


@pytest.mark.django_db
@pytest.mark.parametrize("role", ["viewer", "operator", "editor", "admin"])
def test_a_role_may_do_exactly_its_verbs(role: str) -> None:
    user = User.objects.create_user(role)
    user.groups.add(Group.objects.get(name=role))
    wrong = {}
    for operation, needed in operations().items():
        if operation in PUBLIC:
            continue
        allowed = needed == SIGNED_IN or role in WHO[verb_of(str(needed))]
        answer = ask(operation, bearer(user))
        if (answer.status_code == 403) == allowed or answer.status_code in {401, 500}:
            wrong[operation] = (answer.status_code, needed)
        if answer.status_code == 403:
            assert answer["Content-Type"] == MEDIA_TYPE
            assert (answer.json()["code"], answer.json()["permission"]) == ("permission_denied", needed)
    assert not wrong


@pytest.mark.django_db
def test_nobody_comes_in_without_a_valid_credential() -> None:
    user = User.objects.create_superuser("ada")
    expired = AccessToken.for_user(user)
    expired.set_exp(lifetime=-timedelta(seconds=1))
    gone = AccessToken.for_user(User(pk=0, username="gone"))
    revoked, revoked_text = keys.create("old", user=user, actor="ada", scopes=["admin"])
    keys.revoke(revoked, actor="ada")
    credentials: dict[str, dict[str, str]] = {
        "none": {},
        "expired token": {"Authorization": f"Bearer {expired}"},
        "token of somebody who is gone": {"Authorization": f"Bearer {gone}"},
        "forged token": {"Authorization": f"Bearer {str(AccessToken.for_user(user))[:-4]}AAAA"},
        "revoked key": {"X-API-Key": revoked_text},
        "unknown key": {"X-API-Key": "wk_00000000_nothing"},
    }
    for operation in operations():
        for kind, headers in credentials.items():
            if operation in PUBLIC:
                continue
            answer = ask(operation, headers)
            assert (answer.status_code, answer["Content-Type"]) == (401, MEDIA_TYPE), (operation, kind)
            assert answer["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.django_db
def test_somebody_without_a_role_may_sign_in_and_nothing_else() -> None:
    user = User.objects.create_user("bob")
    for operation, needed in operations().items():
        if operation not in PUBLIC:
            expected = needed == SIGNED_IN
            assert (ask(operation, bearer(user)).status_code != 403) == expected, operation


@pytest.mark.django_db
@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_a_key_may_do_what_its_scope_and_its_user_both_may(scope: str) -> None:
    root = User.objects.create_superuser("root")
    viewer = User.objects.create_user("viewer")
    viewer.groups.add(Group.objects.get(name="viewer"))
    texts = {user: keys.create(f"{user}", user=user, actor="root", scopes=[scope])[1] for user in (root, viewer)}
    for operation, needed in operations().items():
        if operation in PUBLIC:
            continue
        verb = "" if needed == SIGNED_IN else verb_of(str(needed))
        for user, text in texts.items():
            allowed = not verb or (verb in verbs_of([scope]) and (user is root or verb == "view"))
            answer = ask(operation, {"X-API-Key": text})
            assert (answer.status_code != 403) == allowed, (operation, user.username, answer.content)
            assert answer.status_code != 401


def test_all_verbs_can_be_given_to_a_key() -> None:
    assert set(VERBS_OF) == set(SCOPES)
    assert verbs_of(["admin"]) == VERBS
    assert frozenset().union(*(VERBS_OF[scope] for scope in SCOPES if scope != "admin")) == VERBS - {"manage"}
    assert verbs_of(["unknown"]) == frozenset()


@pytest.mark.django_db
def test_many_schedules_are_deleted_only_by_who_may_delete() -> None:
    user = User.objects.create_user("op")
    user.groups.add(Group.objects.get(name="operator"))
    api = Api(user=user)
    api.ok("post", "/api/schedules/bulk", {"action": "pause", "label": "a:b"})
    problem = api.refused("post", "/api/schedules/bulk", {"action": "delete", "label": "a:b"}, status=403)
    assert problem["permission"] == "schedules.delete_schedule"


@pytest.mark.django_db
def test_what_has_no_verb_is_for_superusers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from schedules.api.views import ScheduleViewSet

    monkeypatch.setattr(ScheduleViewSet, "action_verbs", {})
    body = {"workflow": "x", "cron_expression": "* * * * *"}
    Api().ok("post", "/api/schedules/preview", {"cron_expression": "* * * * *"})
    user = User.objects.create_user("admin-by-role")
    user.groups.add(Group.objects.get(name="admin"))
    problem = Api(user=user).refused("post", "/api/schedules/preview", body, status=403)
    assert "permission" not in problem
    _, key = keys.create("k", user=User.objects.create_superuser("root"), actor="root", scopes=["write"])
    Api(anonymous=True).refused("post", "/api/schedules/preview", body, status=403, headers={"X-API-Key": key})


@pytest.mark.django_db
def test_the_groups_hold_their_role_again_after_every_migrate() -> None:
    group = Group.objects.get(name="viewer")
    before = set(group.permissions.values_list("codename", flat=True))
    group.permissions.add(Permission.objects.get(codename="delete_schedule"))
    own = Group.objects.create(name="our own")
    own.permissions.add(Permission.objects.get(codename="delete_schedule"))
    roles.keep()
    assert set(group.permissions.values_list("codename", flat=True)) == before
    assert own.permissions.count() == 1


@pytest.mark.django_db
def test_a_credential_is_the_admins_and_periodic_tasks_are_not_the_editors() -> None:
    def held(role: str) -> set[str]:
        rows = Group.objects.get(name=role).permissions.values_list("content_type__app_label", "codename")
        return {f"{app}.{codename}" for app, codename in rows}

    assert {"triggers.add_apikey", "auth.change_user", "django_celery_beat.change_periodictask"} <= held("admin")
    for role in ("viewer", "operator", "editor"):
        assert not {name for name in held(role) if "apikey" in name or name.startswith("auth.")}
        assert {name for name in held(role) if name.startswith("django_celery_beat.")} == {
            name for name in held("viewer") if name.startswith("django_celery_beat.view_")
        }
    assert held("viewer") < held("operator") < held("editor") < held("admin")


@pytest.mark.django_db
@pytest.mark.parametrize("role", ["viewer", "operator", "editor", "admin"])
def test_the_admins_buttons_ask_for_the_same_permissions(role: str) -> None:
    browser = Browser()
    browser.user.groups.add(Group.objects.get(name=role))
    execution = factories.make_execution()
    letter = factories.make_dead_letter()
    QueueSettings.objects.get_or_create(name="default")
    for subject in (execution, letter, execution.workflow):
        site = admin.site._registry[type(subject)]
        assert browser.get(list_url(type(subject))).status_code == 200
        for verb in site.verbs:
            answer = browser.do(subject, verb.name)
            may_do = role in WHO[verb_of(verb.permission)]
            assert (answer.status_code != 403) == may_do, (subject, verb.name)


@pytest.mark.django_db
def test_may_tells_without_refusing(rf: Any) -> None:
    request = rf.get("/")
    request.user = User.objects.create_user("bob")
    assert not may(request, "execution.view_execution")
    request.user = User.objects.create_superuser("root")
    assert may(request, "execution.view_execution")
    assert str(Forbidden()) == "You may not do this."
