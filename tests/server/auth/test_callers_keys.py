"""Callers by API key: found from real stores, or refused, and never guessed."""

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import trio
import trio.testing
from werkzeug.datastructures import Headers

import server.auth.callers
import server.outage
import storage.redis
from server.auth.callers import UNKNOWN_KEY, Caller
from server.auth.credentials import hash_api_key
from server.circumstances import Circumstances, set_circumstances
from server.errors import LimitExceeded, NotAllowed, NotAuthenticated
from storage.accounts import Accounts
from storage.api_keys import ApiKeys, KeyOwner, revoke_api_key
from storage.errors import DatabaseUnavailable, RedisUnavailable
from storage.redis import api_key_key, user_key
from tests.server.auth.callers_stage import KEY, KEY_SECRET, Stage, open_stage, watch_redis

PUBLIC_LIMIT = 4
KEY_HASH = hash_api_key(KEY_SECRET, KEY)


@pytest.fixture
async def stage(database_url: str, owner_database_url: str, redis_url: str) -> AsyncIterator[Stage]:
    settings = {"RATE_LIMIT_MAX_REQUESTS": str(PUBLIC_LIMIT)}
    async with open_stage(database_url, owner_database_url, redis_url, **settings) as stage:
        yield stage


async def find(stage: Stage, key: str = KEY, method: str = "GET") -> Caller:
    budgets = stage.callers.limits.budgets
    budget = budgets.reads if method == "GET" else budgets.writes
    return await stage.callers.find(method, Headers({"X-API-Key": key}), budget)


async def forget(stage: Stage) -> None:
    """As half a minute does."""
    await stage.redis.delete([api_key_key(KEY_HASH)])


@pytest.mark.parametrize(
    "headers",
    [{"X-API-Key": KEY}, {"Authorization": f"ApiKey {KEY}"}, {"Authorization": f"Bearer {KEY}"}],
    ids=str,
)
async def test_a_key_finds_its_user(stage: Stage, headers: Mapping[str, str]) -> None:
    key_id = await stage.make_key()
    budget = stage.callers.limits.budgets.writes
    for _ in range(2):
        caller = await stage.callers.find("POST", Headers(headers), budget)
        assert (caller.user_id, caller.email, caller.key_id) == (stage.user.id, "ann@example.com", key_id)
        assert (caller.token, caller.device_id, caller.owner_id) == (None, None, stage.user.id)
        assert caller.actor == f"api_key:{key_id}"


async def test_a_key_may_do_what_it_was_made_for(stage: Stage) -> None:
    await stage.make_key(scopes=("read",))
    assert (await find(stage)).scopes == {"read"}
    with pytest.raises(NotAllowed, match="the scope write"):
        await find(stage, method="POST")


async def test_an_administrators_key_is_one_only_if_it_was_made_to_be(stage: Stage) -> None:
    await Accounts(stage.database).make_user("ann@example.com", "admin")
    await stage.make_key()
    await stage.make_key("f" * 64, scopes=("read", "admin"))
    assert not (await find(stage)).is_admin
    assert (await find(stage, "f" * 64)).is_admin


async def test_a_key_that_says_admin_is_no_administrators_when_its_user_is_none(stage: Stage) -> None:
    await stage.make_key(scopes=("read", "admin"))
    assert not (await find(stage)).is_admin


async def test_a_key_draws_on_its_own_budget_and_its_users(stage: Stage) -> None:
    await stage.make_key()
    await stage.make_key("f" * 64)
    for key, told in ((KEY, (96, 95)), (KEY, (96, 94)), ("f" * 64, (120, 117))):
        verdict = (await find(stage, key, "POST")).verdict
        assert verdict is not None
        assert (verdict.limit, verdict.remaining) == told


async def test_a_key_that_is_remembered_costs_two_round_trips_to_redis_and_none_to_postgresql(stage: Stage) -> None:
    await stage.make_key()
    await find(stage)
    callers = await stage.without_postgresql()
    with watch_redis(stage.redis_url) as commands:
        await callers.find("GET", Headers({"X-API-Key": KEY}), callers.limits.budgets.reads)
        assert commands() == ["GET", "EVALSHA"]


async def test_in_an_outage_it_is_a_draw_that_tries_redis_again_and_no_reading(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.outage, "PAUSE_SECONDS", 0)
    await stage.make_key()
    await find(stage)
    with suppress(RedisUnavailable), stage.callers.limits.outage.watch():
        raise RedisUnavailable("gone")
    with watch_redis(stage.redis_url) as commands:
        await find(stage)
        assert commands()[0] == "EVALSHA"


# Guessing


async def test_guessing_is_bounded_before_postgresql_is_asked(stage: Stage) -> None:
    callers = await stage.without_postgresql()
    guesses = [f"{number:064x}" for number in range(PUBLIC_LIMIT + 1)]
    for guess in guesses[:-1]:
        with pytest.raises(NotAuthenticated, match=UNKNOWN_KEY):
            await find(stage, guess)
    with pytest.raises(LimitExceeded):
        await callers.find("GET", Headers({"X-API-Key": guesses[-1]}), callers.limits.budgets.reads)
    set_circumstances(Circumstances("r", "192.0.2.7"))
    with pytest.raises(DatabaseUnavailable):
        await callers.find("GET", Headers({"X-API-Key": guesses[-1]}), callers.limits.budgets.reads)


async def test_guesses_at_once_are_bounded_too(stage: Stage) -> None:
    refused: list[type[Exception]] = []

    async def guess(number: int) -> None:
        try:
            await find(stage, f"{number:064x}")
        except (NotAuthenticated, LimitExceeded) as error:
            refused.append(NotAuthenticated if isinstance(error, NotAuthenticated) else LimitExceeded)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(guess, number)
    assert refused.count(NotAuthenticated) == PUBLIC_LIMIT
    assert refused.count(LimitExceeded) == 20 - PUBLIC_LIMIT


async def test_a_key_that_is_remembered_passes_where_guessing_has_used_up_the_budget(stage: Stage) -> None:
    await stage.make_key()
    await find(stage)
    for number in range(PUBLIC_LIMIT + 1):
        with pytest.raises((NotAuthenticated, LimitExceeded)):
            await find(stage, f"{number:064x}")
    assert (await find(stage)).user_id == stage.user.id


async def test_a_key_that_lives_gives_back_what_looking_it_up_has_drawn(stage: Stage) -> None:
    await stage.make_key()
    for _ in range(PUBLIC_LIMIT + 2):
        await find(stage)
        await forget(stage)


async def test_a_burst_with_a_key_that_is_not_remembered_asks_postgresql_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.make_key()
    asked: list[str] = []
    look_up = ApiKeys.find

    async def find_and_count(self: ApiKeys, key_hash: str) -> KeyOwner | None:
        asked.append(key_hash)
        return await look_up(self, key_hash)

    monkeypatch.setattr(ApiKeys, "find", find_and_count)
    async with trio.open_nursery() as nursery:
        for _ in range(5 * PUBLIC_LIMIT):
            nursery.start_soon(find, stage)
    assert asked == [KEY_HASH]


async def test_a_burst_goes_on_when_the_one_that_asks_leaves(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.auth.callers, "TURN_SECONDS", math.inf)
    await stage.make_key()
    asking = trio.Event()
    look_up = ApiKeys.find

    async def hang_once(self: ApiKeys, key_hash: str) -> KeyOwner | None:
        if not asking.is_set():
            asking.set()
            await trio.sleep_forever()
        return await look_up(self, key_hash)

    monkeypatch.setattr(ApiKeys, "find", hang_once)
    found: list[Caller] = []

    async def find_and_note() -> None:
        found.append(await find(stage))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, trio.open_nursery() as first:
            first.start_soon(find_and_note)
            await asking.wait()
            nursery.start_soon(find_and_note)
            await trio.testing.wait_all_tasks_blocked(0.01)
            first.cancel_scope.cancel()
    assert len(found) == 1


async def test_a_burst_waits_for_the_one_that_asks_for_a_while_only(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.auth.callers, "TURN_SECONDS", 0)
    await stage.make_key()
    asking = trio.Event()
    look_up = ApiKeys.find

    async def hang_once(self: ApiKeys, key_hash: str) -> KeyOwner | None:
        if not asking.is_set():
            asking.set()
            await trio.sleep_forever()
        return await look_up(self, key_hash)

    monkeypatch.setattr(ApiKeys, "find", hang_once)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(find, stage)
            await asking.wait()
            assert (await find(stage)).user_id == stage.user.id
            nursery.cancel_scope.cancel()


# What ends


async def test_a_revoked_key_is_refused_at_once_and_is_in_the_audit_log(stage: Stage) -> None:
    key_id = await stage.make_key()
    await find(stage)
    async with stage.database.as_operator("test").transaction() as connection:
        await revoke_api_key(connection, stage.user.id, key_id)
    await stage.callers.api_keys.bury(KEY_HASH)
    for _ in range(2):
        with pytest.raises(NotAuthenticated, match=UNKNOWN_KEY):
            await find(stage)
    entry = ("credentials_refused", "anonymous", stage.user.id, "api_key", str(key_id), UNKNOWN_KEY)
    assert stage.refusals() == [entry]


async def test_an_unknown_key_is_not_in_the_audit_log(stage: Stage) -> None:
    with pytest.raises(NotAuthenticated, match=UNKNOWN_KEY):
        await find(stage)
    assert stage.refusals() == []


async def test_an_expired_key_is_refused_also_if_it_is_remembered(stage: Stage) -> None:
    await stage.make_key(expires_at=datetime.now(UTC) + timedelta(seconds=0.5))
    await find(stage)
    with trio.fail_after(5):
        while True:
            try:
                await find(stage)
            except NotAuthenticated:
                break
            await trio.sleep(0.05)
    assert await stage.redis.exists([api_key_key(KEY_HASH)]) == 1


async def test_the_keys_of_a_deleted_user_end_with_it(stage: Stage) -> None:
    await stage.make_key()
    await find(stage)
    stage.query("DELETE FROM users")
    await stage.callers.sessions.bury([user_key(stage.user.id)])
    with pytest.raises(NotAuthenticated, match=UNKNOWN_KEY):
        await find(stage)
    await stage.callers.api_keys.bury(KEY_HASH)
    with pytest.raises(NotAuthenticated, match=UNKNOWN_KEY):
        await find(stage)
    assert [refusal[2] for refusal in stage.refusals()] == [stage.user.id]


async def test_a_revocation_wins_over_a_request_that_was_looking_meanwhile(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id = await stage.make_key()
    look_up = ApiKeys.find

    async def find_then_revoke(self: ApiKeys, key_hash: str) -> KeyOwner | None:
        owner = await look_up(self, key_hash)
        async with stage.database.as_operator("test").transaction() as connection:
            await revoke_api_key(connection, stage.user.id, key_id)
        await self.bury(key_hash)
        return owner

    monkeypatch.setattr(ApiKeys, "find", find_then_revoke)
    await find(stage)
    monkeypatch.undo()
    with pytest.raises(NotAuthenticated, match=UNKNOWN_KEY):
        await find(stage)


async def test_a_key_gets_no_token(stage: Stage) -> None:
    await stage.make_key()
    with pytest.raises(NotAllowed, match="no token"):
        await stage.callers.find_for_refresh(Headers({"X-API-Key": KEY}), 60)
    with pytest.raises(NotAuthenticated, match=UNKNOWN_KEY):
        await stage.callers.find_for_refresh(Headers({"X-API-Key": "f" * 64}), 60)


# Redis away


async def test_while_redis_is_away_a_key_reads_and_writes_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.make_key()
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    for _ in range(PUBLIC_LIMIT + 1):
        assert (await find(stage)).user_id == stage.user.id
    with pytest.raises(RedisUnavailable):
        await find(stage, method="POST")


async def test_while_redis_is_away_guessing_is_bounded_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    for number in range(PUBLIC_LIMIT):
        with pytest.raises(NotAuthenticated):
            await find(stage, f"{number:064x}")
    with pytest.raises(LimitExceeded):
        await find(stage)
