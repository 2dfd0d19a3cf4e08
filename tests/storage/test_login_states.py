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


async def finish(states: LoginStates, code: str | None = "code", error: str | None = None) -> None:
    """A whole login, up to its result."""
    await states.put_state("s", LOGIN)
    assert await states.finish("s", code, error)


async def test_a_state_counts_once(states: LoginStates) -> None:
    await states.put_state("s", LOGIN)
    assert not await states.finish("other", "another code", None)
    assert await states.read_result(PID) is None
    assert await states.finish("s", "code", None)
    assert not await states.finish("s", "another code", None)
    assert await states.read_result(PID) == RESULT


async def test_a_state_that_many_use_at_once_counts_for_one(states: LoginStates) -> None:
    await states.put_state("s", LOGIN)
    counted: list[str] = []

    async def use(code: str) -> None:
        if await states.finish("s", code, None):
            counted.append(code)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(use, str(number))
    result = await states.read_result(PID)
    assert result is not None
    assert counted == [result.code]


async def test_a_browser_that_leaves_at_any_moment_loses_no_login(states: LoginStates) -> None:
    """Whenever it is cancelled, either nothing has happened or all of it."""
    ends = set()
    for moment in range(200):
        await states.put_state("s", LOGIN)
        await states.redis.delete([result_key(PID)])
        with trio.move_on_after(moment * 0.00001):
            await states.finish("s", "code", None)
        await trio.sleep(0.001)  # what was sent may be on its way
        is_finished = await states.read_result(PID) == RESULT
        assert is_finished is (await states.redis.exists([state_key("s")]) == 0), moment
        ends.add(is_finished)
    assert ends == {True, False}


async def test_states_and_results_end_by_themselves(states: LoginStates) -> None:
    await finish(states)
    await states.put_state("s", LOGIN)
    for key in (state_key("s"), result_key(PID)):
        assert STATE_SECONDS - 5 <= await states.redis.ttl(key) <= STATE_SECONDS


async def test_a_result_is_found_by_the_very_id_that_was_sent(states: LoginStates) -> None:
    await finish(states)
    assert await states.read_result(PID.lower()) is None
    assert await states.read_result(PID) == RESULT


async def test_a_failure_is_a_result(states: LoginStates) -> None:
    await finish(states, None, "access denied")
    assert await states.read_result(PID) == LoginResult("csrf", error="access denied")


async def test_a_result_can_be_read_again_for_a_grace(states: LoginStates) -> None:
    await finish(states)
    assert [await states.read_result(PID) for _ in range(3)] == [RESULT] * 3
    assert GRACE_SECONDS - 5 <= await states.redis.ttl(result_key(PID)) <= GRACE_SECONDS


async def test_reading_again_prolongs_nothing(states: LoginStates) -> None:
    await finish(states)
    await states.read_result(PID)
    await states.redis.expire(result_key(PID), 2)
    assert await states.read_result(PID) == RESULT
    assert await states.redis.ttl(result_key(PID)) <= 2


async def test_a_later_result_replaces_the_earlier_and_has_a_life_of_its_own(states: LoginStates) -> None:
    await finish(states, None, "access denied")
    await states.read_result(PID)
    await finish(states)
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
