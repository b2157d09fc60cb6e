"""The one engine behind every HMAC scheme: which header, which message, which encoding, which age.

A scheme is data (:class:`HmacScheme`); :func:`verify` and :func:`sign` are the same for all. The message is
hashed from the raw body without copying it, every secret is tried against every signature of the header
without stopping early, and comparisons take constant time.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from triggers.signatures.headers import Headers, delivery_id, header, to_bytes
from triggers.signatures.verdict import Reason, SignatureConfigError, Verdict

DEFAULT_TOLERANCE: Final = 300
"""Seconds a timestamp may lie in the past or in the future."""

MAX_SIGNATURES: Final = 32
ALGORITHMS: Final = ("sha256", "sha512", "sha384", "sha1")
ENCODINGS: Final = ("hex", "base64", "base64url")

_EPOCH: Final = re.compile(r"[0-9]{1,13}", re.ASCII)
_WHSEC: Final = "whsec_"

Secret = str | bytes
Keys = Callable[[Secret], list[bytes]]
Encoding = Literal["hex", "base64", "base64url"]


def text_key(secret: Secret) -> list[bytes]:
    """The secret's own characters are the key (GitHub, Stripe, Slack, Shopify)."""
    key = secret if isinstance(secret, bytes) else to_bytes(secret)
    return [key] if key else []


def whsec_key(secret: Secret) -> list[bytes]:
    """The key behind ``whsec_…`` (base64), as Standard Webhooks, Svix and GitLab serialise it.

    Bytes are the key itself. Text without the prefix is tried as base64, as the Svix libraries read it,
    and then as it stands, because people also paste plain passwords.
    """
    if isinstance(secret, bytes):
        return [secret] if secret else []
    has_prefix = secret.startswith(_WHSEC)
    encoded = secret[len(_WHSEC) :] if has_prefix else secret
    keys = []
    with contextlib.suppress(binascii.Error, ValueError):
        keys.append(base64.b64decode(to_bytes(encoded) + b"=" * (-len(encoded) % 4), validate=True))
    if not has_prefix:
        keys.append(to_bytes(secret))
    return [key for key in keys if key]


def base64_key(secret: Secret) -> list[bytes]:
    """The secret is base64 of the key."""
    try:
        key = base64.b64decode(secret if isinstance(secret, bytes) else to_bytes(secret), validate=True)
    except (binascii.Error, ValueError):
        return []
    return [key] if key else []


def hex_key(secret: Secret) -> list[bytes]:
    """The secret is hexadecimal of the key."""
    try:
        key = bytes.fromhex(secret.decode("ascii") if isinstance(secret, bytes) else secret)
    except ValueError:
        return []
    return [key] if key else []


@dataclass(frozen=True, slots=True)
class HeaderNames:
    """Where one scheme puts its parts. ``ids`` are tried in order."""

    signature: str
    timestamp: str | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HmacScheme:
    """A published or configured HMAC scheme.

    ``template`` is the signed message, cut into literal texts and the names ``id``, ``timestamp`` and
    ``body`` in braces. ``prefix`` stands before each signature, ``separator`` between several. With
    ``fields`` the header is a list of ``name=value`` in which ``t`` is the timestamp (Stripe).
    """

    name: str
    variants: tuple[HeaderNames, ...]
    template: tuple[str, ...] = ("{body}",)
    prefix: str = ""
    separator: str | None = None
    algorithm: str = "sha256"
    encoding: Encoding = "hex"
    keys: Keys = text_key
    fields: bool = False
    tolerance: int = DEFAULT_TOLERANCE
    milliseconds: bool = False

    @property
    def signs_id(self) -> bool:
        """Whether the delivery id is part of the signed message, and therefore required."""
        return "{id}" in self.template

    @property
    def signs_timestamp(self) -> bool:
        """Whether a timestamp is part of the signed message, and therefore required and checked."""
        return "{timestamp}" in self.template


@dataclass(frozen=True, slots=True)
class _Parts:
    signatures: list[bytes]
    timestamp: str
    seconds: int | None
    delivery_id: str | None


def verify(scheme: HmacScheme, headers: Headers, body: bytes, secrets: Sequence[Secret], now: float) -> Verdict:
    """Check a delivery. Cheap checks come first; nothing in the headers can raise."""
    names = next((v for v in scheme.variants if header(headers, v.signature) is not None), scheme.variants[0])
    parts = _read(scheme, names, headers)
    if isinstance(parts, Reason):
        return Verdict(False, parts)
    if parts.seconds is not None:
        age = now - parts.seconds
        if abs(age) > scheme.tolerance:
            reason = Reason.STALE if age > 0 else Reason.FUTURE
            return Verdict(False, reason, None, parts.seconds, parts.delivery_id)
    tried, fitting = False, None
    for index, secret in enumerate(secrets):
        for key in scheme.keys(secret):
            tried = True
            wanted = _encoded(scheme, _digest(scheme, key, parts.delivery_id, parts.timestamp, body))
            for signature in parts.signatures:
                if hmac.compare_digest(wanted, signature) and fitting is None:
                    fitting = index
    if fitting is not None:
        return Verdict(True, Reason.VERIFIED, fitting, parts.seconds, parts.delivery_id)
    reason = Reason.MISMATCH if tried else Reason.NO_USABLE_SECRET
    return Verdict(False, reason, None, parts.seconds, parts.delivery_id)


def sign(
    scheme: HmacScheme, body: bytes, secrets: Sequence[Secret], now: float, message_id: str | None
) -> dict[str, str]:
    """The headers a sender would put on ``body``, signed with every secret the scheme has room for.

    Raises :class:`SignatureConfigError` without a usable secret, or without the id the scheme signs.
    """
    names = scheme.variants[0]
    if scheme.signs_id and not _may_be_signed(delivery_id(message_id)):
        raise SignatureConfigError("delivery_id", "this scheme signs an id of printable ASCII without dots")
    seconds = int(now)
    timestamp = str(seconds * 1000 if scheme.milliseconds else seconds)
    keys = [key for secret in secrets for key in scheme.keys(secret)[:1]]
    if not keys:
        raise SignatureConfigError("secrets", "none of them can be used with this scheme")
    if scheme.separator is None:
        del keys[1:]
    signatures = [
        scheme.prefix + _padded(scheme, _encoded(scheme, _digest(scheme, key, message_id, timestamp, body)))
        for key in keys
    ]
    value = (scheme.separator or "").join(signatures)
    headers = {names.signature: f"t={timestamp},{value}" if scheme.fields else value}
    if names.timestamp is not None:
        headers[names.timestamp] = timestamp
    if names.ids and message_id is not None:
        headers[names.ids[0]] = message_id
    return headers


def _read(scheme: HmacScheme, names: HeaderNames, headers: Headers) -> _Parts | Reason:
    value = header(headers, names.signature)
    if value is None:
        return Reason.MISSING_HEADER
    timestamp = "" if names.timestamp is None else header(headers, names.timestamp)
    pieces = value.split(scheme.separator) if scheme.separator is not None else [value]
    pieces = [piece.strip(" \t") for piece in pieces]
    if scheme.fields:
        stamps = [piece[2:] for piece in pieces if piece.startswith("t=")]
        if len(stamps) != 1:
            return Reason.MALFORMED_HEADER
        timestamp = stamps[0]
    if timestamp is None:
        return Reason.MISSING_HEADER
    ids = [text for text in (header(headers, name) for name in names.ids) if text is not None]
    if scheme.signs_id and not ids:
        return Reason.MISSING_HEADER
    found_id = delivery_id(ids[0]) if ids else None
    if scheme.signs_id and not _may_be_signed(found_id):
        return Reason.MALFORMED_HEADER
    signatures = list(_signatures(scheme, pieces))
    if len(signatures) > MAX_SIGNATURES:
        return Reason.MALFORMED_HEADER
    if not signatures:
        return Reason.UNSUPPORTED_SIGNATURE if any(pieces) else Reason.MALFORMED_HEADER
    if not scheme.signs_timestamp:
        return _Parts(signatures, "", None, found_id)
    if not _EPOCH.fullmatch(timestamp):
        return Reason.BAD_TIMESTAMP
    seconds = int(timestamp) // 1000 if scheme.milliseconds else int(timestamp)
    return _Parts(signatures, timestamp, seconds, found_id)


def _may_be_signed(message_id: str | None) -> bool:
    """Whether an id may be part of a message such as ``id.timestamp.body``.

    With a dot in it the parts could be cut elsewhere, which the Standard Webhooks specification forbids.
    """
    return message_id is not None and "." not in message_id


def _signatures(scheme: HmacScheme, pieces: list[str]) -> Iterator[bytes]:
    for piece in pieces:
        if not piece.startswith(scheme.prefix):
            continue
        text = piece[len(scheme.prefix) :]
        if text:
            yield to_bytes(text.lower() if scheme.encoding == "hex" else text.rstrip("="))


def _digest(scheme: HmacScheme, key: bytes, message_id: str | None, timestamp: str, body: bytes) -> bytes:
    mac = hmac.new(key, digestmod=getattr(hashlib, scheme.algorithm))
    for part in scheme.template:
        if part == "{body}":
            mac.update(body)
        elif part == "{timestamp}":
            mac.update(timestamp.encode())
        elif part == "{id}":
            mac.update((message_id or "").encode())
        else:
            mac.update(part.encode())
    return mac.digest()


def _encoded(scheme: HmacScheme, digest: bytes) -> bytes:
    """The digest as it is compared: hexadecimal in lower case, base64 without padding."""
    if scheme.encoding == "hex":
        return digest.hex().encode()
    encode = base64.b64encode if scheme.encoding == "base64" else base64.urlsafe_b64encode
    return encode(digest).rstrip(b"=")


def _padded(scheme: HmacScheme, encoded: bytes) -> str:
    text = encoded.decode()
    return text if scheme.encoding == "hex" else text + "=" * (-len(text) % 4)


# --- generic schemes -------------------------------------------------------------------------------

_SETTINGS: Final = frozenset(
    {"header", "algorithm", "encoding", "prefix", "separator", "template", "timestamp_header"}
    | {"timestamp_unit", "id_header", "tolerance", "secret_encoding"}
)
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_PLACEHOLDER: Final = re.compile(r"(\{[a-z]*\})")
_KEY_READERS: Final[dict[str, Keys]] = {
    "text": text_key,
    "base64": base64_key,
    "hex": hex_key,
    "whsec": whsec_key,
}


def generic_scheme(config: Mapping[str, object]) -> HmacScheme:
    """The scheme described by settings; :class:`SignatureConfigError` names the setting that is wrong.

    ``header`` is required. ``algorithm`` sha256 (default), sha512, sha384, sha1; ``encoding`` hex (default),
    base64, base64url; ``prefix`` before the signature, such as ``sha256=``; ``separator`` between several
    signatures; ``template`` of the message with ``{body}``, ``{timestamp}`` and ``{id}``, such as
    ``{timestamp}.{body}``; ``timestamp_header`` with ``timestamp_unit`` s or ms and ``tolerance`` in
    seconds; ``id_header``; ``secret_encoding`` text (default), base64, hex, whsec.
    """
    for name in config:
        if name not in _SETTINGS:
            raise SignatureConfigError(str(name)[:60], f"unknown setting (known: {', '.join(sorted(_SETTINGS))})")
    template = tuple(part for part in _PLACEHOLDER.split(_setting(config, "template", "{body}") or "{body}") if part)
    for part in template:
        if _PLACEHOLDER.fullmatch(part) and part not in ("{body}", "{timestamp}", "{id}"):
            raise SignatureConfigError("template", f"unknown placeholder {part} (known: body, timestamp, id)")
    if template.count("{body}") != 1:
        raise SignatureConfigError("template", "must hold {body} exactly once")
    timestamp_header = _header_name(config, "timestamp_header", required=False)
    id_header = _header_name(config, "id_header", required=False)
    if (timestamp_header is not None) != ("{timestamp}" in template):
        raise SignatureConfigError("timestamp_header", "goes together with {timestamp} in the template")
    if "{id}" in template and id_header is None:
        raise SignatureConfigError("id_header", "is required by {id} in the template")
    return HmacScheme(
        name="hmac",
        variants=(
            HeaderNames(
                _header_name(config, "header", required=True) or "",
                timestamp_header,
                () if id_header is None else (id_header,),
            ),
        ),
        template=template,
        prefix=_setting(config, "prefix", "") or "",
        separator=_setting(config, "separator", None) or None,
        algorithm=_choice(config, "algorithm", ALGORITHMS),
        encoding="hex" if (e := _choice(config, "encoding", ENCODINGS)) == "hex" else _base64_kind(e),
        keys=_KEY_READERS[_choice(config, "secret_encoding", tuple(_KEY_READERS))],
        tolerance=_tolerance(config.get("tolerance", DEFAULT_TOLERANCE)),
        milliseconds=_choice(config, "timestamp_unit", ("s", "ms")) == "ms",
    )


def _base64_kind(name: str) -> Encoding:
    return "base64" if name == "base64" else "base64url"


def _setting(config: Mapping[str, object], name: str, default: str | None) -> str | None:
    value = config.get(name, default)
    if value is not None and (not isinstance(value, str) or len(value) > 200 or not value.isprintable()):
        raise SignatureConfigError(name, "must be a printable text of at most 200 characters")
    return value


def _choice(config: Mapping[str, object], name: str, choices: tuple[str, ...]) -> str:
    value = _setting(config, name, choices[0])
    if value not in choices:
        raise SignatureConfigError(name, f"must be one of {', '.join(choices)}")
    return value


def _header_name(config: Mapping[str, object], name: str, *, required: bool) -> str | None:
    value = _setting(config, name, None)
    if value is None and not required:
        return None
    if value is None or not _HEADER_NAME.fullmatch(value):
        raise SignatureConfigError(name, "must be the name of an HTTP header")
    return value


def _tolerance(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 86_400:
        raise SignatureConfigError("tolerance", "must be a number of seconds from 1 to 86400")
    return value


def checked_tolerance(config: Mapping[str, object]) -> int:
    """The only setting of a published scheme; :class:`SignatureConfigError` for any other."""
    for name in config:
        if name != "tolerance":
            raise SignatureConfigError(str(name)[:60], "unknown setting (known: tolerance)")
    return _tolerance(config.get("tolerance", DEFAULT_TOLERANCE))


def key_header(config: Mapping[str, object], default: str) -> str:
    """The header that holds a key, from the setting ``header``; no other setting is known."""
    for name in config:
        if name != "header":
            raise SignatureConfigError(str(name)[:60], "unknown setting (known: header)")
    return _header_name(config, "header", required=False) or default
