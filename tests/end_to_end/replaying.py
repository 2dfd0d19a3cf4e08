"""A server whose five providers are one fake that plays recorded answers, and what its clients get of them."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2

from storage.seed import seed
from tests.end_to_end.caller import OPENAI, parse_events
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.fake_upstream import RecordedRequest
from tests.fakes import FakeUpstream, Step, open_fake_upstream, response
from tests.proxy.exchanges import RecordedExchange, read_exchanges

MODELS_OF_EACH = 80
PROVIDERS = ("openai", "anthropic", "google", "xai", "openrouter")


@dataclass(frozen=True, slots=True)
class Kind:
    """Recordings of one endpoint: the model that is answered by them, and what makes it ask there."""

    name: str
    model: str
    endpoints: tuple[str, ...]
    asks: dict[str, Any] = field(default_factory=dict, compare=False)


KINDS = (
    Kind("openai-chat", "openai/replay-chat", ("chat.completions",)),
    Kind("openai-responses", "openai/replay-responses", ("responses",)),
    Kind("anthropic", "anthropic/replay", ("messages",)),
    Kind("google", "google/replay", ("generateContent", "streamGenerateContent")),
    Kind("xai", "xai/replay", ("chat.completions",)),
    Kind("xai-responses", "xai/replay", ("responses",), {"web_search_options": {}}),
    Kind("openrouter", "openrouter/replay", ("chat.completions",)),
)

_MODEL = """
[models."{id}"]
name = "{id}"
context_window = 1_000_000
max_output_tokens = 1_000
capabilities = {{ text = true, chat = true, vision = true{api} }}
mappings = {{ {provider} = "replay" }}
[models."{id}".pricing]
input_per_million = "3"
output_per_million = "15"
cache_read_per_million = "0.30"
cache_write_per_million = "3.75"
web_search_per_thousand = "10"
"""


def write_catalogue(path: Path, copies: int = 0) -> Path:
    """One model a kind, at its own provider alone: a recorded failure must not be made good by another.

    `copies` of each are named after it, with a number: every one has a circuit breaker of its own.
    """
    names = [kind.model + end for kind in KINDS for end in ("", *(f"-{number}" for number in range(copies)))]
    models = {name: ', api = "responses"' if "replay-responses" in name else "" for name in names}
    providers = "".join(f'{code} = "{code}"\n' for code in PROVIDERS)
    texts = [_MODEL.format(id=id_, provider=id_.partition("/")[0], api=api) for id_, api in models.items()]
    path.write_text(f"[providers]\n{providers}{''.join(texts)}")
    return path


@dataclass(frozen=True, slots=True)
class Replay:
    cloche: Cloche
    customer: Customer
    upstream: FakeUpstream
    client: httpx2.AsyncClient

    async def ask(self, kind: Kind, exchange: RecordedExchange, path: str = OPENAI, *, stream: bool) -> httpx2.Response:
        """One question, whose text names the recording that answers it."""
        message = {"role": "user", "content": f"replay:{kind.name}/{exchange.id};"}
        body = {"model": kind.model, "messages": [message], "max_tokens": 500, "stream": stream, **kind.asks}
        options = {"stream_options": {"include_usage": True}} if stream else {}
        return await self.client.post(path, json=body | options)


@asynccontextmanager
async def open_replay(
    stores: Stores, catalogue: Path, exchanges: dict[str, RecordedExchange]
) -> AsyncIterator[Replay]:
    seed(stores.owner_database_url, write_catalogue(catalogue, MODELS_OF_EACH))

    def respond(request: RecordedRequest) -> list[Step]:
        found = re.search(rb"replay:([\w./-]+);", request.body)
        assert found is not None, request.path
        exchange = exchanges[found.group(1).decode()]
        return response(exchange.status, exchange.body, {"content-type": exchange.media_type or "application/json"})

    async with open_fake_upstream(respond) as upstream:
        settings = {**build_settings(upstream), "PROVIDER_RETRY_SECONDS": "0.001"}
        async with open_cloche(stores, settings=settings) as cloche:
            customer = await cloche.make_customer("1000")
            headers = dict(customer.headers)
            async with httpx2.AsyncClient(base_url=cloche.url, headers=headers, timeout=60) as client:
                yield Replay(cloche, customer, upstream, client)


def build_settings(upstream: FakeUpstream) -> dict[str, str]:
    """Every provider lives at a path of its own of the one fake."""
    urls = {f"{code.upper()}_BASE_URL": f"{upstream.url}/{code}" for code in PROVIDERS}
    return urls | {f"{code.upper()}_API_KEY": f"key-of-{code}" for code in PROVIDERS}


def read_all_exchanges(folder: Path, kind: Kind) -> list[RecordedExchange]:
    return [exchange for endpoint in kind.endpoints for exchange in read_exchanges(folder, kind.name, endpoint)]


@dataclass(slots=True)
class Told:
    """What a client makes of an answer."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    """Name and arguments by index."""
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    cost_usd: Decimal = Decimal(0)

    def add(self, part: dict[str, Any]) -> None:
        """A delta, or a whole message."""
        self.text += part.get("content") or ""
        self.reasoning += part.get("reasoning_content") or ""
        self.refusal += part.get("refusal") or ""
        for position, call in enumerate(part.get("tool_calls") or ()):
            pieces = self.calls.setdefault(call.get("index", position), ["", ""])
            pieces[0] += call["function"].get("name") or ""
            pieces[1] += call["function"].get("arguments") or ""

    def add_usage(self, usage: dict[str, Any]) -> None:
        self.usage = usage
        self.cost_usd = Decimal(str(usage["cost"]))


def read_stream(body: bytes) -> Told:
    told = Told()
    for _, chunk in parse_events(body):
        if chunk == "[DONE]":
            break
        assert "error" not in chunk, chunk
        for choice in chunk["choices"]:
            told.add(choice["delta"])
            told.finish_reason = choice["finish_reason"] or told.finish_reason
        if chunk.get("usage"):
            told.add_usage(chunk["usage"])
    return told


def read_whole(body: Any) -> Told:
    told = Told()
    [choice] = body["choices"]
    told.add(choice["message"])
    told.finish_reason = choice["finish_reason"]
    told.add_usage(body["usage"])
    return told


def read_shipped_stream(body: bytes) -> tuple[str, Any]:
    """The text that the desktop appends, and the last event."""
    events = parse_events(body)
    chunks = [data for name, data in events if name == ""]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    return text, events[-1]
