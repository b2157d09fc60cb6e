"""A step that makes one HTTP request. Private addresses are refused unless the deployment allows them.

Against server-side request forgery the host is resolved once, every address is checked, and the connection is made
to a checked address (so that a second DNS answer cannot point elsewhere); redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from django.conf import settings

from execution.graph import StepPlan
from execution.queue import Claim
from execution.steps.context import GiveUp

MAX_RETRY_AFTER = 86_400.0  # seconds; a server cannot park a step for longer
#: NAT64 (RFC 6052, RFC 8215) and the deprecated IPv4-compatible addresses (RFC 4291, section 2.5.5.1).
WITH_IPV4_AT_THE_END = [ipaddress.IPv6Network(prefix) for prefix in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")]

MAX_PORT = 65_535

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class HttpError(Exception):
    """The server answered with a status that the step does not expect."""

    def __init__(self, status: int, body: str, *, retry_after: float | None) -> None:
        self.status = status
        self.retry_after = retry_after
        super().__init__(f"HTTP {status}: {body[:500]}")


class AddressRefused(GiveUp):
    """The URL leads to an address that HTTP steps may not reach."""


def perform(claim: Claim, step: StepPlan, argument: Any) -> Any:
    """Make the request and return ``{status, headers, body}``; JSON bodies are decoded.

    Raises:
        HttpError: an unexpected status.
        httpx.TimeoutException, httpx.TransportError: no answer in time, or no connection.
        GiveUp: the URL is not an absolute http(s) URL, its host resolves to a refused address, or the answer is
            longer than outputs may be.
    """
    asked = absolute(argument["url"], argument.get("query"))
    timeout = step.timeout if step.timeout is not None else settings.WORKFLOW_HTTP_TIMEOUT_SECONDS
    deadline = time.monotonic() + timeout
    headers = httpx.Headers({"Host": asked.netloc.decode("ascii"), "Idempotency-Key": claim.idempotency_key})
    headers.update(argument.get("headers", {}))
    extensions = {"sni_hostname": asked.raw_host.decode("ascii")} if asked.scheme == "https" else {}
    limit = settings.WORKFLOW_MAX_PAYLOAD_BYTES
    with (
        httpx.Client(timeout=timeout, follow_redirects=False, trust_env=False) as client,
        client.stream(
            argument.get("method", "GET"),
            pin(asked),
            headers=headers,
            json=argument.get("json"),
            content=argument.get("body"),
            extensions=extensions,
        ) as response,
    ):
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > limit:
                raise GiveUp(f"the response is longer than the {limit} bytes that are kept")
            if time.monotonic() > deadline:  # httpx bounds each read, and a slow sender needs many
                raise httpx.ReadTimeout(f"the response took longer than {timeout:g} s")
    text = _text(bytes(content), response.encoding)
    if not _expected(response.status_code, argument.get("expect", ["2xx"])):
        raise HttpError(response.status_code, text, retry_after=_retry_after(response.headers))
    return {"status": response.status_code, "headers": dict(response.headers), "body": _decode(response, text)}


def _expected(status: int, patterns: list[str]) -> bool:
    return any(str(status) == pattern or f"{status // 100}xx" == pattern for pattern in patterns)


def _text(content: bytes, encoding: str | None) -> str:
    try:
        return content.decode(encoding or "utf-8", errors="replace")
    except (LookupError, UnicodeError):  # a charset such as "hex" or "idna", which is no encoding of texts
        return content.decode("utf-8", errors="replace")


def _decode(response: httpx.Response, text: str) -> Any:
    if "json" in response.headers.get("content-type", ""):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a Retry-After header (RFC 9110, section 10.2.3), None where there is none."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return min(max(0.0, (aware - datetime.now(UTC)).total_seconds()), MAX_RETRY_AFTER)


def absolute(text: Any, query: Mapping[str, Any] | None) -> httpx.URL:
    """The URL, the members of `query` added to its own."""
    try:
        url = httpx.URL(text).copy_merge_params(query or {})
    except (httpx.InvalidURL, TypeError) as error:
        raise GiveUp(f"{text!r:.500} is not a URL: {error}") from None
    if url.scheme not in {"http", "https"} or not url.host or (url.port or 0) > MAX_PORT:
        raise GiveUp(f"{text!r:.500} is not an absolute http:// or https:// URL")
    return url


def pin(url: httpx.URL) -> httpx.URL:
    """The URL with its host replaced by an address that was checked."""
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(url.raw_host.decode("ascii"), port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise httpx.ConnectError(f"{url.host} cannot be resolved: {error}") from error
    except UnicodeError as error:
        raise GiveUp(f"{url.host!r:.300} is not a host name: {error}") from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]
    for address in addresses:
        if not _may_reach(address):
            raise AddressRefused(f"{url.host} is {address}, which HTTP steps may not reach")
    return url.copy_with(host=str(addresses[0]))


def _may_reach(address: Address) -> bool:
    if any(
        address in network
        for network in map(ipaddress.ip_network, settings.WORKFLOW_HTTP_ALLOWED_NETWORKS)
        if network.version == address.version
    ):
        return True
    inner = _ipv4_inside(address)
    if inner is not None:
        return _may_reach(inner)
    return address.is_global and not address.is_multicast


def _ipv4_inside(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that the kernel or a gateway would make of an IPv6 address (mapped, 6to4, NAT64)."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if any(address in prefix for prefix in WITH_IPV4_AT_THE_END):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
