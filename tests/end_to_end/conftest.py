"""The stores of one server."""

from pathlib import Path

import pytest

from tests.end_to_end.cloche import Stores


@pytest.fixture
def stores(database_url: str, owner_database_url: str, redis_url: str, tmp_path: Path) -> Stores:
    return Stores(database_url, owner_database_url, redis_url, tmp_path / "journal")
