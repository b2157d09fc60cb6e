"""Where the embedded servers of this data folder answer, for commands typed beside ``make run``.

``manage.py up`` announces its servers in a file of the data folder; ``celery -A scheduling_project worker``
in another terminal finds them there. The announcement counts only while the announcing process holds the
folder's lock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from scheduling_project.embedded.locks import FolderLock

SERVERS_FILE = "servers.json"
LOCK_FILE = "up.lock"


def announce(data_dir: Path, urls: Mapping[str, str]) -> None:
    """Note the URLs by the names of their settings: ``DATABASE_URL``, ``REDIS_URL``."""
    from scheduling_project.embedded.server import write_private  # whoever only reads needs nothing of servers

    write_private(data_dir / SERVERS_FILE, json.dumps(dict(urls)))


def withdraw(data_dir: Path) -> None:
    """Remove the announcement."""
    (data_dir / SERVERS_FILE).unlink(missing_ok=True)


def announced(data_dir: Path) -> dict[str, str]:
    """Return the URLs of the servers that run for this folder now; empty when none do."""
    try:
        urls = json.loads((data_dir / SERVERS_FILE).read_text())
        holder = FolderLock(data_dir / LOCK_FILE).holder()
    except (OSError, ValueError):
        return {}
    if holder is None or not isinstance(urls, dict):
        return {}
    return {str(name): str(url) for name, url in urls.items()}
