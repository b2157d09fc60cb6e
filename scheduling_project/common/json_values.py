"""JSON that can be kept: what Postgres stores and gives back unchanged. Pure.

Python reads more than JSON (NaN, infinities, the last of two equal keys) and JSON says more than Postgres keeps
(U+0000 and halves of surrogate pairs). `parse` accepts only what survives the whole way and says where it is not.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

MAX_DEPTH: Final = 64

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


class JSONProblem(ValueError):
    """A text that is not JSON that can be kept; `path` is the dotted place of it, empty where there is none."""

    def __init__(self, rule: str, *, path: str = "") -> None:
        self.rule = rule
        self.path = path
        super().__init__(f"{path}: {rule}" if path else rule)


def parse(content: bytes | str, *, max_depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text in UTF-8 (RFC 8259, I-JSON's limits on strings and keys).

    Raises:
        JSONProblem: naming the rule, and the place where it is known.
    """
    text = _decode(content) if isinstance(content, bytes) else content
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole
        )
    except json.JSONDecodeError as error:
        raise JSONProblem(f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise JSONProblem(f"is nested deeper than {max_depth}") from None
    if too_deep(value, limit=max_depth):
        raise JSONProblem(f"is nested deeper than {max_depth}")
    if "\\u" in text:  # only an escape can smuggle them in
        _refuse_unstorable(value, "")
    return value


def too_deep(value: Any, *, limit: int = MAX_DEPTH) -> bool:
    """Whether a JSON value is nested deeper than `limit`; walks by level, so that it cannot overflow the stack."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JSONProblem(f"is not UTF-8 at byte {error.start}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JSONProblem("is there twice in one object", path=_shown(twice))
    return found


def _refuse_constant(name: str) -> Any:
    raise JSONProblem(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JSONProblem(f"{text[:20]} is larger than a number can be")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python reads at most 4,300 digits
        raise JSONProblem(f"a number of {len(text)} digits is larger than a number can be") from None


def _refuse_unstorable(value: Any, path: str) -> None:
    if isinstance(value, str) and _UNSTORABLE.search(value):
        raise JSONProblem("holds a character that cannot be kept (U+0000 or half of a surrogate pair)", path=path)
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_unstorable(key, _below(path, _shown(key)))
            _refuse_unstorable(item, _below(path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_unstorable(item, _below(path, str(index)))


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(key: str) -> str:
    return _UNSTORABLE.sub("�", key[:80])


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` changed by a JSON merge patch (RFC 7396): members are replaced, null removes them. Neither is touched.

    >>> merge_patch({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": 4}})
    {'b': {'c': 4, 'd': 3}}
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
