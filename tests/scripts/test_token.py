"""`python -m scripts.token`: a user, a device and a token that the server accepts."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from werkzeug.datastructures import Headers

from scripts.environment import write_settings
from scripts.token import read_credits, read_email
from server.auth.tokens import read_token
from tests.end_to_end.cloche import SECRET, SIGN_IN
from tests.scripts.commands import run_command
from tests.server.auth.callers_stage import open_stage


@pytest.fixture
def environment(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "ENVIRONMENT": "development",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "JWT_SECRET": SECRET,
        "CLOCHE_DATA": str(tmp_path),
    }


def make(environment: Mapping[str, str], *arguments: str) -> Any:
    done = run_command("token", "--email", "ann@example.com", *arguments, environment=environment)
    assert (done.status, done.errors) == (0, "")
    return json.loads(done.output)


def fetch(owner_url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(owner_url) as owner:
        return owner.execute(statement.encode()).fetchall()


async def test_its_headers_are_accepted_by_the_server(
    environment: dict[str, str], database_url: str, owner_database_url: str, redis_url: str
) -> None:
    made = make(environment, "--role", "admin")
    async with open_stage(database_url, owner_database_url, redis_url) as stage:
        callers = replace(stage.callers, secrets=[SECRET])
        caller = await callers.find("POST", Headers(made["headers"]), callers.limits.budgets.writes)
    assert (str(caller.user_id), caller.email, caller.role) == (made["userId"], "ann@example.com", "admin")
    assert caller.device_id == made["deviceId"]
    assert made["headers"]["Authorization"] == f"Bearer {made['token']}"


def test_a_token_of_no_sign_in_is_revoked_by_itself(environment: dict[str, str]) -> None:
    first, second = (read_token([SECRET], make(environment)["token"]) for _ in range(2))
    assert (first.session_id, first.revocation_id) == (None, first.token_id)
    assert first.revocation_id != second.revocation_id


def test_a_user_is_kept_and_credits_add_up(environment: dict[str, str], owner_database_url: str) -> None:
    first, second = make(environment, "--credits", "1.5"), make(environment, "--credits", "1.5", "--role", "admin")
    third = make(environment)
    assert first["userId"] == second["userId"] == third["userId"]
    assert first["deviceId"] != second["deviceId"]
    assert fetch(owner_database_url, "SELECT balance_usd FROM credit_balances") == [(Decimal(3),)]
    assert fetch(owner_database_url, "SELECT role FROM users") == [("admin",)]
    assert fetch(owner_database_url, "SELECT count(*) FROM devices") == [(3,)]


def test_a_device_can_be_named(environment: dict[str, str]) -> None:
    device = "ABCDEF01-2345-6789-ABCD-EF0123456789"
    assert make(environment, "--device", device)["deviceId"] == str(UUID(device))


def test_settings_that_run_has_written_are_found(environment: dict[str, str], tmp_path: Path) -> None:
    write_settings(tmp_path, environment)
    assert make({"CLOCHE_DATA": str(tmp_path)})["token"]


def test_it_is_refused_in_production(environment: dict[str, str], owner_database_url: str) -> None:
    for name in ("production", ""):
        settings = {**environment, **SIGN_IN, "ENVIRONMENT": name}
        done = run_command("token", "--email", "ann@example.com", environment=settings)
        assert (done.status, done.output) == (1, "")
        assert done.errors.startswith("refused: ")
    assert fetch(owner_database_url, "SELECT FROM users") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"JWT_SECRET": ""}, "JWT_SECRET is missing"),
        ({"DATABASE_URL": "postgresql://x:hunter2@127.0.0.1:9/x"}, "PostgreSQL does not let us in"),
        ({"REDIS_URL": "redis://:hunter2@127.0.0.1:9"}, "Redis cannot be reached"),
    ],
)
def test_what_is_wrong_is_told_without_a_traceback_or_a_password(
    environment: dict[str, str], changes: dict[str, str], message: str
) -> None:
    done = run_command("token", "--email", "ann@example.com", environment=environment | changes)
    assert (done.status, done.output) == (1, "")
    assert message in done.errors
    assert "hunter2" not in done.errors
    assert not any(line.startswith("Traceback") for line in done.errors.splitlines()[-1:])


# What can be typed


@pytest.mark.parametrize("text", ["a@b", " ann@example.com "])
def test_an_address_is_taken_without_its_blanks(text: str) -> None:
    assert read_email(text) == text.strip()


@pytest.mark.parametrize("text", ["", "ann", "@b", "a@", "a b@c", "a@b\n.c", "a" * 255 + "@b"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        read_email(text)


@pytest.mark.parametrize("text", ["0", "0.000001", "1e3", "1000000"])
def test_an_amount_is_exact(text: str) -> None:
    assert read_credits(text) == Decimal(text)


@pytest.mark.parametrize("text", ["", "ten", "-1", "0.0000001", "1000000.1", "inf", "-inf", "nan", "sNaN", "1e999999"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        read_credits(text)
