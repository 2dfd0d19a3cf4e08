"""`python -m scripts.audit`: is the log whole, and what does it hold?"""

import argparse
import json
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import trio

from scripts.audit import read_anchor
from scripts.environment import write_settings
from storage.audit import AuditEntry, AuditLog
from storage.audit_verify import Anchor
from storage.postgres import open_database
from tests.scripts.commands import Done, run_command

SECRET = "the-audit-log-0123456789abcdef-0123456789"
ANN, BOB = uuid4(), uuid4()


@pytest.fixture
def environment(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "ENVIRONMENT": "development",
        "REGION": "eu",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "JWT_SECRET": "only-for-tests-0123456789abcdef-0123456789",
        "AUDIT_HMAC_SECRET": SECRET,
        "CLOCHE_DATA": str(tmp_path),
    }


@pytest.fixture
def written(database_url: str) -> None:
    """Three rows of eu and one of us."""
    trio.run(write, database_url)


async def write(database_url: str, secret: str = SECRET) -> None:
    async with open_database(database_url, size=1) as database:
        for region, user_id, action in (
            ("eu", ANN, "sign_in"), ("eu", BOB, "sign_in"), ("eu", ANN, "sign_out"), ("us", ANN, "sign_in")
        ):  # fmt: skip
            entry = AuditEntry(action, "success", f"user:{user_id}", user_id, details={"new": True})
            await AuditLog(database, region, secret).record(entry)


def tamper(owner_url: str, statement: str) -> None:
    with psycopg.connect(owner_url) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(statement.encode())


def verify(environment: dict[str, str], *anchors: str) -> Done:
    arguments = [word for anchor in anchors for word in ("--anchor", anchor)]
    return run_command("audit", "verify", *arguments, environment=environment)


def read_anchors(done: Done) -> list[str]:
    return [line.partition("--anchor ")[2] for line in done.output.splitlines()]


@pytest.mark.usefixtures("written")
def test_a_whole_log_is_told_in_a_line_for_each_region(environment: dict[str, str]) -> None:
    done = verify(environment)
    assert (done.status, done.errors) == (0, "")
    eu, us = done.output.splitlines()
    assert eu.startswith("eu: 3 rows, last 3, ok; --anchor eu:3:")
    assert us.startswith("us: 1 rows, last 1, ok; --anchor us:1:")


@pytest.mark.usefixtures("written")
def test_what_it_prints_can_be_given_back(
    environment: dict[str, str], owner_database_url: str, database_url: str
) -> None:
    anchors = read_anchors(verify(environment))
    trio.run(write, database_url)
    assert verify(environment, *anchors).status == 0
    tamper(owner_database_url, "DELETE FROM audit_log WHERE sequence > 1")
    tamper(
        owner_database_url,
        "UPDATE audit_heads SET (sequence, seal) = (SELECT sequence, seal FROM audit_log WHERE region = 'eu')"
        " WHERE region = 'eu'",
    )
    done = verify(environment, *anchors)
    assert done.status == 1
    assert "eu: row 3: a row that an earlier verification saw is not there" in done.output.splitlines()


@pytest.mark.usefixtures("written")
def test_every_problem_is_told_and_the_status_says_so(environment: dict[str, str], owner_database_url: str) -> None:
    tamper(owner_database_url, "UPDATE audit_log SET address = '192.0.2.9' WHERE region = 'eu' AND sequence = 2")
    done = verify(environment)
    assert (done.status, done.errors) == (1, "")
    first, second, third = done.output.splitlines()
    assert first == "eu: 3 rows, last 3, PROBLEMS: 1"
    assert second.startswith("eu: row 2: its seal does not fit")
    assert third.startswith("us: 1 rows, last 1, ok")


@pytest.mark.usefixtures("written")
def test_with_the_wrong_secret_it_asks_whether_it_is_the_right_one(environment: dict[str, str]) -> None:
    done = verify(environment | {"AUDIT_HMAC_SECRET": "x" * 32})
    assert done.status == 1
    assert "eu: no row fits. Is AUDIT_HMAC_SECRET the secret that the servers of eu write with?" in done.output
    assert SECRET not in done.output + done.errors
    assert verify(environment | {"AUDIT_HMAC_SECRET": "x" * 32, "AUDIT_HMAC_SECRET_PREVIOUS": SECRET}).status == 0


def test_an_empty_log_is_whole(environment: dict[str, str]) -> None:
    done = verify(environment)
    assert (done.status, done.output) == (0, "the audit log is empty\n")


@pytest.mark.usefixtures("written")
def test_settings_that_run_has_written_are_found(environment: dict[str, str], tmp_path: Path) -> None:
    write_settings(tmp_path, environment)
    assert verify({"CLOCHE_DATA": str(tmp_path)}).status == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DATABASE_URL": "postgresql://x:hunter2@127.0.0.1:9/x"}, "PostgreSQL does not let us in"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is missing"),
        ({"AUDIT_HMAC_SECRET": "hunter2"}, "AUDIT_HMAC_SECRET is wrong"),
        ({"AUDIT_HMAC_SECRET_PREVIOUS": "hunter2"}, "AUDIT_HMAC_SECRET_PREVIOUS is wrong"),
    ],
)
def test_what_keeps_it_from_running_has_a_status_of_its_own(
    environment: dict[str, str], changes: dict[str, str], message: str
) -> None:
    done = verify(environment | changes)
    assert (done.status, done.output) == (2, "")
    assert message in done.errors
    assert "hunter2" not in done.errors
    assert "Traceback" not in done.errors


def test_a_database_that_was_not_migrated_cannot_be_verified(
    environment: dict[str, str], owner_database_url: str
) -> None:
    tamper(owner_database_url, "DELETE FROM schema_migrations WHERE version > 6")
    done = verify(environment)
    assert done.status == 2
    assert "run `python -m scripts.migrate`" in done.errors


@pytest.mark.parametrize(
    "arguments", [(), ("verify", "--anchor", "eu:3"), ("show", "--limit", "0"), ("show", "--user", "x")]
)
def test_what_it_does_not_understand_is_refused(environment: dict[str, str], arguments: tuple[str, ...]) -> None:
    done = run_command("audit", *arguments, environment=environment)
    assert (done.status, done.output) == (2, "")
    assert "usage: python -m scripts.audit" in done.errors


# Showing


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), [1, 2, 3]),
        (("--limit", "2"), [2, 3]),
        (("--user", str(ANN)), [1, 3]),
        (("--user", str(ANN), "--action", "sign_out"), [3]),
        (("--action", "nothing"), []),
    ],
)
def test_rows_of_the_region_are_shown_as_json(
    environment: dict[str, str], arguments: tuple[str, ...], shown: list[int]
) -> None:
    done = run_command("audit", "show", *arguments, environment=environment)
    assert (done.status, done.errors) == (0, "")
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert [row["sequence"] for row in rows] == shown
    assert {row["region"] for row in rows} <= {"eu"}
    assert [row["entry"]["details"] for row in rows] == [{"new": True}] * len(rows)


# What can be typed


def test_an_anchor_is_read() -> None:
    assert read_anchor(f"eu:12:{'ab' * 32}") == Anchor("eu", 12, b"\xab" * 32)


@pytest.mark.parametrize(
    "text", ["", "eu", "eu:1", "eu:1:", "eu:1:abcd", "eu:0:SEAL", "eu:x:SEAL", ":1:SEAL", "eu:-1:SEAL"]
)
def test_what_is_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        read_anchor(text.replace("SEAL", "ab" * 32))
