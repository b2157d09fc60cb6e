"""Network addresses of senders, and blocks of them. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Final

MAX_BLOCKS: Final = 200

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of the blocks; an IPv4 address in IPv6 form counts as the IPv4 address.

    >>> is_in("::ffff:10.0.0.1", [ipaddress.ip_network("10.0.0.0/8")])
    True
    """
    try:
        value = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(value, "ipv4_mapped", None)
    if mapped is not None:
        value = mapped
    return any(value.version == network.version and value in network for network in networks)


def of_request(meta: Mapping[str, Any], *, behind_proxy: bool) -> str:
    """The sender's address. Behind our proxy it is what the proxy appended last to X-Forwarded-For; whatever a
    sender puts there itself stands further left and is not believed."""
    if behind_proxy:
        forwarded = str(meta.get("HTTP_X_FORWARDED_FOR", "")).rpartition(",")[2].strip()
        if forwarded:
            return forwarded[:64]
    return str(meta.get("REMOTE_ADDR", ""))[:64]


def problems_of(blocks: Any, *, at: str) -> dict[str, list[str]]:
    """What keeps a list of CIDR blocks from being one."""
    if not isinstance(blocks, list | tuple) or len(blocks) > MAX_BLOCKS:
        return {at: [f"must be a list of at most {MAX_BLOCKS} CIDR blocks"]}
    problems: dict[str, list[str]] = {}
    for position, block in enumerate(blocks):
        try:
            if not isinstance(block, str):
                raise ValueError
            ipaddress.ip_network(block, strict=False)
        except ValueError:
            problems[f"{at}.{position}"] = ["must be a CIDR block such as 192.0.2.0/24"]
    return problems
