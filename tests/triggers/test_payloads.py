"""From bytes to events, without a database: what is read, what is refused, what is kept of headers."""

from __future__ import annotations

from typing import Any

import pytest

from triggers import addresses, cloudevents, flow_specs, payloads
from triggers.arrivals import at_path, dedup_key
from triggers.catalog import networks
from triggers.cloudevents import Malformed
from triggers.payloads import Reading, Unsupported, read

READING = Reading("shop", "standard")


def one(body: bytes, content_type: str = "application/json", *, reading: Reading = READING, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    (arrival,) = read(body, headers={"content-type": content_type, **named}, reading=reading, delivery_id=None)
    return arrival


@pytest.mark.parametrize(
    ("body", "content_type", "data"),
    [
        (b"", "application/json", None),
        (b'{"a":1}', "application/vnd.x+json; charset=UTF-8", {"a": 1}),
        ("ä".encode(), "text/plain", "ä"),
        ("ä".encode("latin-1"), "text/plain; charset=iso-8859-1", "ä"),
        (b"plain", "", "plain"),
        (b"[1]", "", [1]),
        (b"a=1&b=&a=2&a=3", "application/x-www-form-urlencoded", {"a": ["1", "2", "3"], "b": ""}),
        (b"payload=%7B%22a%22%3A1%7D", "application/x-www-form-urlencoded", {"a": 1}),
        (b"payload=%5B1%5D", "application/x-www-form-urlencoded", {"payload": "[1]"}),
        (b"payload=nope", "application/x-www-form-urlencoded", {"payload": "nope"}),
    ],
)
def test_what_is_read(body: bytes, content_type: str, data: Any) -> None:
    assert one(body, content_type).data == data


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (b"\xff", "text/plain", Malformed),
        (b"a\x00", "text/plain", Malformed),
        (b"x", "text/plain; charset=utf-16", Unsupported),
        (b"{}", "application/json; charset=utf-16", Unsupported),
        (b"\xff=1", "application/x-www-form-urlencoded", Malformed),
        (b"a=%00", "application/x-www-form-urlencoded", Malformed),
        (b"&".join([b"a=1"] * 1_001), "application/x-www-form-urlencoded", Malformed),
        (b"<a/>", "application/xml", Unsupported),
    ],
)
def test_what_is_refused(body: bytes, content_type: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        one(body, content_type)


def test_binary_data_of_a_cloudevent() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "dataschema": "https://example.org/s"}
    parsed = cloudevents.structured({**event, "datacontenttype": "application/json", "data_base64": "eyJhIjoxfQ=="})
    assert parsed.binary == b'{"a":1}'
    body = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json",'
    assert one(body + b'"data_base64":"eyJhIjoxfQ=="}', cloudevents.STRUCTURED).data == {"a": 1}
    image = one(b"\x89PNG", "image/png", ce_specversion="1.0", ce_id="1", ce_source="/s", ce_type="t")
    assert (image.data, image.raw) == (None, b"\x89PNG")
    for broken in ({"data_base64": "!"}, {"data_base64": 5}):
        with pytest.raises(Malformed):
            cloudevents.structured({**event, **broken})
    for value in (5, [], None):
        with pytest.raises(Malformed):
            cloudevents.structured(value)
    for batch in ({}, [event] * 101, [5]):
        with pytest.raises(Malformed):
            cloudevents.batch(batch)
    with pytest.raises(Malformed):
        cloudevents.structured({**event, **{f"x{number}": "1" for number in range(60)}})
    with pytest.raises(Malformed):
        cloudevents.binary({"ce-specversion": "1.0", "ce-id": "%FF"}, content_type="", data=None)


def test_what_names_a_delivery_of_each_sender() -> None:
    assert one(b'{"id": "evt_1"}', reading=Reading("s", "stripe")).dedup_key == "id:evt_1"
    assert one(b'{"event_id": "Ev1"}', reading=Reading("s", "slack")).dedup_key == "id:Ev1"
    assert one(b"{}", x_github_delivery="d1").dedup_key == "id:d1"
    assert one(b"{}", idempotency_key="ä").dedup_key is None
    assert one(b'{"a": {"b": 5}}', reading=Reading("s", "bearer", dedup_path="a.b")).dedup_key == "path:5"
    assert one(b'{"a": true}', reading=Reading("s", "bearer", dedup_path="a")).dedup_key is None
    assert one(b"{}", reading=Reading("s", "bearer", dedup="body")).dedup_key.startswith("body:")
    assert dedup_key("id", "x" * 300).startswith("id:sha256:")
    assert at_path([1], "5") is None
    event = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":7}}'
    assert one(event, cloudevents.STRUCTURED, reading=Reading("s", "x", dedup_path="n")).dedup_key == "path:7"


def test_headers_are_kept_without_credentials_and_not_without_end() -> None:
    kept = payloads.kept_headers({"x-signature": "a", "x-own": "b", "accept": "c", "x": "d\x00"}, frozenset({"x-own"}))
    assert kept == {"x-signature": "[redacted]", "x-own": "[redacted]", "x": "d�"}
    assert len(payloads.kept_headers({f"x{number}": "1" for number in range(100)})) == payloads.MAX_HEADERS


def test_addresses() -> None:
    blocks = networks(["10.0.0.0/8", "2001:db8::/32"])
    assert [addresses.is_in(text, blocks) for text in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1%eth0")] == [True] * 3
    assert [addresses.is_in(text, blocks) for text in ("11.1.2.3", "nowhere", "")] == [False] * 3
    meta = {"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": "1.1.1.1, 198.51.100.7"}
    assert addresses.of_request(meta, behind_proxy=True) == "198.51.100.7"
    assert addresses.of_request(meta, behind_proxy=False) == "192.0.2.1"
    assert addresses.of_request({"REMOTE_ADDR": "192.0.2.1"}, behind_proxy=True) == "192.0.2.1"
    assert addresses.problems_of("x", at="a") == {"a": ["must be a list of at most 200 CIDR blocks"]}
    assert list(addresses.problems_of([5, "10.0.0.0/8", "x"], at="a")) == ["a.0", "a.2"]


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        ("throttle", [], "f"),
        ("throttle", {"limit": True, "period": 1}, "f.limit"),
        ("throttle", {"limit": 1, "period": 1, "burst": 2}, "f.burst"),
        ("throttle", {"limit": 1, "period": 1, "key": 5}, "f.key"),
        ("throttle", {"limit": 1, "period": 1, "key": "${{ nope }}"}, "f.key"),
        ("batch", {"size": 1_001, "timeout": 1}, "f.size"),
        ("debounce", {"period": float("inf")}, "f.period"),
    ],
)
def test_how_often_is_checked_with_the_field(kind: str, spec: Any, field: str) -> None:
    assert field in flow_specs.problems_of(kind, spec, at="f")
