"""Live updates: `/ws/`, where clients follow what changes (docs/reference/live.md)."""
