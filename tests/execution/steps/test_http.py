"""HTTP steps against a real server: what they send, what they take for an answer, and where they may not go."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from execution.graph import StepPlan, compile_plan
from execution.queue import Claim
from execution.steps import http
from execution.steps.context import GiveUp
from execution.steps.http import AddressRefused, HttpError
from scheduling_project.common.ids import uuid7
from tests.patience import PATIENCE

LOOPBACK = ["127.0.0.0/8", "::1/128"]


class Handler(BaseHTTPRequestHandler):
    """Answers as the path says and remembers what it was asked."""

    protocol_version = "HTTP/1.1"
    requests: list[dict[str, Any]] = []

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        asked = {
            "method": self.command,
            "path": self.path,
            "headers": {name.title(): value for name, value in self.headers.items()},
            "body": self.rfile.read(length).decode(),
        }
        type(self).requests.append(asked)
        match self.path.partition("?")[0].split("/")[1:]:
            case ["echo"]:
                self.answer(200, json.dumps(asked).encode(), Content_Type="application/json")
            case ["status", code]:
                self.answer(int(code), b"so be it")
            case ["redirect"]:
                self.answer(302, b"", Location="/echo")
            case ["later", *value]:
                self.answer(503, b"busy", Retry_After="/".join(value).replace("_", " "))
            case ["type", kind, charset, *rest]:
                body = bytes.fromhex(rest[0])
                self.answer(200, body, Content_Type=f"{kind.replace('.', '/')}; charset={charset}")
            case ["big"]:
                self.answer(200, b"x" * 5_000)
            case ["slow"]:
                time.sleep(1)
                self.answer(200, b"at last")
            case ["drip"]:
                self.send_response(200)
                self.send_header("Content-Length", "100")
                self.end_headers()
                for _ in range(100):
                    self.wfile.write(b".")
                    self.wfile.flush()
                    time.sleep(0.05)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

    def log_message(self, *_: Any) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """The step has hung up, as it should."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    served = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


@pytest.fixture(autouse=True)
def loopback_allowed(settings: Any) -> None:
    settings.WORKFLOW_HTTP_ALLOWED_NETWORKS = LOOPBACK
    Handler.requests.clear()


def claim() -> Claim:
    now = datetime.now(UTC)
    return Claim(
        id=uuid7(), token=uuid7(), execution_id=uuid7(), version_id=uuid7(), workflow_name="w", name="call",
        label="w.call", parent_id=None, item_index=None, item=None, attempt=1, failures=0, timeout=None,
        queue="default", priority=6, input={}, source_retry=None, workflow_retry=None, source_kind="api",
        source_id="", scheduled_for=None, claimed_at=now, lease_until=now,
    )  # fmt: skip


def plan(**more: Any) -> StepPlan:
    return compile_plan({"steps": {"call": {"http": {"url": "http://x/"}, **more}}}).steps["call"]


def call(url: str, *, step: StepPlan | None = None, **argument: Any) -> Any:
    return http.perform(claim(), step or plan(), {"url": url, **argument})


# ── What is sent ──


def test_a_request_carries_what_the_step_says(server: str) -> None:
    answer = call(
        f"{server}/echo?a=1", method="POST", query={"b": "2"}, headers={"X-Team": "red"}, json={"text": "é", "n": 1}
    )
    asked = answer["body"]
    assert (answer["status"], asked["method"]) == (200, "POST")
    assert asked["path"] == "/echo?a=1&b=2"
    assert asked["headers"]["X-Team"] == "red"
    assert json.loads(asked["body"]) == {"text": "é", "n": 1}
    assert answer["headers"]["content-type"] == "application/json"


def test_the_idempotency_key_is_the_steps_own(server: str) -> None:
    held = claim()
    answer = http.perform(held, plan(), {"url": f"{server}/echo"})
    assert answer["body"]["headers"]["Idempotency-Key"] == held.idempotency_key == f"{held.execution_id}:call"
    own = http.perform(held, plan(), {"url": f"{server}/echo", "headers": {"idempotency-key": "mine"}})
    assert own["body"]["headers"]["Idempotency-Key"] == "mine"


def test_the_host_header_names_the_host_and_not_the_address_it_was_pinned_to(server: str) -> None:
    port = server.rpartition(":")[2]
    answer = call(f"http://localhost:{port}/echo")
    assert answer["body"]["headers"]["Host"] == f"localhost:{port}"
    assert call(f"{server}/echo", headers={"host": "shop.example"})["body"]["headers"]["Host"] == "shop.example"


def test_a_plain_body_is_sent_as_it_is(server: str) -> None:
    assert call(f"{server}/echo", method="PUT", body="a=1&b")["body"]["body"] == "a=1&b"


# ── What is taken for an answer ──


@pytest.mark.parametrize(
    ("code", "expect", "fine"),
    [
        (200, None, True),
        (204, None, True),
        (404, None, False),
        (500, None, False),
        (404, ["2xx", "404"], True),
        (201, ["200"], False),
        (503, ["5xx"], True),
    ],
)
def test_the_status_is_what_the_step_expects(server: str, code: int, expect: list[str] | None, fine: bool) -> None:
    argument = {} if expect is None else {"expect": expect}
    if fine:
        assert call(f"{server}/status/{code}", **argument)["status"] == code
    else:
        with pytest.raises(HttpError, match=f"HTTP {code}: so be it") as refused:
            call(f"{server}/status/{code}", **argument)
        assert refused.value.status == code


def test_redirects_are_not_followed(server: str) -> None:
    with pytest.raises(HttpError) as refused:
        call(f"{server}/redirect")
    assert refused.value.status == 302
    assert [asked["path"] for asked in Handler.requests] == ["/redirect"]


@pytest.mark.parametrize(
    ("kind", "charset", "content", "body"),
    [
        ("application.json", "utf-8", b'{"a": [1]}', {"a": [1]}),
        ("application.problem+json", "utf-8", b'"x"', "x"),
        ("application.json", "utf-8", b"{oops", "{oops"),
        ("application.json", "utf-8", b"[" * 200_000, "[" * 200_000),
        ("text.plain", "latin-1", b"caf\xe9", "café"),
        ("text.plain", "utf-8", b"caf\xe9", "caf\ufffd"),
        ("text.plain", "klingon", b"abc", "abc"),
        ("text.plain", "hex", b"abc", "abc"),
        ("text.plain", "idna", b"abc\xff", "abc\ufffd"),
    ],
)
def test_bodies_are_decoded_and_never_break_the_step(
    server: str, settings: Any, kind: str, charset: str, content: bytes, body: Any
) -> None:
    settings.WORKFLOW_MAX_PAYLOAD_BYTES = 1_000_000
    if len(content) > 10_000:
        deep = httpx.Response(200, headers={"content-type": "application/json"})
        assert http._decode(deep, content.decode()) == body
    else:
        assert call(f"{server}/type/{kind}/{charset}/{content.hex()}")["body"] == body


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120),
        ("0", 0),
        ("999999999999", http.MAX_RETRY_AFTER),
        ("9" * 400, http.MAX_RETRY_AFTER),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999", None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(value: str, expected: float | None) -> None:
    assert http._retry_after({"retry-after": value}) == expected


def test_a_servers_retry_after_reaches_the_retry_policy(server: str) -> None:
    with pytest.raises(HttpError) as refused:
        call(f"{server}/later/7")
    assert refused.value.retry_after == 7
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True).replace(" ", "_")
    with pytest.raises(HttpError) as refused:
        call(f"{server}/later/{moment}")
    assert 90 < (refused.value.retry_after or 0) <= 100


def test_a_response_that_is_too_long_is_given_up(server: str, settings: Any) -> None:
    settings.WORKFLOW_MAX_PAYLOAD_BYTES = 4_000
    with pytest.raises(GiveUp, match="longer than the 4000 bytes"):
        call(f"{server}/big")


def test_a_server_that_does_not_answer_in_time(server: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        call(f"{server}/slow", step=plan(timeout=0.2))


def test_a_server_that_drips_its_answer_is_held_to_the_time_for_the_whole(server: str) -> None:
    began = time.monotonic()
    with pytest.raises(httpx.ReadTimeout, match=r"longer than 0\.3 s"):
        call(f"{server}/drip", step=plan(timeout=0.3))
    assert time.monotonic() - began < PATIENCE


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(httpx.ConnectError):
        call("http://127.0.0.1:9/")


def test_a_server_that_is_not_who_it_says_speaks_no_tls(server: str) -> None:
    with pytest.raises(httpx.ConnectError):
        call(server.replace("http:", "https:") + "/echo")


# ── Where a step may not go ──

INNER = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost", "0.0.0.0", "0",
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[::ffff:a9fe:a9fe]", "[fe80::1]", "[fc00::1]",
    "[ff02::1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::10.0.0.1]", "[2002:7f00:1::]",
    "[2002:a00:1::1]",
]  # fmt: skip


@pytest.mark.parametrize("host", INNER)
def test_addresses_inside_are_refused(settings: Any, host: str) -> None:
    settings.WORKFLOW_HTTP_ALLOWED_NETWORKS = []
    with pytest.raises(AddressRefused, match="may not reach"):
        call(f"http://{host}/")


@pytest.mark.parametrize(
    ("address", "networks", "allowed"),
    [
        ("8.8.8.8", [], True),
        ("2001:4860:4860::8888", [], True),
        ("64:ff9b::808:808", [], True),
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8"], True),
        ("10.1.2.3", ["10.2.0.0/16", "fd00::/8"], False),
        ("fd00::5", ["10.2.0.0/16", "fd00::/8"], True),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),
        ("::1", ["::1/128"], True),
        ("::1", ["127.0.0.0/8"], False),
        ("169.254.169.254", ["10.0.0.0/8"], False),
    ],
)
def test_the_deployment_may_allow_networks_of_its_own(
    settings: Any, address: str, networks: list[str], allowed: bool
) -> None:
    settings.WORKFLOW_HTTP_ALLOWED_NETWORKS = networks
    assert http._may_reach(http.ipaddress.ip_address(address)) is allowed


def test_one_refused_address_among_several_refuses_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(0, 0, 0, "", (address, 80)) for address in ("8.8.8.8", "192.168.0.1")]
    monkeypatch.setattr(http.socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(AddressRefused, match=r"mixed\.example is 192\.168\.0\.1"):
        call("http://mixed.example/")


def test_the_connection_is_made_to_the_address_that_was_checked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers differently the second time is not asked a second time."""
    answers = iter(["127.0.0.1", "192.168.0.1"])
    asked: list[str] = []

    def resolve(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        return [(0, 0, 0, "", (next(answers), 80))]

    real = http.socket.getaddrinfo
    monkeypatch.setattr(
        http.socket, "getaddrinfo", lambda host, *a, **k: resolve(host) if "rebind" in host else real(host, *a, **k)
    )
    port = server.rpartition(":")[2]
    assert call(f"http://rebind.example:{port}/echo")["status"] == 200
    assert asked == ["rebind.example"]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://example.org/", "not an absolute http"),
        ("/relative", "not an absolute http"),
        ("http://", "not an absolute http"),
        ("file:///etc/passwd", "not an absolute http"),
        ("http://[::1", "is not a URL"),
        ("http://example.org:99999/", "not an absolute http"),
        ("http://0177.0.0.1/", "is not a URL"),
        ("http://exa\x00mple.org/", "is not a URL"),
        (17, "is not a URL"),
        (None, "is not a URL"),
        ("http://" + "a" * 70 + ".example/", "is not a (URL|host name)"),
    ],
)
def test_what_is_no_url_is_given_up(url: Any, problem: str) -> None:
    with pytest.raises(GiveUp, match=problem):
        call(url)


def test_a_name_that_cannot_be_resolved_is_a_connection_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any, **__: Any) -> Any:
        raise http.socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(http.socket, "getaddrinfo", nowhere)
    with pytest.raises(httpx.ConnectError, match=r"nowhere\.example cannot be resolved"):
        call("http://nowhere.example/")


def test_proxies_of_the_environment_are_not_used(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert call(f"{server}/echo")["status"] == 200
