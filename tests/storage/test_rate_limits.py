"""Rate limits: the bound is exact whoever calls, what is refused draws on nothing, and memory ends with the window."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest
import redis
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.embedded import EmbeddedServers
from storage.rate_limits import TOMBSTONE, TWELFTHS, Draw, RateLimits, Verdict
from storage.redis import Redis, command, open_redis
from tests.storage.budget_model import BudgetModel, Expected

TWELFTH_SECONDS = 1_000_000
WINDOW_SECONDS = 12 * TWELFTH_SECONDS
"""So long that no test sees a twelfth end; `age` lets time pass."""


@pytest.fixture
def limits(client: Redis) -> RateLimits:
    return RateLimits(client)


def build_draw(name: str = "reads", limit: int = 5, cost: int = 1, window_seconds: float = WINDOW_SECONDS) -> Draw:
    return Draw(f"{{ann}}:{name}", limit, window_seconds, cost)


async def take(limits: RateLimits, *draws: Draw) -> Verdict:
    values, verdict = await limits.take(draws)
    assert values == []
    assert verdict is not None
    return verdict


async def read_drawn(limits: RateLimits, draw: Draw) -> dict[bytes, bytes]:
    return dict(await command(limits.redis.hgetall(draw.key)))


async def count_drawn(limits: RateLimits, draw: Draw) -> int:
    return sum(map(int, (await read_drawn(limits, draw)).values()))


async def age(limits: RateLimits, draw: Draw, twelfths: int) -> None:
    """As if that many twelfths had passed since everything was drawn."""
    drawn = await read_drawn(limits, draw)
    if drawn:
        await command(limits.redis.delete([draw.key]))
        await command(limits.redis.hset(draw.key, {str(int(name) - twelfths): drawn[name] for name in drawn}))


async def count_granted(limits: Sequence[RateLimits], draw: Draw, callers: int) -> int:
    """Of so many callers at once, spread over the clients."""
    verdicts: list[Verdict] = []

    async def call(number: int) -> None:
        verdicts.append(await take(limits[number % len(limits)], draw))

    async with trio.open_nursery() as nursery:
        for number in range(callers):
            nursery.start_soon(call, number)
    assert len(verdicts) == callers
    return sum(verdict.is_granted for verdict in verdicts)


async def test_of_64_callers_at_once_exactly_60_pass_a_limit_of_60(limits: RateLimits) -> None:
    assert await count_granted([limits], build_draw(limit=60), 64) == 60


async def test_of_64_callers_on_two_clients_exactly_60_pass_a_limit_of_60(limits: RateLimits, redis_url: str) -> None:
    async with open_redis(redis_url) as other:
        assert await count_granted([limits, RateLimits(other)], build_draw(limit=60), 64) == 60


async def test_no_window_has_more_than_the_limit_wherever_it_begins(limits: RateLimits) -> None:
    draw = build_draw(limit=5, window_seconds=0.12)
    granted_at: list[int] = []
    with trio.fail_after(10):
        while len(granted_at) < 30:
            verdict = await take(limits, draw)
            if verdict.is_granted:
                granted_at.append(verdict.drawn_at)
    spans = [later - earlier for earlier, later in zip(granted_at, granted_at[5:], strict=False)]
    assert min(spans) > 120
    assert max(spans) < 10_000


async def test_what_is_refused_is_granted_after_its_wait_and_not_before(limits: RateLimits) -> None:
    draw = build_draw(limit=2, cost=2, window_seconds=0.24)
    first = await take(limits, draw)
    refused = await take(limits, draw)
    assert not refused.is_granted
    free_at = refused.drawn_at + refused.retry_after_seconds * 1000
    verdict = refused
    with trio.fail_after(5):
        while not verdict.is_granted:
            assert verdict.drawn_at < free_at
            verdict = await take(limits, draw)
    assert verdict.drawn_at >= free_at
    assert 240 < free_at - first.drawn_at <= 240 * 13 / 12


async def test_the_verdict_counts_down(limits: RateLimits) -> None:
    verdicts = [await take(limits, build_draw(limit=2)) for _ in range(3)]
    assert [(verdict.is_granted, verdict.limit, verdict.remaining) for verdict in verdicts] == [
        (True, 2, 1),
        (True, 2, 0),
        (False, 2, 0),
    ]
    assert all(WINDOW_SECONDS < one.reset_seconds <= WINDOW_SECONDS + TWELFTH_SECONDS for one in verdicts)
    assert [one.retry_after_seconds for one in verdicts[:2]] == [0, 0]
    assert verdicts[2].retry_after_seconds == verdicts[2].reset_seconds


async def test_a_refusal_draws_on_no_budget(limits: RateLimits) -> None:
    user, key = build_draw("user", limit=3), build_draw("key", limit=1)
    assert (await take(limits, user, key)).is_granted
    for draws in ((user, key), (key, user)):
        assert not (await take(limits, *draws)).is_granted
    assert (await count_drawn(limits, user), await count_drawn(limits, key)) == (1, 1)


async def test_the_verdict_is_about_the_budget_that_is_nearest_to_its_end(limits: RateLimits) -> None:
    user, key = build_draw("user", limit=100), build_draw("key", limit=2)
    assert (await take(limits, user, key)).budget == 1
    assert (await take(limits, key, user)).budget == 0
    refused = await take(limits, user, key)
    assert (refused.is_granted, refused.budget, refused.limit) == (False, 1, 2)


async def test_a_refusal_tells_of_the_budget_that_has_the_longest_wait(limits: RateLimits) -> None:
    old, young = build_draw("old", limit=1), build_draw("young", limit=1)
    await take(limits, old)
    await age(limits, old, 3)
    await take(limits, young)
    refused = await take(limits, old, young)
    assert refused.budget == 1
    assert refused.retry_after_seconds > WINDOW_SECONDS


@pytest.mark.parametrize(("twelfths", "is_granted"), [(12, False), (13, True)])
async def test_what_was_drawn_counts_until_its_whole_twelfth_is_a_window_old(
    limits: RateLimits, twelfths: int, is_granted: bool
) -> None:
    await take(limits, build_draw(limit=1))
    await age(limits, build_draw(), twelfths)
    assert (await take(limits, build_draw(limit=1))).is_granted is is_granted


@pytest.mark.parametrize(("twelfths", "is_granted"), [(12, False), (13, True)])
async def test_what_was_drawn_before_the_clock_was_set_back_counts_unless_it_was_by_more_than_a_window(
    limits: RateLimits, twelfths: int, is_granted: bool
) -> None:
    await take(limits, build_draw(limit=1))
    await age(limits, build_draw(), -twelfths)
    verdict = await take(limits, build_draw(limit=1))
    assert verdict.is_granted is is_granted
    assert verdict.retry_after_seconds <= 25 * TWELFTH_SECONDS
    assert len(await read_drawn(limits, build_draw())) == 1


async def test_the_oldest_leaves_first_in_whatever_order_redis_keeps_them(limits: RateLimits) -> None:
    draw = build_draw(limit=2)
    twelfth = (await take(limits, draw)).drawn_at // (TWELFTH_SECONDS * 1000)
    await command(limits.redis.delete([draw.key]))
    for number in (twelfth, twelfth - 5):
        await command(limits.redis.hset(draw.key, {str(number): "1"}))
    refused = await take(limits, draw)
    assert refused.reset_seconds - refused.retry_after_seconds == pytest.approx(5 * TWELFTH_SECONDS)


async def test_what_costs_more_than_the_limit_waits_for_all_of_it(limits: RateLimits) -> None:
    large = build_draw(limit=5, cost=50)
    await take(limits, build_draw(limit=5))
    assert not (await take(limits, large)).is_granted
    await age(limits, large, 13)
    granted = await take(limits, large)
    assert (granted.is_granted, granted.remaining) == (True, 0)
    assert not (await take(limits, build_draw(limit=5))).is_granted


async def test_a_limit_that_was_lowered_leaves_nothing_and_is_waited_for(limits: RateLimits) -> None:
    await take(limits, build_draw(limit=5, cost=5))
    refused = await take(limits, build_draw(limit=2))
    assert (refused.is_granted, refused.limit, refused.remaining) == (False, 2, 0)


async def test_values_are_looked_up_beside_the_draw(limits: RateLimits) -> None:
    await command(limits.redis.set("{ann}:session", b"+"))
    values, verdict = await limits.take([build_draw()], ["{ann}:session", "{ann}:user"])
    assert values == [b"+", None]
    assert verdict is not None
    assert verdict.is_granted


async def test_values_are_looked_up_without_a_draw(limits: RateLimits) -> None:
    assert await limits.take([], ["{ann}:user"]) == ([None], None)


async def test_who_was_revoked_draws_on_nothing(limits: RateLimits) -> None:
    await command(limits.redis.set("{ann}:user", TOMBSTONE))
    assert await limits.take([build_draw()], ["{ann}:session", "{ann}:user"]) == ([None, TOMBSTONE], None)
    assert await count_drawn(limits, build_draw()) == 0


async def test_a_draw_is_one_command(limits: RateLimits, redis_url: str) -> None:
    await take(limits, build_draw())  # Redis knows the script from now on
    with redis.Redis.from_url(redis_url) as looker:
        looker.config_resetstat()
        await limits.take([build_draw("user"), build_draw("key")], ["{ann}:session", "{ann}:user"])
        assert looker.info("commandstats")["cmdstat_evalsha"]["calls"] == 1


async def test_a_redis_that_has_forgotten_the_script_is_told_again(limits: RateLimits) -> None:
    await take(limits, build_draw())
    await command(limits.redis.script_flush())
    assert (await take(limits, build_draw())).is_granted


async def test_a_budget_takes_fourteen_fields_at_most(limits: RateLimits) -> None:
    for number in range(30):
        assert (await take(limits, build_draw(limit=100))).is_granted
        if number % 2:
            await limits.adjust([build_draw()], 0, 1)
        assert len(await read_drawn(limits, build_draw())) <= TWELFTHS + 2
        await age(limits, build_draw(), 1)


@pytest.mark.parametrize("by", [0, 3])
async def test_a_budget_ends_when_nothing_of_it_counts_any_more(limits: RateLimits, by: int) -> None:
    draw = build_draw(limit=5)
    verdict = await take(limits, draw)
    if by:
        await command(limits.redis.persist(draw.key))
        await limits.adjust([draw], verdict.drawn_at, by)
    left_ms = await command(limits.redis.pttl(draw.key))
    assert left_ms == pytest.approx(verdict.reset_seconds * 1000, abs=1000)


async def test_what_was_not_used_is_given_back_where_it_was_drawn(limits: RateLimits) -> None:
    draw = build_draw(limit=10, cost=6)
    verdict = await take(limits, draw)
    await age(limits, draw, 2)
    await take(limits, build_draw(limit=10, cost=4))
    await limits.adjust([draw], verdict.drawn_at - 2 * TWELFTH_SECONDS * 1000, -5)
    assert sorted((await read_drawn(limits, draw)).values()) == [b"1", b"4"]


async def test_more_than_was_drawn_is_not_given_back(limits: RateLimits) -> None:
    draw = build_draw(cost=2)
    verdict = await take(limits, draw)
    for _ in range(2):
        await limits.adjust([draw], verdict.drawn_at, -50)
    assert await read_drawn(limits, draw) == {}
    assert (await take(limits, draw)).remaining == 3


async def test_what_has_left_the_window_is_not_given_back(limits: RateLimits) -> None:
    verdict = await take(limits, build_draw(cost=5))
    await age(limits, build_draw(), 13)
    await take(limits, build_draw(cost=2))
    await limits.adjust([build_draw()], verdict.drawn_at - 13 * TWELFTH_SECONDS * 1000, -3)
    assert (await take(limits, build_draw())).remaining == 2


async def test_more_is_drawn_now_of_every_budget_whether_there_is_room_or_not(limits: RateLimits) -> None:
    user, key = build_draw("user"), build_draw("key")
    verdict = await take(limits, user, key)
    for draw in (user, key):
        await age(limits, draw, 13)
    await limits.adjust([user, key], verdict.drawn_at, 7)
    for draw in (user, key):
        refused = await take(limits, draw)
        assert (refused.is_granted, refused.remaining) == (False, 0)
        assert refused.retry_after_seconds > WINDOW_SECONDS


async def test_what_has_no_room_gives_back_what_was_drawn_for_it(limits: RateLimits) -> None:
    requests = [build_draw("requests"), build_draw("requests:key")]
    tokens = [build_draw("tokens", limit=100, cost=80), build_draw("tokens:key", limit=100, cost=80)]
    for remaining, is_granted in ((4, True), (4, False), (4, False)):
        asked = await take(limits, *requests)
        verdict = await limits.take_or_give_back(tokens, requests, asked.drawn_at)
        assert verdict.is_granted is is_granted
        for draw in requests:
            assert 5 - await count_drawn(limits, draw) == remaining
    assert [await count_drawn(limits, draw) for draw in tokens] == [80, 80]


async def test_nothing_is_given_back_where_it_is_not_known_when_it_was_drawn(limits: RateLimits) -> None:
    requests, tokens = build_draw("requests"), build_draw("tokens", limit=1)
    await take(limits, requests, tokens)
    assert not (await limits.take_or_give_back([tokens], [requests], 0)).is_granted
    assert await count_drawn(limits, requests) == 1


KEYS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3, unique=True)
LIMITS = {"a": 3, "b": 5, "c": 9}
STEPS = st.one_of(
    st.tuples(st.just("take"), KEYS, st.integers(1, 6)),
    st.tuples(st.just("adjust"), st.sampled_from(["a", "b", "c"]), st.integers(-6, 6)),
    st.tuples(st.just("pass"), st.just(""), st.integers(1, 14)),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
async def test_redis_decides_as_the_model_does(
    servers: EmbeddedServers, steps: list[tuple[str, list[str], int]]
) -> None:
    async with open_redis(servers.redis_url) as client:
        limits, model = RateLimits(client), BudgetModel()
        draws = {name: build_draw(f"{uuid4()}", limit) for name, limit in LIMITS.items()}
        last_ms = 0
        for kind, names, number in steps:
            if kind == "pass":
                model.twelfth += number
                for draw in draws.values():
                    await age(limits, draw, number)
            elif kind == "adjust":
                await limits.adjust([draws[names[0]]], last_ms - 2 * TWELFTH_SECONDS * 1000, number)
                model.adjust(draws[names[0]], model.twelfth - 2, number)
            else:
                asked = [replace(draws[name], cost=number) for name in names]
                verdict = await take(limits, *asked)
                last_ms = verdict.drawn_at
                assert_as_expected(verdict, model.take(asked), model.twelfth)


def assert_as_expected(verdict: Verdict, expected: Expected, twelfth: int) -> None:
    assert (verdict.is_granted, verdict.budget) == (expected.is_granted, expected.budget)
    assert verdict.remaining == expected.remaining
    assert find_twelfth(verdict, verdict.reset_seconds, twelfth) == pytest.approx(expected.whole_at)
    if expected.free_at is None:
        assert verdict.retry_after_seconds == 0
    else:
        assert find_twelfth(verdict, verdict.retry_after_seconds, twelfth) == pytest.approx(expected.free_at)


def find_twelfth(verdict: Verdict, wait_seconds: float, twelfth: int) -> float:
    """What begins after the wait, if it is `twelfth` now."""
    drawn_at = verdict.drawn_at / 1000
    return (drawn_at + wait_seconds) / TWELFTH_SECONDS - drawn_at // TWELFTH_SECONDS + twelfth
