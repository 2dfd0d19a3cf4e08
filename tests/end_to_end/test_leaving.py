"""A client that leaves, at every moment and in every manner: the provider's connection closes and the charge is
exact.
"""

import json
import random
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from decimal import Decimal

import h2.config
import h2.connection
import pytest
import trio

from proxy.tokens import count_tokens
from tests.end_to_end.caller import OPENAI, SHIPPED, Caller, build_chat, build_request, open_caller
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.fakes import (
    FakeUpstream,
    RecordedRequest,
    Step,
    WaitForClose,
    open_fake_upstream,
    openai_stream,
    upto_chunks,
)

WORDS = [" alpha", " beta", " gamma", " delta", " epsilon", " zeta", " eta", " theta"]
PROMPT_TOKENS = 4 + 1 + 3  # a message, "Hello", the reply's primer
LEAVE = [Caller.leave, Caller.reset]
MOST_AT_ONCE = 60
"""Of the five hundred: on a machine that has other work, all of them at once would keep a server waiting for Redis
so long that it takes that for away, and refuses them.
"""


def deltas(count: int) -> list[str]:
    return [WORDS[i % len(WORDS)] for i in range(count)]


def says_and_waits(count: int) -> list[Step]:
    """So many deltas, then nothing more until the connection closes."""
    return [*upto_chunks(openai_stream(deltas(count)), count + 1), WaitForClose()]


def price(prompt: int, completion: int) -> Decimal:
    exact = (prompt * Decimal("0.40") + completion * Decimal("1.60")) / 1_000_000
    return exact.quantize(Decimal("0.000001"))


def price_of_deltas(count: int, prompt: int = PROMPT_TOKENS) -> Decimal:
    return price(prompt, sum(count_tokens(delta) for delta in deltas(count)))


async def wait_closed(upstream: FakeUpstream, connections: int = 1) -> None:
    with trio.fail_after(5):
        while len(upstream.connections) < connections:
            await trio.sleep(0.001)
        for connection in upstream.connections:
            await connection.closed_by_client.wait()


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("path", [SHIPPED, OPENAI])
async def test_leaving_in_mid_stream(stores: Stores, path: str, leave: Callable[[Caller], None]) -> None:
    async with open_fake_upstream(says_and_waits(5)) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(path, customer, build_chat())
            await caller.read_until(b'"content":" epsilon"')
            leave(caller)
            await wait_closed(upstream)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10 - price_of_deltas(5), 0)
        assert cloche.query("SELECT outcome, provisional FROM usage") == [("cancelled", True)]
        cloche.check_accounts()


@pytest.mark.parametrize("leave", LEAVE)
async def test_leaving_before_the_first_token_costs_the_prompt_once_the_provider_has_taken_it(
    stores: Stores, leave: Callable[[Caller], None]
) -> None:
    async with open_fake_upstream(says_and_waits(0)) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(SHIPPED, customer, build_chat())
            await caller.read_until(b"stream_started")
            await upstream.requested.wait()
            await trio.sleep(0.2)
            leave(caller)
            await wait_closed(upstream)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10 - price(PROMPT_TOKENS, 0), 0)


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_while_the_provider_has_not_answered_costs_nothing(
    stores: Stores, stream: bool, leave: Callable[[Caller], None]
) -> None:
    async with open_fake_upstream([WaitForClose()]) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(OPENAI, customer, build_chat(stream=stream))
            with trio.fail_after(5):
                await upstream.requested.wait()
            leave(caller)
            await wait_closed(upstream)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10, 0)


@pytest.mark.parametrize("leave", LEAVE)
async def test_leaving_a_whole_answer_costs_the_prompt_and_nothing_that_was_not_passed_on(
    stores: Stores, leave: Callable[[Caller], None]
) -> None:
    async with open_fake_upstream(says_and_waits(5)) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(OPENAI, customer, build_chat(stream=False))
            with trio.fail_after(5):
                await upstream.requested.wait()
                while upstream.connections[0].sent_chunks < 6:
                    await trio.sleep(0.01)
            leave(caller)
            await wait_closed(upstream)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10 - price(PROMPT_TOKENS, 0), 0)


@pytest.mark.parametrize("leave", LEAVE)
async def test_leaving_during_the_upload_calls_nobody_and_holds_nothing(
    stores: Stores, leave: Callable[[Caller], None]
) -> None:
    async with open_fake_upstream() as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        before = cloche.open_sockets()
        async with open_caller(cloche) as caller:
            request = build_request(SHIPPED, customer.headers, b"x" * 1_000_000)
            await caller.stream.send_all(request[:500_000])
            leave(caller)
        await wait_sockets(cloche, before)
        assert not upstream.connections
        assert cloche.query("SELECT count(*) FROM holds") == [(0,)]


@pytest.mark.parametrize("leave", LEAVE)
async def test_leaving_while_we_connect(stores: Stores, leave: Callable[[Caller], None]) -> None:
    """The provider's address takes no connection: its backlog is full."""
    with trio.socket.socket() as deaf:
        await deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        with trio.socket.socket() as first, trio.socket.socket() as second:
            await first.connect(("127.0.0.1", port))
            with trio.move_on_after(0.2):
                await second.connect(("127.0.0.1", port))
            async with open_cloche(stores, f"http://127.0.0.1:{port}") as cloche:
                customer = await cloche.make_customer()
                before = cloche.open_sockets()
                async with open_caller(cloche) as caller:
                    await caller.send(SHIPPED, customer, build_chat())
                    await caller.read_until(b"stream_started")
                    leave(caller)
                await cloche.wait_settled()
                await wait_sockets(cloche, before)
                assert cloche.balance(customer) == (10, 0)


async def test_an_http2_client_that_resets_its_stream(stores: Stores) -> None:
    async with open_fake_upstream(says_and_waits(5)) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        stream = await trio.open_tcp_stream("127.0.0.1", cloche.port)
        async with stream:
            http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
            http2.initiate_connection()
            await start_http2_chat(http2, stream, customer)
            await read_http2_until(http2, stream, b" epsilon")
            http2.reset_stream(1)
            await stream.send_all(http2.data_to_send())
            await wait_closed(upstream)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10 - price_of_deltas(5), 0)


async def test_a_client_that_sent_more_bytes_after_its_request_is_still_seen_to_leave(stores: Stores) -> None:
    async with open_fake_upstream(says_and_waits(5)) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(SHIPPED, customer, build_chat())
            await caller.stream.send_all(b"\r\n")
            await caller.read_until(b" epsilon")
            caller.leave()
            await wait_closed(upstream)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10 - price_of_deltas(5), 0)


async def test_five_hundred_streams_cut_at_random_moments(stores: Stores) -> None:
    """Each is told in its prompt how much to say; its client reads that much and leaves, so what was delivered is
    known.

    Those that say nothing are left at any moment, also before the provider has heard of them.
    """
    chance = random.Random(7)  # noqa: S311 - a test that can be repeated
    plans = [chance.choice([0, 1, 2, 3, 5, 8, 13, 40]) for _ in range(500)]

    def respond(request: RecordedRequest) -> Iterable[Step]:
        return says_and_waits(plans[read_number(request)])

    async with (
        open_fake_upstream(respond) as upstream,
        open_cloche(stores, upstream.url, DATABASE_CONNECTIONS="10") as cloche,
    ):
        customers = [await cloche.make_customer("1") for _ in range(10)]
        before = cloche.open_sockets()
        left_at, room = [0.0] * len(plans), trio.CapacityLimiter(MOST_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for number, plan in enumerate(plans):
                delay = chance.uniform(0, 1.5)
                nursery.start_soon(cut_one, cloche, customers[number % 10], number, plan, delay, left_at, room)
        await wait_closed(upstream, sum(plan > 0 for plan in plans))
        await cloche.wait_settled(20)
        await wait_sockets(cloche, before)
        await wait_closed(upstream)  # those that said nothing, too: the provider may hear of it a moment later
        assert upstream.open_connections == 0
        report_lags(upstream, left_at)

        spoken = sum(price_of_deltas(plan, prompt_tokens(number)) for number, plan in enumerate(plans) if plan)
        silent = cloche.query("SELECT sum(cost_usd), count(*) FROM usage WHERE output_tokens = 0 AND input_tokens > 0")
        assert sum(1 - cloche.balance(customer)[0] for customer in customers) == spoken + (silent[0][0] or 0)
        accepted = sum(connection.sent_chunks == 1 for connection in upstream.connections)
        assert silent[0][1] <= accepted
        cloche.check_accounts()


def read_number(request: RecordedRequest) -> int:
    return int(request.json["messages"][0]["content"].removeprefix("Number "))


def prompt_tokens(number: int) -> int:
    return 4 + count_tokens(f"Number {number}") + 3


async def cut_one(
    cloche: Cloche,
    customer: Customer,
    number: int,
    plan: int,
    delay: float,
    left_at: list[float],
    room: trio.CapacityLimiter | None = None,
) -> None:
    await trio.sleep(delay)
    async with room or nullcontext(), open_caller(cloche) as caller:
        await caller.send(OPENAI, customer, build_chat(f"Number {number}"))
        if plan:
            await caller.read_until(b'"content":" ', plan)
        else:
            await trio.sleep(delay / 10)
        left_at[number] = trio.current_time()
        caller.leave()


def report_lags(upstream: FakeUpstream, left_at: list[float]) -> None:
    lags = sorted(
        connection.closed_at - left_at[read_number(connection.requests[0])]
        for connection in upstream.connections
        if connection.closed_at is not None and connection.requests
    )
    middle, late = lags[len(lags) // 2] * 1000, lags[len(lags) * 99 // 100] * 1000
    print(f"the provider's connection closed after p50 {middle:.1f} ms, p99 {late:.1f} ms ({len(lags)} streams)")


async def wait_sockets(cloche: Cloche, at_most: int) -> None:
    with trio.fail_after(10):
        while cloche.open_sockets() > at_most:
            await trio.sleep(0.05)


async def start_http2_chat(
    http2: h2.connection.H2Connection, stream: trio.SocketStream, customer: Customer
) -> None:
    body = json.dumps(build_chat()).encode()
    headers = [(":method", "POST"), (":path", SHIPPED), (":scheme", "http"), (":authority", "cloche")]
    headers += [(name.lower(), value) for name, value in customer.headers.items()]
    http2.send_headers(1, [*headers, ("content-type", "application/json")])
    http2.send_data(1, body, end_stream=True)
    await stream.send_all(http2.data_to_send())


async def read_http2_until(http2: h2.connection.H2Connection, stream: trio.SocketStream, mark: bytes) -> None:
    seen = b""
    with trio.fail_after(10):
        while mark not in seen:
            data = await stream.receive_some(65536)
            assert data
            for event in http2.receive_data(data):
                seen += getattr(event, "data", b"") or b""
            await stream.send_all(http2.data_to_send())
