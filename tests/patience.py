"""How long a test waits before it says that something does not answer. It is no measurement: those stand in
`tests/benchmarks/`, beside a baseline of the same run."""

PATIENCE = 30.0
"""Seconds. What is asserted with it answers in milliseconds; a loaded machine may take a thousand times longer."""
