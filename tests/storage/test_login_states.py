"""Logins under way: each counts once, none is lost by a lost answer, and all of them end."""

from collections.abc import AsyncIterator

import pytest
import trio

import storage.redis
from storage.errors import RedisUnavailable
from storage.login_states import (
    GRACE_SECONDS,
    STATE_SECONDS,
    LoginResult,
    LoginState,
    LoginStates,
    claim_key,
    result_key,
    state_key,
)
from storage.redis import open_redis

PID = "0F5E4D0C-0000-4000-8000-00000000000A"
LOGIN = LoginState(PID, "csrf")
RESULT = LoginResult("csrf", code="code")


@pytest.fixture
async def states(redis_url: str) -> AsyncIterator[LoginStates]:
    async with open_redis(redis_url) as client:
        yield LoginStates(client)


async def test_a_state_counts_once(states: LoginStates) -> None:
    await states.put_state("s", LOGIN)
    assert await states.take_state("other") is None
    assert await states.take_state("s") == LOGIN
    assert await states.take_state("s") is None


async def test_a_state_that_many_take_at_once_counts_for_one(states: LoginStates) -> None:
    await states.put_state("s", LOGIN)
    taken: list[LoginState | None] = []

    async def take() -> None:
        taken.append(await states.take_state("s"))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(take)
    assert sorted(map(str, taken)) == sorted(map(str, [LOGIN, *[None] * 9]))


async def test_states_and_results_end_by_themselves(states: LoginStates) -> None:
    await states.put_state("s", LOGIN)
    await states.put_result(PID, RESULT)
    for key in (state_key("s"), result_key(PID)):
        assert STATE_SECONDS - 5 <= await states.redis.ttl(key) <= STATE_SECONDS


async def test_a_result_is_found_by_the_very_id_that_was_sent(states: LoginStates) -> None:
    await states.put_result(PID, RESULT)
    assert await states.read_result(PID.lower()) is None
    assert await states.read_result(PID) == RESULT


async def test_a_failure_is_a_result(states: LoginStates) -> None:
    failure = LoginResult("csrf", error="access denied")
    await states.put_result(PID, failure)
    assert await states.read_result(PID) == failure


async def test_a_result_can_be_read_again_for_a_grace(states: LoginStates) -> None:
    await states.put_result(PID, RESULT)
    assert [await states.read_result(PID) for _ in range(3)] == [RESULT] * 3
    assert GRACE_SECONDS - 5 <= await states.redis.ttl(result_key(PID)) <= GRACE_SECONDS


async def test_reading_again_prolongs_nothing(states: LoginStates) -> None:
    await states.put_result(PID, RESULT)
    await states.read_result(PID)
    await states.redis.expire(result_key(PID), 2)
    assert await states.read_result(PID) == RESULT
    assert await states.redis.ttl(result_key(PID)) <= 2


async def test_a_later_result_replaces_the_earlier_and_has_a_life_of_its_own(states: LoginStates) -> None:
    await states.put_result(PID, LoginResult("csrf", error="access denied"))
    await states.read_result(PID)
    await states.put_result(PID, RESULT)
    assert await states.redis.ttl(result_key(PID)) > GRACE_SECONDS
    assert await states.read_result(PID) == RESULT


async def test_a_token_signs_in_the_first_device_again_and_again_and_no_other(states: LoginStates) -> None:
    assert await states.claim_token("t", "laptop", 60)
    assert await states.claim_token("t", "laptop", 60)
    assert not await states.claim_token("t", "phone", 60)
    assert not await states.claim_token("t", "", 60)
    assert await states.claim_token("other", "phone", 60)


async def test_a_claim_by_no_device_is_a_claim(states: LoginStates) -> None:
    assert await states.claim_token("t", "", 60)
    assert await states.claim_token("t", "", 60)
    assert not await states.claim_token("t", "phone", 60)


async def test_of_many_devices_at_once_one_has_the_token(states: LoginStates) -> None:
    granted: list[bool] = []

    async def claim(number: int) -> None:
        granted.append(await states.claim_token("t", str(number), 60))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(claim, number)
    assert granted.count(True) == 1


async def test_a_claim_ends_with_the_token_however_often_it_is_made(states: LoginStates) -> None:
    await states.claim_token("t", "laptop", 10)
    await states.claim_token("t", "laptop", 1000)
    assert 5000 < await states.redis.pttl(claim_key("t")) <= 10_000
    assert await states.claim_token("fleeting", "laptop", 0)


async def test_without_redis_nobody_can_say(states: LoginStates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", 0)
    with pytest.raises(RedisUnavailable):
        await states.read_result(PID)
    with pytest.raises(RedisUnavailable):
        await states.claim_token("t", "laptop", 60)


def test_neither_code_nor_csrf_value_is_shown() -> None:
    assert "secret" not in repr(LoginState(PID, "secret")) + repr(LoginResult("secret", "secret"))
