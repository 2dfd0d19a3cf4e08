"""Signing in: one user for everybody, whoever comes first, and nobody else's account."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
import trio

import storage.postgres
from storage.accounts import Accounts, User
from storage.audit import AuditEntry, AuditLog
from storage.errors import DatabaseUnavailable
from storage.postgres import Database, open_database
from storage.sign_ins import AccountDeleted, Identity, SignedIn, SignIns
from tests.storage.people import (
    ENTRY,
    ISSUER,
    Query,
    build_entry,
    build_identity,
    build_login,
    now,
    wait_until_somebody_waits,
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, size=4) as database:
            yield database


@pytest.fixture
def audit(database: Database) -> AuditLog:
    return AuditLog(database, "eu", "s" * 32)


@pytest.fixture
def sign_ins(database: Database, audit: AuditLog) -> SignIns:
    return SignIns(database, audit)


async def sign_in(sign_ins: SignIns, identity: Identity | None = None) -> SignedIn:
    return await sign_ins.sign_in(identity or build_identity(), build_login(), now(), build_entry)


async def count_users(database: Database) -> int:
    rows = await database.as_operator("test").fetch("SELECT count(*) FROM users")
    return int(rows[0][0])


async def run_at_once(*tasks: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)


# Finding and making


async def test_somebody_new_becomes_a_user_with_the_verified_address(sign_ins: SignIns) -> None:
    signed_in = await sign_in(sign_ins)
    user = signed_in.user
    assert (user.email, user.role, user.name, signed_in.is_new) == ("ann@example.com", "user", "Ann", True)
    assert await sign_ins.find(ISSUER, "auth0|ann") == user
    assert await sign_ins.find("https://other.example/", "auth0|ann") is None


async def test_the_same_identity_is_the_same_user(sign_ins: SignIns) -> None:
    first, second = await sign_in(sign_ins), await sign_in(sign_ins)
    assert second.user == first.user
    assert not second.is_new


async def test_a_verified_address_in_any_case_joins_another_identity(sign_ins: SignIns) -> None:
    first = await sign_in(sign_ins)
    second = await sign_in(sign_ins, build_identity("github|1", "ANN@example.com"))
    assert (second.user.id, second.is_new) == (first.user.id, False)


async def test_an_address_that_was_not_verified_joins_nobody(sign_ins: SignIns) -> None:
    ann = await sign_in(sign_ins)
    other = await sign_in(sign_ins, build_identity("github|1", verified=False))
    assert other.user.id != ann.user.id
    assert other.user.email == "user-github|1"


async def test_an_address_that_was_not_verified_is_kept_for_whoever_verifies_it(sign_ins: SignIns) -> None:
    other = await sign_in(sign_ins, build_identity("github|1", verified=False))
    ann = await sign_in(sign_ins)
    assert ann.user.id != other.user.id
    assert ann.user.email == "ann@example.com"


async def test_an_address_that_only_looks_the_same_joins_nobody(sign_ins: SignIns) -> None:
    """PostgreSQL's lower() makes a k of the Kelvin sign."""
    mike = await sign_in(sign_ins, build_identity("auth0|mike", "mike@example.com"))
    other = await sign_in(sign_ins, build_identity("auth0|other", "mi\u212ae@example.com"))
    assert other.user.id != mike.user.id
    assert "@" not in other.user.email


async def test_nobody_is_joined_to_a_placeholder(sign_ins: SignIns) -> None:
    victim = await sign_in(sign_ins, build_identity("samlp|x|ann@example.com", None))
    for address in ("user-samlp|x|ann@example.com", victim.user.email):
        if "@" in address:
            assert (await sign_in(sign_ins, build_identity("auth0|evil", address))).user.id != victim.user.id


async def test_subjects_that_differ_in_case_are_two_users(sign_ins: SignIns) -> None:
    users = {(await sign_in(sign_ins, build_identity(subject, None))).user for subject in ("a|x", "a|X", "A|X")}
    assert len({user.email.lower() for user in users}) == 3


async def test_a_placeholder_that_is_taken_is_replaced_by_another(sign_ins: SignIns, database: Database) -> None:
    await Accounts(database).make_user("user-github|1")
    signed_in = await sign_in(sign_ins, build_identity("github|1", None))
    assert signed_in.is_new
    assert signed_in.user.email.startswith("user-")


@pytest.mark.parametrize("email", ["x" * 300 + "@example.com", "a\x00@example.com"])
async def test_an_address_that_cannot_be_stored_is_as_none(sign_ins: SignIns, email: str) -> None:
    assert (await sign_in(sign_ins, build_identity(email=email))).user.email == "user-auth0|ann"


# What changes at the issuer


async def test_a_new_address_and_name_are_taken_over_and_the_role_stays(sign_ins: SignIns, query: Query) -> None:
    ann = (await sign_in(sign_ins)).user
    query("UPDATE users SET role = 'admin'")
    changed = (await sign_in(sign_ins, build_identity(email="lee@example.com", name="Ann Lee"))).user
    assert changed == User(ann.id, "lee@example.com", "admin", "Ann Lee")


async def test_the_address_stays_if_somebody_else_has_the_new_one(sign_ins: SignIns) -> None:
    ben = await sign_in(sign_ins, build_identity("auth0|ben", "ben@example.com"))
    ann = await sign_in(sign_ins)
    again = await sign_in(sign_ins, build_identity(email="BEN@example.com"))
    assert again.user == ann.user
    assert again.user.id != ben.user.id


async def test_the_address_and_the_name_stay_if_none_is_told_or_verified(sign_ins: SignIns) -> None:
    ann = await sign_in(sign_ins)
    assert (await sign_in(sign_ins, build_identity(email=None, name=None))).user == ann.user
    assert (await sign_in(sign_ins, build_identity(email="new@example.com", verified=False))).user == ann.user


async def test_the_case_of_the_own_address_may_change(sign_ins: SignIns) -> None:
    await sign_in(sign_ins)
    assert (await sign_in(sign_ins, build_identity(email="Ann@Example.com"))).user.email == "Ann@Example.com"


async def test_an_identity_never_moves_to_another_user(sign_ins: SignIns) -> None:
    ben = await sign_in(sign_ins, build_identity("auth0|ben", None))
    await sign_in(sign_ins)
    again = await sign_in(sign_ins, build_identity("auth0|ben", "ann@example.com", name=None))
    assert again.user.id == ben.user.id


# The login and the log


async def test_the_login_is_noted_with_its_device_in_lower_case(sign_ins: SignIns) -> None:
    login = build_login("4D0C0F5E-0000-4000-8000-00000000000A", b"sealed")
    await sign_ins.sign_in(build_identity(), login, now(), build_entry)
    assert await sign_ins.find_login(login.id) == replace(login, device_id="4d0c0f5e-0000-4000-8000-00000000000a")
    assert "sealed" not in repr(login)


async def test_the_log_tells_the_sign_in(sign_ins: SignIns, audit: AuditLog) -> None:
    user = (await sign_in(sign_ins)).user
    (row,) = await audit.find_latest(None, None, 10)
    assert (row.entry.action, row.entry.subject_id, row.entry.details) == ("sign_in", user.id, {"is_new": True})


async def test_a_sign_in_that_cannot_be_told_did_not_happen(sign_ins: SignIns, database: Database) -> None:
    def fail(_: SignedIn) -> AuditEntry:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sign_ins.sign_in(build_identity(), build_login(), now(), fail)
    assert await count_users(database) == 0
    assert await sign_ins.find(ISSUER, "auth0|ann") is None


def test_no_address_is_shown_where_people_are() -> None:
    user = User(UUID(int=1), "ann@example.com", "user", "Ann")
    assert "nn" not in repr(SignedIn(user, is_new=True)) + repr(replace(build_identity(), subject="auth0|1"))


# At once


async def test_one_person_on_many_devices_at_once_is_one_user(sign_ins: SignIns, database: Database) -> None:
    found: list[SignedIn] = []

    async def enter() -> None:
        found.append(await sign_in(sign_ins))

    await run_at_once(*[enter] * 8)
    assert len({signed_in.user.id for signed_in in found}) == await count_users(database) == 1
    assert [signed_in.is_new for signed_in in found].count(True) == 1


async def test_identities_with_one_address_at_once_are_one_user(sign_ins: SignIns, database: Database) -> None:
    found: list[UUID] = []

    def enter_with(number: int) -> Callable[[], Awaitable[None]]:
        async def enter() -> None:
            email = "ann@example.com" if number % 2 else "ANN@example.com"
            found.append((await sign_in(sign_ins, build_identity(f"auth0|{number}", email))).user.id)

        return enter

    await run_at_once(*map(enter_with, range(8)))
    assert len(set(found)) == await count_users(database) == 1


async def test_a_sign_in_beside_a_deletion_brings_nobody_back(
    sign_ins: SignIns, query: Query, owner_database_url: str
) -> None:
    """It waits for the deletion, and then sees the tombstone."""
    user = (await sign_in(sign_ins)).user
    issued_at = now() - timedelta(seconds=5)
    refusals: list[AccountDeleted] = []

    async def enter() -> None:
        with pytest.raises(AccountDeleted) as caught:
            await sign_ins.sign_in(build_identity(), build_login(), issued_at, build_entry)
        refusals.append(caught.value)

    with psycopg.connect(owner_database_url) as deletion:
        deletion.execute("DELETE FROM users WHERE id = %s", [user.id])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(enter)
            await wait_until_somebody_waits(query)
            assert not refusals
            deletion.commit()
    assert len(refusals) == 1
    assert query("SELECT id FROM users") == []


# Deleted accounts


@pytest.mark.parametrize("seconds_after", [-3600, -1, 0])
async def test_a_token_from_before_the_deletion_or_its_very_second_is_refused(
    sign_ins: SignIns, query: Query, seconds_after: int
) -> None:
    user = (await sign_in(sign_ins)).user
    await sign_ins.delete_account(user.id, ENTRY)
    ((second,),) = query("SELECT date_trunc('second', max(deleted_at)) FROM deleted_accounts")
    issued_at = second + timedelta(seconds=seconds_after)
    with pytest.raises(AccountDeleted):
        await sign_ins.sign_in(build_identity(), build_login(), issued_at, build_entry)
    assert query("SELECT id FROM users UNION ALL SELECT id FROM logins") == []


async def test_whoever_signs_in_anew_after_the_deletion_is_a_new_user(sign_ins: SignIns) -> None:
    user = (await sign_in(sign_ins)).user
    await sign_ins.delete_account(user.id, ENTRY)
    issued_at = now() + timedelta(seconds=1)
    again = await sign_ins.sign_in(build_identity(), build_login(), issued_at, build_entry)
    assert again.is_new
    assert again.user.id != user.id


async def test_a_database_that_hangs_is_given_up(
    sign_ins: SignIns, monkeypatch: pytest.MonkeyPatch, owner_database_url: str
) -> None:
    monkeypatch.setattr(storage.postgres, "TRANSACTION_SECONDS", 0.2)
    with psycopg.connect(owner_database_url) as other:
        other.execute("LOCK TABLE users")
        with pytest.raises(DatabaseUnavailable, match="did not answer"):
            await sign_in(sign_ins)
