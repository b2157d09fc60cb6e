"""What others need for the same work: they run in an environment of their own (``requirements-bench.txt``).

Nothing here imports the project: that environment does not have what it needs.
"""
