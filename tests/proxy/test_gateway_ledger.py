"""What the gateway owes the ledger: nothing without a hold, one settlement a hold, and no harm from its faults."""

import random
from dataclasses import replace
from decimal import Decimal
from math import inf
from uuid import uuid4

import pytest
import trio
from trio.testing import MockClock

from proxy.chat import ChatRequest, Image, Message, Text
from proxy.errors import (
    ContextWindowExceeded,
    ModelUnknown,
    ProviderNotConfigured,
    RequestNotSupported,
)
from proxy.events import Completed
from proxy.gateway import HOLD_SECONDS, SETTLE_SECONDS
from proxy.media import MediaRefused
from proxy.tokens import count_tokens
from storage.credits import BalanceTooLow, RequestRepeated
from storage.errors import DatabaseUnavailable
from tests.fakes import Pause, RecordedRequest, Step, WaitForClose, openai_error, openai_stream, upto_chunks
from tests.proxy.calls import (
    BALANCE,
    MODEL,
    PROMPT_TOKENS,
    REQUEST,
    USER,
    Bench,
    ask,
    open_bench,
    price_usd,
    read_texts,
    with_messages,
)

ANSWER = openai_stream(["Because", "."], usage=(1000, 500))
SETTLE_LOGGED = "a call could not be settled; the sweep will do it"


async def test_the_hold_covers_the_worst_case_and_stands_while_the_call_runs() -> None:
    async with open_bench([WaitForClose()]) as bench, bench.gateway.open_chat(USER, REQUEST):
        [hold] = bench.ledger.running.values()
        assert hold.amount_usd == Decimal("0.001549")  # 13 tokens at 3.75 a million and 100 at 15, rounded up
        assert hold.user_id == USER
        assert bench.ledger.balances[USER] == BALANCE


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (replace(REQUEST, model="openai/unheard-of"), ModelUnknown),
        (with_messages("word " * 130_000), ContextWindowExceeded),
        (replace(REQUEST, messages=(Message("user", (Image("image/png", "AAAA"),)),)), RequestNotSupported),
    ],
)
async def test_a_request_that_cannot_be_served_holds_nothing_and_calls_nobody(
    request_: ChatRequest, error: type[Exception]
) -> None:
    async with open_bench(ANSWER) as bench:
        with pytest.raises(error):
            await ask(bench, request_)
        bench.assert_untouched()


async def test_media_that_the_provider_refuses_hold_nothing_and_call_nobody() -> None:
    request = replace(REQUEST, messages=(Message("user", (Text("see"), Image("image/heic", "AAAA"))),))
    async with open_bench(ANSWER, model=replace(MODEL, sees_images=True)) as bench:
        with pytest.raises(MediaRefused, match=r"messages\[0\]\.content\[1\]"):
            await ask(bench, request)
        bench.assert_untouched()


async def test_a_provider_without_a_key_holds_nothing_and_is_not_called() -> None:
    async with open_bench(ANSWER) as bench:
        keyless = {"openai": replace(bench.gateway.upstreams["openai"], api_keys=())}
        with pytest.raises(ProviderNotConfigured):
            async with replace(bench.gateway, upstreams=keyless).open_chat(USER, REQUEST):
                pass
        bench.assert_untouched()


async def test_a_balance_too_low_is_raised_before_anybody_is_called() -> None:
    async with open_bench(ANSWER) as bench:
        bench.ledger.balances[USER] = Decimal("0.0001")
        with pytest.raises(BalanceTooLow):
            await ask(bench)
        assert bench.upstream.connections == []
        assert bench.ledger.taken == []


async def test_the_same_credit_is_not_held_twice() -> None:
    async with open_bench([WaitForClose()]) as bench:
        bench.ledger.balances[USER] = Decimal("0.0020")
        async with bench.gateway.open_chat(USER, REQUEST):
            with pytest.raises(BalanceTooLow):
                await ask(bench)
        async with bench.gateway.open_chat(USER, REQUEST):
            assert len(bench.ledger.taken) == 2


async def test_a_request_with_a_key_is_answered_once_and_asked_again_if_it_was_not() -> None:
    request = replace(REQUEST, idempotency_key="the same")
    scripts = [openai_error(500, "server_error", None, "no"), ANSWER]
    async with open_bench(lambda _request: scripts.pop(0)) as bench:
        await ask(bench, request)
        await ask(bench, request)
        with pytest.raises(RequestRepeated):
            await ask(bench, request)
        assert [one.outcome for one in bench.ledger.settlements.values()] == ["failed", "completed"]


async def test_a_ledger_that_fails_at_the_hold_lets_nobody_be_called() -> None:
    async with open_bench(ANSWER) as bench:
        bench.ledger.on_hold.error = DatabaseUnavailable("away")
        with pytest.raises(DatabaseUnavailable):
            await ask(bench)
        bench.assert_untouched()


async def test_a_hold_whose_confirmation_is_lost_is_left_to_the_sweep_and_calls_nobody() -> None:
    async with open_bench(ANSWER) as bench:
        bench.ledger.on_hold.error, bench.ledger.on_hold.comes_late = DatabaseUnavailable("away"), True
        with pytest.raises(DatabaseUnavailable):
            await ask(bench)
        assert bench.upstream.connections == []
        assert len(bench.ledger.running) == 1
        assert bench.journal.running == {}  # so that nobody renews it


async def test_a_ledger_that_does_not_answer_is_given_up_before_anybody_is_called(autojump_clock: MockClock) -> None:
    async with open_bench(ANSWER) as bench:
        bench.ledger.on_hold.gate = trio.Event()
        started_at = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await ask(bench)
        assert trio.current_time() - started_at == pytest.approx(HOLD_SECONDS, abs=0.1)
        assert bench.upstream.connections == []


@pytest.mark.parametrize("comes_late", [False, True])
async def test_a_client_that_leaves_while_its_hold_is_taken_gets_it_back(
    comes_late: bool, autojump_clock: MockClock
) -> None:
    async with open_bench([WaitForClose()]) as bench:
        bench.ledger.on_hold.gate, bench.ledger.on_hold.comes_late = trio.Event(), comes_late
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, bench)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
            bench.ledger.on_hold.gate.set()
        assert len(bench.ledger.taken) == 1
        assert bench.upstream.requests == []
        bench.assert_charged("0")


async def test_a_ledger_that_fails_at_the_settlement_does_not_harm_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_bench(ANSWER) as bench:
        bench.ledger.on_settle.error = DatabaseUnavailable("away")
        completed = (await ask(bench))[-1]
        assert isinstance(completed, Completed)
        assert completed.cost_usd == "0.010500"
        [left] = bench.journal.left.values()  # the sweep finds what it used
        assert (left.reported, left.usage) == (True, completed.usage)
        assert bench.ledger.running.keys() == bench.journal.left.keys()
        assert {record.getMessage() for record in caplog.records} == {SETTLE_LOGGED}
        assert "away" not in caplog.messages


async def test_a_settlement_that_failed_once_is_tried_again() -> None:
    async with open_bench(ANSWER) as bench:
        bench.ledger.on_settle.error = DatabaseUnavailable("away")
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            while await chat.next_events():
                pass
            bench.ledger.on_settle.error = None
        assert bench.settlement.charge_usd == Decimal("0.010500")
        assert not bench.ledger.running
        assert not bench.journal.left


async def test_a_settlement_whose_confirmation_is_lost_is_charged_once() -> None:
    async with open_bench(ANSWER) as bench:
        bench.ledger.on_settle.error, bench.ledger.on_settle.comes_late = DatabaseUnavailable("away"), True
        await ask(bench)
        assert bench.ledger.balances[USER] == BALANCE - Decimal("0.010500")
        assert len(bench.ledger.settle_attempts) == 2


async def test_a_ledger_that_hangs_at_the_settlement_lets_the_client_go(autojump_clock: MockClock) -> None:
    async with open_bench(ANSWER) as bench:
        bench.ledger.on_settle.gate = trio.Event()
        started_at = trio.current_time()
        completed = (await ask(bench))[-1]
        assert isinstance(completed, Completed)
        assert trio.current_time() - started_at <= 2 * SETTLE_SECONDS + 1
        assert bench.ledger.running.keys() == bench.journal.left.keys() != set()


async def test_a_hanging_ledger_does_not_keep_the_connection_to_the_provider_open() -> None:
    script = [*upto_chunks(ANSWER, 2), WaitForClose()]
    async with open_bench(script) as bench, trio.open_nursery() as nursery:
        bench.ledger.on_settle.gate = trio.Event()
        async with bench.gateway.open_chat(USER, REQUEST) as chat:
            await read_texts(chat, 1)
            nursery.start_soon(_open_gate_when_closed, bench)
        bench.assert_charged_as_counted(["Because"])


async def _open_gate_when_closed(bench: Bench) -> None:
    with trio.fail_after(1):
        while not bench.ledger.settle_attempts:
            await trio.sleep(0.001)
    await bench.assert_closed()
    assert bench.ledger.on_settle.gate is not None
    bench.ledger.on_settle.gate.set()


async def test_many_calls_that_end_at_any_moment_lose_nothing() -> None:
    """Each is left, breaks or finishes at a moment of its own; the sum of the charges is what the balance lost."""
    dice = random.Random(7)  # noqa: S311 - not for secrets
    words = ["a", " quick", " brown", " fox"]
    async with open_bench(_answer_somehow) as bench:
        async with trio.open_nursery() as nursery:
            for _ in range(150):
                nursery.start_soon(_ask_for_a_while, bench, dice.choice([dice.uniform(0, 0.4), inf]))
        assert bench.transport.open_connections == bench.transport.idle_connections
        settled = bench.ledger.settlements.values()
        assert {one.outcome for one in settled} == {"completed", "cancelled", "failed"}
        assert bench.ledger.balances[USER] == BALANCE - sum(one.charge_usd for one in settled)
        bench.assert_nothing_left()
        counts = [sum(map(count_tokens, words[:length])) for length in range(len(words) + 1)]
        possible = {price_usd(PROMPT_TOKENS, count) for count in counts} | {Decimal(0), price_usd(8, 4)}
        assert {one.charge_usd for one in settled} <= possible


async def _ask_for_a_while(bench: Bench, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await ask(bench, replace(REQUEST, idempotency_key=str(uuid4())))


def _answer_somehow(request: RecordedRequest) -> list[Step]:
    """One in three breaks, one in three reports its usage."""
    kind = int(request.headers["x-request-id"][0], 16) % 3
    usage = (8, 4) if kind == 0 else None
    script = openai_stream(["a", " quick", " brown", " fox"], usage=usage, pause_seconds=0.005)
    return [*upto_chunks(script, 3), Pause(0.002), *script[-1:]] if kind == 1 else script
