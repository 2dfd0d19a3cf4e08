"""What tests of the gateway share: a model of a fake provider, a user with credit, and a transport over sockets."""

import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from uuid import UUID

import trio
from trio.testing import wait_all_tasks_blocked

from proxy.chat import ChatRequest, Message, Text
from proxy.events import ChatEvent, TextDelta
from proxy.gateway import Chat, Gateway
from proxy.ledger import Settlement
from proxy.pricing import Price, Rates
from proxy.providers import openai
from proxy.pump import Patience, Reach
from proxy.routing import Model, Upstream
from proxy.tokens import TOKENS_PER_MESSAGE, TOKENS_PER_REPLY_PRIMER, count_tokens
from proxy.transport import Deadlines, NetworkTransport, open_transport
from tests.fake_breakers import FakeBreakers
from tests.fake_upstream import RecordedRequest, Respond
from tests.fakes import (
    FakeJournal,
    FakeLedger,
    FakeUpstream,
    SendChunk,
    Step,
    WaitForClose,
    open_fake_upstream,
    openai_stream,
    sse_chunk,
    upto_chunks,
)
from tests.proxy.upstreams import PATIENT

NO_RETRIES = Patience(first_token_seconds=600, total_seconds=1740, retry_seconds=0)
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody, and costs nothing to make."""

USER = UUID("6a0f3a52-2f0c-4d0e-9c62-6a3a3c0a5d10")
BALANCE = Decimal(10)
PRICE = Price(Rates(Decimal(3), Decimal(15), Decimal("0.30"), Decimal("3.75")))
MODEL = Model(
    id="openai/gpt-4o-mini",
    name="GPT-4o mini",
    provider_code="openai",
    context_window=128_000,
    max_output_tokens=16_384,
    price=PRICE,
    sees_images=False,
    provider_models={"openai": "gpt-4o-mini"},
)
WORDS = ["Because", " of", " Rayleigh", " scattering", ",", " which", " favours", " short", " waves", "."]
PROMPT = "Why is the sky blue?"
REQUEST = ChatRequest(model=MODEL.id, messages=(Message("user", (Text(PROMPT),)),), max_output_tokens=100)
PROMPT_TOKENS = TOKENS_PER_MESSAGE + count_tokens(PROMPT) + TOKENS_PER_REPLY_PRIMER


@dataclass(frozen=True, slots=True)
class Bench:
    """A gateway with all that it stands on."""

    gateway: Gateway
    upstream: FakeUpstream
    transport: NetworkTransport
    ledger: FakeLedger
    journal: FakeJournal
    breakers: FakeBreakers

    @property
    def settlement(self) -> Settlement:
        """How the one call ended."""
        [settlement] = self.ledger.settlements.values()
        return settlement

    def assert_charged(self, usd: str) -> None:
        """The one call cost that much, was settled once, and has left nothing behind."""
        assert self.settlement.charge_usd == Decimal(usd)
        assert self.ledger.balances[USER] == BALANCE - Decimal(usd)
        self.assert_nothing_left()

    def assert_charged_as_counted(self, texts: Sequence[str]) -> None:
        """The one call cost its prompt and these deltas, counted one by one."""
        output_tokens = sum(count_tokens(text) for text in texts)
        self.assert_charged(str(price_usd(PROMPT_TOKENS, output_tokens)))
        assert self.settlement.provisional

    def assert_nothing_left(self) -> None:
        assert self.ledger.running == {}
        assert self.journal.running == {}
        assert len(self.ledger.settlements) == len(self.ledger.taken)
        assert sorted(attempt.hold_id for attempt in self.ledger.settle_attempts) == sorted(self.ledger.settlements)

    async def assert_closed(self) -> None:
        """Our connection is gone, and the provider's end of it at once."""
        assert self.transport.open_connections == 0
        with trio.fail_after(1):
            while self.upstream.open_connections:
                await trio.sleep(0.001)

    def assert_untouched(self) -> None:
        assert self.ledger.taken == []
        assert self.ledger.balances == {USER: BALANCE}
        assert self.upstream.connections == []
        assert self.transport.open_connections == 0


@asynccontextmanager
async def open_bench(
    script: Respond | Iterable[Step] = (),
    *,
    deadlines: Deadlines = PATIENT,
    model: Model = MODEL,
    patience: Patience = NO_RETRIES,
    keys: tuple[str, ...] = ("sk-test",),
    fallback: Respond | Iterable[Step] | None = None,
) -> AsyncIterator[Bench]:
    """With `fallback` there is a second provider, whose code is `spare`; the same fake plays it, at another path."""
    ledger, journal, breakers = FakeLedger({USER: BALANCE}), FakeJournal(), FakeBreakers()
    async with open_fake_upstream(_by_path(script, fallback or ())) as upstream, open_transport(
        deadlines, ssl_context=_NO_TLS
    ) as transport:
        upstreams = {"openai": Upstream(openai.PROVIDER, f"{upstream.url}/v1", keys)}
        if fallback is not None:
            spare = replace(openai.PROVIDER, code="spare")
            upstreams["spare"] = Upstream(spare, f"{upstream.url}/spare", ("sk-spare",))
            model = replace(model, provider_models={**model.provider_models, "spare": "spare/gpt-4o-mini"})
        gateway = Gateway(lambda: {model.id: model}, upstreams, Reach(transport, breakers, patience), ledger, journal)
        yield Bench(gateway, upstream, transport, ledger, journal, breakers)


def _by_path(script: Respond | Iterable[Step], fallback: Respond | Iterable[Step]) -> Respond:
    """The one for the first provider, the other for its stand-in. What is no function is played again every time."""
    scripts = [one if callable(one) else tuple(one) for one in (script, fallback)]

    def respond(request: RecordedRequest) -> Iterable[Step]:
        chosen = scripts[request.path.startswith("/spare")]
        return chosen(request) if callable(chosen) else chosen

    return respond


async def ask(bench: Bench, request: ChatRequest = REQUEST) -> list[ChatEvent]:
    """The whole answer."""
    async with bench.gateway.open_chat(USER, request) as chat:
        return await read_all(chat)


async def read_all(chat: Chat) -> list[ChatEvent]:
    events: list[ChatEvent] = []
    with trio.fail_after(60):
        while batch := await chat.next_events():
            events += batch
    return events


async def read_texts(chat: Chat, count: int) -> None:
    """Take `count` texts, as a client does whose socket has taken them, and then wait in vain for more."""
    texts: list[str] = []
    while len(texts) < count:
        texts += [event.text for event in await chat.next_events() if isinstance(event, TextDelta)]
    assert len(texts) == count
    with trio.move_on_after(0.01):
        await chat.next_events()
        raise AssertionError("the provider was to say no more")


async def settle_down() -> None:
    """Until everybody waits for somebody else."""
    await wait_all_tasks_blocked(0.01)


def price_usd(input_tokens: int, output_tokens: int) -> Decimal:
    """By PRICE, worked out by hand."""
    return (Decimal(input_tokens) * 3 + Decimal(output_tokens) * 15) / Decimal(1_000_000)


def saying(count: int) -> list[Step]:
    """So many words, and then silence."""
    return [*upto_chunks(openai_stream(WORDS), 1 + count), WaitForClose()]


def text_chunk(text: str) -> SendChunk:
    return sse_chunk({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def with_messages(*texts: str) -> ChatRequest:
    return replace(REQUEST, messages=tuple(Message("user", (Text(text),)) for text in texts))
