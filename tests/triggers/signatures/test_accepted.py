"""Webhook signatures: the published vectors, and what else is genuine."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime

import pytest

from tests.triggers.signatures.vectors import VECTORS, Vector, check
from triggers import signatures
from triggers.signatures import Reason, new_secret, sign, verify


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
