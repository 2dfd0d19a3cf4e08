"""Every model of the seeded catalogue: an estimate, what a chat is told that it cost, and the ledger, all the same."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import httpx2
import trio

from tests.end_to_end.caller import OPENAI
from tests.end_to_end.cloche import Cloche, Stores, open_cloche
from tests.end_to_end.replaying import build_settings
from tests.fake_anthropic import anthropic_stream
from tests.fake_google import google_stream
from tests.fake_responses import responses_stream
from tests.fake_upstream import RecordedRequest
from tests.fakes import FakeUpstream, SendChunk, Step, open_fake_upstream, openai_stream, response

HISTORY = "/api/billing/credits/unified-history"
PAGE = 100
AT_ONCE = 8
SIX_PLACES = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Counts:
    """What a provider says that a call used. The prompt holds what was cached."""

    prompt: int
    output: int
    cache_write: int
    cache_read: int

    @property
    def as_text(self) -> str:
        """As a prompt names them; the fake finds them there."""
        return f"counts:{self.prompt},{self.output},{self.cache_write},{self.cache_read};"


@dataclass(frozen=True, slots=True)
class Deal:
    """One call: what was asked, and what was told. What is missing is None; `told` says what came instead."""

    model: str
    counts: Counts
    estimate: Decimal | None
    charge: Decimal | None
    told: str

    @property
    def has_agreed(self) -> bool:
        return self.estimate is not None and self.estimate.quantize(SIX_PLACES, ROUND_HALF_EVEN) == self.charge


def respond(request: RecordedRequest) -> Sequence[Step]:
    """As the provider at this path speaks, with the usage that the prompt names."""
    if request.method == "DELETE":  # of an answer that was made in the background
        return response(200, b'{"deleted": true}')
    found = re.search(rb"counts:(\d+),(\d+),(\d+),(\d+);", request.body)
    assert found is not None, request.path
    counts = Counts(*(int(number) for number in found.groups()))
    usage, read, write = (counts.prompt, counts.output), counts.cache_read, counts.cache_write
    if "/messages" in request.path:
        usage = (counts.prompt - write - read, counts.output)
        return anthropic_stream(["Yes"], usage=usage, cache_read_tokens=read, cache_write_tokens=write)
    if "streamGenerateContent" in request.path:
        return google_stream(["Yes"], usage=usage, cached_tokens=read)
    if request.path.endswith("/responses"):
        stream = responses_stream(["Yes"], usage=usage, cached_tokens=read)
        return finish_at_once(stream) if request.json.get("background") else stream
    return openai_stream(["Yes"], usage=usage, cached_tokens=read)


def finish_at_once(stream: Sequence[Step]) -> Sequence[Step]:
    """The same answer to who asks for it in the background: there is nothing to wait for."""
    last = [step for step in stream if isinstance(step, SendChunk)][-2:]
    [event] = [json.loads(step.data.partition(b"data: ")[2]) for step in last if b"response.completed" in step.data]
    return response(200, json.dumps(event["response"]).encode())


def list_counts(provider: str, pricing: Mapping[str, Any]) -> list[Counts]:
    """Odd numbers, so that rounding has something to do; one call more where a long prompt has other prices. Only
    Anthropic counts what it writes to its cache.
    """
    write = 201 if provider == "anthropic" else 0
    short = Counts(1237, 451, write, 333)
    threshold = pricing.get("long_context_threshold")
    return [short] if threshold is None else [short, Counts(int(threshold) + 1, 787, write, 1003)]


async def deal(client: httpx2.AsyncClient, model: str, counts: Counts) -> Deal:
    told = {"modelId": model, "inputTokens": counts.prompt, "outputTokens": counts.output}
    cached = {"cacheWriteTokens": counts.cache_write or None, "cacheReadTokens": counts.cache_read}
    estimated = await client.post("/api/models/estimate-cost", json=told | cached)
    body = {"model": model, "max_tokens": 1000, "messages": [{"role": "user", "content": counts.as_text}]}
    answer = await client.post(OPENAI, json=body)
    usage = json.loads(answer.content, parse_float=Decimal).get("usage", {})
    estimate, charge = estimated.json().get("estimatedCost"), usage.get("cost")
    return Deal(model, counts, estimate and Decimal(estimate), charge and Decimal(charge), answer.text[:300])


async def deal_with_all(client: httpx2.AsyncClient, calls: Sequence[tuple[str, Counts]]) -> list[Deal]:
    deals, limit = [], trio.CapacityLimiter(AT_ONCE)

    async def deal_once(model: str, counts: Counts) -> None:
        async with limit:
            deals.append(await deal(client, model, counts))

    async with trio.open_nursery() as nursery:
        for model, counts in calls:
            nursery.start_soon(deal_once, model, counts)
    return deals


async def read_charges(client: httpx2.AsyncClient) -> dict[tuple[str, int], Decimal]:
    """What the ledger has for calls, by model and length of the prompt."""
    charges: dict[tuple[str, int], Decimal] = {}
    page: dict[str, Any] = {"hasMore": True}
    offset = 0
    while page["hasMore"]:
        answer = await client.get(HISTORY, params={"limit": PAGE, "offset": offset})
        page = json.loads(answer.content, parse_float=Decimal)
        offset += PAGE
        for entry in page["entries"]:
            if entry["transactionType"] == "usage":
                charges[entry["model"], entry["inputTokens"]] = -Decimal(entry["price"])
    return charges


def find_differences(deals: Sequence[Deal], charges: Mapping[tuple[str, int], Decimal]) -> list[str]:
    return [
        f"{one.model}, {one.counts}: estimated {one.estimate}, charged {one.charge}, booked {booked}; {one.told}"
        for one in deals
        for booked in [charges.get((one.model, one.counts.prompt))]
        if not one.has_agreed or one.charge != booked
    ]


def read_models(cloche: Cloche) -> dict[str, tuple[str, str, Mapping[str, Any]]]:
    """Type, provider and prices of every model on offer."""
    rows = cloche.query("SELECT id, model_type, provider_code, pricing_info FROM models WHERE status = 'active'")
    return {id_: (type_, provider, pricing) for id_, type_, provider, pricing in rows}


def build_all_settings(upstream: FakeUpstream) -> dict[str, str]:
    """The sandbox, too, is played by the fake, and exists in development only."""
    sandbox = {"SANDBOX_BASE_URL": f"{upstream.url}/sandbox", "SANDBOX_API_KEY": "key-of-sandbox"}
    return build_settings(upstream) | sandbox | {"ENVIRONMENT": "development"}


async def test_the_estimate_and_the_charge_of_every_model_agree(stores: Stores) -> None:
    async with (
        open_fake_upstream(respond) as upstream,
        open_cloche(stores, settings=build_all_settings(upstream)) as cloche,
    ):
        customer = await cloche.make_customer("10000")
        models = read_models(cloche)
        chatting = {name: facts for name, facts in models.items() if facts[0] != "transcription"}
        calls = [(name, counts) for name, facts in chatting.items() for counts in list_counts(*facts[1:])]
        async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers), timeout=20) as client:
            deals = await deal_with_all(client, calls)
            charges = await read_charges(client)
        assert find_differences(deals, charges) == []
        assert {one.model for one in deals} == set(chatting)
        assert len(deals) == len(charges) == len(calls) > len(chatting) > 30, "some have other prices for long prompts"
        assert all(charges.values()), "a model for nothing would agree with anything"
        cloche.check_accounts()


async def test_a_model_that_transcribes_is_estimated_and_does_not_chat(stores: Stores) -> None:
    async with (
        open_fake_upstream(respond) as upstream,
        open_cloche(stores, settings=build_all_settings(upstream)) as cloche,
    ):
        customer = await cloche.make_customer()
        models = [name for name, facts in read_models(cloche).items() if facts[0] == "transcription"]
        assert len(models) >= 2
        async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers), timeout=20) as client:
            for model in models:
                wish = {"modelId": model, "inputTokens": 1000, "outputTokens": 100}
                estimated = await client.post("/api/models/estimate-cost", json=wish)
                assert Decimal(estimated.json()["estimatedCost"]) > 0, model
                message = {"role": "user", "content": "Hello"}
                answer = await client.post(OPENAI, json={"model": model, "messages": [message]})
                assert answer.status_code == 400, f"{model}: {answer.text}"
                assert "transcribes" in answer.json()["error"]["message"]
        assert upstream.requests == []
        assert cloche.balance(customer) == (10, 0)
