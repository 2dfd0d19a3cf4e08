"""Verifying the audit log: whatever a superuser does to it is found, and nothing else is."""

from collections.abc import AsyncIterator, Callable, Iterator

import psycopg
import pytest
import trio

import storage.audit_verify
from storage.audit import AuditEntry, AuditLog
from storage.audit_verify import MAX_PROBLEMS, Anchor, ChainCheck, Head, Report, StoredRow, verify_audit_log
from storage.postgres import Database, open_database
from tests.storage.audit_writer import ENTRY, SECRET

Tamper = Callable[..., list[tuple[object, ...]]]

ROWS = 6


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Its log has six rows of one region."""
    with trio.fail_after(60):
        async with open_database(database_url, size=3) as database:
            await append(database, ROWS)
            yield database


@pytest.fixture
def tamper(owner_database_url: str, database: Database) -> Iterator[Tamper]:
    """A superuser who has switched off whatever guards the tables."""
    with psycopg.connect(owner_database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL")
        connection.execute("ALTER TABLE audit_heads DISABLE TRIGGER ALL")

        def run(statement: str, *parameters: object) -> list[tuple[object, ...]]:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

        yield run


async def append(database: Database, count: int, region: str = "eu", secret: str = SECRET) -> None:
    for _ in range(count):
        await AuditLog(database, region, secret).record(ENTRY)


async def verify(database: Database, *anchors: Anchor, secrets: tuple[str, ...] = (SECRET,)) -> Report:
    (report,) = await verify_audit_log(database, secrets, anchors)
    return report


async def find(database: Database, *anchors: Anchor) -> list[tuple[int, str]]:
    """Which rows have a problem, and how its telling begins."""
    report = await verify(database, *anchors)
    assert report.problem_count == len(report.problems)
    assert {problem.region for problem in report.problems} <= {"eu"}
    return [(problem.sequence, " ".join(problem.text.split()[:3])) for problem in report.problems]


def rows_of(found: list[tuple[int, str]]) -> list[int]:
    return [sequence for sequence, _ in found]


async def test_a_log_as_it_was_written_has_no_problem(database: Database) -> None:
    report = await verify(database)
    assert (report.region, report.row_count, report.last.sequence, report.problem_count) == ("eu", ROWS, ROWS, 0)


async def test_an_empty_log_has_nothing_to_report(database_url: str) -> None:
    async with open_database(database_url, size=1) as database:
        assert await verify_audit_log(database, [SECRET]) == []


# Changed

CHANGES = {
    "region": "'us'",
    "sequence": "77",
    "at": "at + interval '1 microsecond'",
    "action": "'Sign_in'",
    "status": "'failed'",
    "actor": "''",
    "subject_id": "NULL",
    "entity_type": "entity_type || ' '",
    "entity_id": "'8'",
    "address": "'192.0.2.2'",
    "user_agent": "''",
    "request_id": "'other'",
    "details": "jsonb_set(details, '{list,0}', '2')",
    "seal": "decode(repeat('11', 32), 'hex')",
}


@pytest.mark.parametrize("column", CHANGES)
async def test_a_change_in_any_column_is_found(database: Database, tamper: Tamper, column: str) -> None:
    tamper(f"UPDATE audit_log SET {column} = {CHANGES[column]} WHERE sequence = 3")  # noqa: S608 # constants of ours
    reports = await verify_audit_log(database, [SECRET])
    found = {problem.sequence for report in reports for problem in report.problems}
    assert found == {"seal": {3, 4}, "region": {3, 4}, "sequence": {4, 6, 77}}.get(column, {3})


async def test_every_column_of_the_table_is_tried(tamper: Tamper) -> None:
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'audit_log'"
    assert {name for (name,) in tamper(columns)} == CHANGES.keys()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("details", "jsonb_set(details, '{list,0}', '1.0')"),
        ("details", "jsonb_set(details, '{list,0}', '1e400')"),
        ("details", "jsonb_set(details, '{list,0}', '\"1\"')"),
        ("details", "(repeat('[', 4000) || repeat(']', 4000))::jsonb"),
        ("details", "'null'"),
        ("details", "'[]'"),
        ("details", "details - 'new'"),
        ("details", 'details || \'{"more": null}\''),
        ("at", "'infinity'"),
        ("at", "'-infinity'"),
        ("at", "'2026-01-01 BC'"),
        ("subject_id", "gen_random_uuid()"),
    ],
)
async def test_odd_values_are_found_too(database: Database, tamper: Tamper, column: str, value: str) -> None:
    tamper(f"UPDATE audit_log SET {column} = {value} WHERE sequence = 3")  # noqa: S608 # constants of ours
    assert rows_of(await find(database)) == [3]


@pytest.mark.parametrize("column", ["at", "action", "details", "seal"])
async def test_what_became_null_is_found(database: Database, tamper: Tamper, column: str) -> None:
    tamper(f"ALTER TABLE audit_log ALTER {column} DROP NOT NULL")
    tamper(f"UPDATE audit_log SET {column} = NULL WHERE sequence = 3")  # noqa: S608 # constants of ours
    assert rows_of(await find(database)) == ([3, 4] if column == "seal" else [3])


async def test_the_order_of_keys_is_no_change(database: Database, tamper: Tamper) -> None:
    tamper("""UPDATE audit_log SET details = '{ "list": [1, "a"], "new": true }'""")
    tamper("""UPDATE audit_log SET details = '{"new": true, "list": [1, "a"]}' WHERE sequence = 3""")
    assert await find(database) == []


async def test_what_moves_from_one_column_to_the_next_is_found(database: Database, tamper: Tamper) -> None:
    tamper("UPDATE audit_log SET entity_type = entity_type || entity_id, entity_id = '' WHERE sequence = 3")
    assert rows_of(await find(database)) == [3]


async def test_a_row_that_was_sealed_again_without_the_secret_is_found(database: Database, tamper: Tamper) -> None:
    tamper("UPDATE audit_log SET action = 'x', seal = sha256('x') WHERE sequence = 3")
    assert rows_of(await find(database)) == [3, 4]


# Removed, moved, inserted


async def test_a_missing_row_is_found(database: Database, tamper: Tamper) -> None:
    tamper("DELETE FROM audit_log WHERE sequence = 3")
    assert await find(database) == [(4, "the row before")]


async def test_a_missing_beginning_is_found(database: Database, tamper: Tamper) -> None:
    tamper("DELETE FROM audit_log WHERE sequence <= 3")
    (problem,) = (await verify(database)).problems
    assert problem.sequence == 4
    assert "the rows 1 to 3 before it are missing, the beginning of the log" in problem.text


async def test_a_log_without_rows_is_found(database: Database, tamper: Tamper) -> None:
    tamper("TRUNCATE audit_log")
    assert await find(database) == [(1, "the end of")]


@pytest.mark.parametrize("kept", [ROWS - 1, 1])
async def test_an_end_that_was_cut_off_is_found(database: Database, tamper: Tamper, kept: int) -> None:
    tamper("DELETE FROM audit_log WHERE sequence > %s", kept)
    assert await find(database) == [(kept + 1, "the end of")]


async def test_rows_that_changed_places_are_found(database: Database, tamper: Tamper) -> None:
    for before, after in ((2, 1000), (5, 2), (1000, 5)):
        tamper("UPDATE audit_log SET sequence = %s WHERE sequence = %s", after, before)
    assert rows_of(await find(database)) == [2, 3, 5, 6]


async def test_an_inserted_row_is_found(database: Database, tamper: Tamper) -> None:
    tamper("UPDATE audit_log SET sequence = sequence + 1000 WHERE sequence > 3")
    tamper(COPY, 4, 3)
    tamper("UPDATE audit_log SET sequence = sequence - 999 WHERE sequence > 1000")
    tamper("UPDATE audit_heads SET sequence = sequence + 1")
    assert rows_of(await find(database)) == [4, 5, 6, 7]


async def test_a_row_that_was_added_at_the_end_is_found(database: Database, tamper: Tamper) -> None:
    tamper(COPY, ROWS + 1, ROWS)
    tamper("UPDATE audit_heads SET sequence = sequence + 1")
    assert rows_of(await find(database)) == [ROWS + 1]


@pytest.mark.parametrize("number", [-(2**63), -5, 0, 3, ROWS, 2**63 - 1])
async def test_a_row_with_a_number_of_another_or_of_none_is_found(
    database: Database, tamper: Tamper, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper("ALTER TABLE audit_log DROP CONSTRAINT audit_log_pkey, DROP CONSTRAINT audit_log_sequence_check")
    tamper(COPY, number, 1)
    for page in (1, 3, 1000):
        monkeypatch.setattr(storage.audit_verify, "PAGE_ROWS", page)
        assert number in rows_of(await find(database))


async def test_rows_of_another_region_are_found(database: Database, tamper: Tamper) -> None:
    tamper("UPDATE audit_log SET region = 'us'")
    tamper("UPDATE audit_heads SET region = 'us'")
    (report,) = await verify_audit_log(database, [SECRET])
    assert [problem.sequence for problem in report.problems] == [1, 2, 3, 4, 5, 6]


COPY = """
    INSERT INTO audit_log (region, sequence, at, action, status, actor, subject_id, entity_type, entity_id, address,
        user_agent, request_id, details, seal)
    SELECT region, %s, at, action, status, actor, subject_id, entity_type, entity_id, address, user_agent, request_id,
           details, seal
    FROM audit_log WHERE sequence = %s
"""


# The head


async def test_a_head_with_another_seal_is_found(database: Database, tamper: Tamper) -> None:
    tamper("UPDATE audit_heads SET seal = sha256('x')")
    assert await find(database) == [(ROWS, "the head of")]


async def test_a_head_with_another_time_is_found(database: Database, tamper: Tamper) -> None:
    """Rows that follow it would have no earlier one."""
    tamper("UPDATE audit_heads SET at = at + interval '1 day'")
    assert await find(database) == [(ROWS, "the head of")]


async def test_a_row_that_follows_a_changed_head_is_found(database: Database, tamper: Tamper) -> None:
    tamper("UPDATE audit_heads SET seal = sha256('x')")
    await append(database, 1)
    assert rows_of(await find(database)) == [ROWS + 1]


async def test_a_head_that_was_put_back_is_found(database: Database, tamper: Tamper) -> None:
    tamper("UPDATE audit_heads SET (sequence, seal) = (SELECT sequence, seal FROM audit_log WHERE sequence = 4)")
    assert await find(database) == [(4, "the head of")]


async def test_a_head_that_is_gone_is_found(database: Database, tamper: Tamper) -> None:
    tamper("DELETE FROM audit_heads")
    assert await find(database) == [(ROWS, "the head of")]


# Anchors


async def cut_and_rewind(tamper: Tamper) -> None:
    tamper("DELETE FROM audit_log WHERE sequence > 4")
    row = "SELECT sequence, seal, at FROM audit_log WHERE sequence = 4"
    tamper(f"UPDATE audit_heads SET (sequence, seal, at) = ({row})")  # noqa: S608 # constants of ours


async def test_an_end_that_was_cut_off_together_with_its_head_is_found_by_an_anchor(
    database: Database, tamper: Tamper
) -> None:
    anchor = (await verify(database)).last
    await cut_and_rewind(tamper)
    assert await find(database) == []
    assert await find(database, anchor) == [(ROWS, "a row that")]


async def test_an_end_that_was_written_anew_with_the_secret_is_found_by_an_anchor(
    database: Database, tamper: Tamper
) -> None:
    anchor = (await verify(database)).last
    await cut_and_rewind(tamper)
    await append(database, 3)
    assert await find(database) == []
    assert await find(database, anchor) == [(ROWS, "it is not")]


async def test_an_anchor_holds_while_the_log_grows(database: Database) -> None:
    anchors = [(await verify(database)).last]
    await append(database, 3)
    anchors.append((await verify(database)).last)
    assert await find(database, *anchors) == []


async def test_two_anchors_of_one_row_are_both_checked(database: Database) -> None:
    anchor = (await verify(database)).last
    other = Anchor("eu", ROWS, bytes(32))
    assert rows_of(await find(database, anchor, other)) == rows_of(await find(database, other, anchor)) == [ROWS]


async def test_a_region_that_is_gone_is_found_by_an_anchor(database: Database, tamper: Tamper) -> None:
    anchor = (await verify(database)).last
    tamper("TRUNCATE audit_log, audit_heads")
    assert await verify_audit_log(database, [SECRET]) == []
    assert await find(database, anchor) == [(0, "the head of"), (ROWS, "a row that")]


# Secrets, size, writers


async def test_with_another_secret_no_row_fits(database: Database) -> None:
    report = await verify(database, secrets=("x" * 32,))
    assert report.problem_count == report.row_count == ROWS


async def test_rows_of_an_earlier_secret_fit_with_both(database: Database) -> None:
    await append(database, 2, secret="y" * 32)
    assert (await verify(database)).problem_count == 2
    assert (await verify(database, secrets=("y" * 32, SECRET))).problem_count == 0


@pytest.mark.parametrize("page", [1, 2, 5, 6, 7])
async def test_pages_are_not_seen_in_the_outcome(
    database: Database, tamper: Tamper, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.audit_verify, "PAGE_ROWS", page)
    assert await find(database) == []
    tamper("UPDATE audit_log SET sequence = sequence + 5000 WHERE sequence > 4")
    tamper("UPDATE audit_heads SET sequence = sequence + 5000")
    assert rows_of(await find(database)) == [5005, 5006]


async def test_every_region_has_its_report(database: Database, tamper: Tamper) -> None:
    await append(database, 2, "us")
    await append(database, 1, "ap")
    tamper("UPDATE audit_log SET action = 'x' WHERE region = 'us' AND sequence = 1")
    reports = await verify_audit_log(database, [SECRET])
    assert [(report.region, report.row_count) for report in reports] == [("ap", 1), ("eu", ROWS), ("us", 2)]
    assert [(problem.region, problem.sequence) for report in reports for problem in report.problems] == [("us", 1)]


async def test_it_finds_nothing_wrong_while_others_write(database: Database) -> None:
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            while True:
                await AuditLog(database, "eu", SECRET).record(AuditEntry("a", "success", "system"))

        nursery.start_soon(write)
        nursery.start_soon(write)
        counts = [(await verify(database)) for _ in range(30)]
        nursery.cancel_scope.cancel()
    assert [report.problems for report in counts] == [[]] * 30
    assert counts[-1].row_count > counts[0].row_count


def test_a_million_problems_are_counted_and_a_hundred_told() -> None:
    check = ChainCheck("eu", [SECRET], [])
    for sequence in range(1, MAX_PROBLEMS + 51):
        check.read(StoredRow(sequence, ("eu", sequence), "{}", bytes(32)))
    report = check.finish(Head(MAX_PROBLEMS + 50, True, MAX_PROBLEMS + 50))
    assert (len(report.problems), report.problem_count) == (MAX_PROBLEMS, MAX_PROBLEMS + 50)
