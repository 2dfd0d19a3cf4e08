"""The adapter against a real server: endings, cancellation, and everything that waits in both directions."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest
import trio
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from storage.psycopg_trio import CANCEL_SECONDS, TrioConnection

LARGE_BYTES = 20_000_000


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[TrioConnection]:
    async with open_connection(database_url) as connection:
        yield connection


@pytest.fixture
async def owner(owner_database_url: str) -> AsyncIterator[TrioConnection]:
    async with open_connection(owner_database_url) as connection:
        yield connection


@asynccontextmanager
async def open_connection(url: str) -> AsyncIterator[TrioConnection]:
    with trio.fail_after(30):
        connection = await TrioConnection.connect(url)
        try:
            yield connection
        finally:
            connection.close_nowait()


class Relay:
    """A TCP address in front of PostgreSQL, on which everything that happens to networks can be made to happen."""

    def __init__(self, url: str, nursery: trio.Nursery) -> None:
        self._settings = conninfo_to_dict(url)
        self._url = url
        self._nursery = nursery
        self.port = 0
        self._listening = trio.CancelScope()
        self._connections: set[trio.CancelScope] = set()
        self._is_flowing = trio.Event()
        self._is_flowing.set()

    @property
    def url(self) -> str:
        return make_conninfo(self._url, host="localhost", port=self.port, sslmode="disable")

    async def listen(self) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        self._listening = trio.CancelScope()
        self._nursery.start_soon(self._serve, listeners[0], self._listening)

    def refuse(self) -> None:
        """No new connections, as from a server that is down."""
        self._listening.cancel()

    def cut(self) -> None:
        """End all connections, as a crash does."""
        for scope in self._connections:
            scope.cancel()

    def stall(self) -> None:
        """Accept everything, pass nothing on, as a lost network does."""
        self._is_flowing = trio.Event()

    async def _serve(self, listener: trio.SocketListener, scope: trio.CancelScope) -> None:
        with scope:
            await trio.serve_listeners(self._relay, [listener], handler_nursery=self._nursery)

    async def _relay(self, client: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            async with client, await self._open_server() as server, trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, client, server, nursery.cancel_scope)
                nursery.start_soon(self._pump, server, client, nursery.cancel_scope)
        self._connections.discard(scope)

    async def _open_server(self) -> trio.SocketStream:
        host, port = self._settings.get("host") or "localhost", self._settings.get("port") or 5432
        if str(host).startswith("/"):
            return await trio.open_unix_socket(f"{host}/.s.PGSQL.{port}")
        return await trio.open_tcp_stream(str(host), int(port))

    async def _pump(self, source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope) -> None:
        try:
            async for some in source:
                await self._is_flowing.wait()
                await target.send_all(some)
        except trio.BrokenResourceError:
            pass
        both.cancel()


@asynccontextmanager
async def open_relay(url: str) -> AsyncIterator[Relay]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            relay = Relay(url, nursery)
            await relay.listen()
            yield relay
            nursery.cancel_scope.cancel()


@contextmanager
def takes_at_most(seconds: float) -> Iterator[None]:
    started = trio.current_time()
    yield
    assert trio.current_time() - started < seconds


WAIT_RUNNING = """DO $$ BEGIN
    WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep') LOOP
        PERFORM pg_sleep(0.002), pg_stat_clear_snapshot();
    END LOOP;
END $$"""


async def wait_running(observer: TrioConnection, backend_pid: int) -> None:
    """Until that backend executes `pg_sleep`."""
    await observer.send(observer.bind(WAIT_RUNNING, (backend_pid,)))


async def fetch(connection: TrioConnection, statement: Any, *parameters: object) -> list[tuple[Any, ...]]:
    return await (await connection.execute(statement, parameters or None)).fetchall()


async def run_until_cancelled(connection: TrioConnection, observer: TrioConnection, statement: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.execute, statement)
        await wait_running(observer, connection.info.backend_pid)
        nursery.cancel_scope.cancel()


async def test_cancelling_the_scope_cancels_the_statement_on_the_server(
    connection: TrioConnection, owner: TrioConnection
) -> None:
    with takes_at_most(5):
        await run_until_cancelled(connection, owner, "SELECT pg_sleep(20)")
    assert await fetch(owner, "SELECT state FROM pg_stat_activity WHERE pid = %s", connection.info.backend_pid) == [
        ("idle",)
    ]


async def test_a_connection_is_reusable_after_a_cancelled_statement(
    connection: TrioConnection, owner: TrioConnection
) -> None:
    for number in range(5):
        await run_until_cancelled(connection, owner, "SELECT pg_sleep(20)")
        assert connection.is_reusable
        assert await fetch(connection, "SELECT %s::int", number) == [(number,)]


async def test_a_cancelled_scope_sends_nothing(owner: TrioConnection) -> None:
    await owner.execute("CREATE TABLE sent (number int)")
    with trio.CancelScope() as scope:
        scope.cancel()
        await owner.execute("INSERT INTO sent VALUES (1)")
    with trio.CancelScope() as scope:
        scope.cancel()
        await owner.send(b"INSERT INTO sent VALUES (2)")
    assert await fetch(owner, "SELECT * FROM sent") == []


async def test_a_connection_whose_server_does_not_confirm_a_cancel_is_closed_in_time(
    database_url: str, owner: TrioConnection
) -> None:
    async with open_relay(database_url) as relay, open_connection(relay.url) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.execute, "SELECT pg_sleep(20)")
            await wait_running(owner, connection.info.backend_pid)
            relay.stall()
            started = trio.current_time()
            nursery.cancel_scope.cancel()
        assert CANCEL_SECONDS <= trio.current_time() - started + 0.01 < CANCEL_SECONDS + 2
        assert connection.closed


async def test_a_statement_that_is_not_sent_completely_ends_with_its_connection(
    database_url: str, owner: TrioConnection
) -> None:
    await owner.execute("CREATE TABLE sent (content text); GRANT ALL ON sent TO PUBLIC")
    async with open_relay(database_url) as relay, open_connection(relay.url) as connection:
        relay.stall()
        with takes_at_most(1.5), trio.move_on_after(0.2):
            await connection.execute("INSERT INTO sent VALUES (%s)", ("x" * LARGE_BYTES,))
        assert connection.closed
    assert await fetch(owner, "SELECT * FROM sent") == []


async def test_a_cancel_in_pipeline_mode_ends_the_connection(connection: TrioConnection, owner: TrioConnection) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_in_pipeline, connection, "SELECT pg_sleep(20)")
        await wait_running(owner, connection.info.backend_pid)
        nursery.cancel_scope.cancel()
    assert connection.closed


async def run_in_pipeline(connection: TrioConnection, statement: Any) -> None:
    async with connection.pipeline():
        await (await connection.execute(statement)).fetchall()


async def test_a_large_row_passes_in_both_directions(connection: TrioConnection) -> None:
    large = "wide " * (LARGE_BYTES // 5)
    assert await fetch(connection, "SELECT %s::text", large) == [(large,)]
    assert await connection.send(connection.bind("SELECT %s::text", (large,))) == [(large,)]


async def test_large_statements_pass_while_the_server_answers(connection: TrioConnection) -> None:
    large = "x" * 500_000
    cursor = connection.cursor()
    await cursor.executemany("SELECT %s::text", [(large,)] * 40, returning=True)
    assert [await result.fetchone() async for result in cursor.results()] == [(large,)] * 40


async def test_copy_passes_in_both_directions(owner: TrioConnection) -> None:
    await owner.execute("CREATE TABLE copied (number int, word text)")
    rows = [(number, f"word {number}\t\\") for number in range(20_000)]
    async with owner.cursor().copy("COPY copied FROM STDIN") as copy:
        for row in rows:
            await copy.write_row(row)
    async with owner.cursor().copy("COPY copied TO STDOUT") as copy:
        copy.set_types(["int4", "text"])
        assert [row async for row in copy.rows()] == rows


async def test_an_interrupted_copy_stores_nothing(owner: TrioConnection, owner_database_url: str) -> None:
    await owner.execute("CREATE TABLE copied (number int)")
    async with open_connection(owner_database_url) as connection:
        with trio.CancelScope() as scope:
            async with connection.cursor().copy("COPY copied FROM STDIN") as copy:
                await copy.write_row((1,))
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert not connection.is_reusable
    assert await fetch(owner, "SELECT * FROM copied") == []


async def test_rows_can_be_streamed(connection: TrioConnection) -> None:
    rows = connection.cursor().stream("SELECT number FROM generate_series(1, 1000) AS number")
    assert [number async for (number,) in rows] == list(range(1, 1001))
    assert connection.is_reusable


async def test_notifications_arrive(connection: TrioConnection, owner: TrioConnection) -> None:
    await connection.execute("LISTEN news")
    await owner.execute("NOTIFY news, 'first'")
    async with aclosing(connection.notifies(stop_after=1)) as notifications:
        assert [notification.payload async for notification in notifications] == ["first"]
    async with aclosing(connection.notifies(timeout=0.05)) as notifications:
        assert [notification async for notification in notifications] == []
    assert connection.is_reusable


async def test_waiting_for_notifications_can_be_cancelled(connection: TrioConnection) -> None:
    await connection.execute("LISTEN news")
    with trio.move_on_after(0.05) as scope:
        async with aclosing(connection.notifies()) as notifications:
            async for _ in notifications:
                pytest.fail("nobody notified")
    assert scope.cancelled_caught
    assert await fetch(connection, "SELECT 1") == [(1,)]


async def test_a_killed_backend_is_an_operational_error(connection: TrioConnection, owner: TrioConnection) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken, connection)
        await wait_running(owner, connection.info.backend_pid)
        await owner.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
    assert connection.closed
    with pytest.raises(psycopg.OperationalError):
        await connection.send(b"SELECT 1")


async def expect_broken(connection: TrioConnection) -> None:
    with pytest.raises(psycopg.OperationalError):
        await connection.execute("SELECT pg_sleep(20)")


async def test_closing_a_connection_wakes_its_waiters(connection: TrioConnection, owner: TrioConnection) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken, connection)
        await wait_running(owner, connection.info.backend_pid)
        with takes_at_most(1):
            await connection.close()


async def test_tasks_that_share_a_connection_take_turns(connection: TrioConnection) -> None:
    answers: list[Any] = []

    async def ask(number: int) -> None:
        for _ in range(10):
            answers.extend(await fetch(connection, "SELECT %s::int FROM pg_sleep(0.0005)", number))
            answers.extend(await connection.send(connection.bind("SELECT %s::int", (number,))))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(ask, number)
    assert sorted(answers) == sorted((number,) for number in range(5) for _ in range(20))


async def test_a_cancelled_transaction_is_rolled_back(owner: TrioConnection) -> None:
    await owner.execute("CREATE TABLE kept (number int)")
    with trio.CancelScope() as scope:
        async with owner.transaction():
            await owner.execute("INSERT INTO kept VALUES (1)")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert owner.is_reusable
    assert await fetch(owner, "SELECT * FROM kept") == []


async def test_a_savepoint_confines_an_error(owner: TrioConnection) -> None:
    await owner.execute("CREATE TABLE kept (number int PRIMARY KEY)")
    async with owner.transaction():
        await owner.execute("INSERT INTO kept VALUES (1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with owner.transaction():
                await owner.execute("INSERT INTO kept VALUES (2), (1)")
        await owner.execute("INSERT INTO kept VALUES (3)")
    assert await fetch(owner, "SELECT number FROM kept ORDER BY number") == [(1,), (3,)]


async def test_a_cancelled_savepoint_leaves_the_transaction_usable(
    owner: TrioConnection, connection: TrioConnection
) -> None:
    await owner.execute("CREATE TABLE kept (number int); GRANT ALL ON kept TO PUBLIC")
    async with connection.transaction():
        await connection.execute("INSERT INTO kept VALUES (1)")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep_in_savepoint, connection)
            await wait_running(owner, connection.info.backend_pid)
            nursery.cancel_scope.cancel()
        assert connection.is_in_healthy_transaction
    assert await fetch(owner, "SELECT * FROM kept") == [(1,)]


async def sleep_in_savepoint(connection: TrioConnection) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO kept VALUES (2)")
        await connection.execute("SELECT pg_sleep(20)")


async def test_an_error_does_not_quote_what_users_wrote(owner: TrioConnection) -> None:
    await owner.execute("CREATE TABLE people (email text PRIMARY KEY, age int)")
    insert = "INSERT INTO people VALUES (%s, 1)"
    await owner.execute(insert, ("secret@example.org",))
    for attempt in (owner.execute, lambda *a: owner.send(owner.bind(*a))):
        with pytest.raises(psycopg.errors.UniqueViolation) as caught:
            await attempt(insert, ("secret@example.org",))
        assert "secret" not in str(caught.value)
        assert "secret" in (caught.value.diag.message_detail or "")
    with pytest.raises(psycopg.errors.UndefinedColumn) as undefined:
        await owner.send(owner.bind("SELECT 'secret', nothing, %s", ("secret",)))
    assert "secret" not in str(undefined.value)


async def test_a_copy_statement_is_refused_by_send(owner: TrioConnection) -> None:
    with pytest.raises(psycopg.ProgrammingError, match="COPY_OUT"):
        await owner.send(b"COPY pg_class TO STDOUT")


async def test_a_host_that_refuses_is_passed_over(database_url: str) -> None:
    async with open_relay(database_url) as relay, open_relay(database_url) as dead:
        dead.refuse()
        url = make_conninfo(relay.url, host="localhost,localhost", port=f"{dead.port},{relay.port}")
        async with open_connection(url) as connection:
            assert await fetch(connection, "SELECT 1") == [(1,)]
        with pytest.raises(psycopg.OperationalError, match="refused"):
            await TrioConnection.connect(dead.url)


async def test_a_connection_attempt_can_be_cancelled_and_leaves_nothing_open(database_url: str) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0] as listener, trio.open_nursery() as nursery:
        port = listener.socket.getsockname()[1]
        nursery.start_soon(TrioConnection.connect, make_conninfo(database_url, host="127.0.0.1", port=port))
        async with await listener.accept() as server:
            assert await server.receive_some()
            nursery.cancel_scope.cancel()
            with trio.fail_after(2, shield=True):
                assert await server.receive_some() == b""


async def test_a_server_that_never_answers_is_given_up(database_url: str) -> None:
    async with open_relay(database_url) as relay:
        relay.stall()
        with takes_at_most(4), pytest.raises(psycopg.OperationalError, match="no answer within 2 seconds"):
            await TrioConnection.connect(relay.url, connect_timeout=2)
