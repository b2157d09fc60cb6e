"""The matcher against a slow, obvious one, on random patterns and events."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from execution.patterns import PatternError, compile, index_keys_at
from tests.execution.patterns import oracle as pattern_oracle

KEYS = st.sampled_from("abc")
TEXTS = st.text(alphabet="aAb.*", max_size=4)
NUMBERS = st.sampled_from([0, 1, 1.0, 2, -1, 0.5, 2.0, 10**20])
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.1.1", "11.0.0.1", "::1", "2001:db8::1", "10.0.0", "x"])
SCALARS = st.one_of(TEXTS, NUMBERS, st.booleans(), st.none(), ADDRESSES)
EVENTS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)

IGNORE_CASE = TEXTS.map(lambda text: {"equals-ignore-case": text})
ONE_OR_MORE = st.one_of(TEXTS.filter(bool), st.lists(TEXTS.filter(bool), min_size=1, max_size=2))
WILDCARDS = TEXTS.map(lambda text: _single_stars(text))


def _single_stars(text: str) -> str:
    while "**" in text:
        text = text.replace("**", "*")
    return text


def _range(two: tuple[float, float], low: str, high: str) -> dict[str, Any]:
    bottom, top = sorted(two)
    return {"numeric": [low, bottom, high, top if top > bottom else bottom + 1]}


VALUES = st.one_of(
    SCALARS,
    TEXTS.map(lambda text: {"exactly": text}),
    st.one_of(TEXTS, IGNORE_CASE).map(lambda text: {"prefix": text}),
    st.one_of(TEXTS, IGNORE_CASE).map(lambda text: {"suffix": text}),
    IGNORE_CASE,
    WILDCARDS.map(lambda text: {"wildcard": text}),
    st.one_of(
        TEXTS,
        NUMBERS,
        st.lists(TEXTS, min_size=1, max_size=2),
        st.lists(NUMBERS, min_size=1, max_size=2),
        st.tuples(st.sampled_from(["prefix", "suffix", "equals-ignore-case"]), ONE_OR_MORE).map(
            lambda pair: {pair[0]: pair[1]}
        ),
        WILDCARDS.map(lambda text: {"wildcard": text}),
    ).map(lambda value: {"anything-but": value}),
    st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), NUMBERS).map(lambda pair: {"numeric": list(pair)}),
    st.tuples(st.tuples(NUMBERS, NUMBERS), st.sampled_from([">", ">="]), st.sampled_from(["<", "<="])).map(
        lambda parts: _range(*parts)
    ),
    st.booleans().map(lambda value: {"exists": value}),
    st.just({"exists": False}),
    st.sampled_from(["10.0.0.0/24", "10.0.0.1/32", "0.0.0.0/0", "::/0", "2001:db8::/32"]).map(
        lambda block: {"cidr": block}
    ),
)
LEAVES = st.lists(VALUES, min_size=1, max_size=2)


def _with_or(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.dictionaries(KEYS, inner, min_size=1, max_size=3)
    branches = st.lists(objects, min_size=2, max_size=3)
    return st.one_of(
        objects,
        st.tuples(st.dictionaries(KEYS, inner, max_size=2), branches).map(lambda parts: {**parts[0], "$or": parts[1]}),
    )


PATTERNS = st.recursive(LEAVES, _with_or, max_leaves=5).filter(lambda value: isinstance(value, dict))


@settings(max_examples=1500, deadline=None)
@given(PATTERNS, st.lists(EVENTS, min_size=1, max_size=4))
def test_it_agrees_with_the_oracle(pattern: dict[str, Any], events: list[dict[str, Any]]) -> None:
    try:
        compiled = compile(pattern)
    except PatternError as error:
        if error.rule == "both-kinds":
            return
        raise
    for event in events:
        expected = pattern_oracle.matches(pattern, event)
        assert compiled.matches(event) is expected
        assert (compiled.explain(event) is None) is expected
        if expected:
            for requirement in compiled.exact_requirements():
                assert requirement.values & index_keys_at(event, requirement.path)


@settings(max_examples=300, deadline=None)
@given(TEXTS.map(_single_stars), st.text(alphabet="aAb.*", max_size=12))
def test_a_wildcard_agrees_with_backtracking(wildcard: str, text: str) -> None:
    pattern = {"a": [{"wildcard": wildcard}]}
    assert compile(pattern).matches({"a": text}) is pattern_oracle.matches(pattern, {"a": text})


JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "$or", "prefix", "anything-but", "numeric", "cidr", "exists", "wildcard", "suffix"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=500, deadline=None)
@given(JUNK)
def test_any_json_compiles_or_is_refused_with_a_pattern_error(junk: Any) -> None:
    for source in (junk, json.dumps(junk)):
        with contextlib.suppress(PatternError):
            compiled = compile(source)
            assert compiled.matches({"a": junk}) in (True, False)
            assert compiled.matches({}) in (True, False)
