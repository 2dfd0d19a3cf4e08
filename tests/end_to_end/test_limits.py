"""Rate limits as callers meet them: exact with one server and with two, and a refusal costs nothing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import redis
import trio
import trio.testing

from storage.redis import budget_key
from tests.end_to_end.asking import Reply, ask
from tests.end_to_end.caller import OPENAI, SHIPPED, build_chat, open_caller
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.test_leaving import PROMPT_TOKENS, says_and_waits
from tests.fakes import WaitFor, open_fake_upstream, openai_stream, upto_chunks

CALLERS, LIMIT = 64, 60
HOUR = {"RATE_LIMIT_WINDOW_MS": "3600000"}
"""No draw leaves its window while a test runs."""
CHAT = build_chat(stream=False, max_tokens=10)


@asynccontextmanager
async def open_servers(stores: Stores, count: int, upstream_url: str, **settings: str) -> AsyncIterator[list[Cloche]]:
    """On the same stores."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_cloche(stores, upstream_url, settings={**HOUR, **settings}))
            for _ in range(count)
        ]


async def ask_at_once(servers: Sequence[Cloche], customer: Customer, path: str, body: Any = None) -> list[Reply]:
    """By 64 callers, spread over the servers, each on a connection that is open before the first of them asks."""
    begin, replies = trio.Event(), list[Reply]()

    async def call(number: int) -> None:
        replies.append(await ask(servers[number % len(servers)], path, customer.headers, body, begin))

    async with trio.open_nursery() as nursery:
        for number in range(CALLERS):
            nursery.start_soon(call, number)
        await trio.testing.wait_all_tasks_blocked()
        begin.set()
    return replies


def count_drawn(stores: Stores, customer: Customer, budget: str) -> int:
    with redis.Redis.from_url(stores.redis_url) as client:
        drawn: Any = client.hvals(budget_key(str(customer.user_id), budget))
        return sum(map(int, drawn))


async def wait_drawn(stores: Stores, customer: Customer, budget: str, amount: int) -> None:
    with trio.move_on_after(5):
        while count_drawn(stores, customer, budget) != amount:
            await trio.sleep(0.01)
    assert count_drawn(stores, customer, budget) == amount


def assert_sixty_passed(replies: Sequence[Reply]) -> None:
    """The others are told when to come again, and every one of the sixty what was left."""
    granted = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 429]
    assert (len(granted), len(refused)) == (LIMIT, CALLERS - LIMIT)
    assert sorted(int(reply.headers["ratelimit-remaining"]) for reply in granted) == list(range(LIMIT))
    for reply in refused:
        assert reply.headers["ratelimit-limit"] == str(LIMIT)
        assert reply.headers["ratelimit-remaining"] == "0"
        assert 3600 <= int(reply.headers["retry-after"]) <= int(reply.headers["ratelimit-reset"]) <= 3900
        assert reply.headers["content-type"] == "application/json"
        assert reply.json["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("count", [1, 2])
async def test_of_64_parallel_callers_exactly_60_may_read(stores: Stores, count: int) -> None:
    async with open_servers(stores, count, "http://127.0.0.1:9", RATE_LIMIT_READS=str(LIMIT)) as servers:
        customer = await servers[0].make_customer()
        assert_sixty_passed(await ask_at_once(servers, customer, "/v1/models"))
        assert count_drawn(stores, customer, "reads") == LIMIT
        assert (await ask(servers[0], "/v1/models", (await servers[0].make_customer()).headers)).status == 200


@pytest.mark.parametrize("count", [1, 2])
async def test_of_64_parallel_callers_exactly_60_may_chat_and_the_others_cost_nothing(
    stores: Stores, count: int
) -> None:
    answer = openai_stream(["Hello"], usage=(8, 1))
    async with (
        open_fake_upstream(answer) as upstream,
        open_servers(stores, count, upstream.url, RATE_LIMIT_LLM_REQUESTS=str(LIMIT)) as servers,
    ):
        customer = await servers[0].make_customer()
        assert_sixty_passed(await ask_at_once(servers, customer, OPENAI, CHAT))
        assert count_drawn(stores, customer, "llm_requests") == LIMIT
        assert len(upstream.requests) == LIMIT
        assert servers[0].query("SELECT count(*) FROM usage") == [(LIMIT,)]
        await wait_drawn(stores, customer, "llm_tokens", LIMIT * 9)
        servers[0].check_accounts()


async def test_a_refused_request_consumes_nothing_and_other_budgets_are_open(stores: Stores) -> None:
    limits = {"RATE_LIMIT_READS": "2", "RATE_LIMIT_LLM_REQUESTS": "2"}
    answer = openai_stream(["Hello"], usage=(8, 1))
    async with (
        open_fake_upstream(answer) as upstream,
        open_servers(stores, 1, upstream.url, **limits) as [cloche],
    ):
        customer = await cloche.make_customer()
        statuses = [(await ask(cloche, "/v1/models", customer.headers)).status for _ in range(6)]
        assert statuses == [200, 200, 429, 429, 429, 429]
        assert count_drawn(stores, customer, "reads") == 2
        statuses = [(await ask(cloche, SHIPPED, customer.headers, CHAT)).status for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        refused = await ask(cloche, SHIPPED, customer.headers, CHAT)
        assert refused.json["code"] == 429
        assert refused.json["error_type"] == refused.json["errorType"] == "rate_limit_error"


async def test_tokens_are_reserved_refused_and_made_exact(stores: Stores) -> None:
    """The second call finds no room while the first has reserved its worst, and room when that has used little."""
    may_end = trio.Event()
    answer = [WaitFor(may_end), *openai_stream(["Hello"], usage=(8, 5))]
    async with (
        open_fake_upstream(answer) as upstream,
        open_servers(stores, 1, upstream.url, RATE_LIMIT_LLM_TOKENS="2000") as [cloche],
    ):
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(SHIPPED, customer, build_chat(max_tokens=1000))
            await upstream.requested.wait()
            assert count_drawn(stores, customer, "llm_tokens") == PROMPT_TOKENS + 1000
            _, held = cloche.balance(customer)

            refused = await ask(cloche, OPENAI, customer.headers, build_chat(max_tokens=1000))
            assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
            assert refused.headers["ratelimit-limit"] == "2000"
            assert refused.headers["ratelimit-remaining"] == str(2000 - PROMPT_TOKENS - 1000)
            assert int(refused.headers["retry-after"]) >= 3600
            assert count_drawn(stores, customer, "llm_requests") == 1
            assert cloche.balance(customer)[1] == held
            assert len(upstream.requests) == 1

            may_end.set()
            await caller.read_until(b"stream_completed")
        await wait_drawn(stores, customer, "llm_tokens", 13)
        granted = await ask(cloche, OPENAI, customer.headers, build_chat(stream=False, max_tokens=1000))
        assert granted.status == 200
        assert granted.headers["ratelimit-limit"] == "1000000"
        await wait_drawn(stores, customer, "llm_tokens", 26)


async def test_a_client_that_leaves_has_its_tokens_made_exact(stores: Stores) -> None:
    async with (
        open_fake_upstream(says_and_waits(5)) as upstream,
        open_servers(stores, 1, upstream.url) as [cloche],
    ):
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(SHIPPED, customer, build_chat())
            await caller.read_until(b'"content":" epsilon"')
            caller.leave()
        await cloche.wait_settled()
        [(used,)] = cloche.query("SELECT input_tokens + output_tokens FROM usage")
        assert PROMPT_TOKENS < used < 100
        await wait_drawn(stores, customer, "llm_tokens", used)


async def test_a_call_that_cannot_be_paid_gives_its_tokens_back(stores: Stores) -> None:
    async with (
        open_fake_upstream(upto_chunks(openai_stream(["Hello"]), 1)) as upstream,
        open_servers(stores, 1, upstream.url) as [cloche],
    ):
        customer = await cloche.make_customer("0.000010")
        assert (await ask(cloche, SHIPPED, customer.headers, build_chat())).status == 402
        assert count_drawn(stores, customer, "llm_tokens") == 0
        assert upstream.requests == []
