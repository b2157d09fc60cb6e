"""When a schedule is due: pure and exact, without clock or database. `occurrences` is the door; the rest serves it."""
