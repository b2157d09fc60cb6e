"""Templates: JSON values whose strings may hold ``${{ … }}`` JMESPath expressions.

A string that is exactly one expression becomes that expression's JSON value; expressions inside a
longer string are written into it as text (strings as they are, everything else as compact JSON);
``$${{`` stands for a literal ``${{``. Missing data is null. There is no other logic: no ``eval``, no
statements, no filters. Compile at save time, where every mistake is found that can be found without
data, and render at run time.

>>> template = compile_template({"day": "${{ input.day }}", "text": "for ${{ input.day }}"})
>>> template.render({"input": {"day": 3}})
{'day': 3, 'text': 'for 3'}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from execution import json_path
from execution.expression_query import Budget, Query, QueryError, Reference, Roots, compile_query

__all__ = [
    "MAX_RESULT_BYTES",
    "MAX_RESULT_DEPTH",
    "WORKFLOW_ROOTS",
    "ExpressionError",
    "Reference",
    "Roots",
    "Template",
    "compile_expression",
    "compile_template",
    "references",
]

WORKFLOW_ROOTS: Final = Roots(frozenset({"input", "steps", "item", "execution", "secrets"}), frozenset({"steps"}))

MAX_TEMPLATE_DEPTH: Final = 64
MAX_EXPRESSIONS: Final = 1_000
MAX_RESULT_BYTES: Final = 1_048_576
MAX_RESULT_DEPTH: Final = 100

_OPEN: Final = "${{"
_CLOSE: Final = "}}"
_QUOTES: Final = "'\"`"


class ExpressionError(ValueError):
    """A template that cannot be compiled or rendered.

    ``path`` is where in the JSON value, ``text`` the string there (or the expression), ``position`` the
    0-based offset in ``text`` where it is known, ``reason`` the rule that was broken.
    """

    def __init__(self, reason: str, *, path: str, text: str = "", position: int | None = None) -> None:
        self.reason = reason
        self.path = path
        self.text = text
        self.position = position
        where = f" at position {position}" if position is not None else ""
        shown = text if len(text) <= 200 else text[:200] + "…"
        quoted = f" in {json.dumps(shown, ensure_ascii=False)}" if text else ""
        super().__init__(f"{path}: {reason}{where}{quoted}")


@dataclass(frozen=True, slots=True)
class _Slot:
    """One expression and the place it stands at."""

    query: Query
    path: str

    def value(self, scope: Mapping[str, Any], budget: Budget) -> Any:
        try:
            return self.query.evaluate(scope, budget)
        except QueryError as error:
            raise ExpressionError(error.reason, path=self.path, text=self.query.text, position=error.position) from None


class _Text:
    """A string with expressions inside."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[str | _Slot]) -> None:
        self.parts = parts


class Template:
    """A compiled template. Immutable; may be kept and shared between threads.

    ``references`` is what it reads, ``is_constant`` says that it holds no expression at all.
    """

    __slots__ = ("_body", "_path", "is_constant", "references")

    def __init__(self, body: Any, path: str, slots: list[_Slot]) -> None:
        self._body = body
        self._path = path
        self.references: frozenset[Reference] = frozenset().union(*(slot.query.references for slot in slots))
        self.is_constant = not slots

    def __repr__(self) -> str:
        return f"Template({self._path!r}, references={sorted(self.references, key=str)!r})"

    def render(
        self,
        scope: Mapping[str, Any],
        *,
        max_bytes: int = MAX_RESULT_BYTES,
        max_depth: int = MAX_RESULT_DEPTH,
    ) -> Any:
        """The JSON value of the template over ``scope`` (root name → JSON value).

        The result may share parts with the scope and the template: write it out, do not change it.
        Raises :class:`ExpressionError` for a function applied to a wrong type, a result of more than
        ``max_bytes`` (as compact JSON in UTF-8, escapes not counted) or ``max_depth``, a number that
        JSON cannot hold, or too much work.
        """
        writer = _Writer(scope, max_bytes, max_depth, self._path)
        return writer.write(self._body, 0)


def compile_template(value: Any, *, path: str = json_path.ROOT, roots: Roots = WORKFLOW_ROOTS) -> Template:
    """Compile any JSON value; ``path`` is where it stands, for messages.

    Raises :class:`ExpressionError` for an unclosed or empty expression, a syntax error, an unknown
    root or function, a wrong number of arguments, an expression in an object key, or a broken cap.
    """
    slots: list[_Slot] = []
    body = _compile(value, path, roots, slots, 0)
    return Template(body, path, slots)


def compile_expression(text: str, *, path: str = json_path.ROOT, roots: Roots = WORKFLOW_ROOTS) -> Template:
    """Compile one bare expression (written without ``${{ }}``); it renders to its JSON value."""
    slot = _slot(text, path, roots, whole=text, offset=0)
    return Template(slot, path, [slot])


def references(value: Any, *, path: str = json_path.ROOT, roots: Roots = WORKFLOW_ROOTS) -> set[Reference]:
    """What a template (compiled or raw) reads, as ``(root, step, member)``.

    >>> sorted(references("${{ steps.load.output.n }} of ${{ input }}"), key=str)
    [Reference(root='input', step=None, member=None), Reference(root='steps', step='load', member='output')]
    """
    template = value if isinstance(value, Template) else compile_template(value, path=path, roots=roots)
    return set(template.references)


def _compile(value: Any, path: str, roots: Roots, slots: list[_Slot], depth: int) -> Any:
    if depth > MAX_TEMPLATE_DEPTH:
        raise ExpressionError(f"nested deeper than {MAX_TEMPLATE_DEPTH}", path=path)
    if isinstance(value, str):
        return _compile_string(value, path, roots, slots)
    if isinstance(value, Mapping):
        compiled: dict[str, Any] = {}
        for key, item in value.items():
            compiled[_compile_key(key, path)] = _compile(item, json_path.child(path, key), roots, slots, depth + 1)
        return compiled
    if isinstance(value, list | tuple):
        return [
            _compile(item, json_path.child(path, index), roots, slots, depth + 1) for index, item in enumerate(value)
        ]
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ExpressionError(f"{type(value).__name__} {value!r:.40} is not a JSON value", path=path)


def _compile_key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise ExpressionError(f"the key {key!r:.40} is not a string", path=path)
    parts: list[str] = []
    for text, start, is_expression in _split(key, path):
        if is_expression:
            raise ExpressionError(
                "an object key cannot hold an expression (write $${{ for a literal ${{)",
                path=path,
                text=key,
                position=start,
            )
        parts.append(text)
    return "".join(parts)


def _compile_string(value: str, path: str, roots: Roots, slots: list[_Slot]) -> Any:
    if _OPEN not in value:
        return value
    parts: list[str | _Slot] = []
    for text, start, is_expression in _split(value, path):
        if not is_expression:
            parts.append(text)
            continue
        slot = _slot(text, path, roots, whole=value, offset=start)
        parts.append(slot)
        slots.append(slot)
        if len(slots) > MAX_EXPRESSIONS:
            raise ExpressionError(f"more than {MAX_EXPRESSIONS} expressions", path=path)
    if len(parts) == 1:
        return parts[0]
    if not any(isinstance(part, _Slot) for part in parts):
        return "".join(part for part in parts if isinstance(part, str))
    return _Text(parts)


def _slot(text: str, path: str, roots: Roots, *, whole: str, offset: int) -> _Slot:
    lead = len(text) - len(text.lstrip())
    try:
        return _Slot(compile_query(text.strip(), roots), path)
    except QueryError as error:
        position = offset if error.position is None else offset + lead + error.position
        raise ExpressionError(error.reason, path=path, text=whole, position=position) from None


def _split(value: str, path: str) -> Iterator[tuple[str, int, bool]]:
    """The pieces of a string: (text, offset, is expression). ``$${{`` comes out as text ``${{``."""
    done = 0
    while True:
        start = value.find(_OPEN, done)
        if start < 0:
            break
        if start > done and value[start - 1] == "$":
            yield value[done : start - 1] + _OPEN, done, False
            done = start + len(_OPEN)
            continue
        end = _end_of_expression(value, start + len(_OPEN))
        if end < 0:
            raise ExpressionError("${{ is never closed by }}", path=path, text=value, position=start)
        if start > done:
            yield value[done:start], done, False
        yield value[start + len(_OPEN) : end], start + len(_OPEN), True
        done = end + len(_CLOSE)
    if done < len(value):
        yield value[done:], done, False


def _end_of_expression(value: str, start: int) -> int:
    """Where the closing ``}}`` stands (-1: nowhere), minding quotes and the braces of multi-select hashes."""
    depth, index, quote = 0, start, ""
    while index < len(value):
        char = value[index]
        if quote:
            if char == "\\":
                index += 1
            elif char == quote:
                quote = ""
        elif char in _QUOTES:
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return index if value.startswith(_CLOSE, index) else -1
            depth -= 1
        index += 1
    return -1


class _Writer:
    """One rendering: a walk over the compiled template that counts what it writes."""

    __slots__ = ("_budget", "_left", "_max_bytes", "_max_depth", "_path", "_scope")

    def __init__(self, scope: Mapping[str, Any], max_bytes: int, max_depth: int, path: str) -> None:
        self._scope = scope if isinstance(scope, dict) else dict(scope)
        self._budget = Budget()
        self._left = self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._path = path

    def write(self, body: Any, depth: int) -> Any:
        if isinstance(body, dict):
            self._take(2 + 2 * len(body), self._path)
            written: dict[str, Any] = {}
            for key, item in body.items():
                self._take(_text_size(key), self._path)
                written[key] = self.write(item, depth + 1)
            return written
        if isinstance(body, list):
            self._take(2 + len(body), self._path)
            return [self.write(item, depth + 1) for item in body]
        if isinstance(body, _Slot):
            value = body.value(self._scope, self._budget)
            self._weigh(value, body.path, depth)
            return value
        if isinstance(body, _Text):
            self._take(2, self._path)
            return "".join([self._as_text(part, depth) for part in body.parts])
        self._weigh(body, self._path, depth)
        return body

    def _as_text(self, part: str | _Slot, depth: int) -> str:
        if isinstance(part, str):
            self._take(_text_size(part) - 2, self._path)
            return part
        value = part.value(self._scope, self._budget)
        self._weigh(value, part.path, depth)
        if isinstance(value, str):
            return value
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    def _take(self, size: int, path: str) -> None:
        self._left -= size
        if self._left < 0:
            raise ExpressionError(f"the result is larger than {self._max_bytes} bytes", path=path)

    def _weigh(self, value: Any, path: str, depth: int) -> None:
        """Charge the size of a whole value, level by level, each part as often as it occurs."""
        level = [value]
        while level:
            if depth > self._max_depth:
                raise ExpressionError(f"the result is nested deeper than {self._max_depth}", path=path)
            depth += 1
            deeper: list[Any] = []
            for item in level:
                if isinstance(item, str):
                    self._take(_text_size(item), path)
                elif isinstance(item, dict):
                    self._take(2 + 2 * len(item), path)
                    for key in item:
                        self._take(_text_size(key), path)
                    deeper.extend(item.values())
                elif isinstance(item, list):
                    self._take(2 + len(item), path)
                    deeper.extend(item)
                elif isinstance(item, float):
                    if not math.isfinite(item):
                        raise ExpressionError("the result holds a number that JSON cannot", path=path)
                    self._take(8, path)
                elif item is None or isinstance(item, bool):
                    self._take(4, path)
                elif isinstance(item, int):
                    self._take(1 + item.bit_length() // 3, path)
                else:
                    raise ExpressionError(f"the result holds a {type(item).__name__}, not JSON", path=path)
            level = deeper


def _text_size(text: str) -> int:
    return 2 + (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))
