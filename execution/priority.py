"""Priorities: 0 to 9, 0 first, as Redis and Oban have them."""

from __future__ import annotations

from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

HIGHEST, LOWEST = 0, 9
LEVELS = range(HIGHEST, LOWEST + 1)
NAMES = {"critical": 0, "high": 3, "normal": 6, "low": 9}
NORMAL = NAMES["normal"]

VALIDATORS = [MinValueValidator(HIGHEST), MaxValueValidator(LOWEST)]


def parse(value: object) -> int:
    """A priority from a number 0 to 9 or one of its names.

    >>> parse("critical"), parse(4)
    (0, 4)

    Raises:
        ValueError: naming the value and the rule.
    """
    if isinstance(value, str) and value.lower() in NAMES:
        return NAMES[value.lower()]
    if isinstance(value, int) and not isinstance(value, bool) and value in LEVELS:
        return value
    raise ValueError(f"{value!r} is not a priority: a whole number 0 (first) to 9, or {', '.join(NAMES)}")


def field(**options: Any) -> models.PositiveSmallIntegerField[int, int]:
    """A model field that holds a priority."""
    return models.PositiveSmallIntegerField(
        default=NORMAL, validators=VALIDATORS, help_text="0 (first) to 9; normal is 6", **options
    )
