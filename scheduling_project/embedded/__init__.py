"""Postgres and Redis out of Python wheels, for a laptop and for tests. Nothing in here imports Django.

>>> from scheduling_project.embedded import EmbeddedPostgres
>>> server = EmbeddedPostgres(".data/postgres")       # doctest: +SKIP
>>> server.start()                                    # doctest: +SKIP
'postgresql://scheduling:…@127.0.0.1:40123/scheduling'
"""

from scheduling_project.embedded.errors import EmbeddedServerError
from scheduling_project.embedded.postgres import EmbeddedPostgres
from scheduling_project.embedded.redis import EmbeddedRedis

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "EmbeddedServerError"]
