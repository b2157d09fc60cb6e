"""What can go wrong with the embedded servers."""

from __future__ import annotations


class EmbeddedServerError(RuntimeError):
    """An embedded server cannot run; the message is one sentence for a person, saying what to do."""
