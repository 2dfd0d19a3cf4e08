"""One database for all tests of a file: what a test leaves there, the next one drops."""

from collections.abc import AsyncIterator, Iterator

import pytest

from storage.deliveries import Deliveries
from storage.embedded import EmbeddedServers
from storage.postgres import Database, open_database
from tests.conftest import with_database
from tests.databases import Databases
from tests.storage.people import open_query
from tests.storage.phones import Phones


@pytest.fixture(scope="module")
def push_database_name(databases: Databases) -> Iterator[str]:
    with databases.lend() as name:
        yield name


@pytest.fixture
async def push_database(servers: EmbeddedServers, push_database_name: str) -> AsyncIterator[Database]:
    async with open_database(with_database(servers.database_url, push_database_name), size=8) as database:
        yield database


@pytest.fixture
async def deliveries(push_database: Database) -> Deliveries:
    return Deliveries(push_database)


@pytest.fixture
def phones(servers: EmbeddedServers, push_database_name: str) -> Iterator[Phones]:
    with open_query(with_database(servers.owner_database_url, push_database_name)) as query:
        query("DELETE FROM users")
        yield Phones(query)
