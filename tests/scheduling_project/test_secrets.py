"""No secret stands in logs, answers, tracebacks or the audit trail; nobody makes themselves a superuser."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.urls import reverse
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from execution.models import AuditEntry, Workflow
from tests import factories
from tests.admin_client import Browser
from tests.api_client import Api
from triggers.auth import keys


@pytest.mark.django_db
def test_secrets_stand_in_the_answer_that_makes_them_and_nowhere_else(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    api = Api()
    own = "whsec_" + "c2VjcmV0LXRoYXQtbXVzdC1ub3QtYmUtc2Vlbg=="
    webhook = api.ok("post", "/api/webhooks", {"slug": "shop", "secret": own}, status=201)
    rotated = api.ok("post", "/api/webhooks/shop/rotate", {})["secret"]
    key = api.ok("post", "/api/api-keys", {"name": "ci", "scopes": ["admin"]}, status=201)["key"]
    user = User.objects.create_superuser("root", password="correct horse battery")
    access, refresh = str(AccessToken.for_user(user)), str(RefreshToken.for_user(user))
    machine = Api(anonymous=True)
    machine.raise_request_exception = False
    machine.post("/api/token", {"username": "root", "password": "correct horse battery"}, format="json")
    machine.post("/api/token/refresh", {"refresh": refresh}, format="json")
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {access}"}):
        machine.get("/api/webhooks", headers=headers)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a fault in the middle of a request")

    with monkeypatch.context() as patch:  # a crash, with all of it in the frames of its traceback
        patch.setattr("execution.api.workflows.WorkflowViewSet.get_queryset", fail)
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {access}"}):
            answer = machine.get("/api/workflows", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (500, "internal")
            assert "RuntimeError" not in answer.content.decode()
    shown = [json.dumps(api.ok("get", path)) for path in ("/api/webhooks", "/api/webhooks/shop", "/api/api-keys")]
    shown += [json.dumps(api.ok("get", path)) for path in (f"/api/webhooks/{webhook['id']}/deliveries", "/api/audit")]
    trail = json.dumps(list(AuditEntry.objects.values()), default=str)
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(json_agg(s)::text, '') FROM triggers_endpointsecret s")
        stored = cursor.fetchone()[0]
    captured = capsys.readouterr()
    logged = caplog.text + captured.out + captured.err
    for secret in (own, own.removeprefix("whsec_"), rotated, key, "correct horse battery", access, refresh):
        assert secret not in trail + stored + "".join(shown), secret[:10]
        assert secret not in logged, secret[:10]


@pytest.mark.django_db
def test_somebody_who_handles_users_does_not_become_a_superuser() -> None:
    browser = Browser()
    browser.user.groups.add(Group.objects.get(name="admin"))
    root = User.objects.create_superuser("chief", password="x")
    own_page = reverse("admin:auth_user_change", args=[browser.user.pk])
    form = {"username": browser.user.username, "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    form |= {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    browser.post(own_page, form)
    browser.user.refresh_from_db()
    assert not browser.user.is_superuser
    assert browser.post(reverse("admin:auth_user_change", args=[root.pk]), form).status_code == 403
    assert browser.post(reverse("admin:auth_user_delete", args=[root.pk]), {"post": "yes"}).status_code == 403
    password = reverse("admin:auth_user_password_change", args=[root.pk])
    assert browser.post(password, {"password1": "horse battery 9", "password2": "horse battery 9"}).status_code == 403
    root.refresh_from_db()
    assert root.is_superuser
    assert root.check_password("x")


@pytest.mark.django_db
def test_a_superuser_still_makes_another() -> None:
    browser = Browser(superuser=True)
    page = browser.page(reverse("admin:auth_user_change", args=[browser.user.pk]))
    assert 'name="is_superuser"' in page


@pytest.mark.django_db
def test_the_trail_is_narrowed_by_who_what_and_when() -> None:
    api = Api()
    for name in ("a", "b"):
        api.ok("post", "/api/workflows", {"name": name, "definition": factories.ONE_STEP}, status=201)
    _, text = keys.create("ci", user=api.user, actor="ada", scopes=["write"])
    Api(anonymous=True).ok("delete", "/api/workflows/a", status=204, headers={"X-API-Key": text})
    entries = api.ok("get", "/api/audit?subject_kind=workflow")["results"]
    assert {entry["subject_kind"] for entry in entries} == {"workflow"}
    b = Workflow.objects.get(name="b")
    assert {row["subject_id"] for row in api.ok("get", f"/api/audit?subject_id={b.pk}")["results"]} == {str(b.pk)}
    by_key = api.ok("get", f"/api/audit?actor=key:{text.split('_')[1]}")["results"]
    assert [entry["action"] for entry in by_key] == ["workflow.delete"]
    assert api.ok("get", "/api/audit?created_before=2001-01-01T00:00:00Z")["results"] == []
    assert api.ok("get", "/api/audit?created_after=2001-01-01T00:00:00Z&search=b&action=workflow.create")["results"]
    api.refused("get", "/api/audit?created_after=yesterday", status=400, field="created_after")
