"""The window of time that statistics are asked for."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from scheduling_project.common.errors import InvalidInput

MAX_HOURS: Final = 24 * 90
WINDOW = OpenApiParameter("hours", OpenApiTypes.INT, description=f"Back from now, 1 to {MAX_HOURS}; 24 when left out.")


def window_of(request: Request) -> timedelta:
    """The window that ``hours`` asks for.

    Raises:
        InvalidInput: it is not a whole number in range.
    """
    text = request.query_params.get("hours", "24")
    if not text.isdecimal() or len(text) > 5 or not 1 <= int(text) <= MAX_HOURS:
        raise InvalidInput(fields={"hours": [f"must be a whole number from 1 to {MAX_HOURS}"]})
    return timedelta(hours=int(text))
