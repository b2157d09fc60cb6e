"""A client of the API for tests: JSON in, JSON out, and every error must be a problem document."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from rest_framework.response import Response
from rest_framework.test import APIClient

from scheduling_project.common.problems import MEDIA_TYPE


class Api(APIClient):
    """Signed in as `ada` unless told otherwise."""

    def __init__(self, *, user: User | None = None, anonymous: bool = False) -> None:
        super().__init__()
        if not anonymous:
            self.user = user or User.objects.get_or_create(username="ada", is_superuser=True)[0]
            self.force_authenticate(self.user)

    def ok(self, method: str, path: str, data: Any = None, *, status: int = 200, **extra: Any) -> Any:
        """The body of a request that succeeds."""
        answer = self.answer(method, path, data, **extra)
        assert answer.status_code == status, (answer.status_code, answer.content)
        return answer.json() if answer.content else None

    def refused(self, method: str, path: str, data: Any = None, *, status: int, field: str = "", **extra: Any) -> Any:
        """The problem document of a request that is refused, naming `field` if given."""
        answer = self.answer(method, path, data, **extra)
        assert answer.status_code == status, (answer.status_code, answer.content)
        assert answer["Content-Type"] == MEDIA_TYPE, answer["Content-Type"]
        problem = answer.json()
        assert problem["status"] == status
        assert problem["code"]
        if field:
            assert field in problem.get("errors", {}), problem
        return problem

    def answer(self, method: str, path: str, data: Any = None, **extra: Any) -> Response:
        call = getattr(self, method.lower())
        body: dict[str, Any] = {} if data is None else {"data": data}
        if data is not None and method.lower() != "get":
            body.setdefault("format", "json")
        found: Response = call(path, **body, **extra)
        return found
