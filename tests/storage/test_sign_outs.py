"""Signing out and away: what ends, what stands, and what nobody may bring back."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import psycopg
import pytest
import trio

from storage.accounts import Accounts, User
from storage.audit import AuditLog
from storage.credits import BalanceTooLow, Credits
from storage.postgres import Database, open_database
from storage.push_tokens import PushTokens
from storage.sign_ins import AccountInUse, Ended, Login, SignIns
from tests.storage.calls import build_hold, build_settlement, grant
from tests.storage.people import (
    ENTRY,
    Query,
    build_entry,
    build_identity,
    build_login,
    now,
    wait_until_somebody_waits,
)

LAPTOP, PHONE = str(UUID(int=1)), str(UUID(int=2))
TOMBSTONES = "SELECT reference FROM deleted_accounts ORDER BY reference"


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


async def sign_in(sign_ins: SignIns, login: Login, subject: str = "auth0|ann") -> User:
    return (await sign_ins.sign_in(build_identity(subject), login, now(), build_entry)).user


async def sign_out(sign_ins: SignIns, user: User, login: Login) -> Ended:
    return await sign_ins.end(user.id, login.id, login.expires_at, ENTRY)


# Refreshing


async def test_a_refresh_keeps_the_login_and_its_end_and_is_told(sign_ins: SignIns, audit: AuditLog) -> None:
    login = build_login(LAPTOP, b"first")
    await sign_in(sign_ins, login)
    await sign_ins.note_refresh(login.id, None, ENTRY)
    assert await sign_ins.find_login(login.id) == login
    await sign_ins.note_refresh(login.id, b"second", ENTRY)
    found = await sign_ins.find_login(login.id)
    assert found is not None
    assert (found.refresh_token, found.expires_at) == (b"second", login.expires_at)
    assert len(await audit.find_latest(None, ENTRY.action, 10)) == 2


async def test_a_login_that_is_over_or_unknown_is_not_found(sign_ins: SignIns) -> None:
    login = build_login(days=-1)
    await sign_in(sign_ins, login)
    assert await sign_ins.find_login(login.id) is None
    assert await sign_ins.find_login(uuid4()) is None


# Signing out


async def test_a_sign_out_ends_the_session_and_is_told(sign_ins: SignIns, database: Database, audit: AuditLog) -> None:
    login = build_login()
    user = await sign_in(sign_ins, login)
    await sign_out(sign_ins, user, login)
    assert await Accounts(database).find_caller(user.id, login.id, now()) is None
    assert await Accounts(database).find_caller(user.id, uuid4(), now()) == user
    assert await sign_ins.find_login(login.id) is None
    assert (await audit.find_latest(None, None, 1))[0].entry.action == ENTRY.action


async def test_the_last_device_that_signs_out_gives_up_the_refresh_tokens(sign_ins: SignIns) -> None:
    laptop, phone = build_login(LAPTOP, b"laptop"), build_login(PHONE, b"phone")
    user = await sign_in(sign_ins, laptop)
    await sign_in(sign_ins, phone)
    assert (await sign_out(sign_ins, user, laptop)).refresh_tokens == ()
    assert (await sign_out(sign_ins, user, phone)).refresh_tokens == (b"phone",)


async def test_a_login_that_has_expired_is_no_device_that_stands(sign_ins: SignIns) -> None:
    laptop, old = build_login(LAPTOP, b"laptop"), build_login(PHONE, b"old", days=-1)
    user = await sign_in(sign_ins, old)
    await sign_in(sign_ins, laptop)
    assert set((await sign_out(sign_ins, user, laptop)).refresh_tokens) == {b"laptop", b"old"}


async def test_a_device_that_signed_in_twice_leaves_once(sign_ins: SignIns) -> None:
    """Its first sign-in had no answer."""
    lost, laptop = build_login(LAPTOP, b"lost"), build_login(LAPTOP, b"laptop")
    user = await sign_in(sign_ins, lost)
    await sign_in(sign_ins, laptop)
    assert set((await sign_out(sign_ins, user, laptop)).refresh_tokens) == {b"laptop", b"lost"}


async def test_nothing_is_pushed_any_more_to_a_device_that_signed_out(
    sign_ins: SignIns, database: Database, query: Query
) -> None:
    """Also if another sign-in of the device stands; the user's other devices keep their tokens."""
    first, second = build_login(PHONE), build_login(PHONE)
    user = await sign_in(sign_ins, first)
    await sign_in(sign_ins, second)
    for device_id, token in ((PHONE, "phone"), (LAPTOP, "tablet")):
        await PushTokens(database).save(user.id, UUID(device_id), "ios", token)
    await sign_out(sign_ins, user, build_login())
    assert query("SELECT count(*) FROM push_tokens") == [(2,)]
    for _ in range(2):
        await sign_ins.end(user.id, first.id, first.expires_at, ENTRY, UUID(PHONE))
        assert query("SELECT token FROM push_tokens") == [("tablet",)]


async def test_what_has_no_device_stands_for_itself(sign_ins: SignIns) -> None:
    first, second = build_login(None, b"first"), build_login(None, b"second")
    user = await sign_in(sign_ins, first)
    await sign_in(sign_ins, second)
    assert (await sign_out(sign_ins, user, first)).refresh_tokens == ()
    assert (await sign_out(sign_ins, user, second)).refresh_tokens == (b"second",)


async def test_somebody_elses_devices_do_not_count(sign_ins: SignIns) -> None:
    await sign_ins.sign_in(build_identity("auth0|ben", None), build_login(PHONE, b"ben"), now(), build_entry)
    laptop = build_login(LAPTOP, b"ann")
    user = await sign_in(sign_ins, laptop)
    assert (await sign_out(sign_ins, user, laptop)).refresh_tokens == (b"ann",)


async def test_two_devices_that_sign_out_at_once_give_up_the_refresh_tokens(sign_ins: SignIns) -> None:
    logins = [build_login(str(UUID(int=number)), bytes([number])) for number in range(4)]
    for login in logins:
        user = await sign_in(sign_ins, login)
    given_up: list[bytes] = []

    async def leave(login: Login) -> None:
        given_up.extend((await sign_out(sign_ins, user, login)).refresh_tokens)

    async with trio.open_nursery() as nursery:
        for login in logins:
            nursery.start_soon(leave, login)
    assert len(given_up) == 1


async def test_a_token_without_a_login_is_revoked_and_may_be_again(sign_ins: SignIns, database: Database) -> None:
    user, token_id = await Accounts(database).make_user("ann@example.com"), uuid4()
    for _ in range(2):
        ended = await sign_ins.end(user.id, token_id, now() + timedelta(days=1), ENTRY)
        assert ended.refresh_tokens == ()
    assert await Accounts(database).find_caller(user.id, token_id, now()) is None


# Deleting an account


async def test_a_deleted_account_leaves_nothing_but_tombstones_and_the_log(
    sign_ins: SignIns, query: Query, audit: AuditLog
) -> None:
    user = await sign_in(sign_ins, build_login())
    await sign_ins.delete_account(user.id, ENTRY)
    for table in ("users", "identities", "logins", "user_aliases", "api_keys"):
        assert query(f"SELECT 1 FROM {table}") == []  # noqa: S608 - our own tables
    ((subject,), (who,)) = query(TOMBSTONES)
    assert who == f"user:{user.id}"
    assert subject.startswith("subject:")
    assert "ann" not in subject
    assert [row.entry.action for row in await audit.find_latest(None, None, 10)] == ["sign_in", ENTRY.action]


async def test_a_deletion_names_all_that_may_be_remembered(sign_ins: SignIns, query: Query) -> None:
    user = await sign_in(sign_ins, build_login(LAPTOP, b"sealed"))
    await sign_in(sign_ins, build_login())
    alias = uuid4()
    query("INSERT INTO user_aliases VALUES (%s, %s)", alias, user.id)
    deleted = await sign_ins.delete_account(user.id, ENTRY)
    assert set(deleted.user_ids) == {user.id, alias}
    assert deleted.refresh_tokens == (b"sealed",)
    assert (f"user:{alias}",) in query(TOMBSTONES)


async def test_a_deletion_may_be_repeated_and_is_told_once(sign_ins: SignIns, audit: AuditLog) -> None:
    user = await sign_in(sign_ins, build_login())
    await sign_ins.delete_account(user.id, ENTRY)
    assert (await sign_ins.delete_account(user.id, ENTRY)).user_ids == (user.id,)
    assert len(await audit.find_latest(None, ENTRY.action, 10)) == 1


async def test_a_revocation_outlives_the_account(sign_ins: SignIns, query: Query) -> None:
    login = build_login()
    user = await sign_in(sign_ins, login)
    await sign_out(sign_ins, user, login)
    await sign_ins.delete_account(user.id, ENTRY)
    assert query("SELECT revocation_id FROM revoked_tokens") == [(login.id,)]


async def test_whoever_deletes_the_row_the_tombstones_are_set(sign_ins: SignIns, query: Query) -> None:
    await sign_in(sign_ins, build_login())
    query("DELETE FROM users")
    assert len(query(TOMBSTONES)) == 2


async def test_a_deletion_waits_for_a_sign_in_that_goes_on(
    sign_ins: SignIns, query: Query, owner_database_url: str
) -> None:
    """So that it names the login's refresh token too."""
    user = await sign_in(sign_ins, build_login())
    found: list[bytes] = []

    async def delete() -> None:
        found.extend((await sign_ins.delete_account(user.id, ENTRY)).refresh_tokens)

    with psycopg.connect(owner_database_url) as other:
        other.execute(
            "INSERT INTO logins (id, user_id, issuer, subject, refresh_token, auth_time, expires_at)"
            " VALUES (gen_random_uuid(), %s, 'i', 's', 'late', now(), now() + interval '1 day')",
            [user.id],
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delete)
            await wait_until_somebody_waits(query)
            other.commit()
    assert found == [b"late"]


async def test_a_deletion_and_calls_that_begin_and_end_do_not_stop_each_other(
    sign_ins: SignIns, query: Query, owner_database_url: str
) -> None:
    """A hold locks the balance, and then the user's row, to which it refers."""
    user = await sign_in(sign_ins, build_login())
    async with trio.open_nursery() as nursery:
        with psycopg.connect(owner_database_url) as call:
            call.execute("UPDATE credit_balances SET held_usd = 1 WHERE user_id = %s", [user.id])
            nursery.start_soon(sign_ins.delete_account, user.id, ENTRY)
            await wait_until_somebody_waits(query)
            call.execute("SELECT 1 FROM users WHERE id = %s FOR KEY SHARE NOWAIT", [user.id])
    assert query("SELECT id FROM users") == []


# Deleting an account whose money is on its way


async def test_an_account_is_not_deleted_while_a_call_runs(
    sign_ins: SignIns, database: Database, query: Query, audit: AuditLog
) -> None:
    """Whose charge would be nobody's."""
    user = await sign_in(sign_ins, build_login())
    await grant(database, user.id, "10")
    call = build_hold(user.id)
    await Credits(database).hold(call)
    with pytest.raises(AccountInUse, match="wait for its end"):
        await sign_ins.delete_account(user.id, ENTRY)
    assert query("SELECT id FROM users") == [(user.id,)]
    assert [row.entry.action for row in await audit.find_latest(None, None, 10)] == ["sign_in"]
    await Credits(database).settle(build_settlement(call))
    await sign_ins.delete_account(user.id, ENTRY)
    assert query("SELECT id FROM users") == []


@pytest.mark.parametrize(
    ("kind", "state", "is_kept"),
    [("top_off", "open", True), ("top_off", "paid", False), ("top_off", "failed", False), ("checkout", "open", False)],
)
async def test_an_account_is_not_deleted_while_a_top_off_is_paid(
    sign_ins: SignIns, query: Query, kind: str, state: str, is_kept: bool
) -> None:
    user = await sign_in(sign_ins, build_login())
    query(
        "INSERT INTO purchases (id, user_id, kind, state, gross_cents, fee_cents, net_cents)"
        " VALUES (gen_random_uuid(), %s, %s, %s, 1000, 200, 800)",
        *(user.id, kind, state),
    )
    with pytest.raises(AccountInUse, match="top-off") if is_kept else nullcontext():
        await sign_ins.delete_account(user.id, ENTRY)
    assert query("SELECT count(*) FROM users") == [(is_kept,)]


async def note_success(
    said: list[str], word: str, act: Callable[[], Awaitable[object]], refusal: type[Exception]
) -> None:
    with suppress(refusal):
        await act()
        said.append(word)


async def test_a_call_that_begins_while_an_account_is_deleted_begins_before_or_never(
    sign_ins: SignIns, database: Database, query: Query
) -> None:
    for number in range(8):
        user = await sign_in(sign_ins, build_login(), f"auth0|{number}")
        await grant(database, user.id, "10")
        said: list[str] = []
        async with trio.open_nursery() as nursery:
            hold = partial(Credits(database).hold, build_hold(user.id))
            nursery.start_soon(note_success, said, "held", hold, BalanceTooLow)
            delete = partial(sign_ins.delete_account, user.id, ENTRY)
            nursery.start_soon(note_success, said, "deleted", delete, AccountInUse)
        assert len(said) == 1
        assert query("SELECT count(*) FROM users WHERE id = %s", user.id) == [("held" in said,)]


# Purging


async def test_what_is_over_is_dropped_and_what_counts_stays(sign_ins: SignIns, query: Query) -> None:
    old, new = build_login(days=-1), build_login()
    user = await sign_in(sign_ins, old)
    await sign_in(sign_ins, new)
    await sign_ins.end(user.id, UUID(int=1), now() - timedelta(seconds=1), ENTRY)
    await sign_ins.end(user.id, UUID(int=2), now() + timedelta(days=1), ENTRY)
    for reference, seconds in (("old", -1), ("new", 60)):
        expires_at = now() + timedelta(seconds=seconds)
        query("INSERT INTO deleted_accounts (reference, expires_at) VALUES (%s, %s)", reference, expires_at)
    for _ in range(2):
        await sign_ins.purge()
    assert query("SELECT id FROM logins") == [(new.id,)]
    assert query("SELECT revocation_id FROM revoked_tokens") == [(UUID(int=2),)]
    assert query(TOMBSTONES) == [("new",)]


async def test_a_tombstone_outlives_every_login(sign_ins: SignIns, query: Query) -> None:
    user = await sign_in(sign_ins, build_login())
    await sign_ins.delete_account(user.id, ENTRY)
    assert query("SELECT bool_and(expires_at > now() + interval '97 days') FROM deleted_accounts") == [(True,)]
