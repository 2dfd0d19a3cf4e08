"""One database for all tests of a file, whose users are their own: making one takes longer than most of these tests."""

from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from storage.credits import Credits
from storage.embedded import EmbeddedServers
from storage.postgres import Database, open_database
from tests.conftest import with_database
from tests.databases import Databases
from tests.storage.accounting import check_accounts
from tests.storage.people import Query, open_query


@pytest.fixture(scope="module")
def accounts_name(databases: Databases) -> Iterator[str]:
    with databases.lend() as name:
        yield name


@pytest.fixture
async def accounts(servers: EmbeddedServers, accounts_name: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(with_database(servers.database_url, accounts_name), size=10) as database:
            yield database


@pytest.fixture
def ask(servers: EmbeddedServers, accounts_name: str) -> Iterator[Query]:
    """SQL as the superuser. After every test that has it, the accounts must add up."""
    with open_query(with_database(servers.owner_database_url, accounts_name)) as query:
        yield query
        check_accounts(query)


@pytest.fixture
def credits_of_all(accounts: Database) -> Credits:
    return Credits(accounts)
