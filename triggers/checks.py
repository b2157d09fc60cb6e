"""What may stand in a trigger or an endpoint: values in, their stored form or the broken rules out. No database."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from execution import definitions, patterns, priority
from execution.expressions import ExpressionError, compile_template
from execution.json_schemas import Problems, add
from execution.patterns import PatternError
from scheduling_project.common.errors import InvalidInput
from triggers import addresses, flow_specs, payloads, signatures
from triggers.arrivals import ATTRIBUTES
from triggers.auth import keys
from triggers.catalog import ROOTS
from triggers.signatures import SignatureConfigError
from triggers.states import Dedup, ResponseMode, WhenRedisIsAway

MAX_TYPES: Final = 50
METHODS: Final = ("POST", "PUT", "PATCH", "GET")
SENDER_METHODS: Final = ("signature", "api_key", "user", "internal")
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9._-]*\Z", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,100}", re.ASCII)
_DOTTED: Final = re.compile(r"[^\s.]{1,100}(\.[^\s.]{1,100}){0,19}")

Check = Callable[[Problems, str, Any], Any]


def checked(values: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """The values in their stored form.

    Raises:
        InvalidInput: naming each that breaks a rule, and each that is not known.
    """
    problems: Problems = {}
    found: dict[str, Any] = {}
    for name, value in values.items():
        check = checks.get(name)
        if check is None:
            add(problems, name, "is not something that can be set")
        else:
            found[name] = check(problems, name, value)
    if problems:
        raise InvalidInput(fields=problems)
    return found


# ── Values of any kind ───────────────────────────────────────────────────────────────────────────────────────


def text(longest: int, *, required: bool = False) -> Check:
    def check(problems: Problems, at: str, value: Any) -> Any:
        if not isinstance(value, str) or len(value) > longest or (required and not value.strip()) or "\x00" in value:
            add(problems, at, f"must be a text of {'1 to' if required else 'at most'} {longest} characters")
        return value

    return check


def whole(lowest: int, highest: int) -> Check:
    def check(problems: Problems, at: str, value: Any) -> Any:
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest
        ):
            add(problems, at, f"must be a whole number from {lowest} to {highest}, or null")
        return value

    return check


def choice(choices: Any) -> Check:
    def check(problems: Problems, at: str, value: Any) -> Any:
        if value not in choices.values:
            add(problems, at, f"must be one of {', '.join(choices.values)}")
        return value

    return check


def flag(problems: Problems, at: str, value: Any) -> Any:
    if not isinstance(value, bool):
        add(problems, at, "must be true or false")
    return value


def json_object(problems: Problems, at: str, value: Any) -> Any:
    if not isinstance(value, dict):
        add(problems, at, "must be an object")
    return value


def labels(problems: Problems, at: str, value: Any) -> Any:
    if not isinstance(value, dict) or len(value) > 50:
        add(problems, at, "must be an object of at most 50 texts")
    else:
        for name, item in value.items():
            if not isinstance(item, str) or len(item) > 200 or not 1 <= len(name) <= 100:
                add(problems, f"{at}.{name[:100]}", "must be a name of 1 to 100 and a text of at most 200 characters")
    return value


def instant(problems: Problems, at: str, value: Any) -> Any:
    if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
        add(problems, at, "must be an instant with its offset, or null")
    return value


# ── Triggers ─────────────────────────────────────────────────────────────────────────────────────────────────


def event_types(problems: Problems, at: str, value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) > MAX_TYPES:
        add(problems, at, f"must be a list of at most {MAX_TYPES} types")
        return value
    for position, name in enumerate(value):
        if not payloads.is_type(name):
            add(problems, f"{at}.{position}", "must be a printable text of 1 to 200 characters")
        elif "*" in name[:-1]:
            add(problems, f"{at}.{position}", "may have a * at its end only, for all types that begin so")
    return list(dict.fromkeys(value)) if not problems else value


def pattern(problems: Problems, at: str, value: Any) -> Any:
    if not isinstance(value, dict):
        add(problems, at, "must be an object")
        return value
    if not value:
        return value
    try:
        patterns.compile(value)
    except PatternError as error:
        add(problems, at + error.path.removeprefix("$"), f"{error.reason} [{error.rule}]")
        return value
    for name in value:
        if name not in ATTRIBUTES and name != "$or":
            add(
                problems,
                f"{at}.{name[:80]}",
                f"is not an attribute of events ({', '.join(ATTRIBUTES)}); what the sender sent stands in data",
            )
    return value


def filters_as_pattern(filters: Any) -> Any:
    """A pattern over an event from filters, which may also be a pattern over its data alone.

    >>> filters_as_pattern({"total": [{"numeric": [">", 9]}]})
    {'data': {'total': [{'numeric': ['>', 9]}]}}
    """
    if isinstance(filters, dict) and filters and not set(filters) <= {*ATTRIBUTES, "$or"}:
        return {"data": filters}
    return filters


def authentication(problems: Problems, at: str, value: Any) -> Any:
    if not isinstance(value, dict):
        add(problems, at, "must be an object")
        return value
    for name, items in value.items():
        if name not in {"methods", "endpoints", "keys", "scopes"}:
            add(problems, f"{at}.{str(name)[:80]}", "is not known (known: methods, endpoints, keys, scopes)")
        elif not isinstance(items, list) or len(items) > 100 or any(not isinstance(item, str) for item in items):
            add(problems, f"{at}.{name}", "must be a list of at most 100 texts")
        elif name == "methods" and any(item not in SENDER_METHODS for item in items):
            add(problems, f"{at}.{name}", f"must be some of {', '.join(SENDER_METHODS)}")
        elif name == "scopes" and any(item not in keys.SCOPES for item in items):
            add(problems, f"{at}.{name}", f"must be some of {', '.join(keys.SCOPES)}")
    return value


def input_template(problems: Problems, at: str, value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, dict) and not (isinstance(value, str) and value.startswith("${{")):
        add(problems, at, "must be an object, or an expression that gives one")
        return value
    _template(problems, at, value)
    return value


def key_template(problems: Problems, at: str, value: Any) -> Any:
    if not isinstance(value, str) or len(value) > 500:
        add(problems, at, "must be a text of at most 500 characters")
    else:
        _template(problems, at, value)
    return value


def _template(problems: Problems, at: str, value: Any) -> None:
    try:
        compile_template(value, roots=ROOTS)
    except ExpressionError as error:
        place = f" at position {error.position}" if error.position is not None else ""
        add(problems, at + error.path.removeprefix("$"), error.reason + place)


def queue(problems: Problems, at: str, value: Any) -> Any:
    if value != "":
        definitions.check_queue(problems, value, at=at)
    return value


def priority_or_none(problems: Problems, at: str, value: Any) -> Any:
    if value is None:
        return None
    try:
        return priority.parse(value)
    except ValueError as error:
        add(problems, at, str(error))
        return value


def retry_policy(problems: Problems, at: str, value: Any) -> Any:
    if value is not None:
        try:
            definitions.check_retry_policy(value, at=at)
        except InvalidInput as error:
            problems.update({path: list(rules) for path, rules in error.fields.items()})
    return value


def seconds(problems: Problems, at: str, value: Any) -> Any:
    if value is not None and (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not 0 < value <= 31_536_000
    ):
        add(problems, at, "must be a number of seconds above 0, or null")
    return value


def flow(kind: str) -> Check:
    def check(problems: Problems, at: str, value: Any) -> Any:
        if value is not None:
            problems.update(flow_specs.problems_of(kind, value, at=at))
        return value

    return check


TRIGGER: Final[Mapping[str, Check]] = {
    "name": text(200, required=True),
    "description": text(10_000),
    "owner": text(200),
    "labels": labels,
    "metadata": json_object,
    "event_types": event_types,
    "pattern": pattern,
    "authentication": authentication,
    "input": input_template,
    "priority": priority_or_none,
    "queue": queue,
    "retry_policy": retry_policy,
    "timeout": seconds,
    "concurrency_key": key_template,
    "throttle": flow("throttle"),
    "debounce": flow("debounce"),
    "batch": flow("batch"),
    "max_activations": whole(1, 2_147_483_647),
    "start_at": instant,
    "end_at": instant,
    "enabled": flag,
}


# ── Endpoints ────────────────────────────────────────────────────────────────────────────────────────────────


def slug(problems: Problems, at: str, value: Any) -> Any:
    if not isinstance(value, str) or len(value) > 100 or not _SLUG.match(value):
        add(problems, at, "must have 1 to 100 small letters, digits, '.', '_' and '-', not starting with a sign")
    return value


def scheme(problems: Problems, at: str, value: Any) -> Any:
    if value not in signatures.SCHEMES:
        add(problems, at, f"must be one of {', '.join(signatures.SCHEMES)}")
    return value


def methods(problems: Problems, at: str, value: Any) -> Any:
    if not isinstance(value, list) or not value or any(item not in METHODS for item in value):
        add(problems, at, f"must be some of {', '.join(METHODS)}")
    return value


def blocks(problems: Problems, at: str, value: Any) -> Any:
    problems.update(addresses.problems_of(value, at=at))
    return value


def type_from(problems: Problems, at: str, value: Any) -> Any:
    kind, _, rest = value.partition(":") if isinstance(value, str) else ("", "", "")
    fits = {
        "header": lambda: _HEADER.fullmatch(rest) is not None,
        "path": lambda: _DOTTED.fullmatch(rest) is not None,
        "fixed": lambda: payloads.is_type(rest),
    }
    if value != "" and not (kind in fits and fits[kind]()):
        add(problems, at, "must be header:<name>, path:<dotted path> or fixed:<type>, or empty")
    return value


def dotted_path(problems: Problems, at: str, value: Any) -> Any:
    if not isinstance(value, str) or len(value) > 200 or (value and not _DOTTED.fullmatch(value)):
        add(problems, at, "must be a dotted path such as order.id, or empty")
    return value


def scheme_config_problems(scheme_name: str, config: Any) -> Problems:
    """What the scheme does not understand of its settings."""
    try:
        signatures.check_config(scheme_name, config)
    except SignatureConfigError as error:
        return {f"scheme_config.{error.field}": [error.reason]}
    return {}


ENDPOINT: Final[Mapping[str, Check]] = {
    "slug": slug,
    "description": text(10_000),
    "owner": text(200),
    "labels": labels,
    "scheme": scheme,
    "scheme_config": json_object,
    "require_api_key": flag,
    "methods": methods,
    "allowed_networks": blocks,
    "max_body_bytes": whole(1, 5_242_880),
    "rate_per_minute": whole(1, 10_000_000),
    "burst": whole(1, 1_000_000),
    "caller_rate_per_minute": whole(1, 10_000_000),
    "when_redis_is_away": choice(WhenRedisIsAway),
    "type_from": type_from,
    "dedup": choice(Dedup),
    "dedup_path": dotted_path,
    "dedup_window": whole(1, 31_536_000),
    "response_mode": choice(ResponseMode),
}
