"""Webhook signatures: everything that must be refused, for every scheme."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.triggers.signatures.vectors import TIMED, VECTORS, Vector, check
from triggers.signatures import Reason, SignatureConfigError, sign


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
