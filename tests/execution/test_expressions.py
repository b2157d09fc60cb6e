"""Templates with ``${{ … }}``: what they mean, what is refused when, and what they cost."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from decimal import Decimal
from typing import Any

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execution import expressions
from execution.expression_query import Budget, QueryError, compile_query
from execution.expressions import (
    ExpressionError,
    Reference,
    Roots,
    compile_expression,
    compile_template,
    references,
)
from tests.patience import PATIENCE


def _short(value: object) -> str | None:
    return repr(value)[:40] if isinstance(value, str | dict | list) else None


SCOPE: dict[str, Any] = {
    "input": {"day": "2026-07-01", "n": 3, "ratio": 0.5, "flag": True, "nothing": None, "é": "ü"},
    "steps": {
        "extract": {
            "state": "succeeded",
            "output": {"parts": [{"name": "a", "size": 4}, {"name": "b", "size": 1}], "text": "x}}y"},
        },
        "load-data": {"state": "failed", "output": None, "error": {"type": "ValueError"}},
    },
    "item": {"id": 7},
    "execution": {"id": "0190-7", "attempt": 2},
}


def render(value: Any, scope: dict[str, Any] = SCOPE, **limits: int) -> Any:
    return compile_template(value).render(scope, **limits)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        # one expression: the value itself
        ("${{ input.n }}", 3),
        ("${{input.n}}", 3),
        ("${{\n input.n\t}}", 3),
        ("${{ input.flag }}", True),
        ("${{ input.nothing }}", None),
        ("${{ input.missing.deeper }}", None),
        ("${{ steps.extract.output.parts[?size > `3`].name }}", ["a"]),
        ("${{ steps.extract.output.parts[*].size | sum(@) }}", 5),
        ('${{ steps."load-data".error.type }}', "ValueError"),
        ("${{ item.id }}", 7),
        ("${{ execution.attempt }}", 2),
        ("${{ steps.unknown.output }}", None),
        ("${{ {day: input.day, ids: [item.id]} }}", {"day": "2026-07-01", "ids": [7]}),
        ("${{ {a: {b: input.n}}}}", {"a": {"b": 3}}),
        ("${{ input.missing || 'default' }}", "default"),
        ("${{ input.n == `3` && input.flag }}", True),
        ("${{ !(input.flag) }}", False),
        # braces and quotes inside an expression do not end it
        ("${{ '}}' }}", "}}"),
        ("${{ input.missing || '\\'}}' }}", "'}}"),
        ('${{ input."}}" }}', None),
        ('${{ `"}}"` }}', "}}"),
        # embedded: text
        ("day ${{ input.day }}.", "day 2026-07-01."),
        ("${{ input.day }}${{ input.n }}", "2026-07-013"),
        (" ${{ input.n }}", " 3"),
        ("${{ input.ratio }} ${{ input.flag }} ${{ input.nothing }}", "0.5 true null"),
        ("parts=${{ steps.extract.output.parts[0] }}", 'parts={"name":"a","size":4}'),
        ('${{ input."é" }} ${{ {k: input."é"} }}', 'ü {"k":"ü"}'),
        # escapes
        ("$${{ input.n }}", "${{ input.n }}"),
        ("a $${{ b }} ${{ input.n }} $${{", "a ${{ b }} 3 ${{"),
        ("${{ '$' }}${{ input.n }}", "$3"),
        ("$${{", "${{"),
        # no expression: unchanged
        ("", ""),
        ("plain }} text {{ $ { }", "plain }} text {{ $ { }"),
        ("$ {{ input.n }}", "$ {{ input.n }}"),
        # containers and other values
        ({"a": ["${{ input.n }}", {"b": "${{ item }}"}]}, {"a": [3, {"b": {"id": 7}}]}),
        ({"$${{ k }}": 1}, {"${{ k }}": 1}),
        (("${{ input.n }}", 1), [3, 1]),
        (None, None),
        (1.5, 1.5),
        (False, False),
        ([], []),
        ({}, {}),
    ],
)
def test_a_template_renders(template: Any, expected: Any) -> None:
    assert render(template) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("to_number('12')", 12),
        ("to_number('-1.5e2')", -150.0),
        ("to_number('nan')", None),
        ("to_number('1e999')", None),
        ("to_number('１２')", None),
        ("to_number(' 12')", None),
        ("to_number('1_000')", None),
        ("to_number(input.flag)", None),
        ("to_number(input.nothing)", None),
        ("to_number(input.n)", 3),
        ("to_number(to_string(`1e3`))", 1000.0),
        ("to_string(input.n)", "3"),
        ("to_string('é')", "é"),
        ('to_string(input."é")', "ü"),
        ("to_string([input.flag, input.nothing, 'é'])", '[true,null,"é"]'),
        ("contains('abc', 'b')", True),
        ("contains('abc', `1`)", False),
        ("contains([`1`, `true`], `1.0`)", True),
        ("contains([`1`], `true`)", False),
        ("contains([[`1`]], [`true`])", False),
        ("to_number('')", None),
        ("input.flag == `true`", True),
        ("input.n == `4`", False),
        ("`true` < `2`", None),
        ("[`2`, `1`] < `2`", None),
        ("contains([{a: `1`}], {a: `1`})", True),
        ("contains([{a: `1`}], {b: `1`})", False),
        ("contains([[`1`, `2`]], [`1`])", False),
        ("[`1`] == [`true`]", False),
        ("[`1`] == [`1.0`]", True),
        ("{a: `1`} != {a: `true`}", True),
        ("`1` == `true`", False),
        ("`0` != `false`", True),
        ("input.day < '2027'", True),
        ("input.n >= `3`", True),
        ("input.day < `3`", None),
        ("join('-', ['a', 'b'])", "a-b"),
        ("merge({a: `1`}, {b: `2`})", {"a": 1, "b": 2}),
        ("[[`1`], `2`][]", [1, 2]),
        ("[`1`, `2`, `3`][::-1]", [3, 2, 1]),
        ("input[0:2]", None),
        ("input[]", None),
        ("map(&to_string(@), [`1`])", ["1"]),
        ("sort_by(steps.extract.output.parts, &size)[0].name", "b"),
        ("steps.*.state", ["succeeded", "failed"]),
        ("not_null(input.missing, input.n)", 3),
        ("keys(item)", ["id"]),
        ("avg(`[]`)", None),
    ],
)
def test_an_expression_evaluates(expression: str, expected: Any) -> None:
    value = compile_expression(expression).render(SCOPE)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("template", "path", "reason", "position"),
    [
        ("${{ }}", "$", "the expression is empty", 4),
        ("${{}}", "$", "the expression is empty", 3),
        ("a ${{ input.n", "$", "never closed", 2),
        ("a ${{ 'input.n }}", "$", "never closed", 2),
        ("${{ input.n } }", "$", "never closed", 0),
        ("${{ input.n \\", "$", "never closed", 0),
        ("${{ '\\", "$", "never closed", 0),
        ({"a": [{"b c": "${{ input..n }}"}]}, '$.a[0]["b c"]', "got: dot", 10),
        ("${{ input. }}", "$", "incomplete", 10),
        ("${{ input.a-b }}", "$", "in quotes", 11),
        ("${{ input.n ) }}", "$", "Unexpected token", 12),
        ("${{ inputs.n }}", "$", "unknown name 'inputs', did you mean input?", 4),
        ("${{ input.a || qqq.b }}", "$", r"unknown name 'qqq' \(known: execution, input, item, secrets, steps\)", 15),
        ("${{ {a: {b: stepz.x}} }}", "$", "did you mean steps", 12),
        ("${{ secret }}", "$", "unknown name", 4),
        ('${{ "in\\u0070uts" }}', "$", "unknown name", 4),
        ("${{ nofunc(input) }}", "$", r"unknown function nofunc\(\)", 3),
        ("${{ lenght(input) }}", "$", "did you mean length", 3),
        ("${{ length(input, item) }}", "$", r"length\(\) takes 1 argument\(s\), not 2", 3),
        ("${{ not_null() }}", "$", "at least 1", 3),
        ("${{ map(input, item) }}", "$", "argument 1 of map.* must be an &expression", 3),
        ("${{ length(&input) }}", "$", "must be a value", 3),
        ("${{ not_null(input, &item) }}", "$", "argument 2 of not_null.* must be a value", 3),
        ("${{ &input }}", "$", "may only be an argument", 4),
        ("${{ [&input] }}", "$", "may only be an argument", 3),
        ("${{ !input.flag }}", "$", r"write !\(a\.b\)", 3),
        ("${{ !input.* }}", "$", r"write !\(a\.b\)", 3),
        ("${{ input[::0] }}", "$", "slice cannot be 0", 3),
        ("${{ `NaN` }}", "$", "finite", 3),
        ('${{ `{"a": [1e999]}` }}', "$", "finite", 3),
        ('${{ `"\\ud800"` }}', "$", "surrogates", 3),
        ("${{ '\x00' }}", "$", "NUL", 3),
        ("${{ `" + "[" * 1500 + "]" * 400 + "` }}", "$", "[Bb]ad token|deeply", None),
        ("${{ " + "(" * 900 + "input" + ")" * 900 + " }}", "$", "too deeply", 4),
        ("${{ input" + "|input" * 60 + " }}", "$", "deeper than 50", 4),
        ("${{ [" + ",".join(["item"] * 390) + "] }}", "$", None, None),
        ("${{ [" + ",".join(["@"] * 550) + "," * 1 + "[@,@,@,@,@,@]] }}", "$", "more than 500 parts", 4),
        ("${{ '" + "x" * 2000 + "' }}", "$", "longer than 2000", 4),
        ({"${{ input.n }}": 1}, "$", "key cannot hold an expression", 3),
        ({"a": {"x${{": 1}}, "$.a", "never closed", 1),
        ({1: 2}, "$", "key 1 is not a string", None),
        ([float("nan")], "$[0]", "not a JSON value", None),
        ([float("inf")], "$[0]", "not a JSON value", None),
        ({"a": Decimal(1)}, "$.a", "Decimal", None),
        ({"a": {1, 2}}, "$.a", "set", None),
        (["${{ item }}"] * 1001, "$[1000]", "more than 1000 expressions", None),
    ],
    ids=_short,
)
def test_a_mistake_is_found_when_compiling(template: Any, path: str, reason: str | None, position: int | None) -> None:
    if reason is None:
        compile_template(template)
        return
    with pytest.raises(ExpressionError, match=reason) as caught:
        compile_template(template)
    assert caught.value.path == path
    if position is not None:
        assert caught.value.position == position
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 800
    assert isinstance(caught.value, ValueError)


def test_a_template_nested_too_deeply_is_refused() -> None:
    value: Any = "${{ input }}"
    for _ in range(200):
        value = [value]
    with pytest.raises(ExpressionError, match="nested deeper than 64"):
        compile_template(value)


def test_the_path_given_by_the_caller_leads_every_message() -> None:
    with pytest.raises(ExpressionError, match=r"^\$\.steps\.load\.with\.day: "):
        compile_template({"day": "${{ nope }}"}, path="$.steps.load.with")
    with pytest.raises(ExpressionError, match=r"^\$\.output: "):
        compile_expression("nope", path="$.output")


@pytest.mark.parametrize(
    ("expression", "scope", "reason"),
    [
        ("sum(input)", {"input": {"a": 1}}, r"sum\(\) expects array-number, not object"),
        ("length(input)", {"input": None}, r"length\(\) expects .*, not null"),
        ("sort_by(input, &a)", {"input": [{"a": 1}, {"a": "x"}]}, "sort_by"),
        ("sort_by(input, &a)", {"input": [{"a": []}]}, "sort_by"),
        ("max(input)", {"input": [1, "a"]}, "max"),
        ("sum(input)", {"input": [1e308, 1e308]}, "number that JSON cannot"),
        ("ceil(sum(input))", {"input": [1e308, 1e308]}, "cannot be evaluated"),
        ("input", {"input": Decimal(1)}, "Decimal, not JSON"),
        ("input", {"input": "x" * 2000}, "larger than 1000 bytes"),
        ("input", {"input": ["x"] * 400}, "larger than 1000 bytes"),
        ("input", {"input": {"é" * 600: 1}}, "larger than 1000 bytes"),
        ("input", {"input": 10**4000}, "larger than 1000 bytes"),
        ("input", {"input": [[[[[[[[[[[1]]]]]]]]]]]}, "nested deeper than 10"),
    ],
)
def test_a_rendering_that_fails_says_where_and_why(expression: str, scope: dict[str, Any], reason: str) -> None:
    template = compile_template({"with": {"x": "${{ " + expression + " }}"}})
    with pytest.raises(ExpressionError, match=reason) as caught:
        template.render(scope, max_bytes=1000, max_depth=10)
    assert caught.value.path == "$.with.x"


@pytest.mark.parametrize(
    "template",
    [["x" * 600, "y" * 600], {"x" * 1100: 1}, ["", *[1] * 900], {"a": "${{ input }}-" + "z" * 1100}],
)
def test_the_size_cap_counts_the_whole_template(template: Any) -> None:
    compile_template(template).render({}, max_bytes=3000)
    with pytest.raises(ExpressionError, match="larger than 1000 bytes"):
        compile_template(template).render({}, max_bytes=1000)


HOSTILE = {
    "doubling": "[@,@]" + "|[@,@]" * 40,
    "doubling object": "{a:@,b:@}" + "|{a:@,b:@}" * 40,
    "flatten": "[@,@]" + "|[@[],@[]][]|[@,@]" * 15,
    "to_string": "to_string(" + "[@,@]|" * 30 + "@)",
    "join": "join('',[@,@])" + "|join('',[@,@])" * 40,
    "equality": "[@,@]" + "|[@,@]" * 22 + "|@ == [[@[0]]]",
    "equality of equals": "[[@,@]" + "|[@,@]" * 22 + ",[@,@]" + "|[@,@]" * 22 + "]|[0] == [1]",
    "contains": "[@,@]" + "|[@,@]" * 22 + "|contains([@], [@])",
    "map": "[@,@]" + "|map(&[@,@],@)[]" * 16,
    "slices": "[@,@]" + "|[[@,@],[@,@]][][]|@[:]" * 12,
    "merge": "{a:@}" + "|{a:merge(@,@),b:merge(@,@)}" * 20,
    "sort": "[@,@]" + "|[sort(['b','a']),@][]|[@,@][]" * 15,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_expression_is_refused_quickly(name: str) -> None:
    started = time.process_time()
    with pytest.raises(ExpressionError):
        compile_expression(f"'abcd' | {HOSTILE[name]}").render({})
    # About 0.1 s; CPython 3.11 can be ten times slower where a call happens to cross a chunk of its stack.
    assert time.process_time() - started < PATIENCE


def test_the_work_of_all_expressions_of_a_template_is_counted_together() -> None:
    scope = {"input": list(range(10_000))}
    one = "${{ length(input[?@ > `5`]) }}"
    assert render([one] * 3, scope) == [9994] * 3
    with pytest.raises(ExpressionError, match="too much work"):
        render([one] * 100, scope)


def test_a_rendering_leaves_scope_and_template_as_they_were() -> None:
    template = {"a": "${{ input }}", "b": ["${{ sort(keys(input)) }}", {"c": "x ${{ item }}"}]}
    before, scope = copy.deepcopy(template), copy.deepcopy(SCOPE)
    compiled = compile_template(template)
    assert compiled.render(scope) == compiled.render(scope)
    assert (template, scope) == (before, SCOPE)


def test_a_scope_may_be_any_mapping() -> None:
    from types import MappingProxyType

    scope = MappingProxyType({"input": 1})
    assert compile_template("${{ input }}").render(scope) == 1
    assert compile_query("input", expressions.WORKFLOW_ROOTS).evaluate(scope) == 1


def test_a_root_that_is_not_in_the_scope_is_null() -> None:
    assert render("${{ item.id }}", {}) is None


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", set()),
        ("$${{ steps.a }}", set()),
        ("${{ 'text' }}", set()),
        ("${{ input }}", {("input", None, None)}),
        ("${{ input.day }}", {("input", None, "day")}),
        ("${{ input.day.deeper[0].x }}", {("input", None, "day")}),
        ("${{ steps.load.output.rows[0] }}", {("steps", "load", "output")}),
        ("${{ steps.load.state }}", {("steps", "load", "state")}),
        ("${{ steps.load }}", {("steps", "load", None)}),
        ('${{ steps."load-data".output }}', {("steps", "load-data", "output")}),
        ("${{ steps | load | output }}", {("steps", "load", "output")}),
        ("${{ (steps || input).load.x }}", {("steps", "load", "x"), ("input", None, "load")}),
        ("${{ @.steps.load.output }}", {("steps", "load", "output")}),
        ("${{ steps.load.[state, output] }}", {("steps", "load", "state"), ("steps", "load", "output")}),
        ("${{ steps.{a: load.output} }}", {("steps", "load", "output")}),
        ("${{ steps }}", {("steps", None, None)}),
        ("${{ steps.*.output }}", {("steps", None, None)}),
        ("${{ keys(steps) }}", {("steps", None, None)}),
        ("${{ steps[0] }}", {("steps", None, None)}),
        ("${{ steps[:1] }}", {("steps", None, None)}),
        ("${{ input[] }}", {("input", None, None)}),
        ("${{ [steps].a.b }}", {("steps", None, None)}),
        ("${{ !(steps.a) }}", {("steps", "a", None)}),
        ("${{ input.a == item.b }}", {("input", None, "a"), ("item", None, "b")}),
        ("${{ input.parts[?steps.a == `1`].output }}", {("input", None, "parts")}),
        ("${{ map(&steps.x, input.parts) }}", {("input", None, "parts")}),
        ("${{ sort_by(input.parts, &n) }}", {("input", None, "parts")}),
        (
            "${{ @ }}",
            {(root, None, None) for root in ("input", "steps", "item", "execution", "secrets")},
        ),
        (
            {"a": ["${{ input.a }} ${{ item }}"], "b": "${{ execution.id }}"},
            {("input", None, "a"), ("item", None, None), ("execution", None, "id")},
        ),
    ],
)
def test_references_say_what_a_template_reads(template: Any, expected: set[tuple[Any, ...]]) -> None:
    assert references(template) == expected
    compiled = compile_template(template)
    assert references(compiled) == expected
    assert compiled.references == expected
    assert compiled.is_constant is (template in ("plain", "$${{ steps.a }}"))


def test_other_roots_can_be_named() -> None:
    roots = Roots(frozenset({"event", "trigger"}))
    template = compile_template("${{ event.data.id }}", roots=roots)
    assert template.references == {Reference("event", None, "data")}
    assert template.render({"event": {"data": {"id": 5}}}) == 5
    with pytest.raises(ExpressionError, match="unknown name 'input'"):
        compile_template("${{ input }}", roots=roots)


def test_the_parts_have_readable_representations() -> None:
    assert "steps" in repr(compile_template("${{ steps.a.output }}"))
    assert repr(compile_query("input.n", expressions.WORKFLOW_ROOTS)) == "Query('input.n')"


def test_an_unparsable_surprise_of_the_parser_is_a_query_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(_: str) -> Any:
        raise KeyError("token")

    monkeypatch.setattr(jmespath, "compile", explode)
    with pytest.raises(QueryError, match="cannot be parsed"):
        compile_query("input", expressions.WORKFLOW_ROOTS)


def test_a_position_is_found_for_a_name_the_text_spells_otherwise() -> None:
    with pytest.raises(QueryError) as caught:
        compile_query('"\\u0061bc"', expressions.WORKFLOW_ROOTS)
    assert caught.value.position == 0


# The package itself is the oracle wherever no cap and no corrected function is involved.

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "b", "xyz", 0.5]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=20,
)
_ATOMS = st.sampled_from(["a", "b", "c", "@", "`1`", "'a'", "[0]", "[*]", "*", "[]", "[?a]", "[1:]"])


def _joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(["|", "||", "&&", "<", ">="]), inner).map(" ".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}).{two[1]}"),
        inner.map(lambda one: f"!({one})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda many: f"[{', '.join(many)}]"),
        inner.map(lambda one: f"{{k: {one}}}"),
        inner.map(lambda one: f"type({one})"),
        inner.map(lambda one: f"to_array({one})[?a || b]"),
    )


_EXPRESSIONS = st.recursive(_ATOMS, _joined, max_leaves=6)
_ABC = Roots(frozenset("abc"))


@settings(max_examples=400, deadline=None)
@given(_EXPRESSIONS, st.dictionaries(st.sampled_from("abc"), _JSON, max_size=3))
def test_it_agrees_with_the_package(expression: str, data: dict[str, Any]) -> None:
    try:
        oracle = jmespath.compile(expression)
    except jmespath.exceptions.JMESPathError:
        with pytest.raises(QueryError):
            compile_query(expression, _ABC)
        return
    try:
        query = compile_query(expression, _ABC)
    except QueryError as error:
        if "write !(a.b)" in error.reason:
            return
        raise
    try:
        expected = oracle.search(data)
    except TypeError:  # an order between a number and a text, where this project says null
        return
    assert query.evaluate(data, Budget()) == expected


@settings(max_examples=300, deadline=None)
@given(_EXPRESSIONS, st.dictionaries(st.sampled_from("abc"), _JSON, max_size=3))
def test_what_is_not_referenced_is_never_read(expression: str, data: dict[str, Any]) -> None:
    try:
        query = compile_query(expression, _ABC)
    except QueryError:
        return
    read = {reference.root for reference in query.references}
    # a bare "*" or "@" reads the whole scope, and says so
    assert query.evaluate({root: data[root] for root in data if root in read}) == query.evaluate(data)


@pytest.mark.filterwarnings("ignore:deprecated string literal syntax")
@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="${} }'\"`\\abinput.n|[]()&,:*?@-0\x00\ud800é", max_size=40))
def test_any_text_compiles_or_is_refused_with_an_expression_error(text: str) -> None:
    for candidate in (text, "${{" + text + "}}"):
        with contextlib.suppress(ExpressionError):
            json.dumps(compile_template(candidate).render({"input": {"n": 1}}))
