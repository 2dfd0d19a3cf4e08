"""What goes into the audit log: with the circumstances of the request, and refusals counted where they repeat."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest
import trio
import trio.testing

from server.auditor import MAX_REFUSALS, WINDOW_SECONDS, Auditor, RefusalTally, Untold
from server.circumstances import Circumstances, set_circumstances
from storage.audit import AuditEntry, AuditLog, AuditRow
from storage.audit_verify import verify_audit_log
from storage.errors import DatabaseUnavailable, StorageError
from storage.postgres import Database, open_database

SECRET = "only-for-tests-0123456789abcdef-0123456789"
ANN = UUID(int=5)
REFUSAL = AuditEntry("token_refused", "refused", f"user:{ANN}", ANN, address="192.0.2.1", details={"reason": "revoked"})


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=2) as database:
        yield database


@pytest.fixture
def log(database: Database) -> AuditLog:
    return AuditLog(database, "eu", SECRET)


@pytest.fixture
def auditor(log: AuditLog) -> Auditor:
    return Auditor(log)


async def read(log: AuditLog) -> list[AuditRow]:
    return await log.find_latest(None, None, 1000)


async def count_rows(log: AuditLog) -> int:
    return len(await read(log))


# Entries


async def test_an_entry_tells_the_request_at_hand(auditor: Auditor, log: AuditLog) -> None:
    set_circumstances(Circumstances("request-1", "192.0.2.7", "Mozilla/5.0"))
    entry = auditor.build_entry(
        "sign_out", "success", actor=f"user:{ANN}", subject_id=ANN, entity=("login", "7"), is_last=True
    )
    await auditor.record(entry)
    (row,) = await read(log)
    assert row.entry == AuditEntry(
        "sign_out",
        "success",
        f"user:{ANN}",
        ANN,
        "login",
        "7",
        address="192.0.2.7",
        user_agent="Mozilla/5.0",
        request_id="request-1",
        details={"is_last": True},
    )


async def test_outside_of_requests_there_are_no_circumstances(auditor: Auditor) -> None:
    entry = auditor.build_entry("catalogue_seeded", "success", actor="operator")
    assert (entry.address, entry.user_agent, entry.request_id, entry.details) == ("", "", "", {})


async def test_a_record_that_cannot_be_written_is_told(database: Database) -> None:
    auditor = Auditor(AuditLog(database, "eu", SECRET))
    with pytest.raises(StorageError):
        await auditor.record(AuditEntry("a", "no such status", "system"))  # type: ignore[arg-type] # what is tested


# Refusals


async def test_repeated_refusals_are_one_row_a_minute_that_tells_their_number(
    auditor: Auditor, log: AuditLog, mock_clock: trio.testing.MockClock
) -> None:
    for number in range(50):
        await auditor.note_refusal(replace(REFUSAL, request_id=f"r{number}", user_agent=f"agent {number}"))
    assert [row.entry.details for row in await read(log)] == [{"reason": "revoked"}]
    mock_clock.jump(WINDOW_SECONDS - 1)
    await auditor.note_refusal(REFUSAL)
    assert await count_rows(log) == 1
    mock_clock.jump(1)
    await auditor.note_refusal(REFUSAL)
    mock_clock.jump(WINDOW_SECONDS)
    await auditor.note_refusal(REFUSAL)
    assert [row.entry.details for row in await read(log)] == [
        {"reason": "revoked"},
        {"reason": "revoked", "repeated": 50},
        {"reason": "revoked"},
    ]
    (report,) = await verify_audit_log(log.database, [SECRET])
    assert report.problem_count == 0


@pytest.mark.parametrize(
    "other",
    [
        replace(REFUSAL, action="key_refused"),
        replace(REFUSAL, actor="anonymous"),
        replace(REFUSAL, subject_id=None),
        replace(REFUSAL, entity_type="login"),
        replace(REFUSAL, entity_id="8"),
        replace(REFUSAL, address="192.0.2.2"),
    ],
)
async def test_another_refusal_has_a_row_of_its_own(auditor: Auditor, log: AuditLog, other: AuditEntry) -> None:
    await auditor.note_refusal(REFUSAL)
    await auditor.note_refusal(other)
    await auditor.note_refusal(REFUSAL)
    assert await count_rows(log) == 2


async def test_refusals_at_once_are_one_row(auditor: Auditor, log: AuditLog) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(auditor.note_refusal, REFUSAL)
    assert await count_rows(log) == 1


async def test_a_client_that_leaves_does_not_keep_its_refusal_from_being_written(
    auditor: Auditor, log: AuditLog
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await auditor.note_refusal(REFUSAL)
    assert await count_rows(log) == 1


async def test_a_log_that_cannot_be_written_is_complained_of_once_a_minute_and_loses_no_count(
    auditor: Auditor,
    log: AuditLog,
    owner_database_url: str,
    mock_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with psycopg.connect(owner_database_url, autocommit=True) as owner:
        owner.execute("ALTER TABLE audit_log RENAME TO away")
        for number in range(3):
            await auditor.note_refusal(replace(REFUSAL, entity_id=str(number)))
            await auditor.note_refusal(REFUSAL)
        owner.execute("ALTER TABLE away RENAME TO audit_log")
    assert [(record.levelno, record.name) for record in caplog.records] == [(logging.ERROR, "server.auditor")]
    assert str(ANN) not in caplog.text
    mock_clock.jump(WINDOW_SECONDS)
    await auditor.note_refusal(REFUSAL)
    assert [row.entry.details for row in await read(log)] == [{"reason": "revoked", "repeated": 3}]


async def test_a_postgresql_that_is_away_raises_nothing(
    database_url: str, caplog: pytest.LogCaptureFixture, mock_clock: trio.testing.MockClock
) -> None:
    async with open_database(database_url, size=1) as database:
        auditor = Auditor(AuditLog(database, "eu", SECRET))
    with pytest.raises(DatabaseUnavailable):
        await auditor.record(REFUSAL)
    await auditor.note_refusal(REFUSAL)
    mock_clock.jump(WINDOW_SECONDS)
    await auditor.note_refusal(REFUSAL)
    assert len(caplog.records) == 2


async def test_a_postgresql_that_hangs_holds_nobody_for_longer_than_its_deadline(
    auditor: Auditor, log: AuditLog, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with log.database.as_operator("test").transaction() as connection:
        await log.append(connection, REFUSAL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(auditor.note_refusal, REFUSAL)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(10)
    assert len(caplog.records) == 1
    assert await count_rows(log) == 1


# The tally


def fill(tally: RefusalTally, now: float) -> None:
    for number in range(MAX_REFUSALS):
        assert tally.count((number,), now) == Untold(0, 0)


def test_a_flood_of_different_refusals_is_counted_and_not_told() -> None:
    tally = RefusalTally()
    fill(tally, 0)
    assert [tally.count(("flood", number), 30) for number in range(1000)] == [None] * 1000
    assert tally.count(("flood", 0), WINDOW_SECONDS) == Untold(0, 1000)
    assert tally.count(("flood", 1), WINDOW_SECONDS) == Untold(0, 0)


def test_a_refusal_that_makes_room_leaves_its_count() -> None:
    tally = RefusalTally()
    fill(tally, 0)
    assert [tally.count((0,), 10) for _ in range(7)] == [None] * 7
    assert tally.count(("new",), WINDOW_SECONDS) == Untold(0, 7)


def test_a_refusal_that_comes_again_late_still_tells_how_often_it_was_repeated() -> None:
    tally = RefusalTally()
    tally.count(("a",), 0)
    tally.count(("a",), 1)
    assert tally.count(("b",), 10 * WINDOW_SECONDS) == Untold(0, 0)
    assert tally.count(("a",), 10 * WINDOW_SECONDS) == Untold(1, 0)


def test_memory_is_bounded_whoever_refuses_what() -> None:
    tally = RefusalTally()
    for number in range(20_000):
        tally.count((number,), number / 10)
    assert len(tally._windows) <= MAX_REFUSALS


def test_every_refusal_is_told_or_counted_in_some_row() -> None:
    tally = RefusalTally()
    told = counted = 0
    for number in range(5_000):
        untold = tally.count((number % 700,), number / 7)
        if untold is not None and number % 11 == 0:
            tally.put_back((number % 700,), untold)
        elif untold is not None:
            told += 1
            counted += untold.repeated + untold.others
    waiting = tally._others + sum(window.repeated for window in tally._windows.values())
    assert told + counted + waiting == 5_000


def test_what_could_not_be_written_is_told_by_the_next_row() -> None:
    tally = RefusalTally()
    untold = tally.count(("a",), 0)
    assert untold is not None
    tally.put_back(("a",), Untold(4, 5))
    assert tally.count(("a",), 1) is None
    assert tally.count(("a",), WINDOW_SECONDS) == Untold(6, 5)


def test_an_auditor_shows_no_secret() -> None:
    assert SECRET not in repr(Auditor(AuditLog(None, "eu", SECRET)))  # type: ignore[arg-type] # not asked
