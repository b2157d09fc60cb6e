"""A published delivery of each scheme, genuine as it stands."""

from __future__ import annotations

from typing import Any, NamedTuple

from triggers import signatures
from triggers.signatures import verify

SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)


class Vector(NamedTuple):
    """A delivery whose signature was computed by somebody else (the publisher, an RFC, or openssl)."""

    scheme: str
    headers: dict[str, str]
    body: bytes
    secret: str
    now: int
    config: dict[str, object] | None = None
    delivery_id: str | None = None
    signature_header: str = ""
    signed_headers: tuple[str, ...] = ()
    timestamp: bool = True


VECTORS = {
    # svix-webhooks and standard-webhooks, test of the sign function in every library
    "standard": Vector(
        "standard",
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        1614265330,
        None,
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-signature",
        ("webhook-id", "webhook-timestamp"),
    ),
    "svix": Vector(
        "svix",
        {
            "svix-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "svix-timestamp": "1614265330",
            "svix-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        1614265330,
        None,
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "svix-signature",
        ("svix-id", "svix-timestamp"),
    ),
    # docs.github.com, "Testing the webhook payload validation"
    "github": Vector(
        "github",
        {
            "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        },
        b"Hello, World!",
        "It's a Secret to Everybody",
        1700000000,
        None,
        "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-Hub-Signature-256",
        (),
        False,
    ),
    # docs.slack.dev, "Verifying requests from Slack"
    "slack": Vector(
        "slack",
        {
            "X-Slack-Request-Timestamp": "1531420618",
            "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        },
        SLACK_BODY,
        "8f742231b10e8888abcd99yyyzzz85a5",
        1531420618,
        None,
        None,
        "X-Slack-Signature",
        ("X-Slack-Request-Timestamp",),
    ),
    # openssl dgst -sha256 -hmac over the message the documentation describes
    "stripe": Vector(
        "stripe",
        {
            "Stripe-Signature": "t=1700000000,"
            "v1=33aa1568c6627d0d2d42556693c208077ca8f8b437ac8d9d6ebb6c2c650033eb,"
            "v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"
        },
        b'{"id": "evt_1"}',
        "whsec_test_secret",
        1700000000,
        None,
        None,
        "Stripe-Signature",
    ),
    "shopify": Vector(
        "shopify",
        {
            "X-Shopify-Hmac-Sha256": "qBvrsZF7RfB1iS6BX6IHqJTp5L911P7intnPeTPsH0I=",
            "X-Shopify-Webhook-Id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        },
        b'{"id":820982911946154508}',
        "hush",
        1700000000,
        None,
        "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        "X-Shopify-Hmac-Sha256",
        (),
        False,
    ),
    "gitlab": Vector(
        "gitlab",
        {
            "webhook-id": "gl-1",
            "webhook-timestamp": "1700000000",
            "webhook-signature": "v1,FABP3IZiolXPfLPP/YU1kHPUakLnyJH6RZaBDyEkx50=",
        },
        b'{"object_kind":"push"}',
        "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=",
        1700000000,
        None,
        "gl-1",
        "webhook-signature",
        ("webhook-id", "webhook-timestamp"),
    ),
    # RFC 4231, test case 2
    "hmac": Vector(
        "hmac",
        {"X-Signature": "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        b"what do ya want for nothing?",
        "Jefe",
        1700000000,
        {"header": "X-Signature"},
        None,
        "X-Signature",
        (),
        False,
    ),
}
TIMED = [name for name, vector in VECTORS.items() if vector.timestamp]


def check(vector: Vector, **changes: Any) -> signatures.Verdict:
    changes = {
        "headers": vector.headers,
        "body": vector.body,
        "secrets": [vector.secret],
        "now": vector.now,
        "config": vector.config,
        **changes,
    }
    return verify(vector.scheme, **changes)
