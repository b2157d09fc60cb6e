"""Whom a server may run as, and what that account can reach.

Postgres refuses to run as root. When we are root (a container, usually) it runs as an unprivileged account
instead. That account may not be able to reach the virtual environment or the data folder (both below
``/root``, for instance). We never change the permissions of a folder that we did not make: what cannot be
reached is copied, or placed elsewhere, and that is said.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scheduling_project.embedded.errors import EmbeddedServerError

FALLBACK_ACCOUNT = "nobody"


@dataclass(frozen=True)
class Account:
    """An unprivileged account by its numbers."""

    user: int
    group: int

    def can(self, test: str, path: Path) -> bool:
        """Ask the kernel, as that account, one of the shell's file tests: ``-r``, ``-w`` or ``-x``.

        Raises ``EmbeddedServerError`` when this process may not change its user.
        """
        try:
            answer = subprocess.run(
                ["/bin/sh", "-c", 'test "$0" "$1"', test, str(path)],
                user=self.user,
                group=self.group,
                extra_groups=[],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedServerError(
                f"Postgres refuses to run as root, and this process may not start it as user {self.user} ({error}): "
                "run as an ordinary user, or set DATABASE_URL to a Postgres server."
            ) from error
        return answer.returncode == 0


def unprivileged_account(existing: Path | None = None) -> Account | None:
    """Return the account a server must run as, or None when we are an ordinary user and it runs as ourselves.

    As root: the owner of the ``existing`` data, so that they stay readable; else who called ``sudo``; else
    ``nobody``. Raises ``EmbeddedServerError`` when there is no such account.
    """
    if os.geteuid() != 0:
        return None
    if existing is not None and existing.exists():
        owner = existing.stat()
        if owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
    caller = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if caller[0].isdigit() and caller[1].isdigit() and int(caller[0]) != 0:
        return Account(int(caller[0]), int(caller[1]))
    try:
        entry = pwd.getpwnam(FALLBACK_ACCOUNT)
    except KeyError:
        raise EmbeddedServerError(
            f"Postgres refuses to run as root and this system has no account {FALLBACK_ACCOUNT!r} to run it as: "
            "run as an ordinary user, or set DATABASE_URL to a Postgres server."
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)
