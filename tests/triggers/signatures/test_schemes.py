"""What single schemes have of their own: GitLab's two kinds of secret, generic HMAC, keys sent as they are."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest

from tests.triggers.signatures.vectors import VECTORS, check
from triggers import signatures
from triggers.signatures import Reason, SignatureConfigError, check_config, sign, verify

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
