"""Who listens to the gateway hears of both ends of a call that was held for, and of nothing else."""

from dataclasses import dataclass, field, replace
from uuid import uuid4

import pytest

from proxy.audience import Nobody, RunningCall, Several
from proxy.gateway import Gateway
from proxy.ledger import Settlement
from storage.credits import BalanceTooLow
from storage.errors import DatabaseUnavailable
from tests.fakes import openai_stream
from tests.proxy.calls import REQUEST, USER, WORDS, open_bench, price_usd, read_all, read_texts, saying


@dataclass(slots=True)
class Listener:
    started: list[RunningCall] = field(default_factory=list)
    ended: list[tuple[RunningCall, Settlement | None]] = field(default_factory=list)

    def note_started(self, call: RunningCall) -> None:
        self.started.append(call)

    def note_ended(self, call: RunningCall, settlement: Settlement | None) -> None:
        self.ended.append((call, settlement))


def listen(gateway: Gateway) -> tuple[Gateway, Listener]:
    listener = Listener()
    return replace(gateway, audience=listener), listener


async def test_a_call_is_told_when_it_begins_and_when_it_has_been_charged() -> None:
    async with open_bench(openai_stream(WORDS, usage=(1000, 500))) as bench:
        gateway, listener = listen(bench.gateway)
        async with gateway.open_chat(USER, REQUEST) as chat:
            assert listener.started == [chat]
            await read_all(chat)
            assert listener.ended == []
        assert listener.ended == [(chat, bench.settlement)]
        assert chat.user_id == USER


async def test_a_client_that_leaves_ends_its_call_for_the_audience_too() -> None:
    async with open_bench(saying(4)) as bench:
        gateway, listener = listen(bench.gateway)
        async with gateway.open_chat(USER, REQUEST) as chat:
            await read_texts(chat, 4)
            assert listener.started[0].usage_so_far().completion_tokens > 0
        ((_, settlement),) = listener.ended
        assert settlement == bench.settlement
        assert settlement is not None
        assert settlement.outcome == "cancelled"


async def test_what_was_refused_is_no_call() -> None:
    async with open_bench() as bench:
        gateway, listener = listen(bench.gateway)
        with pytest.raises(BalanceTooLow):
            async with gateway.open_chat(uuid4(), REQUEST):
                pass
        assert (listener.started, listener.ended) == ([], [])


async def test_a_charge_that_could_not_be_booked_is_told_as_it_will_be() -> None:
    async with open_bench(openai_stream(WORDS, usage=(1000, 500))) as bench:
        gateway, listener = listen(bench.gateway)
        bench.ledger.on_settle.error = DatabaseUnavailable("away")
        async with gateway.open_chat(USER, REQUEST) as chat:
            await read_all(chat)
        ((_, settlement),) = listener.ended
        assert settlement is not None
        assert settlement.charge_usd == price_usd(1000, 500)


async def test_nobody_hears_nothing() -> None:
    async with open_bench(openai_stream(WORDS)) as bench:
        assert isinstance(bench.gateway.audience, Nobody)


async def test_several_hear_the_same() -> None:
    async with open_bench(openai_stream(WORDS, usage=(1000, 500))) as bench:
        listeners = [Listener(), Listener()]
        gateway = replace(bench.gateway, audience=Several(listeners))
        async with gateway.open_chat(USER, replace(REQUEST, idempotency_key="mine")) as chat:
            await read_all(chat)
        for listener in listeners:
            assert listener.started == [chat]
            assert listener.ended == [(chat, bench.settlement)]
            assert listener.started[0].idempotency_key == "mine"
