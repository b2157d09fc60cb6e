"""`docs/how-to/api.md` is run as it stands, command by command, against a server; it shows every task of the API."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from scheduling_project.environment import PROJECT_ROOT
from tests.scheduling_project.test_conventions import operations

PAGE = PROJECT_ROOT / "docs/how-to/api.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.S | re.M)
#: What the page leaves to others: repetitions of a verb in another spelling, and what needs a living worker.
ELSEWHERE = {
    "POST /api/executions/{id}/priority",
    "PUT /api/executions/{id}/priority",
    "GET /api/schedules/{id}/versions",
    "GET /api/secrets/{name}",
    "GET /api/activations/{id}",
    "POST /api/activations/{id}/retry",
    "POST /api/activations/{id}/discard",
    "GET /api/concurrency-keys/{id}",
    "GET /api/processes/{id}",
    "POST /api/processes/{id}/pause",
    "POST /api/processes/{id}/drain",
    "POST /api/processes/{id}/resume",
    "GET /api/dead-letters/redrive-jobs/{id}",
    "GET /api/dead-letters/redrive-jobs/{id}/items",
    "POST /api/dead-letters/redrive-jobs/{id}/cancel",
    "POST /api/optimizer/{id}/apply",
    "POST /api/optimizer/{id}/revert",
    "GET /api/notifications/rules/{id}",
    "POST /api/notifications/rules/{id}/test",
    "POST /api/notifications/rules/{id}/rotate",
    "DELETE /api/workflows/{id}",
    "DELETE /api/webhooks/{id}",
    "DELETE /api/webhooks/{id}/secrets/{secret}",
    "DELETE /api/event-types/{name}",
}


def expected() -> list[int]:
    """The statuses that the page states, in order; those of a loop as often as it turns."""
    found: list[int] = []
    for block in BLOCKS:
        for loop, line in re.findall(r"(for _ in [\s\S]*?^done$)|^([^\n]*# [0-9]{3})$", block, re.M):
            if loop:
                found += [int(status) for status in re.findall(r"# ([0-9]{3}) each time$", loop, re.M)] * 4
            else:
                found.append(int(line[-3:]))
    return found


@pytest.mark.django_db(transaction=True)
def test_every_command_of_the_page_is_answered_as_it_says(live_server: Any, tmp_path: Path) -> None:
    User.objects.create_superuser("admin", password="a-password-of-yours")
    (tmp_path / ".curlrc").write_text('write-out = "%{stderr}%{http_code} %{method} %{url_effective}\\n"\n')
    script = "\n".join(BLOCKS).replace("http://127.0.0.1:8000", live_server.url)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "CURL_HOME": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    calls = re.findall(r"^([0-9]{3}) ([A-Z]+) (\S+)$", ran.stderr, re.M)
    got = [int(status) for status, _, _ in calls]
    first_wrong = next(
        (place for place, pair in enumerate(zip(got, expected(), strict=False)) if len(set(pair)) > 1), 0
    )
    assert got == expected(), (calls[first_wrong], ran.stdout[-600:], ran.stderr[-600:])
    assert ran.returncode == 0, ran.stderr[-600:]
    done = {f"{method} {url.removeprefix(live_server.url).partition('?')[0]}" for _, method, url in calls}
    shown = {
        f"{method.upper()} {path}"
        for method, path, _ in operations()
        if any(re.fullmatch(f"{method.upper()} " + re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)), one) for one in done)
    }
    assert {f"{method.upper()} {path}" for method, path, _ in operations()} - shown <= ELSEWHERE
