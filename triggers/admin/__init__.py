"""The admin of the triggers app: one module per kind of page. Importing them registers them."""

from triggers.admin import endpoints, inbox, keys, triggers

__all__ = ["endpoints", "inbox", "keys", "triggers"]
