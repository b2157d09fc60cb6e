"""A delivery as shell commands that can be copied: what a sender computes, with openssl and curl. Pure.

The secret is never part of it: the commands read it from the variable ``SECRET``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

from triggers.signatures import hmac_scheme
from triggers.signatures.hmac_scheme import HmacScheme

#: How each kind of key becomes the hexadecimal that openssl takes.
_HEX: Final = "od -An -v -tx1 | tr -d ' \\n'"
_KEYS: Final[Mapping[object, str]] = {
    hmac_scheme.text_key: f"printf '%s' \"$SECRET\" | {_HEX}",
    hmac_scheme.whsec_key: f"printf '%s' \"${{SECRET#whsec_}}\" | openssl base64 -d -A | {_HEX}",
    hmac_scheme.base64_key: f"printf '%s' \"$SECRET\" | openssl base64 -d -A | {_HEX}",
    hmac_scheme.hex_key: "printf '%s' \"$SECRET\"",
}
_ENCODINGS: Final = {
    "hex": _HEX,
    "base64": "openssl base64 -A",
    "base64url": "openssl base64 -A | tr '+/' '-_' | tr -d '='",
}
_VARIABLES: Final = {"{id}": "$ID", "{timestamp}": "$TIMESTAMP", "{body}": "$BODY"}


def command(described: HmacScheme | str, *, scheme: str, url: str, body: str = '{"type":"test"}') -> str:
    """Commands for a POSIX shell that sign `body` now and deliver it to `url`.

    Args:
        described: the HMAC scheme, or the name of the header that holds the secret.
    """
    lines = ["SECRET='the secret that was shown once'", f"BODY={shlex.quote(body)}"]
    headers = ["content-type: application/json"]
    if isinstance(described, HmacScheme):
        lines += _signing(described)
        headers += _headers(described)
    elif scheme == "bearer":
        headers.append(f"{described}: Bearer $SECRET")
    elif scheme == "basic":
        lines.append("CREDENTIALS=$(printf '%s' \"$SECRET\" | openssl base64 -A)")
        headers.append(f"{described}: Basic $CREDENTIALS")
    else:
        headers.append(f"{described}: $SECRET")
    options = " ".join(f'-H "{header}"' for header in headers)
    return "\n".join([*lines, f'curl -sS {options} --data-binary "$BODY" {shlex.quote(url)}'])


def _signing(described: HmacScheme) -> list[str]:
    names = described.variants[0]
    lines = []
    if names.ids:
        lines.append('ID="msg_$(date +%s)_$$"')
    if described.signs_timestamp:
        lines.append('TIMESTAMP="$(date +%s)' + ('000"' if described.milliseconds else '"'))
    message = "".join(_VARIABLES.get(part) or _literal(part) for part in described.template)
    lines.append(f"KEY=$({_KEYS[described.keys]})")
    digest = f'openssl dgst -{described.algorithm} -mac HMAC -macopt "hexkey:$KEY" -binary'
    lines.append(f"SIGNATURE=$(printf '%s' \"{message}\" | {digest} | {_ENCODINGS[described.encoding]})")
    return lines


def _headers(described: HmacScheme) -> list[str]:
    names = described.variants[0]
    value = f"{_literal(described.prefix)}$SIGNATURE"
    if described.fields:
        value = f"t=$TIMESTAMP,{value}"
    found = [f"{names.signature}: {value}"]
    if names.timestamp is not None:
        found.append(f"{names.timestamp}: $TIMESTAMP")
    if names.ids:
        found.append(f"{names.ids[0]}: $ID")
    return found


def _literal(text: str) -> str:
    """A text between double quotes, without any meaning to the shell; an expansion that follows stays apart."""
    return "".join("\\" + sign if sign in '"$`\\' else sign for sign in text)
