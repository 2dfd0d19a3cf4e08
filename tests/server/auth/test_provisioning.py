"""Tokens of another region: they bring their user along, once, and nobody who was sent away."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from server.auth.provisioning import Provisioning
from server.auth.tokens import SCOPES, AppToken
from server.circumstances import Circumstances, set_circumstances
from storage.accounts import Accounts, User
from storage.audit import AuditLog
from storage.postgres import Database, open_database
from storage.sign_ins import SignIns
from tests.storage.people import ENTRY, ISSUER, Query, build_entry, build_identity, build_login, now


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


@pytest.fixture
def provisioning(sign_ins: SignIns) -> Provisioning:
    return Provisioning(sign_ins, ISSUER)


def build_token(subject: str | None = "auth0|ann", email: str = "ann@example.com", age_seconds: float = 60) -> AppToken:
    return AppToken(
        user_id=uuid4(),
        token_id=uuid4(),
        expires_at=time.time() + 60,
        device_id=None,
        binding=None,
        scopes=frozenset(SCOPES.split()),
        session_id=uuid4(),
        auth_time=float(int(time.time() - age_seconds)),
        subject=subject,
        email=email,
    )


async def sign_in(sign_ins: SignIns, subject: str = "auth0|ann", email: str = "ann@example.com") -> User:
    return (await sign_ins.sign_in(build_identity(subject, email), build_login(), now(), build_entry)).user


async def test_an_unknown_user_is_made_with_the_tokens_id_and_no_rights(
    provisioning: Provisioning, database: Database
) -> None:
    token = build_token()
    user = await provisioning.provision(token)
    assert user is not None
    assert (user.id, user.role) == (token.user_id, "user")
    assert await Accounts(database).find_caller(token.user_id, token.revocation_id, now()) == user
    assert await provisioning.sign_ins.find(ISSUER, "auth0|ann") == user


async def test_a_second_token_finds_the_same_user_and_tells_nothing(
    provisioning: Provisioning, audit: AuditLog
) -> None:
    token = build_token()
    first = await provisioning.provision(token)
    assert await provisioning.provision(replace(token, session_id=uuid4())) == first
    assert len(await audit.find_latest(None, None, 10)) == 1


async def test_the_address_in_a_token_joins_nobody_and_is_nobodys(
    provisioning: Provisioning, sign_ins: SignIns
) -> None:
    ben = await sign_in(sign_ins, "auth0|ben", "ann@example.com")
    ann = await provisioning.provision(build_token())
    assert ann is not None
    assert ann.id != ben.id
    assert ann.email == "user-auth0|ann"
    eve = await provisioning.provision(build_token("auth0|eve", "free@example.com"))
    owner = await sign_in(sign_ins, "auth0|owner", "free@example.com")
    assert eve is not None
    assert owner.id != eve.id


async def test_whoever_signs_in_here_later_is_the_user_that_a_token_brought(
    provisioning: Provisioning, sign_ins: SignIns
) -> None:
    user = await provisioning.provision(build_token())
    assert user is not None
    assert await sign_in(sign_ins) == User(user.id, "ann@example.com", "user", "Ann")


async def test_a_user_who_is_known_here_has_another_id_there(
    provisioning: Provisioning, sign_ins: SignIns, database: Database, audit: AuditLog
) -> None:
    user, token = await sign_in(sign_ins), build_token()
    for _ in range(2):
        assert await provisioning.provision(token) == user
    assert await Accounts(database).find_caller(token.user_id, token.revocation_id, now()) == user
    (row,) = await audit.find_latest(None, "user_provisioned", 10)
    assert (row.entry.subject_id, row.entry.entity_id) == (user.id, str(token.user_id))


async def test_a_token_that_names_no_subject_brings_nobody(provisioning: Provisioning, query: Query) -> None:
    assert await provisioning.provision(build_token(None)) is None
    assert query("SELECT id FROM users") == []


async def test_a_token_that_was_revoked_here_brings_nobody(provisioning: Provisioning, query: Query) -> None:
    token = build_token()
    await provisioning.sign_ins.end(token.user_id, token.revocation_id, now() + timedelta(days=1), ENTRY)
    assert await provisioning.provision(token) is None
    assert query("SELECT id FROM users") == []


async def test_a_revoked_token_of_somebody_known_brings_nobody(provisioning: Provisioning, sign_ins: SignIns) -> None:
    token = replace(build_token(), user_id=(await sign_in(sign_ins)).id)
    await sign_ins.end(token.user_id, token.revocation_id, now() + timedelta(days=1), ENTRY)
    assert await provisioning.provision(token) is None


@pytest.mark.parametrize(("age_seconds", "is_brought"), [(3600, False), (-60, True)])
async def test_a_user_whom_another_region_still_has_comes_back_by_a_newer_sign_in_there_alone(
    provisioning: Provisioning, query: Query, age_seconds: float, is_brought: bool
) -> None:
    """It was deleted here: there it has the same id as before."""
    token = build_token()
    await provisioning.provision(token)
    await provisioning.sign_ins.delete_account(token.user_id, ENTRY)
    newer = replace(build_token("auth0|other", age_seconds=age_seconds), user_id=token.user_id)
    assert (await provisioning.provision(newer) is not None) == is_brought
    assert query("SELECT id FROM users") == ([(token.user_id,)] if is_brought else [])


async def test_a_deleted_alias_is_not_made_again(provisioning: Provisioning, sign_ins: SignIns) -> None:
    user, token = await sign_in(sign_ins), build_token()
    await provisioning.provision(token)
    await sign_ins.delete_account(user.id, ENTRY)
    assert await provisioning.provision(replace(token, subject="auth0|other")) is None


@pytest.mark.parametrize(("seconds_after", "is_brought"), [(-3600, False), (0, False), (1, True)])
async def test_a_sign_in_elsewhere_counts_if_it_is_newer_than_the_deletion_here(
    provisioning: Provisioning, sign_ins: SignIns, query: Query, seconds_after: int, is_brought: bool
) -> None:
    user = await sign_in(sign_ins)
    await sign_ins.delete_account(user.id, ENTRY)
    ((second,),) = query("SELECT floor(extract(epoch FROM max(deleted_at)))::int FROM deleted_accounts")
    token = replace(build_token(), auth_time=float(second + seconds_after))
    assert (await provisioning.provision(token) is not None) == is_brought


SAME_ID, SAME_SUBJECT = {"user_id": UUID(int=5)}, {"subject": "auth0|ann"}


@pytest.mark.parametrize("same", [SAME_ID, SAME_SUBJECT, SAME_ID | SAME_SUBJECT])
async def test_many_requests_at_once_bring_one_user(
    provisioning: Provisioning, query: Query, same: dict[str, Any]
) -> None:
    tokens = [replace(build_token(f"auth0|{number}"), **same) for number in range(8)]
    found: list[UUID | None] = []

    async def provision(token: AppToken) -> None:
        user = await provisioning.provision(token)
        found.append(user.id if user else None)

    async with trio.open_nursery() as nursery:
        for token in tokens:
            nursery.start_soon(provision, token)
    ((user_id,),) = query("SELECT id FROM users")
    assert found == [user_id] * 8


async def test_a_sign_in_and_a_token_of_another_region_at_once_are_one_user(
    provisioning: Provisioning, sign_ins: SignIns, query: Query
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(provisioning.provision, build_token())
            nursery.start_soon(sign_in, sign_ins)
    assert query("SELECT count(*) FROM users") == [(1,)]


async def test_the_log_tells_who_was_brought_from_where(provisioning: Provisioning, audit: AuditLog) -> None:
    set_circumstances(Circumstances("r-1", "192.0.2.1", "agent"))
    token = build_token()
    await provisioning.provision(token)
    (row,) = await audit.find_latest(None, None, 10)
    entry = row.entry
    assert (entry.action, entry.subject_id, entry.request_id) == ("user_provisioned", token.user_id, "r-1")
    assert (entry.address, entry.user_agent) == ("192.0.2.1", "agent")
    assert "example.com" not in repr(entry)
    assert row.at > datetime.fromtimestamp(token.auth_time, UTC)
