"""One JMESPath expression, compiled and checked once, evaluated within a budget.

The grammar and the meaning are those of the ``jmespath`` package; this module adds what running
strangers' expressions asks for: caps on length, depth and nodes, a static check of function names,
argument counts and roots, and a step budget, because a short expression can double its own result
at every pipe (``[@, @] | [@, @] | …``). Nothing here knows about ``${{ }}``; see ``expressions``.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import jmespath
from jmespath import exceptions, functions, visitor

MAX_EXPRESSION_LENGTH: Final = 2_000
MAX_AST_DEPTH: Final = 50
MAX_AST_NODES: Final = 500
MAX_STEPS: Final = 250_000
"""Units of work one rendering may spend: one per node visited, plus the size of what is copied."""

_TEXT_PER_STEP: Final = 32
_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_MAX_NUMBER_TEXT: Final = 1_000
_STRAY_EXPREF: Final = "&expression may only be an argument of a function"
_SURROGATE: Final = re.compile("[\ud800-\udfff\x00]")

Node = Mapping[str, Any]


class QueryError(ValueError):
    """An expression that cannot be compiled or evaluated; ``position`` is its 0-based offset, if known."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


class Reference(NamedTuple):
    """What an expression reads: ``steps.load.output.x`` is ``("steps", "load", "output")``.

    ``step`` is set only below a root that is keyed by step name; None there means *any step*.
    ``member`` is the first key below the root (or below the step); None means the whole of it.
    """

    root: str
    step: str | None = None
    member: str | None = None


class Roots(NamedTuple):
    """The names an expression may start from; those in ``keyed`` are maps from a step's name."""

    names: frozenset[str]
    keyed: frozenset[str] = frozenset()


class Budget:
    """Counts down the work of one rendering, over all its expressions."""

    __slots__ = ("left",)

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Take ``steps`` units; :class:`QueryError` when the budget is exhausted."""
        self.left -= steps
        if self.left < 0:
            raise QueryError("the expression takes too much work for this data")

    def spend_tree(self, value: object) -> None:
        """Take what walking the whole of ``value`` costs, counting shared parts as often as they occur."""
        stack = [value]
        while stack:
            current = stack.pop()
            self.spend(1)
            if isinstance(current, str):
                self.spend(len(current) // _TEXT_PER_STEP)
            elif isinstance(current, dict):
                self.spend(len(current))
                stack.extend(current.values())
            elif isinstance(current, list):
                self.spend(len(current))
                stack.extend(current)


class _Functions(functions.Functions):
    """The standard functions, with strict number parsing and with the costly ones on the budget."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def call_function(self, function_name: Any, resolved_args: Any) -> Any:
        for argument in resolved_args:
            if isinstance(argument, list | dict):
                self.budget.spend(len(argument))
            elif isinstance(argument, str):
                self.budget.spend(len(argument) // _TEXT_PER_STEP)
        return super().call_function(function_name, resolved_args)

    @functions.signature({"types": []})
    def _func_to_number(self, arg: Any) -> Any:
        if isinstance(arg, bool):
            return None
        if isinstance(arg, int | float):
            return arg
        if not isinstance(arg, str) or len(arg) > _MAX_NUMBER_TEXT or not _JSON_NUMBER.fullmatch(arg):
            return None
        try:
            return int(arg)
        except ValueError:
            number = float(arg)
            return number if math.isfinite(number) else None

    @functions.signature({"types": []})
    def _func_to_string(self, arg: Any) -> Any:
        if isinstance(arg, str):
            return arg
        self.budget.spend_tree(arg)
        return json.dumps(arg, separators=(",", ":"), ensure_ascii=False)

    @functions.signature({"types": ["array", "string"]}, {"types": []})
    def _func_contains(self, subject: Any, search: Any) -> Any:
        if isinstance(subject, str):
            return isinstance(search, str) and search in subject
        self.budget.spend_tree(subject)
        self.budget.spend_tree(search)
        return any(same(element, search) for element in subject)

    @functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: Any, array: Any) -> Any:
        size = sum(map(len, array)) + len(separator) * len(array)
        self.budget.spend(size // _TEXT_PER_STEP)
        return separator.join(array)


class _Interpreter(visitor.TreeInterpreter):
    """The package's interpreter, with every visit and every copy on the budget."""

    def __init__(self, budget: Budget) -> None:
        super().__init__(visitor.Options(custom_functions=_Functions(budget)))
        self.budget = budget

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self.budget.spend(1)
        return super().visit(node, *args, **kwargs)

    def visit_comparator(self, node: Any, value: Any) -> Any:
        left = self.visit(node["children"][0], value)
        right = self.visit(node["children"][1], value)
        if node["value"] not in ("eq", "ne"):
            # Only two numbers or two texts have an order; the package raises TypeError for a mixture.
            if not (_is_number(left) and _is_number(right)) and not (isinstance(left, str) and isinstance(right, str)):
                return None
            return self.COMPARATOR_FUNC[node["value"]](left, right)
        if isinstance(left, list | dict) and isinstance(right, list | dict):
            self.budget.spend_tree(left)
            self.budget.spend_tree(right)
        return same(left, right) is (node["value"] == "eq")

    def visit_flatten(self, node: Any, value: Any) -> Any:
        merged = super().visit_flatten(node, value)
        if merged is not None:
            self.budget.spend(len(merged))
        return merged

    def visit_slice(self, node: Any, value: Any) -> Any:
        if isinstance(value, list):
            self.budget.spend(len(value) // 8)
        return super().visit_slice(node, value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(left: object, right: object) -> bool:
    """Equality of JSON values: 1 equals 1.0, but true is never 1, at any depth.

    Walks with its own stack, so the depth of the data does not matter.
    """
    stack = [(left, right)]
    while stack:
        a, b = stack.pop()
        if isinstance(a, bool) or isinstance(b, bool):
            if a is not b:
                return False
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            stack.extend(zip(a, b, strict=True))
        elif isinstance(a, dict) and isinstance(b, dict):
            if a.keys() != b.keys():
                return False
            stack.extend((a[key], b[key]) for key in a)
        elif a != b:
            return False
    return True


class Query:
    """A compiled expression. Immutable; may be shared between threads."""

    __slots__ = ("_tree", "references", "text")

    def __init__(self, text: str, tree: Node, references: frozenset[Reference]) -> None:
        self.text = text
        self._tree = tree
        self.references = references

    def __repr__(self) -> str:
        return f"Query({self.text!r})"

    def evaluate(self, scope: Mapping[str, Any], budget: Budget | None = None) -> Any:
        """The value of the expression over ``scope``, whose keys are the roots; missing data is None.

        The result may share structure with the scope. Raises :class:`QueryError` for a function applied
        to a wrong type, or when ``budget`` is exhausted.
        """
        interpreter = _Interpreter(budget or Budget())
        data = scope if isinstance(scope, dict) else dict(scope)
        try:
            return interpreter.visit(self._tree, data)
        except QueryError:
            raise
        except exceptions.JMESPathTypeError as error:
            raise QueryError(_type_problem(error)) from None
        except (exceptions.JMESPathError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise QueryError(f"cannot be evaluated: {error}") from None


def compile_query(text: str, roots: Roots) -> Query:
    """Compile one expression; :class:`QueryError` names what is wrong and where.

    >>> compile_query("steps.load.output.rows", Roots(frozenset({"steps"}), frozenset({"steps"}))).references
    frozenset({Reference(root='steps', step='load', member='output')})
    """
    if not text.strip():
        raise QueryError("the expression is empty", 0)
    if len(text) > MAX_EXPRESSION_LENGTH:
        raise QueryError(f"the expression is longer than {MAX_EXPRESSION_LENGTH} characters", 0)
    tree = _parse(text)
    _check_size(tree)
    if tree["type"] == "expref":
        raise QueryError(_STRAY_EXPREF, 0)
    for node in _nodes(tree):
        _check_node(node)
    analysis = _Analysis(text, roots)
    analysis.finish(analysis.visit(tree, frozenset({_ROOT})))
    return Query(text, tree, frozenset(analysis.found))


def _parse(text: str) -> Node:
    try:
        tree: Node = jmespath.compile(text).parsed
    except exceptions.LexerError as error:
        hint = ' (write names with a hyphen in quotes: steps."a-b")' if error.lexer_value == "-" else ""
        raise QueryError(f"{error.message}{hint}", error.lex_position) from None
    except exceptions.IncompleteExpressionError:
        raise QueryError("the expression is incomplete", len(text)) from None
    except exceptions.ParseError as error:
        if error.lex_position >= len(text):
            raise QueryError("the expression is incomplete", len(text)) from None
        raise QueryError(str(error.msg), error.lex_position) from None
    except RecursionError:
        raise QueryError("the expression is nested too deeply", 0) from None
    except (exceptions.JMESPathError, ValueError, TypeError, KeyError, IndexError) as error:
        raise QueryError(f"the expression cannot be parsed: {error}", 0) from None
    return tree


def _children(node: Node) -> list[Node]:
    return [item for item in node.get("children", ()) if isinstance(item, dict)]


def _nodes(tree: Node) -> Iterator[Node]:
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(_children(node))


def _check_size(tree: Node) -> None:
    level, depth, count = [tree], 0, 0
    while level:
        depth += 1
        count += len(level)
        if depth > MAX_AST_DEPTH:
            raise QueryError(f"the expression is nested deeper than {MAX_AST_DEPTH}", 0)
        if count > MAX_AST_NODES:
            raise QueryError(f"the expression has more than {MAX_AST_NODES} parts", 0)
        level = [item for node in level for item in _children(node)]


def _check_node(node: Node) -> None:
    kind = node["type"]
    if kind == "function_expression":
        _check_call(node)
        return
    for item in _children(node):
        if item["type"] == "expref":
            raise QueryError(_STRAY_EXPREF)
    if kind in ("subexpression", "value_projection") and node["children"][0]["type"] == "not_expression":
        # The parser reads !a.b as (!a).b, which is always null.
        raise QueryError("! binds tighter than the dot: write !(a.b)")
    if kind == "slice" and node["children"][2] == 0:
        raise QueryError("the step of a slice cannot be 0")
    if kind == "literal":
        _check_literal(node["value"])


def _check_call(node: Node) -> None:
    name, arguments = node["value"], node["children"]
    known = _Functions.FUNCTION_TABLE.get(name)
    if known is None:
        raise QueryError(f"unknown function {name}(){_suggestion(name, _Functions.FUNCTION_TABLE)}")
    signature = known["signature"]
    variadic = bool(signature and signature[-1].get("variadic"))
    if len(arguments) < len(signature) or (len(arguments) > len(signature) and not variadic):
        wanted = f"at least {len(signature)}" if variadic else str(len(signature))
        raise QueryError(f"{name}() takes {wanted} argument(s), not {len(arguments)}")
    for index, argument in enumerate(arguments):
        allowed = signature[min(index, len(signature) - 1)]["types"]
        if ("expref" in allowed) != (argument["type"] == "expref"):
            wanted = "an &expression" if "expref" in allowed else "a value"
            raise QueryError(f"argument {index + 1} of {name}() must be {wanted}")


def _check_literal(value: object) -> None:
    stack = [value]
    while stack:
        current = stack.pop()
        if isinstance(current, float) and not math.isfinite(current):
            raise QueryError("a literal number must be finite")
        if isinstance(current, str) and _SURROGATE.search(current):
            raise QueryError("a literal may hold neither NUL nor lone surrogates")
        if isinstance(current, dict):
            stack.extend(current)
            stack.extend(current.values())
        elif isinstance(current, list):
            stack.extend(current)


def _suggestion(name: str, known: Iterable[str]) -> str:
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1)
    return f", did you mean {close[0]}?" if close else f" (known: {', '.join(options)})"


def _type_problem(error: exceptions.JMESPathTypeError) -> str:
    kinds = " or ".join(error.expected_types)
    return f"{error.function_name}() expects {kinds}, not {error.actual_type}"


_ROOT: Final = Reference("")
"""Stands for the scope itself while expressions are analysed."""

_Places = frozenset[Reference]
_NOWHERE: Final[_Places] = frozenset()


class _Analysis:
    """Finds what an expression reads, by following the places its parts may stand at.

    A place is the scope, a root, or a step below a keyed root, and is written as the reference to the
    whole of it. Reading a key moves to a narrower place; using a place in any other way (a projection,
    an argument, the result) reads all of it.
    """

    def __init__(self, text: str, roots: Roots) -> None:
        self.text = text
        self.roots = roots
        self.found: set[Reference] = set()

    def finish(self, places: _Places) -> None:
        for place in places:
            if place == _ROOT:
                self.found.update(Reference(name) for name in self.roots.names)
            else:
                self.found.add(place)

    def visit(self, node: Node, places: _Places) -> _Places:
        kind, children = node["type"], _children(node)
        if kind == "field":
            return self._field(node["value"], places)
        if kind in ("current", "identity"):
            return places
        if kind in ("subexpression", "pipe", "index_expression"):
            for item in children:
                places = self.visit(item, places)
            return places
        if kind in ("or_expression", "and_expression"):
            return self.visit(children[0], places) | self.visit(children[1], places)
        if kind == "key_val_pair":
            return self.visit(children[0], places)
        if kind in ("projection", "value_projection", "filter_projection"):
            self.finish(self.visit(children[0], places))
            for item in children[1:]:
                self.visit(item, _NOWHERE)
        elif kind == "expref":
            self.visit(children[0], _NOWHERE)
        elif kind in ("index", "slice"):
            self.finish(places)
        else:
            for item in children:
                self.finish(self.visit(item, places))
        return _NOWHERE

    def _field(self, name: str, places: _Places) -> _Places:
        narrower: set[Reference] = set()
        for place in places:
            if place == _ROOT:
                if name not in self.roots.names:
                    raise QueryError(
                        f"unknown name {name!r}{_suggestion(name, self.roots.names)}", self._position(name)
                    )
                narrower.add(Reference(name))
            elif place.step is None and place.root in self.roots.keyed:
                narrower.add(Reference(place.root, name))
            else:
                self.found.add(Reference(place.root, place.step, name))
        return frozenset(narrower)

    def _position(self, name: str) -> int:
        found = re.search(rf"(?<![\w.\"]){re.escape(name)}(?!\w)", self.text)
        return found.start() if found else max(self.text.find(name), 0)
