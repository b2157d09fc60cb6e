"""The garbage collector of a process that has loaded what it needs and now does the same work for months."""

from __future__ import annotations

import gc
from typing import Final

#: New containers before the youngest generation is looked through (Python's own figure: 700). A batch of firing makes
#: some ten thousand that live until its end: looked through every 700, again and again, in vain.
YOUNGEST: Final = 50_000
#: Looks at the youngest generation before one at the middle, and of those before one at all.
OLDER: Final = (20, 20)


def settle_memory() -> None:
    """What is loaded by now is taken out of the collector's sight, and it looks less often. Idempotent.

    Almost all objects are freed by their reference counts; the collector only finds cycles, which our own work does
    not make. What libraries leave in cycles is still collected, so memory stays flat.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNGEST, *OLDER)
