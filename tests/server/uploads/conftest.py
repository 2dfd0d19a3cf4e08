"""The app, with a route that takes uploads into a folder of the test's own."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.server.served import Served, open_served
from tests.server.uploads.uploading import Witness, add_route


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def stores(database_url: str, redis_url: str) -> Mapping[str, str]:
    return {"DATABASE_URL": database_url, "REDIS_URL": redis_url}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "uploads"
    place.mkdir()
    return place


@pytest.fixture
async def served(
    stores: Mapping[str, str], tmp_path: Path, folder: Path, witness: Witness
) -> AsyncIterator[Served]:
    async with open_served(stores, tmp_path, UPLOAD_DIR=str(folder), MAX_BODY_BYTES="2000000") as served:
        add_route(served, witness)
        yield served
