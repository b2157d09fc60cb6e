"""How often one may ask the API, and guess a password."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework_simplejwt.tokens import AccessToken

from scheduling_project import login
from scheduling_project.common import rate_limits
from scheduling_project.common.rate_limits import Rate
from tests.api_client import Api
from triggers.auth import keys


@pytest.fixture(autouse=True)
def own_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Redis is not rolled back: each test counts under an address of its own."""
    rate_limits.reset()
    address = str(uuid.uuid4())
    monkeypatch.setattr(login, "address_of", lambda meta: address)
    yield address
    rate_limits.reset()


@pytest.fixture
def without_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_client", rate_limits.client_of("redis://127.0.0.1:1/0", timeout=0.2))
    monkeypatch.setattr(rate_limits, "_script", None)


def fresh_user(**more: Any) -> User:
    """A user whose name and password no other test counts under."""
    return User.objects.create_superuser(f"u{uuid.uuid4().hex}", password="correct horse", **more)


def count_under(user: User) -> None:
    """User ids come again with every test's transaction, what Redis counted for them does not."""
    rate_limits.forget(f"api:user:{user.pk}")


@pytest.mark.django_db
def test_answers_tell_what_is_left_and_the_last_one_is_refused(settings: Any) -> None:
    settings.API_REQUESTS_PER_MINUTE, settings.API_REQUESTS_BURST = 6, 3
    api = Api(user=fresh_user())
    count_under(api.user)
    for left in (2, 1, 0):
        answer = api.get("/api/workflows")
        assert answer.status_code == 200
        assert answer["RateLimit-Policy"] == '"api";q=3;w=30'
        assert re.fullmatch(rf'"api";r={left};t=\d+', answer["RateLimit"])
        assert answer["Cache-Control"] == "no-store"
    refused = api.get("/api/workflows")
    assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
    assert 1 <= int(refused["Retry-After"]) <= 10
    assert re.fullmatch(r'"api";r=0;t=\d+', refused["RateLimit"])
    assert Api(user=fresh_user()).get("/api/workflows").status_code == 200


@pytest.mark.django_db
def test_a_key_is_counted_by_itself(settings: Any) -> None:
    settings.API_REQUESTS_PER_MINUTE, settings.API_REQUESTS_BURST = 1, 1
    user = fresh_user()
    count_under(user)
    machine = Api(anonymous=True)
    for name in ("one", "two"):
        _, text = keys.create(name, user=user, actor="ada")
        machine.ok("get", "/api/workflows", headers={"X-API-Key": text})
        machine.refused("get", "/api/workflows", headers={"X-API-Key": text}, status=429)
    bearer = {"Authorization": f"Bearer {AccessToken.for_user(user)}"}
    machine.ok("get", "/api/workflows", headers=bearer)
    machine.refused("get", "/api/workflows", headers=bearer, status=429)


@pytest.mark.django_db
def test_no_limit_and_no_redis_let_everybody_in(settings: Any, without_redis: None) -> None:
    api = Api(user=fresh_user())
    settings.API_REQUESTS_PER_MINUTE, settings.API_REQUESTS_BURST = 1, 1
    for _ in range(3):
        assert "RateLimit" not in api.get("/api/workflows").headers
    settings.API_REQUESTS_PER_MINUTE = 0
    assert api.get("/api/workflows").status_code == 200


@pytest.mark.django_db
def test_health_is_never_refused(settings: Any) -> None:
    settings.API_REQUESTS_PER_MINUTE, settings.API_REQUESTS_BURST = 1, 1
    assert [Client().get("/healthz").status_code for _ in range(3)] == [200] * 3


def test_many_at_once_never_get_more_than_there_is() -> None:
    name, rate = f"test:{uuid.uuid4()}", Rate(1, 3600, 25)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: rate_limits.take(name, rate), range(80)))
    assert sum(answer.allowed for answer in answers) == 25
    assert not rate_limits.take(name, rate, units=0).allowed
    assert rate_limits.take(name, rate, units=-2).left == 2
    assert [rate_limits.take(name, rate).allowed for _ in range(3)] == [True, True, False]
    for _ in range(40):
        full = rate_limits.take(name, rate, units=-1)
    assert (full.left, full.full_after) == (25, 0.0)


@pytest.mark.django_db
def test_guessing_a_password_ends_for_this_account_at_this_address(settings: Any, own_address: str) -> None:
    settings.LOGIN_FAILURES_PER_MINUTE = 3
    user, other = fresh_user(), fresh_user()
    client = Api(anonymous=True)
    right = {"username": user.username, "password": "correct horse"}
    for _ in range(5):
        answer = client.post("/api/token", right, format="json")
        assert (answer.status_code, answer["Cache-Control"]) == (200, "no-store")
    for _ in range(3):
        client.refused("post", "/api/token", {**right, "password": "wrong"}, status=401)
    problem = client.refused("post", "/api/token", right, status=429)
    assert problem["code"] == "throttled"
    answer = client.post("/api/token", {**right, "username": user.username.upper()}, format="json")
    assert (answer.status_code, int(answer["Retry-After"]) >= 1) == (429, True)
    client.ok("post", "/api/token", {"username": other.username, "password": "correct horse"})
    page = Client().post("/admin/login/", right)
    assert (page.status_code, "Too many failed logins" in page.content.decode()) == (429, True)
    assert int(page["Retry-After"]) >= 1


@pytest.mark.django_db
def test_an_address_may_not_try_every_account(settings: Any) -> None:
    settings.LOGIN_FAILURES_PER_MINUTE = 1
    client = Api(anonymous=True)
    for _ in range(login.PER_ADDRESS):
        client.refused("post", "/api/token", {"username": uuid.uuid4().hex, "password": "x"}, status=401)
    client.refused("post", "/api/token", {"username": uuid.uuid4().hex, "password": "x"}, status=429)


@pytest.mark.django_db
def test_the_admins_login_counts_failures_too(settings: Any) -> None:
    settings.LOGIN_FAILURES_PER_MINUTE = 2
    user, browser = fresh_user(), Client()
    for _ in range(3):
        assert (
            browser.post("/admin/login/", {"username": user.username, "password": "correct horse"}).status_code == 302
        )
        browser.logout()
    for _ in range(2):
        assert browser.post("/admin/login/", {"username": user.username, "password": "wrong"}).status_code == 200
    assert browser.post("/admin/login/", {"username": user.username, "password": "correct horse"}).status_code == 429
    assert browser.get("/admin/login/").status_code == 200


@pytest.mark.django_db
def test_logins_work_without_redis_and_without_a_limit(settings: Any, without_redis: None) -> None:
    settings.LOGIN_FAILURES_PER_MINUTE = 1
    user, client = fresh_user(), Api(anonymous=True)
    for _ in range(3):
        client.refused("post", "/api/token", {"username": user.username, "password": "wrong"}, status=401)
    settings.LOGIN_FAILURES_PER_MINUTE = 0
    client.ok("post", "/api/token", {"username": user.username, "password": "correct horse"})
    client.refused("post", "/api/token", {"username": 5}, status=400, field="password")


@pytest.mark.django_db
def test_a_new_password_ends_the_tokens_of_the_old_one() -> None:
    user = fresh_user()
    bearer = {"Authorization": f"Bearer {AccessToken.for_user(user)}"}
    machine = Api(anonymous=True)
    machine.ok("get", "/api/workflows", headers=bearer)
    user.set_password("another horse")
    user.save()
    machine.refused("get", "/api/workflows", headers=bearer, status=401)


@pytest.mark.django_db
def test_pages_load_nothing_from_elsewhere_and_nobody_else_may_read_the_api() -> None:
    page = Client().get("/admin/login/")
    for directive in ("default-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "object-src 'none'"):
        assert directive in page["Content-Security-Policy"]
    assert (page["X-Frame-Options"], page["X-Content-Type-Options"]) == ("DENY", "nosniff")
    assert (page["Referrer-Policy"], page["Cross-Origin-Opener-Policy"]) == ("same-origin", "same-origin")
    answer = Api().get("/api/workflows", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


@pytest.mark.django_db
async def test_the_policy_is_there_under_asgi_too(async_client: Any) -> None:
    assert "frame-ancestors" in (await async_client.get("/healthz"))["Content-Security-Policy"]


@pytest.mark.django_db
def test_a_session_cannot_be_used_by_another_site() -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(fresh_user())
    refused = browser.post("/api/schedules/preview", {"cron_expression": "* * * * *"}, "application/json")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    browser.cookies["csrftoken"] = "a" * 32
    with_token = {"headers": {"X-CSRFToken": "a" * 32}}
    answer = browser.post("/api/schedules/preview", {"cron_expression": "* * * * *"}, "application/json", **with_token)
    assert answer.status_code == 200
