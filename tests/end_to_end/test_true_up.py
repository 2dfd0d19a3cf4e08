"""A client leaves an answer of OpenRouter's in mid-stream; what it has cost is known some seconds later."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
import trio

from storage.seed import seed
from tests.end_to_end.caller import OPENAI, SHIPPED, build_chat, open_caller
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.fake_upstream import RecordedRequest, stream_head
from tests.fakes import Step, WaitForClose, open_fake_upstream, response, sse_chunk

MODEL = "openrouter/kimi"
CATALOGUE = f"""
[providers]
openrouter = "OpenRouter"
[models."{MODEL}"]
name = "Kimi"
context_window = 100_000
max_output_tokens = 10_000
capabilities = {{ chat = true }}
pricing = {{ input_per_million = "1", cache_read_per_million = "0.1", output_per_million = "10" }}
mappings = {{ openrouter = "moonshotai/kimi" }}
"""
ID = "gen-1763850000-abcdefghijklmnopqrst"
GENERATION = {"id": ID, "cancelled": True, "native_tokens_prompt": 900, "native_tokens_completion": 150}
GENERATION |= {"native_tokens_reasoning": 50, "native_tokens_cached": 100, "total_cost": 0.001}
EXACT_USD = Decimal("0.00231")
UNKNOWN = response(404, b'{"error": {"code": 404, "message": "Generation not found"}}')


@dataclass(slots=True)
class Router:
    """OpenRouter: it says three words and waits; of its generations it knows nothing before `knows`."""

    knows: bool = False
    lookups: list[RecordedRequest] = field(default_factory=list)

    def respond(self, request: RecordedRequest) -> Sequence[Step]:
        if request.method == "POST":
            choices = [[{"index": 0, "delta": {"content": word}}] for word in ("One", " two", " 3")]
            return [stream_head(), *(sse_chunk({"id": ID, "choices": one}) for one in choices), WaitForClose()]
        self.lookups.append(request)
        return response(200, json.dumps({"data": GENERATION}).encode()) if self.knows else UNKNOWN


@pytest.fixture
def stores_with_model(stores: Stores, tmp_path: Path) -> Stores:
    (tmp_path / "catalogue.toml").write_text(CATALOGUE)
    seed(stores.owner_database_url, tmp_path / "catalogue.toml")
    return stores


async def leave_in_mid_stream(cloche: Cloche, path: str) -> Customer:
    customer = await cloche.make_customer()
    async with open_caller(cloche) as caller:
        await caller.send(path, customer, build_chat(model=MODEL))
        await caller.read_until(b'"content":" 3"')
        caller.leave()
    await cloche.wait_settled()
    return customer


async def wait_exact(cloche: Cloche) -> None:
    with trio.fail_after(20):
        while cloche.query("SELECT 1 FROM usage WHERE provisional"):
            await trio.sleep(0.05)


async def test_a_charge_by_our_count_becomes_exact_once_openrouter_knows(stores_with_model: Stores) -> None:
    router = Router()
    settings = {"OPENROUTER_API_KEY": "sk-or-1"}
    async with open_fake_upstream(router.respond) as upstream:
        settings["OPENROUTER_BASE_URL"] = f"{upstream.url}/api/v1"
        async with open_cloche(stores_with_model, settings=settings) as cloche:
            customer = await leave_in_mid_stream(cloche, SHIPPED)
            used = "SELECT outcome, provisional, upstream_id, provider_code FROM usage"
            assert cloche.query(used) == [("cancelled", True, ID, "openrouter")]
            provisional_usd = 10 - cloche.balance(customer)[0]
            assert 0 < provisional_usd < EXACT_USD

            router.knows = True
            await wait_exact(cloche)

            tokens = "SELECT outcome, input_tokens, cache_read_tokens, output_tokens, reasoning_tokens FROM usage"
            assert cloche.query(tokens) == [("cancelled", 800, 100, 100, 50)]
            assert cloche.balance(customer) == (10 - EXACT_USD, 0)
            cloche.check_accounts()
            assert {request.path for request in router.lookups} == {f"/api/v1/generation?id={ID}"}
            assert router.lookups[0].headers["authorization"] == "Bearer sk-or-1"


async def test_after_kill_nine_nobody_knows_the_id_and_the_charge_stays_as_it_was_counted(
    stores_with_model: Stores,
) -> None:
    router = Router(knows=True)
    settings = {"OPENROUTER_API_KEY": "sk-or-1"}
    async with open_fake_upstream(router.respond) as upstream:
        settings["OPENROUTER_BASE_URL"] = f"{upstream.url}/api/v1"
        async with open_cloche(stores_with_model, settings=settings) as cloche:
            customer = await cloche.make_customer()
            async with open_caller(cloche) as caller:
                await caller.send(OPENAI, customer, build_chat(model=MODEL))
                await caller.read_until(b'"content":" 3"')
                cloche.kill()
        async with open_cloche(stores_with_model, settings=settings) as cloche:
            await cloche.wait_settled()
            assert cloche.query("SELECT outcome, provisional, upstream_id FROM usage") == [("cancelled", True, None)]
            cloche.check_accounts()
        assert router.lookups == []
