"""Postgres and Redis out of Python wheels, for a laptop and for tests. Nothing in here imports Django.

>>> from scheduling_project.embedded import EmbeddedPostgres
>>> server = EmbeddedPostgres(".data/postgres")       # doctest: +SKIP
>>> server.start()                                    # doctest: +SKIP
'postgresql://scheduling:…@127.0.0.1:40123/scheduling'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scheduling_project.embedded.errors import EmbeddedServerError
    from scheduling_project.embedded.postgres import EmbeddedPostgres
    from scheduling_project.embedded.redis import EmbeddedRedis

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "EmbeddedServerError"]

_HOMES = {"EmbeddedServerError": "errors", "EmbeddedPostgres": "postgres", "EmbeddedRedis": "redis"}


def __getattr__(name: str) -> Any:
    """Import a server when somebody asks for it: the settings import only `discovery`, in every process."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
