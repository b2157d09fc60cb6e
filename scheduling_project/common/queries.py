"""What the query of a request may hold: exactly what its operation's description names, and ``fields``.

A parameter that nobody knows is a mistake (``?stat=failed`` must not answer with everything), so it is refused by
name. ``?fields=id,state`` leaves only those members in the answer, or in each of its results.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Final

from drf_spectacular.plumbing import ComponentRegistry, force_instance
from rest_framework import serializers
from rest_framework.request import Request

from scheduling_project.common.errors import InvalidInput

FIELDS: Final = "fields"
MAX_FIELDS: Final = 200
#: What the framework calls the answer to OPTIONS, which is no operation of the document.
METADATA: Final = "metadata"

_known: dict[tuple[type, str], Known] = {}


@dataclass(frozen=True, slots=True)
class Known:
    """The names of an action's query parameters, and of the members that its answers have."""

    parameters: frozenset[str]
    members: frozenset[str]


def check(request: Request, view: Any) -> None:
    """Refuse a query that holds what the action does not know.

    Raises:
        InvalidInput: naming each such parameter, or the member that ``fields`` asks for and no answer has.
    """
    if not request.query_params or getattr(view, "action", None) in (None, METADATA):
        return
    known = known_of(view, "GET" if request.method == "HEAD" else str(request.method))
    unknown = {
        name[:100]: ["is not a known parameter"] for name in request.query_params if name not in known.parameters
    }
    if unknown:
        raise InvalidInput("The query holds what this operation does not know.", fields=unknown)
    wanted = wanted_fields(request)
    strange = sorted(wanted - known.members) if wanted is not None else []
    if strange:
        raise InvalidInput(fields={FIELDS: [f"{name[:100]} is not a member of the answer" for name in strange[:10]]})


def wanted_fields(request: Request) -> frozenset[str] | None:
    """The members that ``fields`` asks for; None for all.

    Raises:
        InvalidInput: it names none, or far too many.
    """
    text = request.query_params.get(FIELDS)
    if text is None:
        return None
    names = frozenset(name.strip() for name in text.split(","))
    if "" in names or len(names) > MAX_FIELDS:
        raise InvalidInput(fields={FIELDS: ["must be names of members, separated by commas"]})
    return names


def sparse(data: Any, wanted: frozenset[str]) -> Any:
    """An answer with only some members; of a page, each of its results.

    >>> sparse({"results": [{"id": 1, "name": "a"}], "next": None}, frozenset({"id"}))
    {'results': [{'id': 1}], 'next': None}
    """
    if isinstance(data, Mapping) and isinstance(data.get("results"), list):
        return {**data, "results": [sparse(row, wanted) for row in data["results"]]}
    if isinstance(data, list):
        return [sparse(row, wanted) for row in data]
    return {name: value for name, value in data.items() if name in wanted}


def known_of(view: Any, method: str) -> Known:
    """What the action of a view knows, from its own description; found once per action and method."""
    key = (type(view), f"{method} {view.action}")
    if key not in _known:
        schema = _schema_of(view, method)
        parameters = {item["name"] for item in schema._get_parameters() if item["in"] == "query"}
        if "limit" in parameters and "cursor" in parameters:
            parameters.add("page_size")
        _known[key] = Known(frozenset(parameters), frozenset(members_of(schema)))
    return _known[key]


def members_of(schema: Any) -> set[str]:
    """The members of what an operation answers with; none where that is not an object of known shape."""
    answers = schema.get_response_serializers()
    if isinstance(answers, dict):
        answers = answers.get(200)
    answer = force_instance(answers)  # type: ignore[no-untyped-call]
    if isinstance(answer, serializers.ListSerializer):
        answer = answer.child
    return set(answer.fields) if isinstance(answer, serializers.Serializer) else set()


def _schema_of(view: Any, method: str) -> Any:
    """drf-spectacular's description of the present action, as its generator would make it."""
    described = getattr(getattr(view, view.action, None), "kwargs", {}).get("schema")
    # The view's own description is shared by all requests of the process: a copy is changed, never the original.
    schema = described() if described is not None else copy(view.schema)
    schema.view, schema.method = view, method
    schema.path = schema.path_regex = schema.path_prefix = ""
    schema.registry = ComponentRegistry()
    return schema
