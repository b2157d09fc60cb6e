"""``celery -A scheduling_project beat`` in a process that loads what a beat needs and nothing else.

Takes the command line of ``celery … beat``, of which it runs Celery's own command: see `process_role.lean_command`.

    python -m scheduling_project.lean_beat -A scheduling_project beat --loglevel INFO
"""

from __future__ import annotations

import os
import sys
from typing import Any

#: What others load if it can be had and do well without: prettier tracebacks, coloured listings, a message format and
#: a kind of threads that a beat does not use.
DISPENSABLE = ("pygments", "rich", "colorama", "greenlet", "yaml")


def main() -> None:
    """Run the beat until it is told to stop."""
    from scheduling_project.process_role import global_options

    understood = global_options(sys.argv)
    if understood is None:
        sys.exit("Give the command line of a beat: -A scheduling_project beat [options]")
    flags, args = understood
    missing: Any = None  # importing such a module fails, as if it were not installed
    sys.modules.update({name: missing for name in DISPENSABLE if name not in sys.modules})
    # Django's checks load every page, and a deployment has had them: `manage.py` commands run them all.
    os.environ.setdefault("CELERY_SKIP_CHECKS", "true")

    from celery.bin.base import CLIContext
    from celery.bin.beat import beat

    from scheduling_project.celery import app

    context = CLIContext(
        app=app, no_color=bool(flags & {"-C", "--no-color"}), workdir=None, quiet=bool(flags & {"-q", "--quiet"})
    )
    beat.main(args=args, prog_name="celery beat", obj=context)


if __name__ == "__main__":
    main()
