"""A step that makes one HTTP request. Private addresses are refused unless the deployment allows them.

Against server-side request forgery the host is resolved once, every address is checked, and the connection is made
to a checked address (so that a second DNS answer cannot point elsewhere); redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from django.conf import settings
from django.utils import timezone

from execution.graph import StepPlan
from execution.queue import Claim
from execution.steps.context import GiveUp

DEFAULT_TIMEOUT = 30.0  # seconds, where the step states none
MAX_RETRY_AFTER = 86_400.0  # seconds; a server cannot park a step for longer


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
        GiveUp: the URL is not an absolute http(s) URL, or its host resolves to a refused address.
    """
    url, headers = _pin(httpx.URL(argument["url"]))
    timeout = step.timeout if step.timeout is not None else DEFAULT_TIMEOUT
    headers |= {"Idempotency-Key": claim.idempotency_key, **argument.get("headers", {})}
    extensions = {"sni_hostname": httpx.URL(argument["url"]).host} if url.scheme == "https" else {}
    limit = settings.WORKFLOW_MAX_PAYLOAD_BYTES
    with (
        httpx.Client(timeout=timeout, follow_redirects=False, trust_env=False) as client,
        client.stream(
            argument.get("method", "GET"),
            url,
            headers=headers,
            params=argument.get("query"),
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
    text = bytes(content).decode(response.encoding or "utf-8", errors="replace")
    if not _expected(response.status_code, argument.get("expect", ["2xx"])):
        raise HttpError(response.status_code, text, retry_after=_retry_after(response.headers))
    return {"status": response.status_code, "headers": dict(response.headers), "body": _decode(response, text)}


def _expected(status: int, patterns: list[str]) -> bool:
    return any(str(status) == pattern or f"{status // 100}xx" == pattern for pattern in patterns)


def _decode(response: httpx.Response, text: str) -> Any:
    if "json" in response.headers.get("content-type", ""):
        try:
            return json.loads(text)
        except ValueError:
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
    except ValueError:
        return None
    return min(max(0.0, (moment - timezone.now()).total_seconds()), MAX_RETRY_AFTER)


def _pin(url: httpx.URL) -> tuple[httpx.URL, dict[str, str]]:
    """The URL with its host replaced by an address that was checked, and the Host header that belongs to it."""
    if url.scheme not in {"http", "https"} or not url.host:
        raise GiveUp(f"{str(url)!r} is not an absolute http:// or https:// URL")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise httpx.ConnectError(f"{url.host} cannot be resolved: {error}") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]
    for address in addresses:
        if not _may_reach(address):
            raise AddressRefused(f"{url.host} is {address}, which HTTP steps may not reach")
    host = f"{url.host}:{url.port}" if url.port else url.host
    return url.copy_with(host=str(addresses[0])), {"Host": host}


def _may_reach(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if any(
        address in network
        for network in map(ipaddress.ip_network, settings.WORKFLOW_HTTP_ALLOWED_NETWORKS)
        if network.version == address.version
    ):
        return True
    return address.is_global and not address.is_multicast
