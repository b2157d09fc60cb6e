"""`manage.py createapikey`."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from tests.api_client import Api
from triggers.models import ApiKey


def run(*words: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("createapikey", *words, stdout=out, stderr=err)
    return out.getvalue().strip(), err.getvalue().strip()


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_superuser("ada")


def test_the_key_is_the_only_thing_on_stdout_and_opens_the_api(ada: User) -> None:
    text, told = run("ci", "--user", "ada")
    assert text.startswith("wk_")
    assert told == "ci: read as ada. It is shown this once."
    assert Api(anonymous=True).ok("get", "/api/workflows", headers={"X-API-Key": text})["results"] == []
    assert text not in json.dumps(list(ApiKey.objects.values()), default=str)


def test_it_can_be_read_by_machines(ada: User) -> None:
    words = ["erp", "--user", "ada", "--scope", "events", "--scope", "read", "--days", "1", "--network", "10.0.0.0/8"]
    made: dict[str, Any] = json.loads(run(*words, "--json")[0])
    assert (made["name"], made["scopes"], made["allowed_networks"]) == ("erp", ["events", "read"], ["10.0.0.0/8"])
    key = ApiKey.objects.get(pk=made["id"])
    assert (key.expires_at.isoformat() if key.expires_at else "") == made["expires_at"]
    assert key.created_by.startswith("cli:")
    told = run("until", "--user", "ada", "--expires-at", "2999-01-31T00:00:00Z")[1]
    assert "until 2999-01-31T00:00:00+00:00" in told


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--user", "nobody"], "There is no active user 'nobody'."),
        (["--user", "ada", "--days", "0"], "--days must be more than 0"),
        (["--user", "ada", "--expires-at", "tomorrow"], "must be an instant with its offset"),
        (["--user", "ada", "--expires-at", "2999-13-31T00:00:00Z"], "must be an instant with its offset"),
        (["--user", "ada", "--expires-at", "2999-01-31T00:00:00"], "must be an instant with its offset"),
        (["--user", "ada", "--expires-at", "2001-01-31T00:00:00Z"], "expires_at: must lie in the future"),
        (["--user", "ada", "--network", "here"], "must be a CIDR block"),
        (["--user", "ada", "--scope", "fly"], "invalid choice"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(ada: User, words: list[str], rule: str) -> None:
    with pytest.raises(CommandError, match=rule):
        run("ci", *words)
    assert not ApiKey.objects.exists()
