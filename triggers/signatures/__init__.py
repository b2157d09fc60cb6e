"""Who sent this delivery? Verification of webhook signatures, and signing for test-sends.

>>> headers = sign("standard", body=b"{}", secrets=["whsec_c2VjcmV0"], now=1700000000, delivery_id="msg_1")
>>> verify("standard", headers=headers, body=b"{}", secrets=["whsec_c2VjcmV0"], now=1700000010).ok
True

Pure: the time is an argument, nothing is read or stored. :func:`verify` always answers with a value:
headers of any shape lead to a refusal with a reason, never to an exception. Work over the raw bytes of the
body, before anything parses it. Sources of the schemes are named at each of them.
"""

from __future__ import annotations

import secrets as random
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from triggers.signatures import hmac_scheme, shell, tokens
from triggers.signatures.headers import Headers, delivery_id, header
from triggers.signatures.hmac_scheme import (
    DEFAULT_TOLERANCE,
    HeaderNames,
    HmacScheme,
    Secret,
    whsec_key,
)
from triggers.signatures.verdict import Reason, SignatureConfigError, Verdict, epoch_seconds

__all__ = [
    "DEFAULT_SCHEME",
    "DEFAULT_TOLERANCE",
    "SCHEMES",
    "Reason",
    "SignatureConfigError",
    "Verdict",
    "check_config",
    "new_secret",
    "shell_command",
    "sign",
    "verify",
]

_STANDARD_HEADERS: Final = HeaderNames("webhook-signature", "webhook-timestamp", ("webhook-id",))
_STANDARD_MESSAGE: Final = ("{id}", ".", "{timestamp}", ".", "{body}")

# https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md (symmetric, v1)
_STANDARD: Final = HmacScheme(
    name="standard",
    variants=(_STANDARD_HEADERS,),
    template=_STANDARD_MESSAGE,
    prefix="v1,",
    separator=" ",
    encoding="base64",
    keys=whsec_key,
)
# https://docs.svix.com/receiving/verifying-payloads/how-manual: the same, under its own header names or
# the standard ones
_SVIX: Final = replace(
    _STANDARD,
    name="svix",
    variants=(HeaderNames("svix-signature", "svix-timestamp", ("svix-id",)), _STANDARD_HEADERS),
)
# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
_GITHUB: Final = HmacScheme(
    name="github",
    variants=(HeaderNames("X-Hub-Signature-256", ids=("X-GitHub-Delivery",)),),
    prefix="sha256=",
)
# https://docs.stripe.com/webhooks#verify-manually; the key is the whole text of the secret, whsec_ included
_STRIPE: Final = HmacScheme(
    name="stripe",
    variants=(HeaderNames("Stripe-Signature"),),
    template=("{timestamp}", ".", "{body}"),
    prefix="v1=",
    separator=",",
    fields=True,
)
# https://docs.slack.dev/authentication/verifying-requests-from-slack
_SLACK: Final = HmacScheme(
    name="slack",
    variants=(HeaderNames("X-Slack-Signature", "X-Slack-Request-Timestamp"),),
    template=("v0:", "{timestamp}", ":", "{body}"),
    prefix="v0=",
)
# https://shopify.dev/docs/apps/build/webhooks/subscribe/https#step-2-validate-the-origin-of-your-webhook
_SHOPIFY: Final = HmacScheme(
    name="shopify",
    variants=(HeaderNames("X-Shopify-Hmac-Sha256", ids=("X-Shopify-Webhook-Id", "X-Shopify-Event-Id")),),
    encoding="base64",
)
_PUBLISHED: Final = {s.name: s for s in (_STANDARD, _SVIX, _GITHUB, _STRIPE, _SLACK, _SHOPIFY)}

# https://docs.gitlab.com/user/project/integrations/webhooks/: signing tokens (whsec_…) follow Standard
# Webhooks, secret tokens arrive as they are
_GITLAB_TOKEN_HEADER: Final = "X-Gitlab-Token"  # noqa: S105 - the name of a header
_GITLAB_IDS: Final = ("webhook-id", "Idempotency-Key", "X-Gitlab-Event-UUID")

DEFAULT_SCHEME: Final = "standard"
DEFAULT_KEY_HEADER: Final = "X-API-Key"
SCHEMES: Final = (*_PUBLISHED, "gitlab", "hmac", "bearer", "basic", "api_key")
"""Names of all schemes. ``hmac`` is described by its configuration."""

Config = Mapping[str, object]


def verify(
    scheme: str,
    *,
    headers: Headers,
    body: bytes,
    secrets: Sequence[Secret],
    now: datetime | float,
    config: Config | None = None,
) -> Verdict:
    """Whether a delivery was sent by somebody who knows one of ``secrets``.

    ``now`` is an aware datetime or seconds since the epoch. ``config`` holds ``tolerance`` (seconds, for
    schemes with a timestamp), ``header`` (for ``api_key``), or the whole description of an ``hmac``
    scheme; wrong settings refuse the delivery. Raises ``ValueError`` for a naive ``now`` and nothing else.
    """
    seconds = epoch_seconds(now)
    try:
        described = _described(scheme, config or {})
    except SignatureConfigError:
        return Verdict(False, Reason.BAD_CONFIG)
    if isinstance(described, HmacScheme):
        return hmac_scheme.verify(described, headers, body, secrets, seconds)
    if scheme == "gitlab":
        return _verify_gitlab(headers, body, secrets, seconds, config or {})
    if scheme == "bearer":
        return tokens.verify_bearer(headers, secrets)
    if scheme == "basic":
        return tokens.verify_basic(headers, secrets)
    return tokens.verify_token(headers, described, secrets)


def sign(
    scheme: str,
    *,
    body: bytes,
    secrets: Sequence[Secret],
    now: datetime | float,
    delivery_id: str | None = None,
    config: Config | None = None,
) -> dict[str, str]:
    """The headers with which a sender would deliver ``body``: what :func:`verify` accepts.

    Signs with every secret if the scheme allows several signatures, else with the first. ``delivery_id``
    is required by the schemes that sign it. Raises :class:`SignatureConfigError` for an unknown scheme,
    wrong settings, or no usable secret.
    """
    described = _described(scheme, config or {})
    seconds = epoch_seconds(now)
    if isinstance(described, HmacScheme):
        return hmac_scheme.sign(described, body, secrets, seconds, delivery_id)
    usable = [secret for secret in secrets if secret]
    if not usable:
        raise SignatureConfigError("secrets", "none of them can be used with this scheme")
    first = usable[0]
    if scheme == "gitlab" and _is_signing_token(first):
        return hmac_scheme.sign(_STANDARD, body, [first], seconds, delivery_id)
    if scheme == "basic":
        return {"Authorization": tokens.basic_header(first)}
    text = first if isinstance(first, str) else first.decode("latin-1")
    if scheme == "bearer":
        return {"Authorization": f"Bearer {text}"}
    found = {described: text}
    if scheme == "gitlab" and delivery_id is not None:
        found["Idempotency-Key"] = delivery_id
    return found


def shell_command(scheme: str, *, url: str, config: Config | None = None) -> str:
    """Commands for a shell with openssl and curl that sign a test delivery and send it to `url`.

    The secret is left for the reader to fill in. Raises :class:`SignatureConfigError` as :func:`check_config` does.
    """
    described = _described(scheme, config or {})
    if scheme == "gitlab":  # a signing token, as `new_secret` makes it, follows Standard Webhooks
        described = _STANDARD
    return shell.command(described, scheme=scheme, url=url)


def check_config(scheme: str, config: Config | None = None) -> None:
    """Raise :class:`SignatureConfigError` for an unknown scheme or settings it does not understand."""
    _described(scheme, config or {})


def new_secret(scheme: str) -> str:
    """A fresh random secret of 256 bits in the form the scheme's senders expect."""
    if scheme in ("standard", "svix", "gitlab"):
        return "whsec_" + b64encode(random.token_bytes(32)).decode()
    if scheme == "stripe":
        return "whsec_" + random.token_urlsafe(32)
    if scheme == "basic":
        return "webhook:" + random.token_urlsafe(32)
    return random.token_hex(32)


def _described(scheme: str, config: Config) -> HmacScheme | str:
    """The HMAC scheme, or for the others the header that holds the secret."""
    if not isinstance(config, Mapping):
        raise SignatureConfigError("config", "must be an object")
    if scheme == "hmac":
        return hmac_scheme.generic_scheme(config)
    if scheme in _PUBLISHED:
        return replace(_PUBLISHED[scheme], tolerance=hmac_scheme.checked_tolerance(config))
    if scheme == "gitlab":
        hmac_scheme.checked_tolerance(config)
        return _GITLAB_TOKEN_HEADER
    if scheme == "api_key":
        return hmac_scheme.key_header(config, DEFAULT_KEY_HEADER)
    if scheme in ("bearer", "basic"):
        for name in config:
            raise SignatureConfigError(str(name)[:60], "this scheme has no settings")
        return "Authorization"
    raise SignatureConfigError("scheme", f"must be one of {', '.join(SCHEMES)}")


def _verify_gitlab(headers: Headers, body: bytes, secrets: Sequence[Secret], now: float, config: Config) -> Verdict:
    """A signing token demands the signature, a secret token its header: the secret decides, not the sender.

    Otherwise whoever learnt a secret token, which travels in the clear, could leave the signature away.
    """
    signing = [index for index, secret in enumerate(secrets) if _is_signing_token(secret)]
    plain = [index for index, secret in enumerate(secrets) if secret and index not in signing]
    if not signing and not plain:
        return Verdict(False, Reason.NO_USABLE_SECRET)
    if signing and (header(headers, "webhook-signature") is not None or not plain):
        scheme = replace(_STANDARD, tolerance=hmac_scheme.checked_tolerance(config))
        verdict = hmac_scheme.verify(scheme, headers, body, [secrets[i] for i in signing], now)
        if verdict.ok or not plain:
            return _at(verdict, signing)
    found = (delivery_id(header(headers, name)) for name in _GITLAB_IDS)
    identifier = next((text for text in found if text is not None), None)
    verdict = tokens.verify_token(headers, _GITLAB_TOKEN_HEADER, [secrets[i] for i in plain], identifier)
    return _at(verdict, plain)


def _at(verdict: Verdict, positions: list[int]) -> Verdict:
    return verdict if verdict.key_index is None else replace(verdict, key_index=positions[verdict.key_index])


def _is_signing_token(secret: Secret) -> bool:
    return isinstance(secret, str) and secret.startswith("whsec_")
