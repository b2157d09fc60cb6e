"""How request bodies are read. A module of its own: Django REST framework imports it while it imports its views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from rest_framework import exceptions
from rest_framework.parsers import BaseParser

from scheduling_project.common import json_values
from scheduling_project.common.errors import InvalidInput


class StrictJSONParser(BaseParser):
    """JSON that can be kept (`json_values.parse`); anything else is answered with 400, naming what is wrong."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        content = stream.read()
        if not content.strip():
            return {}
        try:
            return json_values.parse(content)
        except json_values.JSONProblem as error:
            if error.path:
                raise InvalidInput("The body cannot be kept.", fields={error.path: [error.rule]}) from None
            raise exceptions.ParseError(f"The body {error.rule}.") from None
