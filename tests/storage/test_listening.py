"""A connection that listens: what it tells, what it does not lose, and how it comes back."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import trio

from storage import listening
from storage.listening import Listener
from storage.psycopg_trio import TrioConnection
from tests.storage.test_psycopg_trio import open_connection, open_relay

FIND_BACKENDS = b"SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND datname = current_database()"
KILL_BACKENDS = FIND_BACKENDS.replace(b"pid", b"pg_terminate_backend(pid)", 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(listening, "LONGEST_PAUSE_SECONDS", 0.02)


@pytest.fixture
async def owner(owner_database_url: str) -> AsyncIterator[TrioConnection]:
    async with open_connection(owner_database_url) as connection:
        yield connection


@contextmanager
def open_listener(url: str) -> Iterator[Listener]:
    listener = Listener(url, "news")
    try:
        yield listener
    finally:
        listener.close_nowait()


async def wait_told(listener: Listener) -> set[str] | None:
    with trio.fail_after(10):
        told = await listener.wait_told()
    return None if told is None else set(told)


async def notify(owner: TrioConnection, *payloads: str) -> None:
    for payload in payloads:
        await owner.send(owner.bind("SELECT pg_notify('news', %s)", [payload]))


async def test_a_new_connection_says_that_anything_may_have_changed_and_then_what_has(
    database_url: str, owner: TrioConnection
) -> None:
    await notify(owner, "before")
    with open_listener(database_url) as listener:
        assert await wait_told(listener) is None
        for table in ("models", "regions"):
            await notify(owner, table)
            assert await wait_told(listener) == {table}


async def test_what_comes_at_once_is_told_together(database_url: str, owner: TrioConnection) -> None:
    with open_listener(database_url) as listener:
        await wait_told(listener)
        await notify(owner, "models", "regions", "models", "providers")
        assert await wait_told(listener) == {"models", "regions", "providers"}


async def test_what_is_told_while_nobody_waits_is_kept(database_url: str, owner: TrioConnection) -> None:
    with open_listener(database_url) as listener:
        await wait_told(listener)
        await notify(owner, "models")
        with trio.CancelScope() as scope:
            scope.cancel()
            await listener.wait_told()
        assert await wait_told(listener) == {"models"}


async def test_giving_up_in_the_middle_of_a_burst_loses_nothing(
    database_url: str, owner: TrioConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "BURST_SECONDS", 60)
    with open_listener(database_url) as listener:
        await wait_told(listener)
        await notify(owner, "models")
        with trio.move_on_after(0.1) as scope:
            await listener.wait_told()
        assert scope.cancelled_caught
        monkeypatch.setattr(listening, "BURST_SECONDS", 0.01)
        assert await wait_told(listener) == {"models"}


async def test_a_killed_backend_is_replaced_and_told_as_one_that_may_have_missed_something(
    database_url: str, owner: TrioConnection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with open_listener(database_url) as listener:
        await wait_told(listener)
        await owner.send(KILL_BACKENDS)
        assert await wait_told(listener) is None
        await notify(owner, "models")
        assert await wait_told(listener) == {"models"}
    assert caplog.text.count("nothing listens") == 1
    assert caplog.text.count("listening to PostgreSQL again") == 1


async def test_an_outage_is_outwaited_and_logged_once(
    database_url: str, owner: TrioConnection, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_relay(database_url) as relay:
        with open_listener(relay.url) as listener:
            await wait_told(listener)
            relay.refuse()
            relay.cut()
            with trio.move_on_after(0.3) as scope:
                await listener.wait_told()
            assert scope.cancelled_caught
            assert caplog.text.count("nothing listens") == 1
            await notify(owner, "unheard")
            await relay.listen()
            assert await wait_told(listener) is None


async def test_a_server_that_accepts_and_says_nothing_is_tried_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "CONNECT_SECONDS", 0.05)
    async with open_relay(database_url) as relay:
        relay.stall()
        with open_listener(relay.url) as listener:
            with trio.move_on_after(0.3) as scope:
                await listener.wait_told()
            assert scope.cancelled_caught
            assert caplog.text.count("nothing listens") == 1
            assert "no answer within" in caplog.records[0].__dict__["reason"]
            relay.cut()
            relay._is_flowing.set()
            monkeypatch.setattr(listening, "CONNECT_SECONDS", 5)
            assert await wait_told(listener) is None


async def test_closing_it_closes_its_connection(database_url: str, owner: TrioConnection) -> None:
    with open_listener(database_url) as listener:
        await wait_told(listener)
        assert len(await owner.send(FIND_BACKENDS)) == 1
    with trio.fail_after(5):
        while await owner.send(FIND_BACKENDS):
            await trio.sleep(0.01)


async def test_giving_up_before_it_listens_leaves_no_connection_that_does_not(
    database_url: str, owner: TrioConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[TrioConnection]()
    send = TrioConnection.send

    async def send_cancelled(connection: TrioConnection, message: bytes) -> list[tuple[Any, ...]]:
        opened.append(connection)
        scope.cancel()
        return await send(connection, message)

    with open_listener(database_url) as listener:
        with monkeypatch.context() as patched, trio.CancelScope() as scope:
            patched.setattr(TrioConnection, "send", send_cancelled)
            await listener.wait_told()
        assert [connection.closed for connection in opened] == [True]
        assert await wait_told(listener) is None
        await notify(owner, "models")
        assert await wait_told(listener) == {"models"}


def test_pauses_grow_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    listener = Listener("postgresql://x", "news")
    pauses = []
    for failures in (0, 1, 3, 50, 10_000):
        listener._failures = failures
        pauses.append(listener._find_pause())
    assert 0.05 <= pauses[0] <= 0.1 <= pauses[1] <= 0.2
    assert all(0.25 <= pause <= 0.5 for pause in pauses[2:])


def test_the_url_which_may_have_a_password_is_in_no_repr() -> None:
    assert "hunter2" not in repr(Listener("postgresql://x:hunter2@y/z", "news"))


async def test_a_statement_in_between_keeps_what_was_told(database_url: str, owner: TrioConnection) -> None:
    async with open_connection(database_url) as connection:
        await connection.send(b"LISTEN news")
        await notify(owner, "first")
        await connection.send(b"SELECT 1")
        await notify(owner, "second")
        told = await connection.wait_notified()
        while len(told) < 2:
            told += await connection.wait_notified()
        assert told == ["first", "second"]
        assert connection.is_reusable


async def test_waiting_on_a_killed_connection_is_an_operational_error(
    database_url: str, owner: TrioConnection
) -> None:
    async with open_connection(database_url) as connection:
        await connection.send(b"LISTEN news")
        await owner.send(owner.bind("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid]))
        with pytest.raises(psycopg.OperationalError):
            await connection.wait_notified()
