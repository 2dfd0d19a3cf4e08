"""Tokens a minute: reserved before anything is held, and made exact however the call ends."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest
import trio
from trio.testing import MockClock

from proxy.admission import EXPECTED_OUTPUT_TOKENS
from proxy.chat import ChatRequest
from proxy.gateway import TRUE_UP_SECONDS
from proxy.tokens import count_tokens
from storage.credits import BalanceTooLow
from tests.fake_ledger import Fault
from tests.fakes import FakeLedger, WaitForClose, openai_error, openai_stream, sse_chunk
from tests.proxy.calls import (
    MODEL,
    PROMPT_TOKENS,
    REQUEST,
    USER,
    WORDS,
    Bench,
    open_bench,
    read_all,
    read_texts,
    saying,
    settle_down,
)

ANSWER = openai_stream(WORDS, usage=(1000, 500))


class TooManyTokens(Exception):
    """What an allowance raises."""


class Seen(NamedTuple):
    """How the ledger stood when the allowance was called."""

    taken: int
    settled: int


@dataclass(slots=True)
class FakeAllowance:
    """Fits proxy.ledger.Allowance, and notes what it was told."""

    ledger: FakeLedger
    reserved: list[int] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    on_reserve: Fault = field(default_factory=Fault)
    on_true_up: Fault = field(default_factory=Fault)

    async def reserve(self, tokens: int) -> None:
        await trio.lowlevel.checkpoint()
        self.see()
        await self.on_reserve.strike(late=False)
        self.reserved.append(tokens)

    async def true_up(self, tokens: int) -> None:
        await trio.lowlevel.checkpoint()
        self.see()
        await self.on_true_up.strike(late=False)
        self.used.append(tokens)

    def see(self) -> None:
        self.seen.append(Seen(len(self.ledger.taken), len(self.ledger.settlements)))


async def ask(bench: Bench, allowance: FakeAllowance, request: ChatRequest = REQUEST) -> None:
    async with bench.gateway.open_chat(USER, request, allowance) as chat:
        await read_all(chat)


async def test_tokens_are_reserved_before_the_hold_and_made_exact_after_the_settlement() -> None:
    async with open_bench(ANSWER) as bench:
        allowance = FakeAllowance(bench.ledger)
        await ask(bench, allowance)
        assert allowance.reserved == [PROMPT_TOKENS + 100]
        assert allowance.used == [1500]
        assert allowance.seen == [Seen(0, 0), Seen(1, 1)]


@pytest.mark.parametrize(("asked", "expected"), [(50, 50), (None, EXPECTED_OUTPUT_TOKENS), (10**9, 4096)])
async def test_of_a_long_answer_only_a_part_is_reserved(asked: int | None, expected: int) -> None:
    async with open_bench(ANSWER) as bench:
        allowance = FakeAllowance(bench.ledger)
        await ask(bench, allowance, replace(REQUEST, max_output_tokens=asked))
        assert MODEL.max_output_tokens > EXPECTED_OUTPUT_TOKENS
        assert allowance.reserved == [PROMPT_TOKENS + expected]


async def test_what_was_cached_and_thought_counts_too() -> None:
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "prompt_tokens_details": {"cached_tokens": 400},
        "completion_tokens_details": {"reasoning_tokens": 300},
    }
    told = sse_chunk({"choices": [], "usage": usage})
    async with open_bench([*openai_stream(WORDS)[:-2], told, *openai_stream([])[-2:]]) as bench:
        allowance = FakeAllowance(bench.ledger)
        await ask(bench, allowance)
        assert bench.settlement.usage.input_tokens == 600
        assert allowance.used == [1500]


async def test_a_refusal_holds_nothing_and_calls_nobody() -> None:
    async with open_bench(ANSWER) as bench:
        allowance = FakeAllowance(bench.ledger, on_reserve=Fault(TooManyTokens()))
        with pytest.raises(TooManyTokens):
            await ask(bench, allowance)
        assert allowance.used == []
        bench.assert_untouched()


async def test_a_request_that_cannot_be_served_reserves_nothing() -> None:
    async with open_bench(ANSWER) as bench:
        allowance = FakeAllowance(bench.ledger)
        with pytest.raises(Exception, match="unheard-of"):
            await ask(bench, allowance, replace(REQUEST, model="openai/unheard-of"))
        assert allowance.seen == []


async def test_a_hold_that_is_refused_gives_all_tokens_back() -> None:
    async with open_bench(ANSWER) as bench:
        allowance = FakeAllowance(bench.ledger)
        bench.ledger.balances.clear()
        with pytest.raises(BalanceTooLow):
            await ask(bench, allowance)
        assert (allowance.reserved, allowance.used) == ([PROMPT_TOKENS + 100], [0])


async def test_a_provider_that_fails_uses_nothing() -> None:
    async with open_bench(openai_error(400, "invalid_request_error", None, "no")) as bench:
        allowance = FakeAllowance(bench.ledger)
        await ask(bench, allowance)
        assert allowance.used == [0]


async def test_a_client_that_leaves_in_mid_stream_has_used_what_it_got() -> None:
    async with open_bench(saying(4)) as bench:
        allowance = FakeAllowance(bench.ledger)
        async with bench.gateway.open_chat(USER, REQUEST, allowance) as chat:
            await read_texts(chat, 4)
        assert allowance.used == [PROMPT_TOKENS + sum(map(count_tokens, WORDS[:4]))]
        bench.assert_charged_as_counted(WORDS[:4])


async def test_a_client_that_is_cancelled_has_its_tokens_made_exact() -> None:
    async with open_bench([WaitForClose()]) as bench, trio.open_nursery() as nursery:
        allowance = FakeAllowance(bench.ledger)
        nursery.start_soon(ask, bench, allowance)
        await bench.upstream.requested.wait()
        nursery.cancel_scope.cancel()
    assert allowance.used == [0]


async def test_for_a_client_that_has_left_nothing_is_reserved() -> None:
    async with open_bench(ANSWER) as bench, trio.open_nursery() as nursery:
        allowance = FakeAllowance(bench.ledger)
        nursery.start_soon(ask, bench, allowance)
        nursery.cancel_scope.cancel()
    assert allowance.seen == []


async def test_a_client_that_leaves_while_tokens_are_reserved_leaves_none_behind_and_holds_nothing() -> None:
    async with open_bench(ANSWER) as bench:
        gate = trio.Event()
        allowance = FakeAllowance(bench.ledger, on_reserve=Fault(gate=gate))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, bench, allowance)
            await settle_down()
            nursery.cancel_scope.cancel()
            gate.set()
        assert (allowance.reserved, allowance.used) == ([PROMPT_TOKENS + 100], [0])
        bench.assert_untouched()


async def test_an_allowance_that_hangs_at_the_end_is_not_waited_for_long(autojump_clock: MockClock) -> None:
    gate = trio.Event()

    async def open_late() -> None:
        await trio.sleep(50 * TRUE_UP_SECONDS)
        gate.set()

    async with open_bench(ANSWER) as bench, trio.open_nursery() as nursery:
        allowance = FakeAllowance(bench.ledger, on_true_up=Fault(gate=gate))
        nursery.start_soon(open_late)
        async with bench.gateway.open_chat(USER, REQUEST, allowance) as chat:
            await read_all(chat)
            ended_at = trio.current_time()
        assert trio.current_time() - ended_at == pytest.approx(TRUE_UP_SECONDS)
        bench.assert_charged("0.010500")
        nursery.cancel_scope.cancel()
