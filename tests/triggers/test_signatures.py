"""Webhook signatures: published vectors, and everything that must be refused, for every scheme."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggers import signatures
from triggers.signatures import Reason, SignatureConfigError, check_config, new_secret, sign, verify

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


@pytest.fixture(params=VECTORS)
def vector(request: pytest.FixtureRequest) -> Vector:
    return VECTORS[request.param]


# --- what is accepted ------------------------------------------------------------------------------


def test_the_published_vector_is_verified(vector: Vector) -> None:
    verdict = check(vector)
    assert verdict == signatures.Verdict(
        True, Reason.VERIFIED, 0, vector.now if vector.timestamp else None, vector.delivery_id
    )


def test_signing_gives_the_published_headers(vector: Vector) -> None:
    signed = sign(
        vector.scheme,
        body=vector.body,
        secrets=[vector.secret],
        now=vector.now,
        delivery_id=vector.delivery_id,
        config=vector.config,
    )
    expected = dict(vector.headers)
    if vector.scheme == "stripe":
        expected["Stripe-Signature"] = expected["Stripe-Signature"].rpartition(",v0=")[0]
    assert signed == expected


def test_the_names_of_headers_have_no_case(vector: Vector) -> None:
    for change in (str.lower, str.upper, str.title):
        assert check(vector, headers={change(name): value for name, value in vector.headers.items()}).ok


def test_headers_may_come_as_bytes_or_in_lists(vector: Vector) -> None:
    raw = {name.lower().encode(): value.encode() for name, value in vector.headers.items()}
    assert check(vector, headers=raw).ok
    assert check(vector, headers={name: [value] for name, value in vector.headers.items()}).ok


def test_any_of_several_secrets_may_fit_and_its_place_is_told(vector: Vector) -> None:
    others = ["other-secret-1", "whsec_b3RoZXItc2VjcmV0"]
    assert check(vector, secrets=[*others, vector.secret]).key_index == 2
    assert check(vector, secrets=[vector.secret, *others, vector.secret]).key_index == 0


def test_now_may_be_an_aware_datetime_or_seconds(vector: Vector) -> None:
    assert check(vector, now=datetime.fromtimestamp(vector.now, UTC)).ok
    assert check(vector, now=vector.now + 0.5).ok
    with pytest.raises(ValueError, match="aware"):
        check(vector, now=datetime.fromtimestamp(vector.now))  # noqa: DTZ006


@pytest.mark.parametrize("scheme", ["standard", "svix", "gitlab"])
def test_several_signatures_in_one_header(scheme: str) -> None:
    vector = VECTORS[scheme]
    good = vector.headers[vector.signature_header]
    wrong = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
    for several in (f"{wrong} {good}", f"{good} {wrong}", f"v1a,xyz v2,abc {wrong} {good}", f"  {good}  "):
        assert check(vector, headers={**vector.headers, vector.signature_header: several}).ok
    for none in (f"{wrong} {wrong}", f"{wrong} v2,{good[3:]}"):
        verdict = check(vector, headers={**vector.headers, vector.signature_header: none})
        assert verdict.reason is Reason.MISMATCH


def test_several_signatures_of_stripe() -> None:
    vector = VECTORS["stripe"]
    good = vector.headers["Stripe-Signature"]
    wrong = "v1=" + "0" * 64
    for several in (f"{good},{wrong}", good.replace(",v1=", f",{wrong},v1="), good.replace(",", ", ")):
        assert check(vector, headers={"Stripe-Signature": several}).ok
    only_test_mode = f"t=1700000000,v0={'0' * 64}"
    assert check(vector, headers={"Stripe-Signature": only_test_mode}).reason is Reason.UNSUPPORTED_SIGNATURE


def test_signing_with_several_secrets_lets_either_side_rotate() -> None:
    secrets = [new_secret("standard"), new_secret("standard")]
    headers = sign("standard", body=b"{}", secrets=secrets, now=1700000000, delivery_id="m1")
    assert headers["webhook-signature"].count("v1,") == 2
    for index, secret in enumerate(secrets):
        verdict = verify("standard", headers=headers, body=b"{}", secrets=["x", secret], now=1700000000)
        assert verdict.key_index == 1, index
    single = sign("github", body=b"{}", secrets=["a", "b"], now=1700000000)
    assert single == sign("github", body=b"{}", secrets=["a"], now=1700000000)


def test_svix_also_reads_the_standard_headers() -> None:
    standard, svix = VECTORS["standard"], VECTORS["svix"]
    assert check(svix, headers=standard.headers).ok
    assert check(standard, headers=svix.headers).reason is Reason.MISSING_HEADER


def test_hexadecimal_has_no_case_and_base64_needs_no_padding() -> None:
    github = VECTORS["github"]
    value = github.headers["X-Hub-Signature-256"]
    assert check(github, headers={"X-Hub-Signature-256": "sha256=" + value[7:].upper()}).ok
    shopify = VECTORS["shopify"]
    value = shopify.headers["X-Shopify-Hmac-Sha256"]
    assert check(shopify, headers={"X-Shopify-Hmac-Sha256": value.rstrip("=")}).ok


def test_a_secret_of_standard_webhooks_may_be_text_base64_or_bytes() -> None:
    vector = VECTORS["standard"]
    encoded = vector.secret.removeprefix("whsec_")
    for secret in (vector.secret, encoded, base64.b64decode(encoded)):
        assert check(vector, secrets=[secret]).ok
    # text that is not base64 is the key itself
    message = b"m1.1700000000.{}"
    signature = base64.b64encode(hmac.digest(b"plain password!", message, "sha256")).decode()
    headers = {"webhook-id": "m1", "webhook-timestamp": "1700000000", "webhook-signature": f"v1,{signature}"}
    assert verify("standard", headers=headers, body=b"{}", secrets=["plain password!"], now=1700000000).ok


def test_a_body_of_any_size_is_covered() -> None:
    for scheme in ("standard", "github", "stripe", "slack", "shopify"):
        for body in (b"", b"\x00\xff" * 524_288):
            secret = new_secret(scheme)
            headers = sign(scheme, body=body, secrets=[secret], now=1700000000, delivery_id="m1")
            assert verify(scheme, headers=headers, body=body, secrets=[secret], now=1700000000).ok
            verdict = verify(scheme, headers=headers, body=body + b" ", secrets=[secret], now=1700000000)
            assert verdict.reason is Reason.MISMATCH


@pytest.mark.parametrize("scheme", signatures.SCHEMES)
def test_what_is_signed_with_a_new_secret_is_verified(scheme: str) -> None:
    config: dict[str, object] | None = {"header": "X-Sig"} if scheme == "hmac" else None
    secret = new_secret(scheme)
    assert secret != new_secret(scheme)
    headers = sign(scheme, body=b"{}", secrets=[secret], now=1700000000.7, delivery_id="m1", config=config)
    for now in (1700000000, 1700000300):
        assert verify(scheme, headers=headers, body=b"{}", secrets=[secret], now=now, config=config).ok
    refused = verify(scheme, headers=headers, body=b"{}", secrets=[new_secret(scheme)], now=1700000000, config=config)
    assert refused.reason is Reason.MISMATCH


# --- what is refused -------------------------------------------------------------------------------


def test_a_wrong_secret(vector: Vector) -> None:
    for wrong in ("wrong", vector.secret + "x", "whsec_d3Jvbmc=", b"wrong", "ключ", "\ud800"):
        verdict = check(vector, secrets=[wrong])
        assert not verdict.ok
        assert verdict.reason in (Reason.MISMATCH, Reason.MISSING_HEADER, Reason.NO_USABLE_SECRET)
        assert verdict.key_index is None


def test_no_secret_or_an_empty_one_never_fits(vector: Vector) -> None:
    for secrets in ([], [""], [b""]):
        assert check(vector, secrets=secrets).reason is Reason.NO_USABLE_SECRET
    # a signature computed with the empty key does not help either
    if vector.scheme == "github":
        value = "sha256=" + hmac.digest(b"", vector.body, "sha256").hex()
        assert not check(vector, headers={"X-Hub-Signature-256": value}, secrets=[""]).ok


def test_an_altered_body(vector: Vector) -> None:
    for body in (vector.body + b" ", vector.body[:-1], b"", vector.body.swapcase(), b"x" * 1_048_576):
        assert check(vector, body=body).reason is Reason.MISMATCH


def test_an_altered_header_that_is_signed(vector: Vector) -> None:
    for name in vector.signed_headers:
        value = vector.headers[name]
        altered = str(int(value) + 1) if value.isdigit() else value + "x"
        assert check(vector, headers={**vector.headers, name: altered}).reason is Reason.MISMATCH


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize(
    ("shift", "reason"),
    [
        (300, Reason.VERIFIED),
        (-300, Reason.VERIFIED),
        (301, Reason.STALE),
        (300.5, Reason.STALE),
        (86_400 * 365, Reason.STALE),
        (-301, Reason.FUTURE),
        (-(10**9), Reason.FUTURE),
    ],
)
def test_the_age_of_a_delivery(name: str, shift: float, reason: Reason) -> None:
    vector = VECTORS[name]
    verdict = check(vector, now=vector.now + shift)
    assert verdict.reason is reason
    assert verdict.ok is (reason is Reason.VERIFIED)
    assert verdict.timestamp == vector.now


@pytest.mark.parametrize("name", TIMED)
def test_the_tolerance_can_be_set(name: str) -> None:
    vector = VECTORS[name]
    assert check(vector, now=vector.now + 900, config={"tolerance": 900}).ok
    assert check(vector, now=vector.now + 11, config={"tolerance": 10}).reason is Reason.STALE
    assert check(vector, config={"tolerance": 0}).reason is Reason.BAD_CONFIG


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize(
    "text", ["", "hello", "-1614265330", "+1614265330", "1614265330.0", "1e9", "١٦١٤٢٦٥٣٣٠", "9" * 14, "0x5f", "\x00"]
)
def test_a_timestamp_that_is_none(name: str, text: str) -> None:
    vector = VECTORS[name]
    if name == "stripe":
        headers = {"Stripe-Signature": f"t={text},v1={'0' * 64}"}
    else:
        headers = {**vector.headers, vector.signed_headers[-1]: text}
    assert check(vector, headers=headers).reason is Reason.BAD_TIMESTAMP


def test_a_missing_header(vector: Vector) -> None:
    assert check(vector, headers={}).reason is Reason.MISSING_HEADER
    for name in (vector.signature_header, *vector.signed_headers):
        headers = {key: value for key, value in vector.headers.items() if key != name}
        assert check(vector, headers=headers).reason is Reason.MISSING_HEADER


def test_a_truncated_or_extended_signature(vector: Vector) -> None:
    value = vector.headers[vector.signature_header].partition(",v0=")[0]
    for cut in range(1, len(value)):
        assert not check(vector, headers={**vector.headers, vector.signature_header: value[:-cut]}).ok or (
            value.endswith("=") and cut == 1  # the padding carries nothing
        )
    for extra in ("0", "A", ",", "\u00e9", "%00"):
        changed = {**vector.headers, vector.signature_header: value + extra}
        assert check(vector, headers=changed).ok is (extra == "," and vector.scheme == "stripe")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("github", "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59"),
        ("github", "md5=" + "0" * 32),
        ("github", "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
        ("slack", "v1=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ("standard", "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="),
        ("standard", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ("standard", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ("standard", "v1="),
        ("stripe", "t=1700000000,v2=33aa1568c6627d0d2d42556693c208077ca8f8b437ac8d9d6ebb6c2c650033eb"),
    ],
)
def test_a_wrong_algorithm_or_version(name: str, value: str) -> None:
    vector = VECTORS[name]
    verdict = check(vector, headers={**vector.headers, vector.signature_header: value})
    assert verdict.reason is Reason.UNSUPPORTED_SIGNATURE


@pytest.mark.parametrize(
    "value",
    ["", " ", "t=1,t=1700000000,v1=00", "v1=00", "t", ",,,", "=" * 50],
)
def test_a_malformed_header_of_stripe(value: str) -> None:
    assert check(VECTORS["stripe"], headers={"Stripe-Signature": value}).reason is Reason.MALFORMED_HEADER


def test_too_many_signatures_are_refused_unread() -> None:
    vector = VECTORS["standard"]
    good = vector.headers["webhook-signature"]
    many = " ".join(["v1,AAAA"] * 32 + [good])
    assert check(vector, headers={**vector.headers, "webhook-signature": many}).reason is Reason.MALFORMED_HEADER


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "é", "x" * 257, "a\nb", "\x00"])
def test_an_id_that_must_not_be_signed(message_id: str) -> None:
    vector = VECTORS["standard"]
    verdict = check(vector, headers={**vector.headers, "webhook-id": message_id})
    assert verdict.reason is Reason.MALFORMED_HEADER
    with pytest.raises(SignatureConfigError, match="delivery_id"):
        sign("standard", body=b"", secrets=[vector.secret], now=0, delivery_id=message_id)


def test_an_unsigned_id_that_is_no_id_is_left_out() -> None:
    vector = VECTORS["github"]
    verdict = check(vector, headers={**vector.headers, "X-GitHub-Delivery": "a b\r\n"})
    assert verdict.ok
    assert verdict.delivery_id is None


HOSTILE_VALUES: list[Any] = [
    "",
    " ",
    "\x00",
    "\r\nX-Injected: 1",
    "\ud800",
    "é" * 100,
    "🙂",
    "=" * 8000,
    "v1," * 2000,
    "x" * 100_000,
    "sha256=" + "é" * 64,
    "v1,\ud800",
    b"\xff\xfe",
    b"",
    None,
    5,
    5.5,
    True,
    [],
    [None],
    ["a", "b"],
    ["x"] * 100,
    [[["deep"]]],
    {"a": 1},
    object(),
]


@pytest.mark.parametrize("index", range(len(HOSTILE_VALUES)))
def test_hostile_values_are_refused_and_never_raise(vector: Vector, index: int) -> None:
    value = HOSTILE_VALUES[index]
    for name in (vector.signature_header, *vector.signed_headers):
        verdict = check(vector, headers={**vector.headers, name: value})
        assert not verdict.ok
    assert not check(vector, headers=dict.fromkeys(vector.headers, value)).ok


@pytest.mark.parametrize("key", [None, 5, b"\xff", ("a",), "\ud800", ""])
def test_hostile_names_of_headers_are_passed_over(vector: Vector, key: Any) -> None:
    lowered: Mapping[Any, str] = {key: "x", **{name.lower(): value for name, value in vector.headers.items()}}
    assert check(vector, headers=lowered).ok
    assert check(vector, headers={key: "x"}).reason is Reason.MISSING_HEADER


_ANY_TEXT = st.text(st.characters(), max_size=60) | st.binary(max_size=60)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(VECTORS)), st.data())
def test_no_random_delivery_is_verified_or_raises(name: str, data: st.DataObject) -> None:
    vector = VECTORS[name]
    headers = {
        header: data.draw(
            _ANY_TEXT | st.just(value) | st.sampled_from(["v1,", "sha256=", "t=1700000000,v1=", "1700000000"])
        )
        for header, value in vector.headers.items()
    }
    signed = {vector.signature_header, *vector.signed_headers}
    genuine = all(headers[key] == vector.headers[key] for key in signed)
    verdict = check(vector, headers=headers)
    assert verdict.ok is genuine


# --- GitLab's two kinds of secret ------------------------------------------------------------------


def test_a_secret_token_of_gitlab_arrives_as_it_is() -> None:
    headers = {"X-Gitlab-Token": "t0ken", "Idempotency-Key": "k-1", "X-Gitlab-Event-UUID": "u-1"}
    verdict = verify("gitlab", headers=headers, body=b"{}", secrets=["old", "t0ken"], now=0)
    assert verdict == signatures.Verdict(True, Reason.VERIFIED, 1, None, "k-1")
    for wrong in ({}, {"X-Gitlab-Token": "T0ken"}, {"X-Gitlab-Token": ""}):
        assert not verify("gitlab", headers=wrong, body=b"{}", secrets=["t0ken"], now=0).ok
    assert sign("gitlab", body=b"", secrets=["t0ken"], now=0, delivery_id="k-1") == {
        "X-Gitlab-Token": "t0ken",
        "Idempotency-Key": "k-1",
    }
    assert sign("gitlab", body=b"", secrets=[b"t0ken"], now=0) == {"X-Gitlab-Token": "t0ken"}


def test_a_signing_token_of_gitlab_cannot_be_sent_in_place_of_a_signature() -> None:
    vector = VECTORS["gitlab"]
    headers = {"X-Gitlab-Token": vector.secret}
    assert check(vector, headers=headers).reason is Reason.MISSING_HEADER


def test_both_secrets_of_gitlab_while_one_replaces_the_other() -> None:
    vector = VECTORS["gitlab"]
    secrets = ["t0ken", vector.secret]
    assert check(vector, secrets=secrets).key_index == 1
    assert check(vector, secrets=secrets, headers={"X-Gitlab-Token": "t0ken"}).key_index == 0
    both = {**vector.headers, "webhook-signature": "v1,AAAA", "X-Gitlab-Token": "t0ken"}
    assert check(vector, secrets=secrets, headers=both).key_index == 0
    both["X-Gitlab-Token"] = "wrong"
    assert check(vector, secrets=secrets, headers=both).reason is Reason.MISMATCH


# --- generic HMAC ----------------------------------------------------------------------------------

RFC_4231_CASE_2 = {
    "sha1": "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",  # RFC 2202
    "sha256": "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    "sha384": "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
    "sha512": "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
    "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
}


@pytest.mark.parametrize("algorithm", RFC_4231_CASE_2)
@pytest.mark.parametrize("encoding", ["hex", "base64", "base64url"])
def test_algorithms_and_encodings(algorithm: str, encoding: str) -> None:
    digest = bytes.fromhex(RFC_4231_CASE_2[algorithm])
    encoded = {
        "hex": digest.hex(),
        "base64": base64.b64encode(digest).decode(),
        "base64url": base64.urlsafe_b64encode(digest).decode(),
    }[encoding]
    config = {"header": "X-Sig", "algorithm": algorithm, "encoding": encoding, "prefix": "v="}
    body = b"what do ya want for nothing?"
    headers = {"x-sig": "v=" + encoded}
    assert verify("hmac", headers=headers, body=body, secrets=["Jefe"], now=0, config=config).ok
    assert sign("hmac", body=body, secrets=["Jefe"], now=0, config=config) == {"X-Sig": "v=" + encoded}
    for other in RFC_4231_CASE_2:
        if other != algorithm:
            changed = {**config, "algorithm": other}
            assert not verify("hmac", headers=headers, body=body, secrets=["Jefe"], now=0, config=changed).ok


@pytest.mark.parametrize(
    ("encoding", "secret"),
    [("text", "Jefe"), ("base64", "SmVmZQ=="), ("hex", "4a656665"), ("whsec", "whsec_SmVmZQ==")],
)
def test_encodings_of_the_secret(encoding: str, secret: str) -> None:
    config = {"header": "X-Sig", "secret_encoding": encoding}
    headers = {"X-Sig": RFC_4231_CASE_2["sha256"]}
    body = b"what do ya want for nothing?"
    for form in (secret, secret.encode() if encoding != "whsec" else b"Jefe"):
        assert verify("hmac", headers=headers, body=body, secrets=[form], now=0, config=config).ok
    if encoding in ("base64", "hex"):
        for bad in ("", "!", "é", b"\xff", "\ud800"):
            verdict = verify("hmac", headers=headers, body=body, secrets=[bad], now=0, config=config)
            assert verdict.reason is Reason.NO_USABLE_SECRET


def test_a_template_with_timestamp_id_and_several_signatures() -> None:
    config: dict[str, object] = {
        "header": "X-Sig",
        "template": "v0:{id}:{timestamp}:{body}!",
        "timestamp_header": "X-Time",
        "timestamp_unit": "ms",
        "id_header": "X-Id",
        "separator": ",",
        "prefix": "s=",
        "tolerance": 60,
    }
    digest = hashlib.sha256
    wanted = hmac.new(b"k", b"v0:d-1:1700000000500:BODY!", digest).hexdigest()
    headers = {"X-Sig": f"s=00, s={wanted}", "X-Time": "1700000000500", "X-Id": "d-1"}
    verdict = verify("hmac", headers=headers, body=b"BODY", secrets=["k"], now=1700000060, config=config)
    assert verdict == signatures.Verdict(True, Reason.VERIFIED, 0, 1700000000, "d-1")
    late = verify("hmac", headers=headers, body=b"BODY", secrets=["k"], now=1700000061, config=config)
    assert late.reason is Reason.STALE
    signed = sign("hmac", body=b"BODY", secrets=["k", "l"], now=1700000000, delivery_id="d-1", config=config)
    assert signed["X-Time"] == "1700000000000"
    assert signed["X-Sig"].count("s=") == 2
    for secret in ("k", "l"):
        assert verify("hmac", headers=signed, body=b"BODY", secrets=[secret], now=1700000000, config=config).ok


@pytest.mark.parametrize(
    ("scheme", "config", "field"),
    [
        ("hmac", {}, "header"),
        ("hmac", {"header": ""}, "header"),
        ("hmac", {"header": "a b"}, "header"),
        ("hmac", {"header": "a\r\nb"}, "header"),
        ("hmac", {"header": 5}, "header"),
        ("hmac", {"header": "X", "algorithm": "md5"}, "algorithm"),
        ("hmac", {"header": "X", "algorithm": None}, "algorithm"),
        ("hmac", {"header": "X", "encoding": "rot13"}, "encoding"),
        ("hmac", {"header": "X", "prefix": "\n"}, "prefix"),
        ("hmac", {"header": "X", "prefix": "x" * 201}, "prefix"),
        ("hmac", {"header": "X", "template": "{timestamp}"}, "template"),
        ("hmac", {"header": "X", "template": "{body}{body}"}, "template"),
        ("hmac", {"header": "X", "template": "{url}{body}"}, "template"),
        ("hmac", {"header": "X", "template": "{timestamp}.{body}"}, "timestamp_header"),
        ("hmac", {"header": "X", "timestamp_header": "Y"}, "timestamp_header"),
        ("hmac", {"header": "X", "template": "{id}.{body}"}, "id_header"),
        ("hmac", {"header": "X", "timestamp_unit": "us"}, "timestamp_unit"),
        ("hmac", {"header": "X", "secret_encoding": "rot13"}, "secret_encoding"),
        ("hmac", {"header": "X", "tolerance": "60"}, "tolerance"),
        ("hmac", {"header": "X", "tolerance": True}, "tolerance"),
        ("hmac", {"header": "X", "tolerance": 86_401}, "tolerance"),
        ("hmac", {"header": "X", "color": "red"}, "color"),
        ("standard", {"header": "X"}, "header"),
        ("standard", {"tolerance": 0}, "tolerance"),
        ("gitlab", {"tolerance": -1}, "tolerance"),
        ("bearer", {"tolerance": 5}, "tolerance"),
        ("basic", {"realm": "x"}, "realm"),
        ("api_key", {"tolerance": 5}, "tolerance"),
        ("api_key", {"header": "a b"}, "header"),
        ("rot13", {}, "scheme"),
        ("standard", [], "config"),
    ],
)
def test_settings_that_make_no_sense(scheme: str, config: Any, field: str) -> None:
    if config == []:
        config = ["x"]
    with pytest.raises(SignatureConfigError) as caught:
        check_config(scheme, config)
    assert caught.value.field == field
    verdict = verify(scheme, headers={}, body=b"", secrets=["x"], now=0, config=config)
    assert verdict.reason is Reason.BAD_CONFIG
    with pytest.raises(SignatureConfigError):
        sign(scheme, body=b"", secrets=["x"], now=0, config=config)


def test_settings_that_make_sense() -> None:
    check_config("standard")
    check_config("api_key", {"header": "X-My-Key"})
    check_config("hmac", {"header": "X", "template": "", "separator": ""})


@pytest.mark.parametrize("scheme", signatures.SCHEMES)
def test_signing_without_a_usable_secret_is_an_error(scheme: str) -> None:
    config: dict[str, object] | None = {"header": "X"} if scheme == "hmac" else None
    with pytest.raises(SignatureConfigError, match="secrets"):
        sign(scheme, body=b"", secrets=[""], now=0, delivery_id="m", config=config)


# --- secrets sent as they are ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "headers", "secrets", "reason"),
    [
        ("bearer", {"Authorization": "Bearer abc"}, ["abc"], Reason.VERIFIED),
        ("bearer", {"authorization": "bEARER  abc"}, ["x", "abc"], Reason.VERIFIED),
        ("bearer", {"Authorization": "Bearer abc"}, [b"abc"], Reason.VERIFIED),
        ("bearer", {"Authorization": "Bearer abcd"}, ["abc"], Reason.MISMATCH),
        ("bearer", {"Authorization": "Bearer "}, ["abc"], Reason.MALFORMED_HEADER),
        ("bearer", {"Authorization": "Bearer"}, ["abc"], Reason.MALFORMED_HEADER),
        ("bearer", {"Authorization": "abc"}, ["abc"], Reason.UNSUPPORTED_SIGNATURE),
        ("bearer", {"Authorization": "Basic abc"}, ["abc"], Reason.UNSUPPORTED_SIGNATURE),
        ("bearer", {"Authorization": "Bearer \ud800"}, ["abc"], Reason.MISMATCH),
        ("bearer", {}, ["abc"], Reason.MISSING_HEADER),
        ("bearer", {"Authorization": "Bearer x"}, [""], Reason.NO_USABLE_SECRET),
        ("basic", {"Authorization": "Basic dXNlcjpwYTpzcw=="}, ["user:pa:ss"], Reason.VERIFIED),
        ("basic", {"Authorization": "basic dXNlcjpwYTpzcw=="}, [b"user:pa:ss"], Reason.VERIFIED),
        ("basic", {"Authorization": "Basic dXNlcjpwYTpzcw=="}, ["user:pass"], Reason.MISMATCH),
        ("basic", {"Authorization": "Basic dXNlcg=="}, ["user"], Reason.MALFORMED_HEADER),
        ("basic", {"Authorization": "Basic !!!"}, ["user:x"], Reason.MALFORMED_HEADER),
        ("basic", {"Authorization": "Basic é"}, ["user:x"], Reason.MALFORMED_HEADER),
        ("basic", {"Authorization": "Basic Og=="}, [":"], Reason.NO_USABLE_SECRET),
        ("basic", {"Authorization": "Bearer x"}, ["user:x"], Reason.UNSUPPORTED_SIGNATURE),
        ("basic", {}, ["user:x"], Reason.MISSING_HEADER),
        ("api_key", {"x-api-key": "k1"}, ["k0", "k1"], Reason.VERIFIED),
        ("api_key", {"X-API-Key": " k1 "}, ["k1"], Reason.VERIFIED),
        ("api_key", {"X-API-Key": "K1"}, ["k1"], Reason.MISMATCH),
        ("api_key", {"X-API-Key": ""}, ["k1"], Reason.MISMATCH),
        ("api_key", {"X-API-Key": ""}, [""], Reason.NO_USABLE_SECRET),
        ("api_key", {"X-API-Key": ["k1", "k1"]}, ["k1"], Reason.MISMATCH),
        ("api_key", {}, ["k1"], Reason.MISSING_HEADER),
    ],
)
def test_a_secret_sent_as_it_is(scheme: str, headers: dict[str, Any], secrets: list[Any], reason: Reason) -> None:
    verdict = verify(scheme, headers=headers, body=b"anything", secrets=secrets, now=0)
    assert verdict.reason is reason
    assert verdict.ok is (reason is Reason.VERIFIED)
    assert (verdict.key_index is not None) is verdict.ok


def test_a_key_in_a_header_of_ones_choice() -> None:
    config = {"header": "X-Token"}
    assert sign("api_key", body=b"", secrets=["k"], now=0, config=config) == {"X-Token": "k"}
    assert verify("api_key", headers={"x-token": "k"}, body=b"", secrets=["k"], now=0, config=config).ok
