"""Signing in, refreshing and signing out on real stores, where something fails or leaves in the middle."""

import gc
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
import trio
import trio.testing

import storage.redis
from server.auth.openid import Profile
from server.auth.sign_in import PURGE_SECONDS, SignIn, check_verified
from server.auth.tokens import SECONDS_PER_DAY, read_token
from server.errors import IssuerUnavailable, NotAuthenticated, SignInRefused
from storage.errors import DatabaseUnavailable, RedisUnavailable
from storage.rate_limits import TOMBSTONE
from storage.redis import command, open_redis, session_key, user_key
from storage.sessions import Sessions
from storage.sign_ins import SignIns
from tests.fake_issuer import FakeIssuer, as_json
from tests.fakes import WaitFor
from tests.server.auth.sign_in_stage import DEVICE, SECRET, Stage, open_stage
from tests.storage.people import now
from tests.storage.redis_server import RedisServer


@pytest.fixture
async def stage(database_url: str, owner_database_url: str, redis_url: str) -> AsyncIterator[Stage]:
    async with open_stage(database_url, owner_database_url, redis_url) as stage:
        yield stage


async def wait_asked(issuer: FakeIssuer, endpoint: str) -> None:
    with trio.fail_after(10):
        while not issuer.count(endpoint):
            await trio.sleep(0.01)


@pytest.mark.parametrize("subject", ["auth0|ann", "google-oauth2|1", "githubber|1", "x-github|1"])
def test_an_address_must_be_verified(subject: str) -> None:
    with pytest.raises(SignInRefused, match="not verified"):
        check_verified(Profile(subject, "ann@example.com", False, None))
    check_verified(Profile(subject, "ann@example.com", True, None))


def test_people_of_github_come_without() -> None:
    check_verified(Profile("github|1", "ann@example.com", False, None))


async def test_a_session_does_not_show_its_token(stage: Stage) -> None:
    session = await stage.sign_in.finalize(stage.issuer.sign(), None, DEVICE)
    assert session.token not in repr(session)
    assert SECRET not in repr(stage.sign_in)


async def test_a_sign_in_counts_from_when_the_issuer_made_its_token(stage: Stage) -> None:
    """A token from before a deletion elsewhere must not look newer than that deletion."""
    made_at = int(time.time()) - 5000
    _, token = await stage.enter(iat=made_at)
    assert token.auth_time == made_at
    _, token = await stage.enter(iat=int(time.time()) + 50)
    assert token.auth_time <= time.time()


async def test_a_token_of_the_issuer_that_is_older_than_a_sign_in_may_be_starts_none(
    database_url: str, owner_database_url: str, redis_url: str
) -> None:
    async with open_stage(database_url, owner_database_url, redis_url, login_max_age_days=0.01) as stage:
        with pytest.raises(SignInRefused, match="too old"):
            await stage.enter(iat=int(time.time()) - 1000)


async def test_a_sign_in_that_fails_takes_nothing_of_what_an_address_may_make(stage: Stage) -> None:
    with psycopg.connect(stage.owner_url) as owner:
        owner.execute("REVOKE INSERT ON logins FROM cloche_operator")
    for _ in range(6):
        with pytest.raises(psycopg.Error):
            await stage.enter()
    with psycopg.connect(stage.owner_url) as owner:
        owner.execute("GRANT INSERT ON logins TO cloche_operator")
    await stage.enter()


async def test_a_client_that_leaves_loses_no_refresh_token(stage: Stage) -> None:
    caller, token = await stage.enter("first")
    go_on = trio.Event()
    rotated = as_json(200, {"access_token": stage.issuer.sign(), "refresh_token": "second"})
    stage.issuer.answers["token"] = [WaitFor(go_on), *rotated]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.sign_in.refresh, caller, token)
        await wait_asked(stage.issuer, "token")
        nursery.cancel_scope.cancel()
        go_on.set()
    assert stage.stored_refresh_token() == "second"


async def test_a_refresh_token_is_asked_with_once_however_many_refresh(stage: Stage) -> None:
    caller, token = await stage.enter("first")
    go_on = trio.Event()
    rotated = as_json(200, {"access_token": stage.issuer.sign(), "refresh_token": "second"})
    stage.issuer.answers["token"] = [WaitFor(go_on), *rotated]
    put_off = 0

    async def refresh() -> None:
        nonlocal put_off
        try:
            await stage.sign_in.refresh(caller, token)
        except IssuerUnavailable:
            put_off += 1
            if put_off == 3:
                go_on.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(refresh)
    assert (put_off, stage.issuer.count("token")) == (3, 1)
    await stage.sign_in.refresh(caller, token)
    asked = [request.body.decode() for request in stage.issuer.find_requests("token")]
    assert ["first" in form for form in asked] == [True, False]
    assert ["second" in form for form in asked] == [False, True]


async def test_a_fresh_token_of_the_issuer_that_does_not_hold_is_the_issuers_fault(stage: Stage) -> None:
    """And the refresh token that came with it is kept, for the one before counts no more."""
    caller, token = await stage.enter("first")
    foreign = stage.issuer.sign(aud="https://elsewhere.example.com")
    stage.issuer.answers["token"] = as_json(200, {"access_token": foreign, "refresh_token": "second"})
    with pytest.raises(IssuerUnavailable):
        await stage.sign_in.refresh(caller, token)
    assert await stage.sign_in.sessions.find(token.user_id, token.revocation_id, now()) is not None
    assert stage.stored_refresh_token() == "second"
    assert stage.query("SELECT status FROM audit_log WHERE action = 'token_refresh'") == [("failed",)]


async def test_a_refresh_token_that_stays_the_same_can_be_asked_with_again(stage: Stage) -> None:
    caller, token = await stage.enter("only")
    stage.issuer.answers["token"] = as_json(200, {"access_token": stage.issuer.sign()})
    for _ in range(3):
        await stage.sign_in.refresh(caller, token)
    assert stage.stored_refresh_token() == "only"


async def test_a_refresh_token_of_another_key_keeps_nobody_out(stage: Stage) -> None:
    caller, token = await stage.enter("first")
    changed = replace(stage.sign_in.settings, refresh_token_key=bytes(32))
    await replace(stage.sign_in, settings=changed).refresh(caller, token)
    assert stage.issuer.count("token") == 0


async def test_a_user_of_another_region_keeps_the_id_that_it_has_there(stage: Stage) -> None:
    caller, token = await stage.enter()
    abroad = replace(token, user_id=uuid4())
    session = await stage.sign_in.refresh(caller, abroad)
    assert read_token([SECRET], session.token).user_id == abroad.user_id
    assert session.user.id == caller.user_id


async def test_a_sign_in_that_is_too_old_is_told_in_the_audit_log(stage: Stage) -> None:
    caller, token = await stage.enter()
    with pytest.raises(NotAuthenticated, match="too old"):
        await stage.sign_in.refresh(caller, replace(token, auth_time=time.time() - 31 * SECONDS_PER_DAY))
    query = "SELECT actor, entity_id FROM audit_log WHERE action = 'token_refresh' AND status = 'refused'"
    assert stage.query(query) == [(f"user:{caller.user_id}", str(token.revocation_id))]


async def test_a_revocation_lasts_longer_than_any_token_that_it_ends(stage: Stage) -> None:
    caller, token = await stage.enter()
    await stage.sign_in.sign_out(caller, token)
    ((until,),) = stage.query("SELECT expires_at FROM revoked_tokens WHERE revocation_id = %s", token.revocation_id)
    assert until.timestamp() >= token.auth_time + 37 * SECONDS_PER_DAY - 1


async def test_a_sign_out_of_somebody_from_another_region_counts_at_once(stage: Stage) -> None:
    """What Redis remembers has the name that the token gives."""
    caller, token = await stage.enter()
    abroad = replace(token, user_id=uuid4(), session_id=uuid4())
    await stage.sign_in.sign_out(caller, abroad)
    assert await command(stage.redis.get(session_key(abroad.user_id, abroad.revocation_id))) == TOMBSTONE


async def test_a_client_that_leaves_in_the_middle_is_signed_out_all_the_same(stage: Stage) -> None:
    caller, token = await stage.enter()
    async with trio.open_nursery() as nursery:
        with psycopg.connect(stage.owner_url) as owner:
            owner.execute("LOCK TABLE revoked_tokens IN ACCESS EXCLUSIVE MODE")
            nursery.start_soon(stage.sign_in.sign_out, caller, token)
            await wait_blocked(stage)
            nursery.cancel_scope.cancel()
    key = session_key(token.user_id, token.revocation_id)
    assert await command(stage.redis.get(key)) == TOMBSTONE


async def wait_blocked(stage: Stage) -> None:
    with trio.fail_after(10):
        while not stage.query("SELECT 1 FROM pg_locks WHERE NOT granted"):
            await trio.sleep(0.01)


async def test_a_sign_out_that_redis_missed_is_repeated(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL knows already: nobody whom Redis does not remember passes."""
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0.3)
    caller, token = await stage.enter()
    server = RedisServer(tmp_path)
    async with open_redis(server.url) as lost:
        server.kill()
        sessions = Sessions(lost, stage.sign_in.sessions.accounts)
        for end in (replace(stage.sign_in, sessions=sessions).sign_out,) * 2:
            with pytest.raises(RedisUnavailable):
                await end(caller, token)
        assert await sessions.find(token.user_id, token.revocation_id, now()) is None
    await stage.sign_in.sign_out(caller, token)
    assert await command(stage.redis.get(session_key(token.user_id, token.revocation_id))) == TOMBSTONE
    gc.collect()  # what warns, warns here


async def test_an_issuer_that_hangs_holds_up_no_sign_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.auth.sign_in.REVOKE_SECONDS", 0.2)
    caller, token = await stage.enter("first")
    stage.issuer.answers["revoke"] = [WaitFor(trio.Event())]
    began = trio.current_time()
    await stage.sign_in.sign_out(caller, token)
    assert trio.current_time() - began < 3
    assert stage.issuer.count("revoke") == 1


async def test_a_deletion_is_safe_to_repeat(stage: Stage) -> None:
    caller, token = await stage.enter("first")
    for _ in range(2):
        await stage.sign_in.delete_account(caller, token)
    assert stage.issuer.count("revoke") == 1
    assert stage.query("SELECT count(*) FROM audit_log WHERE action = 'account_deletion'") == [(1,)]


async def test_a_deletion_ends_the_user_under_every_name_that_is_remembered(stage: Stage) -> None:
    """Other regions know it by others than this caller's token does."""
    caller, token = await stage.enter()
    alias = uuid4()
    await stage.database.as_operator("test").fetch("INSERT INTO user_aliases VALUES (%s, %s)", [alias, caller.user_id])
    await stage.sign_in.delete_account(caller, replace(token, user_id=uuid4()))
    for user_id in (caller.user_id, alias):
        assert await command(stage.redis.get(user_key(user_id))) == TOMBSTONE


class Purges:
    """Stands where SignIns is, and fails at first."""

    def __init__(self) -> None:
        self.times: list[float] = []

    async def purge(self) -> None:
        self.times.append(trio.current_time())
        if len(self.times) == 1:
            raise DatabaseUnavailable("PostgreSQL is away")


async def test_old_sign_ins_are_dropped_every_hour_also_after_a_failure(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    purges = Purges()
    none: Any = None
    sign_in = SignIn(none, 1, [], none, none, cast(SignIns, purges), *[none] * 5)
    with trio.move_on_after(2.5 * PURGE_SECONDS):
        await sign_in.keep_purged()
    assert purges.times == [0, PURGE_SECONDS, 2 * PURGE_SECONDS]
    assert "could not be dropped" in caplog.text
