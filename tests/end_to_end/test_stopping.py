"""Readers that stop reading, and servers that are told to stop."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.end_to_end.caller import OPENAI, SHIPPED, Caller, build_chat, open_caller
from tests.end_to_end.cloche import PROJECT, Cloche, Customer, Stores, open_cloche
from tests.end_to_end.test_leaving import deltas, price, says_and_waits, wait_closed
from tests.end_to_end.test_money import tokens
from tests.fakes import SendChunk, Step, open_fake_upstream, openai_stream, stream_head

DROP = SendChunk(b'data: {"choices":[{"delta":{"content":"' + b"x" * 4000 + b'"}}]}\n\n')
FLOOD: list[Step] = [stream_head(), *[DROP] * 20_000]


@asynccontextmanager
async def open_deaf_caller(cloche: Cloche, customer: Customer) -> AsyncIterator[Caller]:
    """A client that asks for a flood and never reads it."""
    with trio.socket.socket() as bare:
        bare.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
        await bare.connect(("127.0.0.1", cloche.port))
        caller = Caller(trio.SocketStream(bare))
        await caller.send(OPENAI, customer, build_chat())
        yield caller


async def test_a_client_that_stops_reading_is_dropped_in_time_and_pays_for_what_it_got(stores: Stores) -> None:
    async with (
        open_fake_upstream(FLOOD) as upstream,
        open_cloche(stores, upstream.url, WRITE_DEADLINE_SECONDS="1") as cloche,
    ):
        customer = await cloche.make_customer()
        async with open_deaf_caller(cloche, customer):
            started = trio.current_time()
            await wait_closed(upstream)
            lasted = trio.current_time() - started
            await cloche.wait_settled()
        print(f"dropped after {lasted:.2f} s, deadline 1 s")
        assert 0.9 < lasted < 4
        assert upstream.connections[0].sent_chunks < 20_000, "back-pressure did not reach the provider"
        balance, held = cloche.balance(customer)
        assert (held, balance < 10) == (0, True)
        cloche.check_accounts()


async def test_sigterm_ends_the_server_within_its_grace_although_a_client_does_not_read(
    stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> None:
    configuration = tmp_path_factory.mktemp("hypercorn") / "hypercorn.toml"
    text = (PROJECT / "hypercorn.toml").read_text()
    configuration.write_text(text.replace("graceful_timeout = 120", "graceful_timeout = 2"))
    async with (
        open_fake_upstream(FLOOD) as upstream,
        open_cloche(stores, upstream.url, options=("-c", str(configuration))) as cloche,
    ):
        customer = await cloche.make_customer()
        async with open_deaf_caller(cloche, customer):
            with trio.fail_after(5):
                await upstream.requested.wait()
            await trio.sleep(0.3)
            assert await stop(cloche, 6) == 0
            await wait_closed(upstream)
        assert cloche.query("SELECT state FROM holds") == [("settled",)]
        cloche.check_accounts()


@pytest.mark.parametrize("workers", ["0", "1", "2"])
async def test_sigterm_lets_a_running_stream_end_well(stores: Stores, workers: str) -> None:
    script: list[Step] = openai_stream(deltas(20), usage=(8, 20), pause_seconds=0.1)
    async with (
        open_fake_upstream(script) as upstream,
        open_cloche(stores, upstream.url, options=("-w", workers)) as cloche,
    ):
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(SHIPPED, customer, build_chat())
            await caller.read_until(b" gamma")
            cloche.process.send_signal(signal.SIGTERM)
            await caller.read_until(b"stream_completed")
        assert await wait_ended(cloche, 10) == 0
        assert cloche.balance(customer) == (10 - price(8, 20), 0)


async def test_a_stream_that_outlasts_the_grace_is_ended_and_charged(
    stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> None:
    configuration = tmp_path_factory.mktemp("hypercorn") / "hypercorn.toml"
    text = (PROJECT / "hypercorn.toml").read_text()
    configuration.write_text(text.replace("graceful_timeout = 120", "graceful_timeout = 1"))
    async with (
        open_fake_upstream(says_and_waits(4)) as upstream,
        open_cloche(stores, upstream.url, options=("-c", str(configuration))) as cloche,
    ):
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(SHIPPED, customer, build_chat())
            await caller.read_until(b" delta")
            assert await stop(cloche, 6) == 0
            await wait_closed(upstream)
        assert cloche.balance(customer) == (10 - price(8, tokens(4)), 0)


async def test_no_connection_stays_open_after_close_was_asked_for(stores: Stores) -> None:
    async with open_cloche(stores) as cloche, open_caller(cloche) as caller:
        await caller.stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await caller.read_all()).startswith(b"HTTP/1.1 200")


async def stop(cloche: Cloche, seconds: float) -> int:
    cloche.process.send_signal(signal.SIGTERM)
    return await wait_ended(cloche, seconds)


async def wait_ended(cloche: Cloche, seconds: float) -> int:
    with trio.fail_after(seconds):
        while (status := cloche.process.poll()) is None:
            await trio.sleep(0.02)
    return status
