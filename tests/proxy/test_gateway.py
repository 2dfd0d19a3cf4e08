"""How calls end, over real sockets: the charge, the connection to the provider, and what is left behind."""


import pytest
import trio
from trio.testing import MockClock

from proxy.events import Completed, Finished, TextDelta, ToolCallDelta, Usage
from proxy.tokens import count_tokens
from tests.fakes import (
    END_OF_CHUNKS,
    Pause,
    ScriptedToolCall,
    Step,
    WaitForClose,
    openai_stream,
    openai_whole,
    stream_head,
)
from tests.proxy.calls import (
    MODEL,
    PROMPT_TOKENS,
    REQUEST,
    USER,
    WORDS,
    ask,
    open_bench,
    price_usd,
    read_all,
    read_texts,
    saying,
    settle_down,
    text_chunk,
)


async def test_a_finished_call_is_charged_by_the_usage_that_the_provider_reports() -> None:
    async with open_bench(openai_stream(WORDS, usage=(1000, 500))) as bench:
        events = await ask(bench)
        assert [event.text for event in events if isinstance(event, TextDelta)] == WORDS
        assert events[-3:] == [
            Finished("stop"),
            Usage(input_tokens=1000, output_tokens=500),
            Completed(Usage(input_tokens=1000, output_tokens=500), "0.010500", provisional=False),
        ]
        assert bench.settlement.outcome == "completed"
        bench.assert_charged("0.010500")


async def test_the_connection_of_a_finished_call_serves_the_next() -> None:
    async with open_bench(openai_stream(WORDS, usage=(1, 1))) as bench:
        await ask(bench)
        await ask(bench)
        assert len(bench.upstream.connections) == 1
        assert bench.transport.open_connections == bench.transport.idle_connections == 1


async def test_a_provider_that_reports_no_usage_is_charged_as_counted() -> None:
    async with open_bench(openai_stream(WORDS)) as bench:
        completed = (await ask(bench))[-1]
        assert isinstance(completed, Completed)
        assert completed.provisional
        assert completed.cost_usd == str(bench.settlement.charge_usd)
        bench.assert_charged_as_counted(WORDS)


async def test_tool_calls_are_counted_too() -> None:
    calls = [ScriptedToolCall("call_1", "get_weather", ['{"city"', ':"Ulm"}']), ScriptedToolCall("call_2", "f", ["{}"])]
    async with open_bench(openai_stream([], tool_calls=calls)) as bench:
        events = await ask(bench)
        pieces = [event for event in events if isinstance(event, ToolCallDelta)]
        assert [piece.index for piece in pieces] == [0, 0, 0, 1, 1]
        bench.assert_charged_as_counted(["get_weather", '{"city"', ':"Ulm"}', "f", "{}"])


async def test_a_whole_answer_where_a_stream_was_asked_for_is_taken() -> None:
    async with open_bench(openai_whole("Because.", usage=(10, 2))) as bench:
        events = await ask(bench)
        assert events[:2] == [TextDelta("Because."), Finished("stop")]
        bench.assert_charged(str(price_usd(10, 2)))


async def test_the_charge_stands_before_the_last_event_is_told() -> None:
    async with (
        open_bench(openai_stream(WORDS, usage=(10, 2))) as bench,
        bench.gateway.open_chat(USER, REQUEST) as chat,
    ):
        while not isinstance((await chat.next_events())[-1], Completed):
            assert bench.ledger.settlements == {}
        assert bench.settlement.charge_usd == price_usd(10, 2)


async def test_the_request_carries_the_key_the_id_of_the_call_and_a_pseudonym() -> None:
    async with open_bench(openai_stream(WORDS)) as bench:
        await ask(bench)
        [request] = bench.upstream.requests
        assert request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == "Bearer sk-test"
        assert request.headers["x-request-id"] == str(bench.settlement.hold_id)
        assert request.json["max_completion_tokens"] == 100
        assert str(USER) not in request.body.decode()


async def test_a_client_that_leaves_before_the_provider_answers_pays_nothing() -> None:
    async with open_bench([WaitForClose()]) as bench:
        async with bench.gateway.open_chat(USER, REQUEST):
            await bench.upstream.requested.wait()
        await bench.assert_closed()
        assert bench.settlement.outcome == "cancelled"
        bench.assert_charged("0")


async def test_a_client_that_leaves_at_once_pays_nothing() -> None:
    async with open_bench([WaitForClose()]) as bench:
        async with bench.gateway.open_chat(USER, REQUEST):
            pass
        bench.assert_charged("0")
        assert bench.transport.open_connections == 0


async def test_a_client_that_leaves_before_the_first_event_pays_the_prompt() -> None:
    async with open_bench([stream_head(), WaitForClose()]) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            with trio.move_on_after(0.05):
                await chat.next_events()
        await bench.assert_closed()
        bench.assert_charged_as_counted([])


@pytest.mark.parametrize("count", [1, 2, 5, len(WORDS)])
async def test_a_client_that_leaves_in_mid_stream_pays_the_prompt_and_what_it_was_given(count: int) -> None:
    async with open_bench(saying(count)) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            await read_texts(chat, count)
        await bench.assert_closed()
        assert bench.settlement.outcome == "cancelled"
        assert bench.settlement.usage.output_tokens == sum(count_tokens(word) for word in WORDS[:count])
        bench.assert_charged_as_counted(WORDS[:count])


async def test_what_never_reached_the_client_is_not_charged() -> None:
    """It is taken for delivered when the next events are asked for, and not before."""
    async with open_bench([*saying(1)[:-1], Pause(0.05), text_chunk(" never"), WaitForClose()]) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            assert await chat.next_events() == [TextDelta(WORDS[0])]
            assert await chat.next_events() == [TextDelta(" never")]
        await bench.assert_closed()
        bench.assert_charged_as_counted(WORDS[:1])


async def test_a_client_that_is_kept_waiting_pays_once_for_what_it_was_given() -> None:
    """It asks again and again, with a comment to keep the connection alive in between."""
    async with open_bench(saying(2)) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            await read_texts(chat, 2)
            for _ in range(3):
                with trio.move_on_after(0.001):
                    await chat.next_events()
        bench.assert_charged_as_counted(WORDS[:2])


async def test_a_provider_that_keeps_its_connection_open_after_the_end_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    async with open_bench([*openai_stream(WORDS, usage=(1000, 500))[:-1], WaitForClose()]) as bench:
        started_at = trio.current_time()
        assert isinstance((await ask(bench))[-1], Completed)
        assert trio.current_time() - started_at <= 1
        await bench.assert_closed()
        bench.assert_charged("0.010500")


async def test_a_client_that_leaves_after_the_usage_pays_what_the_provider_says() -> None:
    script = openai_stream(WORDS, usage=(1000, 500))[:-2]  # no [DONE], no end
    async with open_bench([*script, WaitForClose()]) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            while not isinstance((await chat.next_events())[-1], Usage):
                pass
        await bench.assert_closed()
        assert not bench.settlement.provisional
        bench.assert_charged("0.010500")


async def test_a_client_that_leaves_after_the_end_changes_nothing() -> None:
    async with open_bench(openai_stream(WORDS, usage=(1000, 500))) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            await read_all(chat)
            assert await chat.next_events() == []
            with trio.CancelScope() as scope:
                scope.cancel()
                await trio.sleep_forever()
        assert bench.settlement.outcome == "completed"
        bench.assert_charged("0.010500")


async def test_a_cancelled_client_leaves_nothing_behind_wherever_it_is() -> None:
    """Cancelled again and again, each time one turn of the scheduler later."""
    for turns in range(60):
        async with open_bench(openai_stream(WORDS, usage=(1000, 500))) as bench:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_cancel_after, turns, scope)
                    await ask(bench)
                    nursery.cancel_scope.cancel()
            bench.assert_nothing_left()
            assert bench.transport.open_connections == bench.transport.idle_connections
            if not bench.ledger.taken:
                bench.assert_untouched()


async def _cancel_after(turns: int, scope: trio.CancelScope) -> None:
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def test_a_client_that_reads_slowly_slows_the_provider() -> None:
    """What waits in between is what the kernel's buffers take, and one read."""
    script: list[Step] = [stream_head(), *[text_chunk("x" * 100_000)] * 1000, END_OF_CHUNKS]
    async with open_bench(script) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            await chat.next_events()
            await settle_down()
            sent_bytes = bench.upstream.connections[0].sent_bytes
            await trio.sleep(0.05)
            assert bench.upstream.connections[0].sent_bytes == sent_bytes < 20_000_000
        await bench.assert_closed()


async def test_what_came_while_nobody_asked_comes_together() -> None:
    """An event a read would be a write each to a client that is behind."""
    async with open_bench(openai_stream(WORDS, usage=(1000, 500))) as bench:
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            events = await chat.next_events()
            await settle_down()
            batch = await chat.next_events()
            assert len(batch) >= len(WORDS) - len(events)
            events += batch + await read_all(chat)
            assert isinstance(events[-1], Completed)
        bench.assert_charged("0.010500")


async def test_the_journal_knows_what_a_running_call_has_used() -> None:
    async with open_bench(saying(3)) as bench, bench.gateway.open_chat(USER, REQUEST) as chat:
        [noted] = bench.journal.running.values()
        assert (noted.accepted, noted.reported, noted.usage) == (False, False, Usage())
        await read_texts(chat, 3)
        [noted] = bench.journal.running.values()
        output_tokens = sum(map(count_tokens, WORDS[:3]))
        assert noted.usage == Usage(input_tokens=PROMPT_TOKENS, output_tokens=output_tokens)
        assert (noted.accepted, noted.reported) == (True, False)


async def test_an_error_of_the_caller_settles_the_call_and_is_raised() -> None:
    async with open_bench(saying(len(WORDS))) as bench:
        with pytest.RaisesGroup(KeyError):
            async with bench.gateway.open_chat(USER, REQUEST) as chat:
                await read_texts(chat, len(WORDS))
                raise KeyError("the caller's own")
        await bench.assert_closed()
        bench.assert_charged_as_counted(WORDS)


async def test_the_answer_knows_its_model_and_has_ids_of_its_own() -> None:
    async with open_bench(saying(len(WORDS))) as bench, bench.gateway.open_chat(USER, REQUEST) as chat:
        [hold] = bench.ledger.taken
        assert chat.model == MODEL
        assert chat.request_id == hold.id != chat.answer_id
