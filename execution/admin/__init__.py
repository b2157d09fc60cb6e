"""The admin of the execution app: one module per page. Importing them registers them."""

from execution.admin import capacity, dead_letters, executions, processes, trail, workflows

__all__ = ["capacity", "dead_letters", "executions", "processes", "trail", "workflows"]
