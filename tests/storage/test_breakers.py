"""The breakers' table on a real Redis: when it opens and closes, who may probe, and that nothing stays for ever."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import redis
import trio

from storage.breakers import (
    BreakerSettings,
    BreakerTable,
    Outcomes,
    ProbeAnswer,
    Standing,
    Verdict,
    outcomes_key,
    probe_key,
    streak_key,
)
from storage.errors import RedisUnavailable
from storage.redis import open_redis

ONE = ("openai", "openai/gpt-x")
OTHER = ("openrouter", "openai/gpt-x")
QUICK = BreakerSettings(window_seconds=5, cooldown_seconds=0.05, max_cooldown_seconds=0.3, probe_seconds=5)
PATIENT = replace(QUICK, cooldown_seconds=20, max_cooldown_seconds=200)
FLEETING = replace(QUICK, window_seconds=0.5)


@pytest.fixture
async def table(redis_url: str) -> AsyncIterator[BreakerTable]:
    async with open_redis(redis_url) as client:
        yield BreakerTable(client, QUICK)


@pytest.fixture
def patient(table: BreakerTable) -> BreakerTable:
    """Its openings outlast the test."""
    return replace(table, settings=PATIENT)


async def fail(table: BreakerTable, times: int = 5, successes: int = 0) -> Verdict:
    """What the last of several failures is told."""
    for _ in range(times):
        verdict = await table.note_failure(ONE, 0, successes)
        successes = 0
    return verdict


async def open_breaker(table: BreakerTable) -> int:
    verdict = await fail(table)
    assert verdict.has_turned
    return verdict.standing.opening


async def wait_until_half_open(table: BreakerTable) -> int:
    with trio.fail_after(5):
        while (standing := (await table.exchange({}))[ONE]).open_seconds:
            await trio.sleep(standing.open_seconds)
    return standing.opening


async def get_probe(table: BreakerTable) -> int:
    """The opening that a call may probe."""
    answer = await table.ask_for_probe(ONE)
    assert answer.is_granted
    return answer.standing.opening


async def test_a_breaker_opens_with_the_failure_that_is_one_too_many(patient: BreakerTable) -> None:
    assert await fail(patient, 4) == Verdict(Standing(), False)
    assert await patient.exchange({}) == {}
    verdict = await fail(patient, 1)
    assert verdict.has_turned
    assert verdict.standing.open_seconds == 20
    standing = (await patient.exchange({}))[ONE]
    assert standing.opening == verdict.standing.opening
    assert 19 < standing.open_seconds <= 20


async def test_breakers_are_apart(patient: BreakerTable) -> None:
    await open_breaker(patient)
    assert set(await patient.exchange({})) == {ONE}
    assert await patient.note_failure(OTHER, 0, 0) == Verdict(Standing(), False)
    assert (await patient.ask_for_probe(OTHER)).standing == Standing()


async def test_failures_that_are_few_among_many_outcomes_open_nothing(patient: BreakerTable) -> None:
    await patient.exchange({ONE: 4, OTHER: 1})
    assert not (await fail(patient, 5, successes=4)).has_turned
    assert [(await fail(patient, 1)).has_turned for _ in range(3)] == [False, False, True]


async def test_half_of_the_outcomes_are_enough(patient: BreakerTable) -> None:
    await patient.exchange({ONE: 5})
    assert (await fail(patient, 5)).has_turned


async def test_what_is_older_than_the_window_does_not_count(table: BreakerTable) -> None:
    fleeting = replace(table, settings=FLEETING)
    await fail(fleeting, 4, successes=100)
    await trio.sleep(0.6)
    assert not (await fail(fleeting, 4)).has_turned
    assert (await fail(fleeting, 1)).has_turned


async def test_a_call_that_was_sent_before_the_opening_prolongs_nothing(patient: BreakerTable) -> None:
    opening = await open_breaker(patient)
    verdict = await fail(patient, 20)
    assert verdict.standing.opening == opening
    assert not verdict.has_turned
    assert (await patient.note_probe_success(ONE, 0)).standing.opening == opening


async def test_while_it_is_open_nobody_may_probe(patient: BreakerTable) -> None:
    opening = await open_breaker(patient)
    answer = await patient.ask_for_probe(ONE)
    assert not answer.is_granted
    assert answer.standing.opening == opening
    assert answer.standing.open_seconds > 19


async def test_one_of_many_may_probe(table: BreakerTable) -> None:
    opening = await open_breaker(table)
    assert await wait_until_half_open(table) == opening
    answers: list[ProbeAnswer] = []

    async def ask() -> None:
        answers.append(await table.ask_for_probe(ONE))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert sorted(answer.is_granted for answer in answers) == [False] * 49 + [True]
    assert {answer.standing for answer in answers} == {Standing(opening, 0)}
    assert all(4 < answer.probe_seconds <= 5 for answer in answers)


async def test_a_probe_that_nobody_tells_of_makes_room_for_the_next(table: BreakerTable) -> None:
    hasty = replace(table, settings=replace(QUICK, probe_seconds=0.2))
    await open_breaker(hasty)
    await wait_until_half_open(hasty)
    await get_probe(hasty)
    assert not (await hasty.ask_for_probe(ONE)).is_granted
    await trio.sleep(0.21)
    await get_probe(hasty)


async def test_a_success_of_the_probe_closes_and_all_counts_begin_anew(table: BreakerTable) -> None:
    await open_breaker(table)
    await wait_until_half_open(table)
    probed = await get_probe(table)
    assert await table.note_probe_success(ONE, probed) == Verdict(Standing(), True)
    assert await table.exchange({}) == {}
    assert await table.note_probe_success(ONE, probed) == Verdict(Standing(), False)
    assert not (await fail(table, 4)).has_turned


async def test_a_success_that_comes_late_closes_too(table: BreakerTable) -> None:
    """A model that thinks for longer than the place of a probe is kept."""
    hasty = replace(table, settings=replace(QUICK, probe_seconds=0.01))
    await open_breaker(hasty)
    await wait_until_half_open(hasty)
    probed = await get_probe(hasty)
    await trio.sleep(0.02)
    await get_probe(hasty)
    assert (await hasty.note_probe_success(ONE, probed)).has_turned


async def test_every_failed_probe_doubles_the_pause_up_to_a_limit(table: BreakerTable) -> None:
    pauses = [(await fail(table)).standing.open_seconds]
    for _ in range(4):
        await wait_until_half_open(table)
        verdict = await table.note_failure(ONE, await get_probe(table), 0)
        assert verdict.has_turned
        pauses.append(verdict.standing.open_seconds)
    assert pauses == [0.05, 0.1, 0.2, 0.3, 0.3]
    await wait_until_half_open(table)
    await table.note_probe_success(ONE, await get_probe(table))
    assert (await fail(table)).standing.open_seconds == 0.05


async def test_of_two_probes_that_fail_the_second_changes_nothing(table: BreakerTable) -> None:
    hasty = replace(table, settings=replace(QUICK, probe_seconds=0.01))
    await open_breaker(hasty)
    await wait_until_half_open(hasty)
    probed = await get_probe(hasty)
    assert (await hasty.note_failure(ONE, probed, 0)).has_turned
    assert not (await hasty.note_failure(ONE, probed, 0)).has_turned
    assert not (await hasty.note_probe_success(ONE, probed)).has_turned


@pytest.mark.parametrize(("asked", "expected"), [(7, 20), (30, 30), (86_400, 200)])
async def test_a_provider_that_asks_for_time_gets_it_within_limits(
    patient: BreakerTable, asked: float, expected: float
) -> None:
    await fail(patient, 4)
    verdict = await patient.note_failure(ONE, 0, 0, asked)
    assert verdict.standing.open_seconds == expected


async def test_an_opening_that_everybody_forgot_is_closed(table: BreakerTable) -> None:
    forgetful = replace(table, settings=replace(QUICK, forget_seconds=0.05))
    await open_breaker(table)
    await trio.sleep(0.12)
    assert (await forgetful.ask_for_probe(ONE)).standing == Standing()
    assert not (await fail(forgetful, 1)).has_turned
    assert await forgetful.exchange({}) == {}
    assert (await table.ask_for_probe(ONE)).standing == Standing()


async def test_every_key_expires_and_all_share_a_hash_tag(table: BreakerTable, redis_url: str) -> None:
    await table.exchange({OTHER: 3})
    await open_breaker(table)
    await wait_until_half_open(table)
    await get_probe(table)
    await fail(table, 1)
    await table.exchange({ONE: 1})
    with redis.Redis.from_url(redis_url) as client:
        keys = {key.decode() for key in client.keys("*")}
        expected = {outcomes_key(ONE), outcomes_key(OTHER), probe_key(ONE), streak_key(ONE)}
        assert keys == {"{breakers}:open", *expected}
        assert all(client.pttl(key) > 0 for key in keys)


async def test_years_of_healthy_calls_take_no_more_room_than_a_window(table: BreakerTable, redis_url: str) -> None:
    fleeting = replace(table, settings=FLEETING)
    with trio.move_on_after(1):
        while True:
            await fleeting.exchange({ONE: 1})
            await trio.sleep(0.01)
    with redis.Redis.from_url(redis_url) as client:
        assert 0 < client.hlen(outcomes_key(ONE)) <= 11


async def test_outcomes_are_read_of_those_that_have_any(patient: BreakerTable) -> None:
    await patient.exchange({ONE: 4, OTHER: 1})
    await fail(patient, 3, successes=2)
    third = ("openai", "openai/unasked")
    assert await patient.read_outcomes([third, ONE, OTHER]) == {ONE: Outcomes(6, 3), OTHER: Outcomes(1, 0)}
    assert await patient.read_outcomes([]) == {}


async def test_outcomes_of_before_the_window_are_not_read(patient: BreakerTable, redis_url: str) -> None:
    """Though they may still be there: they go with the first outcome of a later tenth."""
    await patient.exchange({ONE: 1})
    with redis.Redis.from_url(redis_url) as client:
        tenth = int(client.hkeys(outcomes_key(ONE))[0][:-1])
        client.hset(outcomes_key(ONE), mapping={f"{tenth - 11}s": 7, f"{tenth - 11}f": 8})
    assert await patient.read_outcomes([ONE]) == {ONE: Outcomes(1, 0)}


async def test_with_an_opening_the_outcomes_begin_anew(patient: BreakerTable) -> None:
    await open_breaker(patient)
    assert await patient.read_outcomes([ONE]) == {}


async def test_a_caller_that_leaves_has_told_all_or_nothing(patient: BreakerTable, redis_url: str) -> None:
    """Whatever the moment: the failure either counts whole, with its successes, or not at all."""
    for microseconds in range(0, 2000, 100):
        with trio.move_on_after(microseconds / 1e6):
            await patient.note_failure(ONE, 0, 2)
    await patient.exchange({})
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        found = client.hgetall(outcomes_key(ONE))
    failures = sum(int(value) for field, value in found.items() if field.endswith("f"))
    successes = sum(int(value) for field, value in found.items() if field.endswith("s"))
    assert successes == 2 * failures


async def test_a_script_that_redis_has_forgotten_is_told_again(table: BreakerTable, redis_url: str) -> None:
    await fail(table, 1)
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    assert (await fail(table, 4)).has_turned


async def test_redis_away_is_said(table: BreakerTable, redis_url: str) -> None:
    """Here it refuses: what is in the place of a key is none of ours."""
    with redis.Redis.from_url(redis_url) as client:
        client.set("{breakers}:open", "text")
    with pytest.raises(RedisUnavailable):
        await table.exchange({})
    with pytest.raises(RedisUnavailable):
        await table.note_failure(ONE, 0, 0)
