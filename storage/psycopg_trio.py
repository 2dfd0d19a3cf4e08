"""A psycopg connection that runs on Trio.

psycopg speaks the protocol in generators that say which readiness they wait for. This module waits with Trio, and adds
what Trio asks for: a cancelled statement is cancelled on the server, and what must end, ends under a shield.
"""

from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from decimal import Decimal
from types import TracebackType
from typing import Any, LiteralString, NoReturn, Self, TypeVar, cast

import psycopg
import trio
from psycopg import errors, generators
from psycopg._conninfo_attempts import conninfo_attempts
from psycopg._queries import PostgresClientQuery
from psycopg.abc import Buffer, ConnParam, Params, PQGen, PQGenConn
from psycopg.adapt import Dumper, Transformer
from psycopg.conninfo import conninfo_to_dict, make_conninfo, timeout_from_conninfo
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.types.numeric import (
    DecimalDumper,
    FloatDumper,
    Int4,
    Int4Dumper,
    Int8,
    Int8Dumper,
    IntDumper,
    IntNumeric,
    IntNumericDumper,
)
from psycopg.waiting import Ready, Wait

Result = TypeVar("Result")

# How long the server has to confirm that it stopped a statement, before the connection is given up.
CANCEL_SECONDS = 2.0
# How long COMMIT, ROLLBACK and savepoints may take once the scope around them is cancelled.
END_SECONDS = 5.0


class TrioConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """`psycopg.AsyncConnection` for Trio, in autocommit mode and without automatic prepared statements.

    Prepared statements would outlive a migration ("cached plan must not change result type") and cost a round trip.
    Cancelling a scope cancels its statement on the server. The connection is then reusable, or closed if the server
    did not confirm in time, if the statement had not been sent completely, or in pipeline mode. Whether a statement
    that was cancelled while it ran has taken effect is unknown, as with every lost answer.
    """

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self.lock = _Lock()  # type: ignore[assignment]  # psycopg only enters it
        self._autocommit = True
        self.prepare_threshold = None
        self.cursor_factory = _Cursor
        for number, dumper in ((int, _IntegerDumper), (float, _DoubleDumper), (Decimal, _DecimalDumper)):
            self.adapters.register_dumper(number, dumper)
        self._transformer = Transformer(self)
        self.prepared: set[str] = set()
        """The names of the statements that this session has prepared."""

    @classmethod
    async def connect(cls, conninfo: str = "", **parameters: ConnParam) -> Self:  # type: ignore[override]  # no options
        """Connect to the first host and address that answers. Raises psycopg.OperationalError if none does."""
        settings = conninfo_to_dict(conninfo, **parameters)
        attempts = await trio.to_thread.run_sync(conninfo_attempts, settings, abandon_on_cancel=True)
        failures: list[psycopg.Error] = []
        for attempt in attempts:
            try:
                return await cls._connect_once(make_conninfo("", **attempt), timeout_from_conninfo(settings))
            except psycopg.Error as error:
                failures.append(error)
        raise errors.OperationalError("; ".join(dict.fromkeys(map(str, failures)))) from failures[-1]

    @classmethod
    async def _connect_once(cls, conninfo: str, timeout_seconds: float) -> Self:
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.move_on_after(timeout_seconds), closing(cls._connect_gen(conninfo)) as steps:
            return await _finish_moving(steps)
        raise errors.ConnectionTimeout(f"no answer within {timeout_seconds} seconds")

    async def close(self) -> None:
        """Close at once, without waiting. Whoever waits on this connection gets psycopg.OperationalError."""
        self.close_nowait()

    def close_nowait(self) -> None:
        """The same, for places that cannot await."""
        if not self.closed:
            trio.lowlevel.notify_closing(self.pgconn.socket)
            self._closed = True
            self.pgconn.finish()

    @property
    def is_reusable(self) -> bool:
        """Open, outside of any transaction, COPY or pipeline, with nothing left to read."""
        return self.pgconn.transaction_status == TransactionStatus.IDLE and self._pipeline is None

    @property
    def is_in_healthy_transaction(self) -> bool:
        """Inside a transaction of which no statement has failed."""
        return self.pgconn.transaction_status == TransactionStatus.INTRANS

    def bind(self, statement: LiteralString, parameters: Params) -> bytes:
        """The statement with its parameters quoted into it by libpq. Without parameters, `%` stands for itself."""
        query = PostgresClientQuery(self._transformer)
        query.convert(statement, parameters or None)
        return query.query

    def quote(self, value: Any) -> bytes:
        """One parameter as it is written into a statement."""
        return self._transformer.as_literal(value)

    async def send(self, message: bytes) -> list[tuple[Any, ...]]:
        """Send one or more statements in one message and return the rows of the last one.

        Several statements are one transaction, which PostgreSQL commits after the last and rolls back on an error,
        unless they control transactions themselves:
        https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT
        """
        async with self.lock:
            results = await self.wait(self._send_gen(message))
        return self._read_rows(results)

    def _send_gen(self, message: bytes) -> PQGen[list[PGresult]]:
        self._check_connection_ok()
        self.pgconn.send_query(message)
        results: list[PGresult] = yield from generators.execute(self.pgconn)
        return results

    def _read_rows(self, results: list[PGresult]) -> list[tuple[Any, ...]]:
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise _read_error(result)
        last = results[-1]
        if last.status == ExecStatus.COMMAND_OK:
            return []
        if last.status != ExecStatus.TUPLES_OK:
            raise errors.ProgrammingError(f"{ExecStatus(last.status).name} is no answer of plain statements")
        self._transformer.set_pgresult(last)
        try:
            return self._transformer.load_rows(0, last.ntuples, tuple)
        finally:
            self._transformer.set_pgresult(None)

    def wait(
        self, gen: PQGen[Result], interval: float = 0.0, timeout: float | None = None
    ) -> Coroutine[Any, Any, Result]:
        """Drive a generator of psycopg to its end. `timeout` is what `notifies()` passes; `interval` means nothing."""
        return self._finish(gen) if timeout is None else self._finish_within(timeout, gen)

    async def _finish_within(self, seconds: float, steps: PQGen[Result]) -> Result:
        with trio.move_on_after(seconds):
            return await self._finish(steps)
        raise errors._WaitTimeout("wait timeout expired")

    async def _finish(self, steps: PQGen[Result]) -> Result:
        await trio.lowlevel.checkpoint_if_cancelled()
        awaited: Wait | None = None
        try:
            wanted = next(steps)
            while True:
                awaited = wanted
                ready = await wait_ready(self.pgconn.socket, wanted)
                awaited = None
                wanted = steps.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # StopIteration is not generic
        finally:
            if awaited is not None and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                with trio.move_on_after(CANCEL_SECONDS, shield=True):
                    await self._abandon(steps, awaited)
                if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                    self.close_nowait()

    async def _abandon(self, steps: PQGen[Any], wanted: Wait) -> None:
        """Stop the statement on the server and read what it still answers.

        A message of which a part is unsent never runs: closing the connection is the quicker and surer end for it.
        """
        if wanted != Wait.R or self._pipeline is not None:
            return
        with suppress(psycopg.Error, StopIteration):
            await self.cancel_safe()
            while True:
                wanted = steps.send(await wait_ready(self.pgconn.socket, wanted))

    def cancel_safe(self, *, timeout: float = CANCEL_SECONDS) -> Coroutine[Any, Any, None]:
        """Ask the server to stop the running statement; returns when it has taken note."""
        return self._cancel_within(timeout)

    async def _cancel_within(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._should_cancel():
            return
        with trio.move_on_after(seconds), closing(self._cancel_gen()) as steps:
            await _finish_moving(steps)
            return
        raise errors.CancellationTimeout("cancellation timeout expired")

    async def wait_notified(self) -> list[str]:
        """The payloads of notifications, one or more: those that came while statements ran, else the next that come.

        Cancelling it loses none. Raises psycopg.OperationalError if the connection is lost.
        """
        async with self.lock:
            # psycopg's handler puts there whatever it meets; None only while `notifies()` holds the lock.
            backlog = cast("deque[psycopg.Notify]", self._notifies_backlog)
            while not backlog:
                await self.wait(generators.notifies(self.pgconn))
            payloads = [notification.payload for notification in backlog]
            backlog.clear()
            return payloads

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[psycopg.AsyncTransaction]:
        """A transaction, or a savepoint inside of one. Its end is shielded and has a deadline."""
        async with _Transaction(self, savepoint_name, force_rollback) as transaction:
            yield transaction


class _Cursor(psycopg.AsyncCursor[tuple[Any, ...]]):
    def _raise_for_result(self, result: PGresult) -> NoReturn:
        if result.status == ExecStatus.FATAL_ERROR:
            raise _read_error(result)
        super()._raise_for_result(result)


def _read_error(result: PGresult) -> psycopg.Error:
    """Its text is the primary message alone: the rest quotes keys and statements, and so what users wrote.

    `diag` has it all.
    """
    error = errors.error_from_result(result)
    error.args = (error.diag.message_primary or str(error),)
    return error


class _Quoted(Dumper):
    """A number that is written into the text of a statement: `-1::text` would be read as `-(1::text)`."""

    def quote(self, obj: Any) -> Buffer:
        quoted = bytes(super().quote(obj))
        return b"(%s)" % quoted if quoted.startswith(b" ") else quoted


class _Int4Dumper(_Quoted, Int4Dumper): ...


class _Int8Dumper(_Quoted, Int8Dumper): ...


class _IntNumericDumper(_Quoted, IntNumericDumper): ...


class _DecimalDumper(_Quoted, DecimalDumper): ...


class _IntegerDumper(IntDumper):
    """A parameter that is sent apart has the type that it would have in the text, int4; psycopg would take int2."""

    _int2_dumper = _Int4Dumper(Int4)  # type: ignore[assignment]  # any dumper of an int will do
    _int4_dumper = _Int4Dumper(Int4)
    _int8_dumper = _Int8Dumper(Int8)
    _int_numeric_dumper = _IntNumericDumper(IntNumeric)


class _DoubleDumper(FloatDumper):
    """A float in the text keeps its type; psycopg would write it like a numeric."""

    def quote(self, obj: float) -> Buffer:
        return b"'%s'::float8" % self.dump(obj)


class _Transaction(psycopg.AsyncTransaction):
    """Begins and ends under a shield, so that what the server knows and what psycopg counts never differ."""

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.move_on_after(END_SECONDS, shield=True):
            return await super().__aenter__()
        raise self._late()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool:
        with trio.move_on_after(END_SECONDS, shield=True):
            return await super().__aexit__(exc_type, exc_val, exc_tb)
        raise self._late()

    def _late(self) -> psycopg.OperationalError:
        self.pgconn.finish()
        return errors.OperationalError(f"the transaction did not begin or end within {END_SECONDS} seconds")


class _Lock:
    """A lock for `async with` that costs no trip through the scheduler when it is free."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self._lock.release()


async def wait_ready(descriptor: int, wanted: Wait) -> Ready:
    """Wait until the socket is readable, writable or, for `Wait.RW`, either; a closed one counts as ready."""
    if wanted == Wait.RW:
        return await _wait_either(descriptor)
    try:
        if wanted == Wait.R:
            await trio.lowlevel.wait_readable(descriptor)
        else:
            await trio.lowlevel.wait_writable(descriptor)
    except (OSError, trio.ClosedResourceError):
        pass  # libpq finds out and says it better
    return Ready(wanted)


async def _wait_either(descriptor: int) -> Ready:
    """A large statement deadlocks if we only write while the server, having begun to answer, waits for us to read."""
    ready = Ready.NONE

    async def note(wanted: Wait) -> None:
        nonlocal ready
        ready = Ready(ready | await wait_ready(descriptor, wanted))
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, Wait.R)
        nursery.start_soon(note, Wait.W)
    return ready


async def _finish_moving(steps: PQGenConn[Result]) -> Result:
    """Drive a generator that opens a connection: its socket may change from step to step."""
    try:
        descriptor, wanted = next(steps)
        while True:
            descriptor, wanted = steps.send(await wait_ready(descriptor, wanted))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # StopIteration is not generic
