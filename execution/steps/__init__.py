"""The kinds of step that a worker performs, one file each: `kinds` registers them, `context` is for step code."""
