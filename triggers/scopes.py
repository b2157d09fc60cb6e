"""What an API key may be used for: scopes, each a bundle of the verbs of `common.permissions`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from scheduling_project.common.permissions import EDITING, OPERATING, PUBLISH, READING, VERBS

#: What a scope allows, in a line for people, and its verbs. A key never allows more than its user may.
SCOPES: Final[Mapping[str, str]] = {
    "read": "See everything the key's user may see.",
    "operate": "Start, pause, cancel and redrive.",
    "write": "Create, change and delete, and operate.",
    "events": "Publish events.",
    "webhooks": "Deliver to endpoints that ask for a key.",
    "admin": "All of it, and handle keys and secrets.",
}
VERBS_OF: Final[Mapping[str, frozenset[str]]] = {
    "read": READING,
    "operate": OPERATING,
    "write": EDITING | OPERATING,
    "events": frozenset({PUBLISH}),
    "webhooks": frozenset(),
    "admin": VERBS,
}


def verbs_of(scopes: Iterable[str]) -> frozenset[str]:
    """The verbs of several scopes together.

    >>> sorted(verbs_of(["read", "events"]))
    ['publish', 'view']
    """
    return frozenset().union(*(VERBS_OF.get(scope, frozenset()) for scope in scopes))
