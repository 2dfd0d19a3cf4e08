"""Callers by token: found from real stores, or refused, and never signed out because a store is away."""

import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from werkzeug.datastructures import Headers

import storage.redis
from server.auth.callers import Caller, check_address, check_scopes
from server.auth.tokens import AppToken, read_token
from server.circumstances import Circumstances, circumstances, set_circumstances
from server.errors import LimitExceeded, NotAllowed, NotAuthenticated, describe
from storage.accounts import Accounts, User
from storage.errors import DatabaseUnavailable, RedisUnavailable
from storage.redis import session_key
from storage.sessions import Sessions
from tests.server.auth.callers_stage import (
    DEVICE,
    SECRET,
    Stage,
    build_headers,
    issue,
    open_stage,
    someone_else,
    watch_redis,
)

PUBLIC_LIMIT = 4


@pytest.fixture
async def stage(database_url: str, owner_database_url: str, redis_url: str) -> AsyncIterator[Stage]:
    settings = {"RATE_LIMIT_MAX_REQUESTS": str(PUBLIC_LIMIT)}
    async with open_stage(database_url, owner_database_url, redis_url, **settings) as stage:
        yield stage


async def find(stage: Stage, text: str, method: str = "GET", **headers: str) -> Caller:
    budgets = stage.callers.limits.budgets
    budget = budgets.reads if method == "GET" else budgets.writes
    return await stage.callers.find(method, build_headers(text, **headers), budget)


def change_claims(text: str, **changes: Any) -> str:
    claims = jwt.decode(text, options={"verify_signature": False})
    return jwt.encode(claims | changes, SECRET, algorithm="HS256")


async def revoke(stage: Stage, text: str) -> None:
    token = read_token([SECRET], text, grace_seconds=100)
    revoke = "INSERT INTO revoked_tokens VALUES (%s, %s, now(), now() + interval '1 day') ON CONFLICT DO NOTHING"
    stage.query(revoke, token.revocation_id, token.user_id)
    await stage.callers.sessions.bury([session_key(token.user_id, token.revocation_id)])


# Scopes


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_needs_the_scope_to_read(method: str) -> None:
    check_scopes(frozenset({"read"}), method)
    with pytest.raises(NotAllowed, match="the scope read"):
        check_scopes(frozenset({"write"}), method)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_anything_else_needs_the_scope_to_write_as_well(method: str) -> None:
    check_scopes(frozenset({"read", "write"}), method)
    with pytest.raises(NotAllowed, match="the scope write"):
        check_scopes(frozenset({"read", "rpc"}), method)
    with pytest.raises(NotAllowed, match="the scope read"):
        check_scopes(frozenset({"write"}), method)


async def test_a_token_without_the_scope_is_known_and_not_allowed(stage: Stage) -> None:
    text = change_claims(issue(stage.user), scope="read")
    assert (await find(stage, text, "GET")).user_id == stage.user.id
    with pytest.raises(NotAllowed, match="the scope write"):
        await find(stage, text, "POST")


# Finding


async def test_a_caller_is_found(stage: Stage) -> None:
    text = issue(stage.user)
    caller = await find(stage, text, "POST")
    token = read_token([SECRET], text)
    verdict = caller.verdict
    assert caller == Caller(
        stage.user.id, "ann@example.com", "user", None, str(DEVICE), token.scopes, token, None, verdict
    )
    assert verdict is not None
    assert (verdict.limit, verdict.remaining) == (120, 119)
    assert caller.actor == f"user:{stage.user.id}"


async def test_the_request_at_hand_is_the_callers_from_now_on(stage: Stage) -> None:
    set_circumstances(Circumstances("r", "192.0.2.1"))
    await find(stage, issue(stage.user))
    assert circumstances().user_id == str(stage.user.id)


async def test_a_caller_shows_no_address_of_mail_in_its_repr(stage: Stage) -> None:
    assert "ann@example.com" not in repr(await find(stage, issue(stage.user)))


async def test_identity_and_role_are_those_of_the_row(stage: Stage) -> None:
    caller = await find(stage, issue(stage.user, email="old@example.com", role="admin"))
    assert (caller.email, caller.role, caller.is_admin) == ("ann@example.com", "user", False)


async def test_a_role_that_was_taken_away_is_gone_as_soon_as_the_user_is_read_anew(stage: Stage) -> None:
    admin = await Accounts(stage.database).make_user("bob@example.com", "admin")
    assert (await find(stage, issue(admin))).is_admin
    await Accounts(stage.database).make_user("bob@example.com", "user")
    await stage.callers.sessions.forget_user(admin.id)
    assert not (await find(stage, issue(admin))).is_admin


async def test_a_request_that_is_remembered_costs_one_round_trip_to_redis_and_none_to_postgresql(
    stage: Stage,
) -> None:
    text = issue(stage.user)
    await find(stage, text)
    callers = await stage.without_postgresql()
    with watch_redis(stage.redis_url) as commands:
        for _ in range(5):
            await callers.find("GET", build_headers(text), callers.limits.budgets.reads)
        assert commands() == ["EVALSHA"] * 5


async def test_a_caller_above_its_budget_is_told_so(stage: Stage) -> None:
    text = issue(stage.user)
    for _ in range(120):
        await find(stage, text, "POST")
    with pytest.raises(LimitExceeded):
        await find(stage, text, "POST")
    assert (await find(stage, text, "GET")).user_id == stage.user.id


# What ends


async def test_a_revoked_token_is_refused_and_another_of_the_same_user_is_not(stage: Stage) -> None:
    text = issue(stage.user)
    await find(stage, text)
    await revoke(stage, text)
    with pytest.raises(NotAuthenticated, match="revoked"):
        await find(stage, text)
    assert (await find(stage, issue(stage.user))).user_id == stage.user.id


async def test_a_token_that_was_just_revoked_asks_postgresql_nothing(stage: Stage) -> None:
    text = issue(stage.user)
    await revoke(stage, text)
    callers = await stage.without_postgresql()
    with pytest.raises(NotAuthenticated, match="revoked"):
        await callers.find("GET", build_headers(text), callers.limits.budgets.reads)


async def test_all_tokens_of_a_sign_in_end_together(stage: Stage) -> None:
    session = uuid4()
    first, second = issue(stage.user, session_id=session), issue(stage.user, session_id=session)
    await find(stage, second)
    await revoke(stage, first)
    for text in (first, second, issue(stage.user, session_id=session)):
        with pytest.raises(NotAuthenticated, match="revoked"):
            await find(stage, text)


async def test_a_revoked_token_stays_refused_when_redis_has_forgotten(stage: Stage) -> None:
    text = issue(stage.user)
    await revoke(stage, text)
    await stage.redis.flushall()
    with pytest.raises(NotAuthenticated, match="revoked"):
        await find(stage, text)


async def test_a_sign_out_wins_over_a_request_that_was_looking_meanwhile(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower reader has seen the session alive in PostgreSQL, and remembers it after the tombstone was set."""
    text = issue(stage.user)
    find_session = Sessions.find

    async def find_then_revoke(self: Sessions, *arguments: Any) -> User | None:
        user = await find_session(self, *arguments)
        await revoke(stage, text)
        return user

    monkeypatch.setattr(Sessions, "find", find_then_revoke)
    await find(stage, text)
    monkeypatch.undo()
    with pytest.raises(NotAuthenticated, match="revoked"):
        await find(stage, text)


async def test_a_user_who_does_not_exist_is_refused_and_not_made(stage: Stage) -> None:
    with pytest.raises(NotAuthenticated, match="unknown"):
        await find(stage, issue(someone_else(stage.user)))
    assert stage.query("SELECT count(*) FROM users") == [(1,)]


async def test_a_token_counts_at_its_address_alone(stage: Stage) -> None:
    text = change_claims(issue(stage.user), ip_binding="192.0.2.1")
    set_circumstances(Circumstances("r", "192.0.2.1"))
    assert (await find(stage, text)).user_id == stage.user.id
    set_circumstances(Circumstances("r", "192.0.2.2"))
    with pytest.raises(NotAuthenticated, match="another address"):
        await find(stage, text)


@pytest.mark.parametrize(
    ("claim", "address", "holds"),
    [
        ("2001:db8::5", "2001:db8::/64", True),
        ("2001:db8:0:1::5", "2001:db8::/64", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("nowhere", "unknown", False),
        ("", "", False),
    ],
)
def test_an_address_is_compared_as_it_is_counted(claim: str, address: str, holds: bool) -> None:
    token = AppToken(UUID(int=1), uuid4(), 0, None, None, frozenset(), ip_binding=claim)
    with nullcontext() if holds else pytest.raises(NotAuthenticated):
        check_address(token, address)


# What costs nothing


@pytest.mark.parametrize("kind", ["nothing", "garbage", "expired", "another device"])
async def test_what_does_not_hold_draws_on_the_address_and_asks_nobody_else(stage: Stage, kind: str) -> None:
    headers = {
        "nothing": Headers(),
        "garbage": build_headers("a.b.c"),
        "expired": build_headers(issue(stage.user, now=time.time() - 100_000)),
        "another device": build_headers(issue(stage.user), **{"X-Device-ID": "x"}),
    }[kind]
    await find(stage, issue(stage.user))
    callers = await stage.without_postgresql()
    with watch_redis(stage.redis_url) as commands:
        for _ in range(PUBLIC_LIMIT):
            with pytest.raises(NotAuthenticated):
                await callers.find("POST", headers, callers.limits.budgets.writes)
        with pytest.raises(LimitExceeded) as caught:
            await callers.find("POST", headers, callers.limits.budgets.writes)
        assert commands() == ["EVALSHA"] * (PUBLIC_LIMIT + 1)
    assert caught.value.verdict.limit == PUBLIC_LIMIT


async def test_an_address_that_has_had_its_share_is_no_hindrance_to_callers(stage: Stage) -> None:
    for _ in range(PUBLIC_LIMIT + 1):
        with pytest.raises((NotAuthenticated, LimitExceeded)):
            await find(stage, "a.b.c")
    assert (await find(stage, issue(stage.user))).user_id == stage.user.id


# Refusals in the audit log


async def test_refused_credentials_that_name_somebody_are_in_the_audit_log(stage: Stage) -> None:
    bound = change_claims(issue(stage.user), ip_binding="192.0.2.1")
    lost, elsewhere, unknown = issue(stage.user), issue(stage.user), issue(someone_else(stage.user))
    await revoke(stage, lost)
    for text, headers in ((lost, {}), (elsewhere, {"X-Device-ID": "x"}), (bound, {}), (unknown, {})):
        with pytest.raises(NotAuthenticated):
            await find(stage, text, **headers)
    told = {
        (text, reason): ("credentials_refused", "anonymous", token.user_id, "session", str(token.token_id), reason)
        for text, reason in (
            (lost, "Token revoked or user unknown"),
            (elsewhere, "Device ID mismatch"),
            (bound, "Token is bound to another address"),
            (unknown, "Token revoked or user unknown"),
        )
        for token in [read_token([SECRET], text)]
    }
    assert stage.refusals() == list(told.values())


async def test_what_names_nobody_or_merely_expired_is_not_in_the_audit_log(stage: Stage) -> None:
    for text in ("a.b.c", "x", issue(stage.user, now=time.time() - 100_000)):
        with pytest.raises(NotAuthenticated):
            await find(stage, text)
    with pytest.raises(NotAuthenticated):
        await stage.callers.find("GET", Headers(), stage.callers.limits.budgets.reads)
    assert stage.refusals() == []


async def test_an_address_that_has_had_its_share_fills_no_log(stage: Stage) -> None:
    for _ in range(PUBLIC_LIMIT):
        with pytest.raises(NotAuthenticated):
            await find(stage, "a.b.c")
    with pytest.raises(LimitExceeded):
        await find(stage, issue(stage.user), **{"X-Device-ID": "x"})
    assert stage.refusals() == []


# A new token for an old one


async def test_a_token_that_is_over_finds_its_caller_for_a_refresh_within_the_grace(stage: Stage) -> None:
    text = issue(stage.user, now=time.time() - 86_400 - 50)
    caller = await stage.callers.find_for_refresh(build_headers(text), 60)
    assert (caller.user_id, caller.device_id) == (stage.user.id, str(DEVICE))
    assert caller.verdict is not None
    assert caller.verdict.limit == stage.callers.limits.budgets.writes.limit
    with pytest.raises(NotAuthenticated, match="Token expired"):
        await stage.callers.find_for_refresh(build_headers(text), 40)
    with pytest.raises(NotAuthenticated, match="Token expired"):
        await find(stage, text)


@pytest.mark.parametrize("name", ["X-Device-ID", "X-Token-Binding"])
async def test_a_token_that_is_over_needs_both_proofs_and_one_that_is_not_needs_the_device(
    stage: Stage, name: str
) -> None:
    headers = build_headers(issue(stage.user, now=time.time() - 86_400 - 50))
    del headers[name]
    with pytest.raises(NotAuthenticated):
        await stage.callers.find_for_refresh(headers, 60)
    headers = build_headers(issue(stage.user))
    del headers["X-Token-Binding"]
    assert (await stage.callers.find_for_refresh(headers, 60)).user_id == stage.user.id


async def test_a_token_that_is_over_and_bound_to_no_device_is_refused(stage: Stage) -> None:
    text = issue(stage.user, now=time.time() - 86_400 - 50, device_id=None)
    with pytest.raises(NotAuthenticated, match="Token expired"):
        await stage.callers.find_for_refresh(build_headers(text), 60)


async def test_a_revoked_token_is_not_refreshed(stage: Stage) -> None:
    text = issue(stage.user, now=time.time() - 86_400 - 50)
    await revoke(stage, text)
    with pytest.raises(NotAuthenticated, match="revoked"):
        await stage.callers.find_for_refresh(build_headers(text), 60)


# Stores that are away


async def test_while_redis_is_away_reading_goes_on_and_writing_is_closed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    assert (await find(stage, issue(stage.user))).user_id == stage.user.id
    with pytest.raises(RedisUnavailable) as caught:
        await find(stage, issue(stage.user), "POST")
    assert_to_be_tried_again(caught.value)


async def test_while_redis_is_away_a_revoked_token_is_refused_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = issue(stage.user)
    await revoke(stage, text)
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    with pytest.raises(NotAuthenticated, match="revoked"):
        await find(stage, text)


async def test_while_redis_is_away_nothing_that_does_not_hold_is_taken(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    for _ in range(PUBLIC_LIMIT):
        with pytest.raises(NotAuthenticated):
            await find(stage, "a.b.c", "POST")
    with pytest.raises(LimitExceeded):
        await find(stage, "a.b.c", "POST")


async def test_while_postgresql_is_away_nobody_is_signed_out(stage: Stage) -> None:
    remembered, text = issue(stage.user), issue(stage.user)
    await find(stage, remembered)
    callers = await stage.without_postgresql()
    await callers.find("GET", build_headers(remembered), callers.limits.budgets.reads)
    with pytest.raises(DatabaseUnavailable) as caught:
        await callers.find("GET", build_headers(text), callers.limits.budgets.reads)
    assert_to_be_tried_again(caught.value)


def assert_to_be_tried_again(error: Exception) -> None:
    problem = describe(error)
    assert problem is not None
    assert problem.status == 503
    assert "Retry-After" in problem.headers
