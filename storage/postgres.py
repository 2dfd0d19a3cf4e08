"""PostgreSQL: a pool of connections, lent only to someone with rights.

Who asks is set for one transaction, never for a connection: a role and `app.user_id`, which the policies compare.
"""

import select
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import trio
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from storage.errors import DatabaseUnavailable
from storage.prepared import Prepared
from storage.psycopg_trio import END_SECONDS, TrioConnection

Parameters = Mapping[str, object] | Sequence[object]

CLOSE_SECONDS = 5.0
ANSWER_SECONDS = 11.0
"""For a turn and a statement. A server that lives keeps its own limit of ten seconds; one that hangs keeps none."""
TRANSACTION_SECONDS = 20.0
"""For a turn and a whole transaction: a server that lives ends what waits or runs long before."""

# All for one transaction (`true`): PostgreSQL takes them back at its end, however it ends.
AS_USER: LiteralString = (
    "SELECT set_config('role', 'cloche_request', true),"
    " set_config('app.user_id', %s, true), set_config('app.reason', '', true);"
)
AS_OPERATOR: LiteralString = (
    "SELECT set_config('role', 'cloche_operator', true),"
    " set_config('app.user_id', '', true), set_config('app.reason', %s, true);"
)

# What the URL says wins. A server that vanishes without a word is noticed after tcp_user_timeout (milliseconds).
CONNECTION_DEFAULTS = {
    "application_name": "cloche",
    "client_encoding": "UTF8",
    "connect_timeout": "5",
    "keepalives_idle": "30",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
SESSION_OPTIONS = (
    "-c TimeZone=UTC -c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=15s"
)


@asynccontextmanager
async def open_database(url: str, *, size: int) -> AsyncIterator["Database"]:
    """A pool of at most `size` connections, made as they are needed; all are closed at the end.

    Raises DatabaseUnavailable if the first connection cannot be made; the message says what to check.
    """
    pool = _Pool(read_conninfo(url), size)
    try:
        async with pool.lend():
            pass
        yield Database(pool)
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await pool.wait_returned()
        pool.close_nowait()


class Database:
    """The way to the rows: with the rights of a user or of the operator."""

    def __init__(self, pool: "_Pool") -> None:
        self._pool = pool

    def as_user(self, user_id: UUID) -> "Rights":
        """The rights of one user: policies show the rows with this `user_id`."""
        return Rights(self._pool, AS_USER, str(user_id))

    def as_operator(self, reason: str) -> "Rights":
        """The rights of background jobs and administration; the reason can be read as `app.reason`."""
        return Rights(self._pool, AS_OPERATOR, reason)

    async def check(self) -> None:
        """One statement on a pooled connection. Raises DatabaseUnavailable if PostgreSQL does not answer it."""
        async with self._pool.lend() as connection:
            await connection.send(b"SELECT 1")


@dataclass(frozen=True, slots=True)
class Rights:
    """What one user, or the operator, may do. Nothing of it stays on a connection after a statement or transaction.

    DatabaseUnavailable means that the connection could not be made or was lost, or that PostgreSQL had no time or room
    for the statement; other errors that it raised for a statement come as psycopg raises them.
    """

    _pool: "_Pool"
    _settings: LiteralString
    _holder: str

    async def fetch_prepared(self, statement: Prepared, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """`fetch`, for a statement that runs often and is planned once for a connection."""
        with trio.move_on_after(ANSWER_SECONDS):
            async with self._pool.lend() as connection:
                return await statement.run(connection, self._bind(connection), parameters)
        raise DatabaseUnavailable(f"PostgreSQL did not answer within {ANSWER_SECONDS:g} seconds")

    async def fetch(self, statement: LiteralString, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run one statement as a transaction of its own, in one round trip, and return its rows.

        Parameters are written as `%s` or `%(name)s`. An error that PostgreSQL raised means that nothing has happened.
        If the connection is lost or the scope cancelled while the statement runs, whether it took effect is unknown.
        """
        with trio.move_on_after(ANSWER_SECONDS):
            async with self._pool.lend() as connection:
                return await connection.send(self._bind(connection) + connection.bind(statement, parameters))
        raise DatabaseUnavailable(f"PostgreSQL did not answer within {ANSWER_SECONDS:g} seconds")

    async def fetch_one(self, statement: LiteralString, parameters: Parameters = ()) -> tuple[Any, ...] | None:
        """The first row of `fetch`, or None if there is none."""
        rows = await self.fetch(statement, parameters)
        return rows[0] if rows else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[TrioConnection]:
        """Several statements, all or nothing: COMMIT if the block ends well, else ROLLBACK.

        Raises DatabaseUnavailable after TRANSACTION_SECONDS, wherever the block is then.
        COMMIT is shielded: a block that was left without an exception is committed even if the scope is cancelled.
        The block holds a connection: a `fetch` inside of it asks for a second one, and if every slot is held by
        such a block, all of them wait until that time is over.
        """
        async with self._open(b"BEGIN;", TRANSACTION_SECONDS) as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self, seconds: float) -> AsyncIterator[TrioConnection]:
        """Several statements that only read, and all see the rows of one moment. They have so many seconds together,
        also if they take long: DatabaseUnavailable is raised after that.
        """
        begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {int(seconds * 1000)};"
        async with self._open(begin.encode(), seconds) as connection:
            yield connection

    @asynccontextmanager
    async def _open(self, begin: bytes, seconds: float) -> AsyncIterator[TrioConnection]:
        with trio.move_on_after(seconds) as scope:
            async with self._pool.lend() as connection:
                try:
                    await connection.send(begin + self._bind(connection))
                    yield connection
                    await _commit(connection)
                finally:
                    with trio.move_on_after(END_SECONDS, shield=True):
                        await _roll_back(connection)
        if scope.cancelled_caught:
            raise DatabaseUnavailable(f"PostgreSQL did not answer within {seconds:g} seconds")

    def _bind(self, connection: TrioConnection) -> bytes:
        return connection.bind(self._settings, (self._holder,))


async def _commit(connection: TrioConnection) -> None:
    if not connection.is_in_healthy_transaction:
        raise errors.InFailedSqlTransaction(
            "a statement failed and the block went on, or it ended the transaction itself: nothing was committed here;"
            " use connection.transaction() around a statement that may fail"
        )
    with trio.move_on_after(END_SECONDS, shield=True):
        await connection.send(b"COMMIT")
        return
    raise DatabaseUnavailable("PostgreSQL did not confirm a COMMIT in time; whether it took effect is unknown")


async def _roll_back(connection: TrioConnection) -> None:
    """A connection that cannot roll back is closed by the pool, which ends its transaction too."""
    if not connection.is_reusable:
        with suppress(psycopg.Error):
            await connection.send(b"ROLLBACK")


class _Pool:
    """Connections to lend, the last one used first. A slot is held from before a connection is looked for."""

    def __init__(self, conninfo: str, size: int) -> None:
        self._conninfo = conninfo
        self._size = size
        self._slots = trio.Semaphore(size)
        self._idle: list[TrioConnection] = []
        self._lent: set[TrioConnection] = set()
        self._is_open = True

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[TrioConnection]:
        """A connection outside of any transaction. Waiting is fair; what comes back unusable is closed."""
        self._require_open()
        await self._take_slot()
        try:
            connection = self._take_idle() or await self._connect()
            self._lent.add(connection)
            try:
                yield connection
            except psycopg.Error as error:
                if not (_is_lost(connection, error) or _is_overload(error)):
                    raise
                raise DatabaseUnavailable(f"PostgreSQL broke off: {error}") from error
            finally:
                self._give_back(connection)
        finally:
            self._slots.release()

    def _require_open(self) -> None:
        if not self._is_open:
            raise DatabaseUnavailable("the database was closed: it is used after the block that opened it")

    async def _take_slot(self) -> None:
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await self._slots.acquire()

    def _take_idle(self) -> TrioConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if not _has_something_to_read(connection):
                return connection
            connection.close_nowait()
        return None

    async def _connect(self) -> TrioConnection:
        self._require_open()
        try:
            return await TrioConnection.connect(self._conninfo)
        except psycopg.Error as error:
            raise DatabaseUnavailable(
                f"PostgreSQL does not let us in: {error}. Check that it runs and has connections left, and the host,"
                " port, database, role and password in DATABASE_URL."
            ) from error

    def _give_back(self, connection: TrioConnection) -> None:
        self._lent.discard(connection)
        if self._is_open and connection.is_reusable:
            self._idle.append(connection)
        else:
            connection.close_nowait()

    async def wait_returned(self) -> None:
        """Lend nothing more and wait until all is back."""
        self._is_open = False
        for _ in range(self._size):
            await self._slots.acquire()

    def close_nowait(self) -> None:
        """Close what is here, and under whoever did not return it."""
        for connection in (*self._idle, *self._lent):
            connection.close_nowait()
        self._idle.clear()


def _has_something_to_read(connection: TrioConnection) -> bool:
    """An idle connection is silent. A word from the server is its farewell, or a setting that we do not know."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _is_lost(connection: TrioConnection, error: psycopg.Error) -> bool:
    return connection.closed or error.diag.severity_nonlocalized in {"FATAL", "PANIC"}


def _is_overload(error: psycopg.Error) -> bool:
    """The statement is fine and did not get its turn: a timeout of ours, a deadlock, no memory or disk left."""
    return (error.sqlstate or "")[:2] in {"40", "53"} or error.sqlstate in {"55P03", "57014"}


def read_conninfo(url: str) -> str:
    """How a session of ours connects. Raises DatabaseUnavailable if the URL is none."""
    settings = read_url("DATABASE_URL", url)
    options = f"{SESSION_OPTIONS} {settings.get('options') or ''}".rstrip()
    return make_conninfo("", **{**CONNECTION_DEFAULTS, **settings, "options": options})


def read_url(name: str, url: str) -> dict[str, Any]:
    """What the URL in that setting says. Raises DatabaseUnavailable if it is none; psycopg's own error would repeat it,
    perhaps with the password.
    """
    try:
        return conninfo_to_dict(url)
    except psycopg.Error:
        raise DatabaseUnavailable(
            f"{name} is not a connection string: postgresql://role:password@host:5432/database"
        ) from None
