"""Each published vector in turn."""

from __future__ import annotations

import pytest

from tests.triggers.signatures.vectors import VECTORS, Vector


@pytest.fixture(params=VECTORS)
def vector(request: pytest.FixtureRequest) -> Vector:
    return VECTORS[request.param]
