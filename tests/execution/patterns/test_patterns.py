"""Event patterns: what matches, why not, and what an index can use."""

from __future__ import annotations

import json
from typing import Any

import pytest

from execution.patterns import ExactRequirement, compile, index_key, index_keys_at
from tests.execution.patterns import oracle as pattern_oracle


def _short(value: object) -> str | None:
    return repr(value)[:50] if isinstance(value, dict | list | str) else None


EC2 = {
    "version": "0",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "time": "2026-07-01T16:24:49Z",
    "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-000000aaaaaa00000"],
    "detail": {
        "c-count": 5,
        "d-count": 3,
        "x-limit": 301.8,
        "source-ip": "10.0.0.33",
        "state": "running",
        "empty": "",
        "nothing": None,
        "on": True,
        "list": [],
        "object": {},
    },
}
EMPLOYEES = {
    "employees": [
        {"firstName": "John", "lastName": "Doe", "age": 40},
        {"firstName": "Anna", "lastName": "Smith", "tags": ["a", "b"]},
        {"firstName": "Peter", "lastName": "Jones", "boss": {"name": "Anna"}},
    ],
    "office": "Bern",
}
NESTED = {"rows": [[{"a": 1, "b": 2}, {"a": 3}], [], [[{"b": 4}]], 7]}


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        # the examples of aws/event-ruler's README
        ({"source": ["aws.ec2"], "detail": {"state": ["initializing", "running"]}}, EC2, True),
        ({"resources": EC2["resources"]}, EC2, True),
        ({"time": [{"prefix": "2026-07-01"}]}, EC2, True),
        ({"source": [{"suffix": "ec2"}]}, EC2, True),
        ({"source": [{"equals-ignore-case": "AWS.EC2"}]}, EC2, True),
        ({"source": [{"wildcard": "a*.ec*"}]}, EC2, True),
        ({"detail": {"state": [{"anything-but": "initializing"}]}}, EC2, True),
        ({"detail": {"x-limit": [{"anything-but": [100, 200, 300]}]}}, EC2, True),
        ({"detail": {"state": [{"anything-but": {"prefix": "init"}}]}}, EC2, True),
        (
            {
                "detail": {
                    "c-count": [{"numeric": [">", 0, "<=", 5]}],
                    "d-count": [{"numeric": ["<", 10]}],
                    "x-limit": [{"numeric": ["=", 3.018e2]}],
                }
            },
            EC2,
            True,
        ),
        ({"detail": {"source-ip": [{"cidr": "10.0.0.0/24"}]}}, EC2, True),
        ({"detail": {"c-count": [{"exists": True}]}}, EC2, True),
        ({"detail": {"c-count": [{"exists": False}]}}, EC2, False),
        ({"detail": {"absent": [{"exists": False}]}}, EC2, True),
        ({"source": ["aws.s3"]}, EC2, False),
        # exact values: by JSON value and type
        ({"a": [300]}, {"a": 300.0}, True),
        ({"a": [300.0]}, {"a": 300}, True),
        ({"a": [2.5e-1]}, {"a": 0.25}, True),
        ({"a": [300]}, {"a": "300"}, False),
        ({"a": ["300"]}, {"a": 300}, False),
        ({"a": [9007199254740993]}, {"a": 9007199254740992.0}, False),
        ({"a": [123456789012345678901234]}, {"a": 123456789012345678901234}, True),
        ({"a": [0]}, {"a": -0.0}, True),
        ({"a": [True]}, {"a": True}, True),
        ({"a": [True]}, {"a": 1}, False),
        ({"a": [1]}, {"a": True}, False),
        ({"a": [0]}, {"a": False}, False),
        ({"a": [False]}, {"a": 0}, False),
        ({"a": [False]}, {"a": None}, False),
        ({"a": [None]}, {"a": None}, True),
        ({"a": [None]}, {}, False),
        ({"a": [None]}, {"a": ""}, False),
        ({"a": [""]}, {"a": ""}, True),
        ({"a": [""]}, {"a": None}, False),
        ({"a": ["null"]}, {"a": None}, False),
        ({"a": ["x"]}, {"a": {"x": 1}}, False),
        ({"a": [{"exactly": "x"}]}, {"a": "x"}, True),
        ({"a": ["é"]}, {"a": "e\u0301"}, False),
        ({"": ["x"]}, {"": "x"}, True),
        ({"a.b": ["x"]}, {"a.b": "x"}, True),
        ({"a.b": ["x"]}, {"a": {"b": "x"}}, False),
        # prefix, suffix, case
        ({"a": [{"prefix": ""}]}, {"a": ""}, True),
        ({"a": [{"prefix": "a"}]}, {"a": 1}, False),
        ({"a": [{"prefix": "1"}]}, {"a": 1}, False),
        ({"a": [{"prefix": "Ab"}]}, {"a": "abc"}, False),
        ({"a": [{"prefix": {"equals-ignore-case": "AB"}}]}, {"a": "abc"}, True),
        ({"a": [{"prefix": {"equals-ignore-case": "BC"}}]}, {"a": "abc"}, False),
        ({"a": [{"suffix": "png"}]}, {"a": "x.png"}, True),
        ({"a": [{"suffix": "png"}]}, {"a": "ng"}, False),
        ({"a": [{"suffix": {"equals-ignore-case": ".PNG"}}]}, {"a": "x.pNg"}, True),
        ({"a": [{"equals-ignore-case": "straße"}]}, {"a": "STRASSE"}, True),
        ({"a": [{"equals-ignore-case": "ΣΊΣΥΦΟΣ"}]}, {"a": "σίσυφος"}, True),
        ({"a": [{"equals-ignore-case": "x"}]}, {"a": None}, False),
        # wildcard
        ({"a": [{"wildcard": "*"}]}, {"a": ""}, True),
        ({"a": [{"wildcard": "abc"}]}, {"a": "abc"}, True),
        ({"a": [{"wildcard": "abc"}]}, {"a": "abcd"}, False),
        ({"a": [{"wildcard": ""}]}, {"a": ""}, True),
        ({"a": [{"wildcard": ""}]}, {"a": "x"}, False),
        ({"a": [{"wildcard": "a*a"}]}, {"a": "a"}, False),
        ({"a": [{"wildcard": "a*a"}]}, {"a": "aa"}, True),
        ({"a": [{"wildcard": "*ab*ab*"}]}, {"a": "xabx"}, False),
        ({"a": [{"wildcard": "*ab*ab*"}]}, {"a": "abab"}, True),
        ({"a": [{"wildcard": "*/lib/*"}]}, {"a": "/usr/lib/x"}, True),
        ({"a": [{"wildcard": "ab*bc"}]}, {"a": "abc"}, False),
        ({"a": [{"wildcard": "a\\*b"}]}, {"a": "a*b"}, True),
        ({"a": [{"wildcard": "a\\*b"}]}, {"a": "axb"}, False),
        ({"a": [{"wildcard": "a\\\\*"}]}, {"a": "a\\b"}, True),
        ({"a": [{"wildcard": "*\n*"}]}, {"a": "x\ny"}, True),
        ({"a": [{"wildcard": "*"}]}, {"a": 5}, False),
        ({"a": [{"wildcard": "*.é*"}]}, {"a": "x.él"}, True),
        # anything-but: the field must be there, and any one other value will do
        ({"a": [{"anything-but": "x"}]}, {}, False),
        ({"a": [{"anything-but": "x"}]}, {"a": []}, False),
        ({"a": [{"anything-but": "x"}]}, {"a": {"x": 1}}, False),
        ({"a": [{"anything-but": "x"}]}, {"a": ["x", "y"]}, True),
        ({"a": [{"anything-but": "x"}]}, {"a": ["x", "x"]}, False),
        ({"a": [{"anything-but": "x"}]}, {"a": 5}, True),
        ({"a": [{"anything-but": "x"}]}, {"a": None}, True),
        ({"a": [{"anything-but": "x"}]}, {"a": True}, True),
        ({"a": [{"anything-but": 5}]}, {"a": 5.0}, False),
        ({"a": [{"anything-but": 5}]}, {"a": "5"}, True),
        ({"a": [{"anything-but": [0, 1]}]}, {"a": True}, True),
        ({"a": [{"anything-but": ["x", "y"]}]}, {"a": "y"}, False),
        ({"a": [{"anything-but": {"prefix": ["x", "y"]}}]}, {"a": "yes"}, False),
        ({"a": [{"anything-but": {"prefix": ["x", "y"]}}]}, {"a": "no"}, True),
        ({"a": [{"anything-but": {"suffix": "o"}}]}, {"a": "no"}, False),
        ({"a": [{"anything-but": {"suffix": ["o", "s"]}}]}, {"a": "yes"}, False),
        ({"a": [{"anything-but": {"equals-ignore-case": "NO"}}]}, {"a": "no"}, False),
        ({"a": [{"anything-but": {"equals-ignore-case": ["NO", "YES"]}}]}, {"a": "yes"}, False),
        ({"a": [{"anything-but": {"wildcard": "*/lib/*"}}]}, {"a": "/lib/"}, False),
        ({"a": [{"anything-but": {"wildcard": ["*/lib/*", "*.so"]}}]}, {"a": "x.so"}, False),
        ({"a": [{"anything-but": {"wildcard": ["*/lib/*", "*.so"]}}]}, {"a": 5}, True),
        ({"a": [{"anything-but": "x"}, "x"]}, {"a": "x"}, True),
        # numeric
        ({"a": [{"numeric": [">", 0]}]}, {"a": 0}, False),
        ({"a": [{"numeric": [">=", 0]}]}, {"a": 0}, True),
        ({"a": [{"numeric": ["<", 0]}]}, {"a": -0.001}, True),
        ({"a": [{"numeric": ["<=", 0]}]}, {"a": 0.001}, False),
        ({"a": [{"numeric": ["=", 0]}]}, {"a": 0.0}, True),
        ({"a": [{"numeric": [">", 1, "<", 2]}]}, {"a": 1.5}, True),
        ({"a": [{"numeric": [">", 1, "<", 2]}]}, {"a": 2}, False),
        ({"a": [{"numeric": [">", 1, "<=", 2]}]}, {"a": 2}, True),
        ({"a": [{"numeric": [">=", 1, "<", 2]}]}, {"a": 1}, True),
        ({"a": [{"numeric": [">=", 1, "<=", 2]}]}, {"a": 2.0000001}, False),
        ({"a": [{"numeric": [">", 0]}]}, {"a": "1"}, False),
        ({"a": [{"numeric": [">", 0]}]}, {"a": True}, False),
        ({"a": [{"numeric": [">", 0]}]}, {"a": [-1, 3]}, True),
        ({"a": [{"numeric": [">", 6e9]}]}, {"a": 7_000_000_000}, True),
        ({"a": [{"numeric": [">", 0]}]}, {"a": float("nan")}, False),
        # cidr
        ({"a": [{"cidr": "10.0.0.1/32"}]}, {"a": "10.0.0.1"}, True),
        ({"a": [{"cidr": "10.0.0.1/32"}]}, {"a": "10.0.0.2"}, False),
        ({"a": [{"cidr": "0.0.0.0/0"}]}, {"a": "255.255.255.255"}, True),
        ({"a": [{"cidr": "10.1.2.3/8"}]}, {"a": "10.200.0.1"}, True),
        ({"a": [{"cidr": "2001:db8::/32"}]}, {"a": "2001:0db8::1"}, True),
        ({"a": [{"cidr": "2001:db8::1/128"}]}, {"a": "2001:db8:0:0:0:0:0:1"}, True),
        ({"a": [{"cidr": "2001:db8::/32"}]}, {"a": "2001:db9::"}, False),
        ({"a": [{"cidr": "::/0"}]}, {"a": "10.0.0.1"}, False),
        ({"a": [{"cidr": "0.0.0.0/0"}]}, {"a": "::ffff:10.0.0.1"}, False),
        ({"a": [{"cidr": "10.0.0.0/8"}, {"cidr": "::/0"}]}, {"a": "::1"}, True),
        ({"a": [{"cidr": "10.0.0.0/8"}]}, {"a": "10.0.0"}, False),
        ({"a": [{"cidr": "10.0.0.0/8"}]}, {"a": "010.0.0.1"}, False),
        ({"a": [{"cidr": "10.0.0.0/8"}]}, {"a": "10.0.0.1\x00"}, False),
        ({"a": [{"cidr": "10.0.0.0/8"}]}, {"a": "\ud80010.0.0"}, False),
        ({"a": [{"cidr": "10.0.0.0/8"}]}, {"a": ""}, False),
        ({"a": [{"cidr": "10.0.0.0/8"}]}, {"a": 167772161}, False),
        ({"a": [{"cidr": "fe80::/10"}]}, {"a": "fe80::1%eth0"}, False),
        # exists: about leaves
        ({"detail": {"list": [{"exists": True}]}}, EC2, False),
        ({"detail": {"list": [{"exists": False}]}}, EC2, True),
        ({"detail": {"object": [{"exists": False}]}}, EC2, True),
        ({"detail": {"nothing": [{"exists": True}]}}, EC2, True),
        ({"detail": [{"exists": True}]}, EC2, False),
        ({"detail": [{"exists": False}]}, EC2, True),
        ({"a": {"b": [{"exists": False}]}}, {}, True),
        ({"a": {"b": [{"exists": False}]}}, {"a": 5}, True),
        ({"a": {"b": [{"exists": False}]}}, {"a": None}, True),
        ({"a": {"b": [{"exists": True}]}}, {"a": 5}, False),
        ({"a": [{"exists": False}, "x"]}, {}, True),
        ({"a": [{"exists": False}, "x"]}, {"a": "x"}, True),
        ({"a": [{"exists": False}, "x"]}, {"a": "y"}, False),
        ({"a": [{"exists": False}, "x"]}, {"a": ["y", "x"]}, True),
        ({"a": [{"exists": False}, "x"]}, {"a": [[], {}]}, True),
        ({"a": [{"exists": True}, {"exists": False}]}, {"a": "y"}, True),
        ({"a": [{"exists": True}]}, {"a": [[1]]}, True),
        ({"a": [{"exists": True}]}, {"a": False}, True),
        # arrays of values
        ({"a": ["x", "y"]}, {"a": ["z", "y"]}, True),
        ({"a": ["x"]}, {"a": [["z"], ["x"]]}, True),
        ({"a": ["x"]}, {"a": ["z", {"a": "x"}]}, False),
        ({"a": [True]}, {"a": [1, False, True]}, True),
        ({"a": [1]}, {"a": [True]}, False),
        ({"a": [None]}, {"a": [1, None]}, True),
        ({"a": [None]}, {"a": [1]}, False),
        ({"a": [1]}, {"a": [None, False]}, False),
        ({"a": [2.0]}, {"a": [1, 2]}, True),
        # arrays of objects: one element must satisfy all
        ({"employees": {"firstName": ["Anna"]}}, EMPLOYEES, True),
        ({"employees": {"firstName": ["Anna"], "lastName": ["Smith"]}}, EMPLOYEES, True),
        ({"employees": {"firstName": ["Anna"], "lastName": ["Jones"]}}, EMPLOYEES, False),
        ({"employees": {"lastName": ["Jones"], "boss": {"name": ["Anna"]}}}, EMPLOYEES, True),
        ({"employees": {"lastName": ["Doe"], "boss": {"name": ["Anna"]}}}, EMPLOYEES, False),
        ({"employees": {"tags": ["b"], "lastName": ["Smith"]}, "office": ["Bern"]}, EMPLOYEES, True),
        ({"employees": {"firstName": ["John"], "tags": [{"exists": False}]}}, EMPLOYEES, True),
        ({"employees": {"firstName": ["Anna"], "tags": [{"exists": False}]}}, EMPLOYEES, False),
        ({"employees": {"tags": [{"exists": False}]}}, EMPLOYEES, False),
        ({"employees": {"salary": [{"exists": False}]}}, EMPLOYEES, True),
        ({"employees": {"tags": [{"exists": False}, "b"]}}, EMPLOYEES, True),
        ({"employees": {"firstName": ["Anna"], "age": [{"exists": False}]}}, EMPLOYEES, True),
        ({"employees": {"boss": {"name": [{"exists": False}]}}}, EMPLOYEES, False),
        ({"employees": {"boss": {"age": [{"exists": False}]}}}, EMPLOYEES, True),
        ({"employees": ["John"]}, EMPLOYEES, False),
        ({"office": {"x": ["y"]}}, EMPLOYEES, False),
        ({"rows": {"a": [1], "b": [2]}}, NESTED, True),
        ({"rows": {"a": [3], "b": [2]}}, NESTED, False),
        ({"rows": {"a": [3], "b": [{"exists": False}]}}, NESTED, True),
        ({"rows": {"b": [4], "a": [{"exists": False}]}}, NESTED, True),
        ({"rows": [7]}, NESTED, True),
        ({"rows": {"c": [{"exists": False}]}}, {"rows": []}, True),
        ({"rows": {"c": [1]}}, {"rows": []}, False),
        # $or
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 1}, True),
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2}, True),
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 2, "b": 1}, False),
        ({"x": [0], "$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2}, False),
        ({"d": {"$or": [{"a": [1]}, {"b": {"c": [2]}}]}}, {"d": {"b": {"c": 2}}}, True),
        ({"$or": [{"a": [1]}, {"b": [2], "$or": [{"c": [3]}, {"d": [4]}]}]}, {"b": 2, "d": 4}, True),
        ({"$or": [{"a": [1]}, {"b": [2], "$or": [{"c": [3]}, {"d": [4]}]}]}, {"b": 2}, False),
        ({"$or": [{"a": [1]}, {"b": [{"exists": False}]}]}, {}, True),
        ({"employees": {"$or": [{"firstName": ["x"]}, {"age": [40]}]}}, EMPLOYEES, True),
        (
            {"employees": {"lastName": ["Doe"], "$or": [{"age": [41]}, {"firstName": ["Anna"]}]}},
            EMPLOYEES,
            False,
        ),
        (
            # the branch and its surroundings look into the same array
            {"employees": {"firstName": ["Anna"]}, "$or": [{"employees": {"age": [40]}}, {"z": [1]}]},
            EMPLOYEES,
            False,
        ),
        (
            {"employees": {"firstName": ["John"]}, "$or": [{"employees": {"age": [40]}}, {"z": [1]}]},
            EMPLOYEES,
            True,
        ),
        (
            {
                "$or": [{"employees": {"firstName": ["Anna"]}}, {"z": [1]}],
                "employees": {"age": [{"exists": False}]},
            },
            EMPLOYEES,
            True,
        ),
        ({"a": [1, 2], "$or": [{"a": [2]}, {"b": [1]}]}, {"a": 2}, True),
        ({"a": [1, 2], "$or": [{"a": [2]}, {"b": [1]}]}, {"a": 1}, False),
        (
            {"rows": {"$or": [{"a": [{"exists": False}]}, {"b": [{"exists": False}]}]}},
            {"rows": [{"a": 1}, {"b": 1}]},
            False,
        ),
        (
            {"rows": {"$or": [{"a": [{"exists": False}]}, {"b": [{"exists": False}]}]}},
            {"rows": [{"a": 1}, {"c": 1}]},
            True,
        ),
        # several operators on one field: any of them
        ({"a": [{"prefix": "x"}, {"suffix": "y"}, {"wildcard": "*m*n*"}, "q"]}, {"a": "ay"}, True),
        ({"a": [{"prefix": "x"}, {"suffix": "y"}, {"wildcard": "*m*n*"}, "q"]}, {"a": "1m2n3"}, True),
        ({"a": [{"prefix": "x"}, {"suffix": "y"}, {"wildcard": "*m*n*"}, "q"]}, {"a": "nm"}, False),
        ({"a": [1, {"numeric": ["<", 0]}, {"numeric": [">", 9]}, {"prefix": "x"}]}, {"a": 10}, True),
        ({"a": [1, {"numeric": ["<", 0]}, {"numeric": [">", 9]}, {"prefix": "x"}]}, {"a": 5}, False),
        ({"rows": {"$or": [{"a": [1]}, {"b": [{"exists": False}]}]}}, {"rows": [{"a": 2}, {"c": 1}]}, True),
        ({"rows": {"$or": [{"a": [1]}, {"b": [{"exists": False}]}]}}, {"rows": [{"a": 2}, {"b": 1}]}, False),
        ({"a": {"b": [{"exists": False}]}}, {"a": [{"b": [{}, [{"c": 1}]]}]}, True),
        # events that are not what one expects
        ({"a": [{"exists": False}]}, {}, True),
        ({"a": [{"exists": True}]}, {"a": {1, 2}}, False),
    ],
    ids=_short,
)
def test_a_pattern_matches_an_event(pattern: dict[str, Any], event: Any, expected: bool) -> None:
    compiled = compile(pattern)
    assert compiled.matches(event) is expected
    assert (compiled.explain(event) is None) is expected
    assert compile(json.dumps(pattern)).matches(event) is expected
    plain = json.dumps(event, default=lambda _: {})
    if "NaN" not in plain:
        assert pattern_oracle.matches(pattern, json.loads(plain)) is expected
    if expected:
        for requirement in compiled.exact_requirements():
            assert requirement.values & index_keys_at(event, requirement.path)


@pytest.mark.parametrize("event", [None, [], [{"a": 1}], "a", 5])
def test_what_is_not_an_object_never_matches(event: Any) -> None:
    compiled = compile({"a": [{"exists": False}, 1]})
    assert compiled.matches(event) is False
    mismatch = compiled.explain(event)
    assert mismatch is not None
    assert mismatch.path == "$"


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ({"a": ["x"]}, {"a": "y"}, '$.a: expected "x", got "y"'),
        ({"a": ["x", 1]}, {}, '$.a: expected "x" or 1, got nothing'),
        ({"a": ["x"], "b": ["y"]}, {"a": "x"}, '$.b: expected "y", got nothing'),
        ({"a": {"b c": [True]}}, {"a": {"b c": None}}, '$.a["b c"]: expected true, got null'),
        ({"a": {"b": [1]}}, {}, "$.a.b: expected 1, got nothing"),
        ({"a": {"b": [1]}, "c": {"d": [1]}}, {"a": {"b": 1}}, "$.c.d: expected 1, got nothing"),
        (
            {"$or": [{"a": [1]}, {"b": [2]}], "c": {"$or": [{"a": [1]}, {"b": [2]}]}},
            {"a": 1, "c": {}},
            "$.c.$or: expected one of 2 alternatives, "
            "got none ($.c.a: expected 1, got nothing; $.c.b: expected 2, got nothing)",
        ),
        (
            {"$or": [{"a": [1]}, {"b": [2]}], "x": {"$or": [{"z": [1]}, {"y": [1]}], "$or ": [1]}},
            {"a": 1, "x": {"z": 1}},
            '$.x["$or "]: expected 1, got nothing',
        ),
        (
            {
                "o": {"x": [1], "$or": [{"a": [1]}, {"b": [1]}]},
                "$or": [{"o": {"$or": [{"c": [1]}, {"d": [1]}]}}, {"o": {"$or": [{"c": [2]}, {"d": [2]}]}}],
            },
            {"o": {"x": 1, "a": 1, "c": 3}},
            "$.$or: expected one of 2 alternatives, got none "
            "($.o.$or: expected one of 2 alternatives, got none ($.o.c: expected 1, got 3; "
            "$.o.d: expected 1, got nothing); $.o.$or: expected one of 2 alternatives, got none "
            "($.o.c: expected 2, got 3; $.o.d: expected 2, got nothing))",
        ),
        ({"a": {"b": [1]}}, {"a": 5}, "$.a.b: expected 1, got nothing"),
        ({"a": [1]}, {"a": {"b": 1}}, "$.a: expected 1, got an object of 1"),
        ({"a": [1]}, {"a": [2, 3]}, "$.a: expected 1, got [2, 3]"),
        ({"a": [1]}, {"a": [2] * 9}, "$.a: expected 1, got an array of 9"),
        ({"a": [1]}, {"a": [[2]]}, "$.a: expected 1, got an array of 1"),
        (
            {"a": list(range(9))},
            {},
            "$.a: expected 0 or 1 or 2 or 3 or 4 or 5 or 6 or 7 or 1 more, got nothing",
        ),
        ({"a": [1]}, {"a": "z" * 500}, f'$.a: expected 1, got "{"z" * 120}…"'),
        ({"a": ["z" * 500]}, {}, f'$.a: expected "{"z" * 99}…, got nothing'),
        (
            {"a": [{"numeric": [">", 5]}]},
            {"a": 1},
            '$.a: expected {"numeric": [">", 5]}, got 1',
        ),
        (
            {"employees": {"firstName": ["Anna"], "lastName": ["Jones"]}},
            EMPLOYEES,
            "$.employees: expected one element that matches all of: firstName, lastName, got 3 that do not",
        ),
        (
            {"employees": {"firstName": ["Zoe"]}},
            EMPLOYEES,
            '$.employees[*].firstName: expected "Zoe", got "John", "Anna", "Peter"',
        ),
        (
            {"employees": {"tags": [{"exists": False}]}},
            EMPLOYEES,
            '$.employees[*].tags: expected {"exists": false}, got nothing, ["a", "b"], nothing',
        ),
        ({"rows": {"a": [1]}}, {"rows": []}, "$.rows[*].a: expected 1, got no object"),
        (
            {"rows": {"a": [1]}},
            {"rows": [{"a": i} for i in range(2, 9)]},
            "$.rows[*].a: expected 1, got 2, 3, 4, 5, 6 and 2 more",
        ),
        ({"rows": {"a": [1]}}, {"rows": [{"a": 2}]}, "$.rows[0].a: expected 1, got 2"),
        (
            {"rows": {"a": {"b": [1]}, "c": [{"exists": False}]}},
            {"rows": [{"a": 1}, {}]},
            "$.rows: expected one element that matches all of: c, a, got 2 that do not",
        ),
        (
            {"rows": {"$or": [{"a": [1]}, {"b": [1]}]}},
            {"rows": [{"a": 2}, {}]},
            "$.rows: expected one element that matches all of: one alternative, got 2 that do not",
        ),
        (
            {"$or": [{"a": [1]}, {"b": [2]}]},
            {"a": 3},
            "$.$or: expected one of 2 alternatives, got none ($.a: expected 1, got 3; $.b: expected 2, got nothing)",
        ),
        (
            {"$or": [{c: [1]} for c in "abcdef"]},
            {},
            "$.$or: expected one of 6 alternatives, got none ($.a: expected 1, got nothing; "
            "$.b: expected 1, got nothing; $.c: expected 1, got nothing; $.d: expected 1, got nothing; …)",
        ),
    ],
    ids=_short,
)
def test_an_explanation_names_the_first_field_that_failed(
    pattern: dict[str, Any], event: dict[str, Any], expected: str
) -> None:
    assert str(compile(pattern).explain(event)) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"a": ["x"]}, {("a",): {"x"}}),
        ({"a": ["x", None, 1], "b": [{"prefix": "y"}]}, {("a",): {"x", None, 1}}),
        ({"a": {"b": [True]}}, {("a", "b"): {(True,)}}),
        ({"a": [{"numeric": ["=", 5]}, {"exactly": "x"}]}, {("a",): {5, "x"}}),
        ({"a": ["x", {"exists": False}]}, {}),
        ({"a": [{"anything-but": "x"}]}, {}),
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {}),
        ({"$or": [{"a": [1], "c": [3]}, {"a": [2]}]}, {("a",): {1, 2}}),
        ({"a": [9], "$or": [{"a": [1]}, {"a": [2]}]}, {("a",): {9}}),
        (
            {"d": {"t": [1]}, "$or": [{"d": {"a": [1]}}, {"d": {"a": [2]}}]},
            {("d", "t"): {1}, ("d", "a"): {1, 2}},
        ),
    ],
    ids=lambda value: repr(list(value))[:50],  # a set in the name would be in another order in every process
)
def test_exact_requirements_are_what_an_index_can_use(
    pattern: dict[str, Any], expected: dict[tuple[str, ...], set[Any]]
) -> None:
    found = compile(pattern).exact_requirements()
    assert {requirement.path: set(requirement.values) for requirement in found} == expected
    assert all(isinstance(requirement, ExactRequirement) for requirement in found)


def test_index_keys_keep_types_apart_and_numbers_together() -> None:
    assert index_key(1) == index_key(1.0)
    assert len({index_key(value) for value in (1, True, "1", None, 0, False, "")}) == 7
    event = {"a": [{"b": [1, [True, "x"]]}, {"b": None}, {"c": 5}, [{"b": {"no": 1}}]], "b": 7}
    assert index_keys_at(event, ("a", "b")) == {1, (True,), "x", None}
    assert index_keys_at(event, ("b",)) == {7}
    assert index_keys_at(event, ("c",)) == set()
