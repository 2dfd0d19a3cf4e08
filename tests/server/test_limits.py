"""Budgets as requests draw on them, with Redis and without."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio

import storage.redis
from server.budgets import Budget, Budgets, read_budgets
from server.errors import LimitExceeded, describe
from server.limits import Limits
from server.outage import Outage
from server.settings import Settings
from storage.errors import RedisUnavailable
from storage.rate_limits import RateLimits, Verdict
from storage.redis import Redis, budget_key, command, open_redis
from tests.storage.redis_server import RedisServer

ANN, KEY = UUID(int=1), UUID(int=2)
ADDRESS = "192.0.2.7"
DEADLINE_SECONDS = 0.3
LIMITS = {
    "RATE_LIMIT_READS": "5",
    "RATE_LIMIT_WRITES": "5",
    "RATE_LIMIT_LLM_REQUESTS": "5",
    "RATE_LIMIT_LLM_TOKENS": "1000",
    "RATE_LIMIT_MAX_REQUESTS": "5",
    "RATE_LIMIT_SOCKETS": "2",
    "RATE_LIMIT_WINDOW_MS": "3600000",
    "ACCOUNT_CREATION_RATE_LIMIT_WINDOW_MS": "7200000",
}


def build_budgets() -> Budgets:
    return read_budgets(Settings(LIMITS))


@pytest.fixture
def limits(client: Redis) -> Limits:
    return Limits(RateLimits(client), build_budgets(), Outage())


@pytest.fixture
def own_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """One that may be stopped, and is not waited for for long."""
    monkeypatch.setattr(storage.redis, "COMMAND_SECONDS", DEADLINE_SECONDS)
    running = RedisServer(tmp_path)
    yield running
    running.kill()


@asynccontextmanager
async def open_limits(server: RedisServer) -> AsyncIterator[Limits]:
    async with open_redis(server.url) as client:
        yield Limits(RateLimits(client), build_budgets(), Outage())


async def take(limits: Limits, budget: Budget, key_id: UUID | None = None, owner: UUID = ANN) -> Verdict:
    _, verdict = await limits.take_for_caller(owner, key_id, budget, [])
    assert verdict is not None
    return verdict


async def count_granted(limits: Limits, budget: Budget, times: int = 10) -> int:
    granted = 0
    for _ in range(times):
        try:
            await take(limits, budget)
        except LimitExceeded:
            continue
        granted += 1
    return granted


async def count_drawn(limits: Limits, client: Redis, name: str, owner: object = ANN) -> int:
    drawn = await command(client.hgetall(budget_key(str(owner), name)))
    return sum(map(int, dict(drawn).values()))


async def test_a_caller_has_its_limit_and_is_told_when_there_is_more(limits: Limits) -> None:
    reads = limits.budgets.reads
    assert await count_granted(limits, reads) == 5
    with pytest.raises(LimitExceeded, match=r"the limit is 5 in 3600 seconds; try again in 3\d+ s") as caught:
        await take(limits, reads)
    problem = describe(caught.value)
    assert problem is not None
    assert (problem.status, problem.error_type) == (429, "rate_limit_error")
    verdict = caught.value.verdict
    assert problem.headers["Retry-After"] == str(caught.value.retry_after_seconds)
    assert problem.headers["RateLimit-Limit"] == "5"
    assert problem.headers["RateLimit-Remaining"] == "0"
    assert float(problem.headers["RateLimit-Reset"]) >= verdict.reset_seconds > 3000


async def test_callers_and_budgets_are_counted_apart(limits: Limits) -> None:
    await count_granted(limits, limits.budgets.reads)
    assert (await take(limits, limits.budgets.writes)).remaining == 4
    assert (await take(limits, limits.budgets.reads, owner=uuid4())).remaining == 4


async def test_a_key_draws_on_its_own_budget_and_on_its_users(limits: Limits, client: Redis) -> None:
    reads = limits.budgets.reads
    for _ in range(2):
        await take(limits, reads, KEY)
    await take(limits, reads)
    assert await count_drawn(limits, client, "reads") == 3
    assert await count_drawn(limits, client, f"reads:{KEY}") == 2


async def test_a_key_that_runs_wild_leaves_room_for_its_user_and_other_keys(limits: Limits, client: Redis) -> None:
    reads = limits.budgets.reads
    for _ in range(4):
        await take(limits, reads, KEY)
    with pytest.raises(LimitExceeded, match="the limit is 4 in 3600 seconds"):
        await take(limits, reads, KEY)
    assert (await take(limits, reads, uuid4())).remaining == 0
    with pytest.raises(LimitExceeded, match="the limit is 5 in 3600 seconds"):
        await take(limits, reads)
    assert await count_drawn(limits, client, "reads") == 5


async def test_lookups_come_back_beside_the_verdict(limits: Limits, client: Redis) -> None:
    await command(client.set(f"{{{ANN}}}:user", b"ann"))
    values, verdict = await limits.take_for_caller(ANN, None, limits.budgets.reads, [f"{{{ANN}}}:user"])
    assert values == [b"ann"]
    assert verdict is not None


async def test_an_address_draws_on_several_budgets_at_once_or_on_none(limits: Limits, client: Redis) -> None:
    budgets = limits.budgets
    for _ in range(5):
        await limits.take_for_address(ADDRESS, [(budgets.public, "")])
    with pytest.raises(LimitExceeded):
        await limits.take_for_address(ADDRESS, [(budgets.polls, "login"), (budgets.public, "")])
    assert await count_drawn(limits, client, "polls:login", ADDRESS) == 0


async def test_a_refusal_names_the_window_of_the_budget_that_refused(limits: Limits) -> None:
    budgets = limits.budgets
    for _ in range(budgets.accounts.limit):
        await limits.take_for_address(ADDRESS, [(budgets.accounts, "")])
    with pytest.raises(LimitExceeded, match="in 7200 seconds"):
        await limits.take_for_address(ADDRESS, [(budgets.public, ""), (budgets.accounts, "")])


async def test_what_an_address_drew_is_given_back(limits: Limits) -> None:
    public = (limits.budgets.public, "")
    for _ in range(10):
        await limits.give_back(ADDRESS, public, await limits.take_for_address(ADDRESS, [public]))
    await limits.give_back(ADDRESS, public, None)


async def test_tokens_are_reserved_and_made_exact(limits: Limits, client: Redis) -> None:
    allowance = limits.open_allowance(ANN, KEY, await take(limits, limits.budgets.llm_requests, KEY))
    await allowance.reserve(700)
    for name in ("llm_tokens", f"llm_tokens:{KEY}"):
        assert await count_drawn(limits, client, name) == 700
    await allowance.true_up(120)
    for name in ("llm_tokens", f"llm_tokens:{KEY}"):
        assert await count_drawn(limits, client, name) == 120


async def test_a_call_that_used_more_than_was_reserved_draws_the_rest(limits: Limits, client: Redis) -> None:
    allowance = limits.open_allowance(ANN, None, None)
    await allowance.reserve(100)
    await allowance.true_up(1500)
    assert await count_drawn(limits, client, "llm_tokens") == 1500


async def test_tokens_for_which_there_is_no_room_draw_nothing_and_give_the_request_back(
    limits: Limits, client: Redis
) -> None:
    await limits.open_allowance(ANN, None, None).reserve(900)
    for _ in range(10):
        drawn = await take(limits, limits.budgets.llm_requests, KEY)
        allowance = limits.open_allowance(ANN, KEY, drawn)
        with pytest.raises(LimitExceeded, match="the limit is 1000 in") as caught:
            await allowance.reserve(101)
        assert (caught.value.verdict.limit, caught.value.verdict.remaining) == (1000, 100)
        await allowance.true_up(0)
    assert await count_drawn(limits, client, "llm_tokens") == 900
    assert await count_drawn(limits, client, "llm_requests") == 0
    assert await count_drawn(limits, client, f"llm_requests:{KEY}") == 0


@pytest.mark.parametrize(("key_id", "most"), [(None, 1000), (KEY, 800)])
async def test_a_call_larger_than_the_budget_takes_all_of_it_and_is_made_exact(
    limits: Limits, client: Redis, key_id: UUID | None, most: int
) -> None:
    names = ["llm_tokens"] if key_id is None else ["llm_tokens", f"llm_tokens:{key_id}"]
    allowance = limits.open_allowance(ANN, key_id, None)
    await allowance.reserve(50_000)
    assert [await count_drawn(limits, client, name) for name in names] == [most] * len(names)
    await allowance.true_up(300)
    assert [await count_drawn(limits, client, name) for name in names] == [300] * len(names)


async def test_what_was_never_reserved_is_not_made_exact(limits: Limits, client: Redis) -> None:
    await limits.open_allowance(ANN, None, None).true_up(500)
    assert await count_drawn(limits, client, "llm_tokens") == 0


async def test_without_redis_reading_goes_on_within_the_limit(own_redis: RedisServer) -> None:
    async with open_limits(own_redis) as limits:
        own_redis.kill()
        assert await count_granted(limits, limits.budgets.reads) == 5
        values, verdict = await limits.take_for_caller(uuid4(), KEY, limits.budgets.reads, ["a", "b"])
        assert values == [None, None]
        assert verdict is not None


@pytest.mark.parametrize("name", ["writes", "llm_requests", "sign_ins", "accounts", "polls", "webhooks"])
async def test_without_redis_everything_else_is_closed(own_redis: RedisServer, name: str) -> None:
    async with open_limits(own_redis) as limits:
        own_redis.kill()
        with pytest.raises(RedisUnavailable):
            await take(limits, limits.budgets.find(name))


async def test_one_closed_budget_closes_what_draws_on_it_too(own_redis: RedisServer) -> None:
    async with open_limits(own_redis) as limits:
        own_redis.kill()
        with pytest.raises(RedisUnavailable):
            await limits.take_for_address(ADDRESS, [(limits.budgets.public, ""), (limits.budgets.sign_ins, "")])


async def test_without_redis_no_tokens_are_reserved_and_a_call_that_runs_ends_in_peace(own_redis: RedisServer) -> None:
    async with open_limits(own_redis) as limits:
        allowance = limits.open_allowance(ANN, None, None)
        await allowance.reserve(500)
        own_redis.kill()
        await allowance.true_up(400)
        with pytest.raises(RedisUnavailable):
            await limits.open_allowance(ANN, None, None).reserve(1)


async def test_a_redis_that_hangs_while_tokens_are_reserved_is_noticed(own_redis: RedisServer) -> None:
    async with open_limits(own_redis) as limits:
        own_redis.hang()
        with pytest.raises(RedisUnavailable):
            await limits.open_allowance(ANN, None, None).reserve(1)
        assert limits.outage.is_on
        own_redis.go_on()


async def test_what_cannot_be_given_back_any_more_is_left(own_redis: RedisServer) -> None:
    async with open_limits(own_redis) as limits:
        public = (limits.budgets.public, "")
        drawn = await limits.take_for_address(ADDRESS, [public])
        own_redis.kill()
        await limits.give_back(ADDRESS, public, drawn)


async def test_without_redis_what_an_address_drew_is_given_back_too(own_redis: RedisServer) -> None:
    async with open_limits(own_redis) as limits:
        own_redis.kill()
        public = (limits.budgets.public, "")
        for _ in range(10):
            await limits.give_back(ADDRESS, public, await limits.take_for_address(ADDRESS, [public]))


async def test_a_redis_that_hangs_is_waited_for_once(own_redis: RedisServer) -> None:
    async with open_limits(own_redis) as limits:
        own_redis.hang()
        started_at = trio.current_time()
        for _ in range(50):
            await limits.take_for_caller(uuid4(), None, limits.budgets.reads, [])
        assert DEADLINE_SECONDS <= trio.current_time() - started_at < 2 * DEADLINE_SECONDS
        own_redis.go_on()


async def test_when_redis_is_back_it_counts_again_and_the_log_has_told_both_once(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_limits(own_redis) as limits:
        own_redis.kill()
        await count_granted(limits, limits.budgets.reads)
        await trio.to_thread.run_sync(own_redis.start)
        with trio.fail_after(5):
            while limits.outage.is_on:
                await count_granted(limits, limits.budgets.reads, times=1)
                await trio.sleep(0.01)
        assert await count_granted(limits, limits.budgets.llm_requests) == 5
    assert [record.levelno for record in caplog.records if record.name == "server.outage"] == [
        logging.ERROR,
        logging.WARNING,
    ]


# By device


async def open_socket(limits: Limits, device_id: str | None, key_id: UUID | None = None) -> None:
    await limits.take_for_caller(ANN, key_id, limits.budgets.sockets, [], device_id)


async def test_a_device_that_comes_again_and_again_locks_out_none_of_its_users_others(limits: Limits) -> None:
    for _ in range(2):
        await open_socket(limits, "restless")
    with pytest.raises(LimitExceeded):
        await open_socket(limits, "restless")
    await open_socket(limits, "quiet")
    await open_socket(limits, None)


async def test_what_is_bound_to_no_device_shares_its_users_budget(limits: Limits) -> None:
    await open_socket(limits, None)
    await open_socket(limits, None, KEY)
    with pytest.raises(LimitExceeded):
        await open_socket(limits, None)


async def test_other_budgets_know_no_devices(limits: Limits) -> None:
    for number in range(5):
        await limits.take_for_caller(ANN, None, limits.budgets.reads, [], str(number))
    with pytest.raises(LimitExceeded):
        await limits.take_for_caller(ANN, None, limits.budgets.reads, [], "another")
