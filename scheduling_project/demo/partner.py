"""A partner's HTTP service that is flaky on purpose. It lives in the process of the step, so that nothing is needed.

Each call opens a server of its own on the loopback address, asks it once over HTTP, and closes it.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

#: Seconds that a call waits for the answer.
PATIENCE: Final = 5.0
RATES: Final = {"USD": 1.08, "GBP": 0.86, "NOK": 11.62}


class PartnerUnavailable(ConnectionError):
    """The partner's service did not answer well; it usually does a moment later."""


class _Door(BaseHTTPRequestHandler):
    """Answers 503 to the first attempts that the caller names, then 200."""

    def do_GET(self) -> None:  # the name that http.server calls
        attempt, fails = (int(self.headers.get(name, "0")) for name in ("X-Attempt", "X-Fail-Times"))
        status, answer = (503, {"error": "overloaded"}) if attempt <= fails else (200, {"rates": RATES})
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing: the step's own log tells what happened."""


@contextmanager
def service() -> Iterator[str]:
    """The address of a partner that answers one request."""
    with HTTPServer(("127.0.0.1", 0), _Door) as server:
        server.timeout = PATIENCE
        thread = threading.Thread(target=server.handle_request, name="demo-partner", daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        thread.join(PATIENCE)


def ask(path: str, *, attempt: int, fail_times: int) -> dict[str, Any]:
    """Ask the partner; the first `fail_times` attempts are answered with 503.

    Raises:
        PartnerUnavailable: with the status.
    """
    with service() as url:
        headers = {"X-Attempt": str(attempt), "X-Fail-Times": str(fail_times)}
        request = urllib.request.Request(f"{url}{path}", headers=headers)  # noqa: S310 - our own loopback address
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise PartnerUnavailable(f"GET {path}: {error.code} {error.reason}, attempt {attempt}") from None
    return found
