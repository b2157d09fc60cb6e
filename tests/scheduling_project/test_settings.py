"""The settings as a process in production reads them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from scheduling_project.environment import PROJECT_ROOT, Environment

SHOW = """
import json
from scheduling_project import settings
names = {names!r}
print(json.dumps({{name: getattr(settings, name) for name in names}}, default=str))
"""


def environment(**values: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in Environment.model_fields}
    servers = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
    return own | servers | {"DJANGO_SETTINGS_MODULE": "scheduling_project.settings"} | values


def production(**values: str) -> dict[str, str]:
    return environment(DEBUG="0", SECRET_KEY="".join(map(chr, range(40, 100))), ALLOWED_HOSTS="a.example", **values)


def run(*command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, check=False
    )


def settings(*names: str, env: dict[str, str]) -> dict[str, object]:
    ran = run("-c", SHOW.format(names=names), env=env)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, object] = json.loads(ran.stdout)
    return found


def test_production_passes_djangos_deployment_check_without_a_warning() -> None:
    ran = run(
        "manage.py",
        "check",
        "--deploy",
        "--tag",
        "security",
        "--fail-level",
        "WARNING",
        env=production(SECURE_SSL_REDIRECT="1"),
    )
    assert ran.returncode == 0, ran.stderr


def test_without_the_redirect_django_says_so_and_nothing_else() -> None:
    ran = run("manage.py", "check", "--deploy", "--tag", "security", env=production())
    assert [line.split()[1] for line in ran.stderr.splitlines() if line.startswith("?:")] == ["(security.W008)"]


COOKIES = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SESSION_COOKIE_HTTPONLY")


@pytest.mark.parametrize(("env", "secure"), [(production(), True), (environment(DEBUG="1"), False)])
def test_cookies_are_secure_in_production_and_work_without_tls_on_a_laptop(env: dict[str, str], secure: bool) -> None:
    assert settings(*COOKIES, env=env) == dict.fromkeys(COOKIES[:2], secure) | {"SESSION_COOKIE_HTTPONLY": True}


def test_a_tls_proxy_is_only_believed_when_there_is_one() -> None:
    assert settings("SECURE_PROXY_SSL_HEADER", env=production()) == {"SECURE_PROXY_SSL_HEADER": None}
    found = settings("SECURE_PROXY_SSL_HEADER", env=production(BEHIND_TLS_PROXY="1"))
    assert found == {"SECURE_PROXY_SSL_HEADER": ["HTTP_X_FORWARDED_PROTO", "https"]}


def test_health_checks_are_answered_without_tls() -> None:
    exempt = settings("SECURE_REDIRECT_EXEMPT", env=production())["SECURE_REDIRECT_EXEMPT"]
    assert isinstance(exempt, list)
    assert [path for path in ("healthz", "readyz/", "api/healthz") if any(re.search(e, path) for e in exempt)] == [
        "healthz",
        "readyz/",
    ]


def test_a_pool_replaces_persistent_connections() -> None:
    default = settings("DATABASES", env=environment(DATABASE_POOL_SIZE="7"))["DATABASES"]
    assert default["default"]["CONN_MAX_AGE"] == 0  # type: ignore[index]
    assert default["default"]["OPTIONS"]["pool"]["max_size"] == 7  # type: ignore[index]
    assert "pool" not in default["engine"]["OPTIONS"]  # type: ignore[index]


def test_a_bad_environment_ends_every_command_with_the_reason_and_no_traceback() -> None:
    for command in (("manage.py", "check"), ("-m", "celery", "-A", "scheduling_project", "report")):
        ran = run(*command, env=environment(PORT="none"))
        assert ran.returncode == 1
        assert "PORT='none': Input should be a valid integer" in ran.stderr
        assert "Traceback" not in ran.stderr


def test_the_demo_and_apps_of_yours_are_installed_when_asked_for() -> None:
    apps = settings("INSTALLED_APPS", env=environment(DEMO="1", EXTRA_APPS="scheduling_project.drills"))
    assert apps["INSTALLED_APPS"][-2:] == ["scheduling_project.demo", "scheduling_project.drills"]  # type: ignore[index]
