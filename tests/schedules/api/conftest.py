from __future__ import annotations

import pytest

from tests.api_client import Api


@pytest.fixture
def api(db: None) -> Api:
    return Api()
