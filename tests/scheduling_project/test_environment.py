"""The environment: every value is checked, production is safe, and messages help without telling secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from scheduling_project import environment
from scheduling_project.embedded.discovery import LOCK_FILE, announce, withdraw
from scheduling_project.embedded.locks import FolderLock
from scheduling_project.environment import Environment, ImproperEnvironment

LONG_KEY = "k" * 50
FERNET = "bGFwdG9wLW9ubHkta2V5LW9mLXRoZS10ZXN0cy0wMTI="


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Environment.model_fields:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))


def read(monkeypatch: pytest.MonkeyPatch, **values: str) -> Environment:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return Environment.read()


def refusal(monkeypatch: pytest.MonkeyPatch, **values: str) -> str:
    with pytest.raises(ImproperEnvironment) as refused:
        read(monkeypatch, **values)
    return str(refused.value)


def test_a_laptop_needs_no_variables() -> None:
    env = Environment.read()
    assert (env.DEBUG, env.PORT, env.WORKFLOW_QUEUES, env.TIME_ZONE) == (True, 8000, ["default", "io"], "UTC")


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, PORT="", WORKFLOW_QUEUES="").WORKFLOW_QUEUES == ["default", "io"]


GOOD = {
    "DEBUG": ("false", False),
    "ALLOWED_HOSTS": ("a.example, b.example,", ["a.example", "b.example"]),
    "CSRF_TRUSTED_ORIGINS": ("https://a.example", ["https://a.example"]),
    "EXTRA_APPS": ("scheduling_project.drills", ["scheduling_project.drills"]),
    "TIME_ZONE": ("Europe/Berlin", "Europe/Berlin"),
    "LOG_FORMAT": ("json", "json"),
    "DATABASE_URL": ("postgres://u:p%40@h:5433/d", "postgres://u:p%40@h:5433/d"),
    "REDIS_URL": ("rediss://:p@h:6380/1", "rediss://:p@h:6380/1"),
    "WORKFLOW_QUEUES": ("fast-lane,slow_lane", ["fast-lane", "slow_lane"]),
    "WORKFLOW_TASKS": ("billing.*,mail.send", ["billing.*", "mail.send"]),
    "WORKFLOW_HTTP_ALLOWED_NETWORKS": ("10.0.0.0/8,fd00::/8", ["10.0.0.0/8", "fd00::/8"]),
    "WORKFLOW_ENCRYPTION_KEYS": (f"{FERNET},{FERNET}", [FERNET, FERNET]),
    "WORKFLOW_LEASE_SECONDS": ("60.5", 60.5),
}


@pytest.mark.parametrize(("name", "value", "expected"), [(name, *pair) for name, pair in GOOD.items()])
def test_good_values_are_typed(name: str, value: str, expected: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "DEBUG":
        monkeypatch.setenv("SECRET_KEY", LONG_KEY)
        monkeypatch.setenv("ALLOWED_HOSTS", "a.example")
    assert getattr(read(monkeypatch, **{name: value}), name) == expected


BAD = [
    ("DEBUG", "maybe", "DEBUG='maybe': Input should be a valid boolean"),
    ("LOG_LEVEL", "LOUD", "LOG_LEVEL='LOUD': Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ("LOG_FORMAT", "xml", "LOG_FORMAT='xml': Input should be 'console' or 'json'"),
    ("PORT", "http", "PORT='http': Input should be a valid integer"),
    ("PORT", "0", "PORT='0': Input should be greater than or equal to 1"),
    ("PORT", "65536", "PORT='65536': Input should be less than or equal to 65535"),
    ("DATABASE_POOL_SIZE", "-1", "DATABASE_POOL_SIZE='-1': Input should be greater than or equal to 0"),
    ("TIME_ZONE", "Mars/Base", "TIME_ZONE='Mars/Base': must be an IANA time zone such as Europe/Berlin"),
    ("EXTRA_APPS", "no_such_app", "there is no Python package 'no_such_app': is the folder it lies in on PYTHONPATH?"),
    ("EXTRA_APPS", "my-app", "there is no Python package 'my-app'"),
    ("WORKFLOW_QUEUES", ",", "must be one or more names of letters, digits, - and _"),
    ("WORKFLOW_QUEUES", "a b", "must be one or more names of letters, digits, - and _"),
    ("WORKFLOW_QUEUES", "a,a", "WORKFLOW_QUEUES='a,a': must not name a queue twice"),
    ("WORKFLOW_HTTP_ALLOWED_NETWORKS", "10.0.0.1/8", "10.0.0.1/8 has host bits set"),
    ("WORKFLOW_LEASE_SECONDS", "0", "WORKFLOW_LEASE_SECONDS='0': Input should be greater than or equal to 0.5"),
    ("WORKFLOW_LEASE_SECONDS", "soon", "WORKFLOW_LEASE_SECONDS='soon': Input should be a valid number"),
    ("SCHEDULE_CATCH_UP_LIMIT", "0", "SCHEDULE_CATCH_UP_LIMIT='0': Input should be greater than or equal to 1"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_a_bad_value_names_the_variable_the_value_and_the_rule(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = refusal(monkeypatch, **{name: value})
    assert name in text
    assert message in text


def test_all_bad_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = refusal(monkeypatch, PORT="x", DEBUG="maybe", TIME_ZONE="Mars")
    assert [line.split("=")[0].strip() for line in text.splitlines()[1:]] == ["DEBUG", "TIME_ZONE", "PORT"]


def test_a_heartbeat_must_fit_the_lease_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    text = refusal(monkeypatch, WORKFLOW_LEASE_SECONDS="10", WORKFLOW_HEARTBEAT_SECONDS="6")
    assert "WORKFLOW_HEARTBEAT_SECONDS (6) must be at most half of WORKFLOW_LEASE_SECONDS (10)" in text


SECRETS = [
    ("DATABASE_URL", "mysql://u:hunter2@h/d", "must be a postgresql:// URL"),
    ("DATABASE_URL", "postgresql://u:hunter2@h:port/d", "has a host or port that cannot be read"),
    ("DATABASE_URL", "postgresql://u:hunter2@h:99999/d", "has a host or port that cannot be read"),
    ("DATABASE_URL", "postgresql://u:hunter2@h:0/d", "has a host or port that cannot be read"),
    ("DATABASE_URL", "postgresql://u:hunter2@[h/d", "Invalid IPv6 URL"),
    ("REDIS_URL", "http://:hunter2@h/0", "must be a redis://, rediss:// or redis+socket:// URL"),
    ("REDIS_URL", "redis://:hunter2#@h:x/0", ""),
    ("REDIS_URL", "redis://:hunter2@h:x/0", "has a host or port that cannot be read"),
    ("WORKFLOW_ENCRYPTION_KEYS", f"{FERNET},hunter2", "key 2 is not a Fernet key"),
]


@pytest.mark.parametrize(("name", "value", "message"), SECRETS)
def test_secrets_are_never_in_the_message(name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refusal(monkeypatch, **{name: value})
    assert f"  {name}: {message}" in text
    assert "hunter2" not in text
    assert FERNET not in text


class TestProduction:
    """With ``DEBUG=0`` nothing unsafe is taken for granted."""

    @pytest.mark.parametrize("key", ["", "hunter2-too-short", environment.LAPTOP_SECRET_KEY])
    def test_a_secret_key_of_ones_own_is_required(self, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        text = refusal(monkeypatch, DEBUG="0", ALLOWED_HOSTS="a.example", SECRET_KEY=key)
        assert "SECRET_KEY must be set to at least 32 random characters when DEBUG is off" in text
        assert not key or key not in text

    @pytest.mark.parametrize("hosts", ["", ",", " , "])
    def test_allowed_hosts_are_required(self, hosts: str, monkeypatch: pytest.MonkeyPatch) -> None:
        text = refusal(monkeypatch, DEBUG="0", SECRET_KEY=LONG_KEY, ALLOWED_HOSTS=hosts)
        assert "ALLOWED_HOSTS must be set when DEBUG is off" in text
        assert LONG_KEY not in text

    def test_it_runs_with_both(self, monkeypatch: pytest.MonkeyPatch) -> None:
        env = read(monkeypatch, DEBUG="0", SECRET_KEY=LONG_KEY, ALLOWED_HOSTS="a.example")
        assert (env.DEBUG, env.ALLOWED_HOSTS) == (False, ["a.example"])


class TestServersOfMakeRun:
    """Commands typed beside ``make run`` find its servers; named ones come first."""

    @pytest.fixture
    def running(self, tmp_path: Path) -> object:
        lock = FolderLock(tmp_path / LOCK_FILE).acquire(json.dumps({"pid": os.getpid()}))
        announce(tmp_path, {"DATABASE_URL": "postgresql://found/d", "REDIS_URL": "redis://found/0"})
        yield
        withdraw(tmp_path)
        lock.release()

    @pytest.mark.usefixtures("running")
    def test_they_are_found(self) -> None:
        env = Environment.read()
        assert (env.DATABASE_URL, env.REDIS_URL) == ("postgresql://found/d", "redis://found/0")

    @pytest.mark.usefixtures("running")
    def test_a_named_server_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        env = read(monkeypatch, REDIS_URL="redis://mine/0")
        assert (env.DATABASE_URL, env.REDIS_URL) == ("postgresql://found/d", "redis://mine/0")

    def test_without_them_the_defaults_hold(self) -> None:
        assert Environment.read().REDIS_URL == "redis://127.0.0.1:6379/0"
