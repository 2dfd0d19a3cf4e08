"""What every test may ask for: a database of its own, a Redis of its own, the recordings if they are there."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo

from storage.embedded import EmbeddedServers, temporary_servers
from storage.migrate import migrate
from storage.redis import Redis, open_redis
from storage.seed import seed
from tests.databases import Databases, open_databases
from tests.storage.people import Query, open_query

PROJECT = Path(__file__).resolve().parent.parent
RECORDINGS = PROJECT.parent / "shared" / "recordings"

TEMPLATE = "cloche_template"


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    """One PostgreSQL and one Redis for the whole run."""
    with temporary_servers() as running:
        yield running


@pytest.fixture(scope="session")
def template(servers: EmbeddedServers) -> str:
    """A database that is migrated and seeded once, to be copied."""
    with psycopg.connect(servers.owner_database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    url = make_conninfo(servers.owner_database_url, dbname=TEMPLATE)
    migrate(url)
    seed(url)
    return TEMPLATE


@pytest.fixture(scope="session")
def databases(servers: EmbeddedServers, template: str) -> Iterator[Databases]:
    with open_databases(servers.owner_database_url, template) as copies:
        yield copies


@pytest.fixture
def database_name(databases: Databases) -> Iterator[str]:
    """A migrated and seeded database of the test's own."""
    with databases.lend() as name:
        yield name


@pytest.fixture
def database_url(servers: EmbeddedServers, database_name: str) -> str:
    """As the server logs in."""
    return with_database(servers.database_url, database_name)


@pytest.fixture
def owner_database_url(servers: EmbeddedServers, database_name: str) -> str:
    """As the superuser, to look at what the server did."""
    return with_database(servers.owner_database_url, database_name)


@pytest.fixture
def redis_url(servers: EmbeddedServers) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushall()
    return servers.redis_url


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    """Of Redis."""
    async with open_redis(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Real exchanges with the providers, which are not part of this repository."""
    if not RECORDINGS.is_dir():
        pytest.skip("the recordings of real exchanges are not there: they are kept beside the project, in shared/")
    return RECORDINGS


@pytest.fixture
def count_replayed(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Tell how many recordings of a kind were replayed; the end of the run shows it."""
    return lambda kind, count: record_property("replayed", f"{kind}: {count}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed")
    counts = [value for report in reports for name, value in report.user_properties if name == "replayed"]
    if counts:
        terminalreporter.section("recordings replayed")
        terminalreporter.write_line("\n".join(str(count) for count in counts))


def with_database(url: str, name: str) -> str:
    """The same server, another database. Stays a URL, as the settings want it."""
    head, _, query = url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything can be installed, nothing may be skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CLOCHE_NO_SKIPS") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def query(owner_database_url: str) -> Iterator[Query]:
    """What the tables hold, seen by the superuser."""
    with open_query(owner_database_url) as query:
        yield query


@pytest.fixture
def bare_logs() -> Iterator[logging.Logger]:
    """The root logger, without what pytest listens with, for a test that sets up logs as a server does. All that it
    touches is left as it was found.
    """
    root = logging.getLogger()
    loggers = [root, logging.getLogger("hypercorn"), logging.getLogger("hpack")]
    before = [(logger, logger.level, logger.propagate) for logger in loggers]
    handlers, root.handlers = root.handlers, []
    yield root
    root.handlers = handlers
    for logger, level, propagate in before:
        logger.propagate = propagate
        logger.setLevel(level)
