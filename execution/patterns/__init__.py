"""Event patterns: EventBridge's language, compiled once and matched in bounded time.

`reading` checks a pattern's text and builds its `tree`, `matching` holds an event against it, `compiled` is what
callers keep. Nothing here knows triggers or the database.
"""

from __future__ import annotations

from execution.patterns.compiled import (
    CompiledPattern,
    ExactRequirement,
    IndexKey,
    Mismatch,
    compile,
    index_key,
    index_keys_at,
)
from execution.patterns.tree import PatternError

__all__ = [
    "CompiledPattern",
    "ExactRequirement",
    "IndexKey",
    "Mismatch",
    "PatternError",
    "compile",
    "index_key",
    "index_keys_at",
]
