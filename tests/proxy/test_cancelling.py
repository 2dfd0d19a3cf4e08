"""A call that another task cancels, in every phase, over real sockets: it ends at once, and is charged like one whose
client has left.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from decimal import Decimal

import pytest
import trio
from trio.testing import MockClock

from proxy.chat import ChatRequest
from proxy.collected import Collected
from proxy.events import Cancelled, ChatEvent, Completed, Failed, TextDelta, Usage
from proxy.gateway import OWN_TASK_SECONDS, Chat, Gateway
from proxy.pump import Patience
from storage.errors import DatabaseUnavailable
from tests.fake_upstream import Manner, RecordedRequest
from tests.fakes import (
    Pause,
    Step,
    WaitForClose,
    open_fake_upstream,
    openai_error,
    openai_stream,
    response,
    stream_head,
)
from tests.proxy.calls import (
    MODEL,
    PROMPT_TOKENS,
    REQUEST,
    USER,
    WORDS,
    Bench,
    open_bench,
    price_usd,
    read_all,
    read_texts,
    saying,
    settle_down,
    with_messages,
)
from tests.proxy.test_transport import open_full_listener

PROMPT_USD = str(price_usd(PROMPT_TOKENS, 0))
BUSY = openai_error(503, "server_error", None, "busy")
PATIENT = Patience(first_token_seconds=600, total_seconds=1740, retry_seconds=10)
BACKGROUND = replace(MODEL, capabilities={"api": "responses", "background": True})

Wait = Callable[[Bench], Awaitable[object]]


async def cancel_when(
    bench: Bench, wait: Wait, gateway: Gateway | None = None, request: ChatRequest = REQUEST
) -> list[ChatEvent]:
    """The events of a call that is cancelled at that moment."""
    events: list[ChatEvent] = []
    async with (gateway or bench.gateway).open_chat(USER, request) as chat, trio.open_nursery() as nursery:

        async def read() -> None:
            events.extend(await read_all(chat))

        nursery.start_soon(read)
        with trio.fail_after(20):
            await wait(bench)
            assert await chat.cancel()
            assert bench.settlement.outcome == "cancelled"
    assert bench.transport.open_connections == bench.transport.idle_connections
    assert isinstance(events[-1], Cancelled)
    return events


async def asked(bench: Bench) -> None:
    await bench.upstream.requested.wait()
    await settle_down()


async def quiet(_: Bench) -> None:
    await settle_down()


async def no_time(_: Bench) -> None: ...


def at(bench: Bench, url: str) -> Gateway:
    """With the provider there."""
    upstreams = {"openai": replace(bench.gateway.upstreams["openai"], base_url=url)}
    return replace(bench.gateway, upstreams=upstreams)


@asynccontextmanager
async def open_two(chat: Chat) -> AsyncIterator[list[bool]]:
    """Two who cancel it at once, and what each was told."""
    told: list[bool] = []

    async def cancel() -> None:
        told.append(await chat.cancel())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        nursery.start_soon(cancel)
        yield told


async def test_the_last_event_tells_what_was_charged() -> None:
    async with open_bench(saying(4)) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat, trio.open_nursery() as nursery:
            await read_texts(chat, 4)
            nursery.start_soon(chat.cancel)
            events = await read_all(chat)
        settlement = bench.settlement
        assert events == [Cancelled(settlement.usage, str(settlement.charge_usd), provisional=True)]
        assert settlement.outcome == "cancelled"
        bench.assert_charged_as_counted(WORDS[:4])
        await bench.assert_closed()


async def test_the_connection_closes_while_the_clients_task_is_elsewhere(autojump_clock: MockClock) -> None:
    """It is stuck in sending to a client that does not read: it has a second, then the call is settled without it.
    What had been on its way to the client is charged no more.
    """
    async with open_bench(saying(4)) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            await read_texts(chat, 4)
            started = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chat.cancel)
                await bench.upstream.connections[0].closed_by_client.wait()
                assert trio.current_time() == started
            assert trio.current_time() == started + OWN_TASK_SECONDS
            assert bench.settlement.outcome == "cancelled"
            assert not await chat.cancel()
            assert [type(event) for event in await read_all(chat)] == [Cancelled]
        bench.assert_charged_as_counted(WORDS[:4])


async def test_while_the_clients_task_settles_slowly_nobody_settles_beside_it(autojump_clock: MockClock) -> None:
    async with open_bench(saying(4)) as bench:
        bench.ledger.on_settle.gate = trio.Event()
        async with bench.gateway.open_chat(USER, REQUEST) as chat, trio.open_nursery() as nursery:
            await read_texts(chat, 4)
            nursery.start_soon(chat.cancel)
            nursery.start_soon(read_all, chat)
            await trio.sleep(2 * OWN_TASK_SECONDS)
            assert len(bench.ledger.settle_attempts) == 1
            bench.ledger.on_settle.gate.set()
        bench.assert_charged_as_counted(WORDS[:4])


async def test_a_charge_that_may_have_been_booked_is_tried_again_as_it_was(autojump_clock: MockClock) -> None:
    """Though the client, which was stuck, has taken more meanwhile."""
    async with open_bench(saying(4)) as bench:
        fault = bench.ledger.on_settle
        fault.error, fault.comes_late = DatabaseUnavailable("the answer got lost"), True
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            assert await chat.next_events()
            await chat.cancel()
            fault.error = None
            (cancelled,) = await read_all(chat)
        assert isinstance(cancelled, Cancelled)
        assert (cancelled.cost_usd, bench.settlement.charge_usd) == (PROMPT_USD, Decimal(PROMPT_USD))
        assert [one.charge_usd for one in bench.ledger.settle_attempts] == [Decimal(PROMPT_USD)] * 2


async def test_what_a_stuck_client_takes_after_its_call_was_settled_is_not_told_otherwise() -> None:
    async with open_bench(saying(4)) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            texts = [event.text for event in await chat.next_events() if isinstance(event, TextDelta)]
            assert texts
            assert await chat.cancel()
            (cancelled,) = [event for event in await read_all(chat) if isinstance(event, Cancelled)]
            assert cancelled.cost_usd == PROMPT_USD
        bench.assert_charged(PROMPT_USD)


async def test_a_call_that_nobody_was_asked_for_yet_costs_nothing() -> None:
    async with open_bench(saying(4)) as bench:
        await cancel_when(bench, no_time)
        assert bench.upstream.requests == []
        bench.assert_charged("0")


async def test_while_we_connect() -> None:
    async with open_bench() as bench, open_full_listener() as url:
        await cancel_when(bench, quiet, at(bench, url))
        bench.assert_charged("0")


@pytest.mark.parametrize("manner", ["only_listens", "reads_nothing"])
async def test_while_the_request_is_on_its_way_and_while_no_answer_comes(manner: Manner) -> None:
    large = with_messages("word " * 400_000)
    async with open_bench() as bench, open_fake_upstream(manner=manner) as silent:
        model = replace(MODEL, context_window=10_000_000)
        gateway = replace(at(bench, silent.url), models=lambda: {MODEL.id: model})
        await cancel_when(bench, lambda _: silent.connected.wait(), gateway, large)
        with trio.fail_after(1):
            await silent.connections[0].closed_by_client.wait()
        bench.assert_charged("0")


@pytest.mark.parametrize(
    ("script", "charge"), [([WaitForClose()], "0"), ([stream_head(), WaitForClose()], PROMPT_USD)]
)
async def test_before_the_first_word_the_prompt_is_charged_if_it_was_taken(script: list[Step], charge: str) -> None:
    async with open_bench(script) as bench:
        await cancel_when(bench, asked)
        bench.assert_charged(charge)
        await bench.assert_closed()


async def test_while_a_provider_is_given_a_pause(autojump_clock: MockClock) -> None:
    async with open_bench(BUSY, patience=PATIENT) as bench:

        async def paused(_: Bench) -> None:
            await bench.upstream.requested.wait()
            await trio.sleep(0.1)

        await cancel_when(bench, paused)
        assert len(bench.upstream.requests) == 1
        bench.assert_charged("0")


async def test_what_the_provider_said_of_its_usage_counts() -> None:
    script = openai_stream(WORDS, usage=(900, 9))
    usage_first = [script[0], script[-3], *script[1:3], WaitForClose()]
    async with open_bench(usage_first) as bench:
        await cancel_when(bench, asked)
        assert bench.settlement.usage == Usage(input_tokens=900, output_tokens=9)
        bench.assert_charged(str(price_usd(900, 9)))


async def test_a_whole_answer_of_which_nobody_gets_anything_costs_the_prompt() -> None:
    collected: list[Collected] = []
    async with open_bench(saying(4)) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat, trio.open_nursery() as nursery:

            async def collect() -> None:
                collected.append(await chat.collect())

            nursery.start_soon(collect)
            await asked(bench)
            assert await chat.cancel()
        assert isinstance(collected[0].ended, Cancelled)
        bench.assert_charged(PROMPT_USD)
        await bench.assert_closed()


@pytest.mark.parametrize("seconds", [0, 3 * OWN_TASK_SECONDS])
async def test_an_answer_in_the_background_is_called_off_and_charged_as_the_provider_says(
    seconds: float, autojump_clock: MockClock
) -> None:
    """However long the provider takes to call it off, and though the client does not read."""
    asked_for: list[str] = []

    def respond(request: RecordedRequest) -> Sequence[Step]:
        asked_for.append(f"{request.method} {request.path.removeprefix('/v1')}")
        usage = {"input_tokens": 1000, "output_tokens": 500}
        cancelled = {"usage": usage, "output": []} if request.path.endswith("cancel") else {}
        status = "cancelled" if cancelled else "queued"
        body = json.dumps({"id": "resp_1", "object": "response", "status": status, **cancelled}).encode()
        return [Pause(seconds if cancelled else 0), *response(200, body)]

    async with open_bench(respond, model=BACKGROUND) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            while not bench.ledger.upstreams:
                await trio.sleep(0.001)
            assert await chat.cancel()
        assert asked_for == ["POST /responses", "POST /responses/resp_1/cancel", "DELETE /responses/resp_1"]
        assert bench.settlement.usage == Usage(input_tokens=1000, output_tokens=500)
        bench.assert_charged("0.010500")


async def test_two_who_cancel_at_once_are_told_the_same_and_later_ones_that_it_is_over() -> None:
    async with open_bench(saying(4)) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            await read_texts(chat, 4)
            async with open_two(chat) as told:
                assert isinstance((await read_all(chat))[-1], Cancelled)
            assert told == [True, True]
            assert not await chat.cancel()
        bench.assert_charged_as_counted(WORDS[:4])


async def test_an_answer_that_has_come_to_its_end_is_not_cancelled() -> None:
    """Though its client has not taken it yet."""
    async with open_bench(openai_stream(WORDS, usage=(1000, 500))) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            texts: list[ChatEvent] = []
            while chat.usage_so_far() != Usage(input_tokens=1000, output_tokens=500):
                texts += await chat.next_events()
            assert not await chat.cancel()
            assert bench.ledger.settlements == {}
            assert isinstance((await read_all(chat))[-1], Completed)
        assert bench.settlement.outcome == "completed"
        bench.assert_charged("0.010500")


async def test_a_call_that_is_just_being_settled_is_not_cancelled() -> None:
    async with open_bench(openai_stream(WORDS, usage=(1000, 500))) as bench:
        bench.ledger.on_settle.gate = trio.Event()
        events: list[ChatEvent] = []
        async with bench.gateway.open_chat(USER, REQUEST) as chat, trio.open_nursery() as nursery:

            async def read() -> None:
                events.extend(await read_all(chat))

            nursery.start_soon(read)
            while not bench.ledger.settle_attempts:
                await trio.sleep(0.001)
            assert not await chat.cancel()
            bench.ledger.on_settle.gate.set()
        assert isinstance(events[-1], Completed)
        bench.assert_charged("0.010500")


async def test_a_call_that_has_failed_is_not_cancelled() -> None:
    async with open_bench(openai_error(400, "bad", None, "no")) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            assert isinstance((await read_all(chat))[-1], Failed)
            assert not await chat.cancel()
        bench.assert_charged("0")


async def test_accounts_that_are_away_keep_no_call_from_ending_and_it_stays_for_the_sweep() -> None:
    async with open_bench(saying(4)) as bench:
        bench.ledger.on_settle.error = DatabaseUnavailable("away")
        async with bench.gateway.open_chat(USER, REQUEST) as chat, trio.open_nursery() as nursery:
            await read_texts(chat, 4)
            nursery.start_soon(chat.cancel)
            assert isinstance((await read_all(chat))[-1], Cancelled)
        assert not chat.is_settled
        assert list(bench.journal.left) == [chat.request_id]
        await bench.assert_closed()


async def test_a_client_that_leaves_while_its_call_is_cancelled_pays_once() -> None:
    async with open_bench(saying(4)) as bench:
        async with AsyncExitStack() as leaving, trio.open_nursery() as nursery:
            chat = await leaving.enter_async_context(bench.gateway.open_chat(USER, REQUEST))
            await read_texts(chat, 4)
            nursery.start_soon(chat.cancel)
            await trio.lowlevel.checkpoint()
            await leaving.aclose()
        bench.assert_charged_as_counted(WORDS[:4])
        await bench.assert_closed()
