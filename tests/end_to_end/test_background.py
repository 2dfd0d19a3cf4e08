"""Answers that OpenAI makes in the background for minutes: kept alive, and called off by whoever leaves or dies."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest
import trio

from storage.seed import seed
from tests.end_to_end.caller import OPENAI, SHIPPED, open_caller, parse_events
from tests.end_to_end.cloche import Stores, open_cloche
from tests.fake_upstream import RecordedRequest
from tests.fakes import Step, open_fake_upstream, response

MODEL = "openai/deep"
CATALOGUE = f"""
[providers]
openai = "OpenAI"
[models."{MODEL}"]
name = "Deep"
context_window = 200_000
max_output_tokens = 10_000
capabilities = {{ chat = true, api = "responses", background = true, reasoning = true }}
pricing = {{ input_per_million = "2", output_per_million = "8", web_search_per_thousand = "10" }}
mappings = {{ openai = "deep" }}
"""
USAGE = {"input_tokens": 1000, "output_tokens": 500, "total_tokens": 1500}
COST = Decimal("0.006000")
TEXT = {"id": "m", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "At last."}]}


def say(status: str, **members: object) -> list[Step]:
    return response(200, json.dumps({"id": "resp_1", "object": "response", "status": status, **members}).encode())


@dataclass(slots=True)
class Researcher:
    """The provider. It works until `lookups` of its answers have been used up; the last one stays."""

    lookups: list[Sequence[Step]]
    asked: list[str] = field(default_factory=list)
    created: list[dict[str, object]] = field(default_factory=list)

    def respond(self, request: RecordedRequest) -> Sequence[Step]:
        self.asked.append(f"{request.method} {request.path}")
        match request.method, request.path.rpartition("/")[2]:
            case "POST", "cancel":
                return say("cancelled", output=[], usage=USAGE)
            case "POST", _:
                self.created.append(request.json)
                return say("queued", output=[])
            case "GET", _:
                return self.lookups.pop(0) if len(self.lookups) > 1 else self.lookups[0]
        return response(200, b'{"deleted": true}')


@pytest.fixture
def stores_with_model(stores: Stores, tmp_path: Path) -> Stores:
    (tmp_path / "catalogue.toml").write_text(CATALOGUE)
    seed(stores.owner_database_url, tmp_path / "catalogue.toml")
    return stores


def ask(stream: bool = True) -> dict[str, object]:
    return {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": "Find out."}]}


async def test_the_client_is_kept_alive_until_the_answer_is_there_and_nothing_of_it_stays(
    stores_with_model: Stores,
) -> None:
    done = say("completed", output=[TEXT], usage=USAGE)
    provider = Researcher([say("in_progress"), done])
    async with (
        open_fake_upstream(provider.respond) as upstream,
        open_cloche(stores_with_model, upstream.url, KEEP_ALIVE_SECONDS="0.3") as cloche,
    ):
        customer = await cloche.make_customer()
        async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers), timeout=30) as client:
            shipped = await client.post(SHIPPED, json=ask())
        assert shipped.text.count(": keep-alive\n\n") >= 3
        events = parse_events(shipped.content)
        assert "At last." in shipped.text
        assert events[-1][0] == "stream_completed"
        assert provider.asked == ["POST /responses", *["GET /responses/resp_1"] * 2, "DELETE /responses/resp_1"]
        assert (provider.created[0]["background"], provider.created[0]["store"]) == (True, True)
        assert cloche.balance(customer) == (10 - COST, 0)
        cloche.check_accounts()


async def test_a_client_that_leaves_ends_the_work_and_pays_what_it_had_used(stores_with_model: Stores) -> None:
    provider = Researcher([say("in_progress")])
    async with (
        open_fake_upstream(provider.respond) as upstream,
        open_cloche(stores_with_model, upstream.url, KEEP_ALIVE_SECONDS="0.2") as cloche,
    ):
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(SHIPPED, customer, ask())
            await caller.read_until(b": keep-alive")
            caller.reset()
        await cloche.wait_settled()
        assert provider.asked[-2:] == ["POST /responses/resp_1/cancel", "DELETE /responses/resp_1"]
        assert cloche.balance(customer) == (10 - COST, 0)
        assert cloche.query("SELECT outcome, provisional FROM usage") == [("cancelled", False)]


async def test_after_kill_nine_the_next_process_ends_the_work_and_charges_what_it_had_used(
    stores_with_model: Stores,
) -> None:
    provider = Researcher([say("in_progress")])
    async with open_fake_upstream(provider.respond) as upstream:
        async with open_cloche(stores_with_model, upstream.url) as cloche:
            customer = await cloche.make_customer()
            async with open_caller(cloche) as caller:
                await caller.send(OPENAI, customer, ask())
                with trio.fail_after(10):
                    while not cloche.query("SELECT 1 FROM holds WHERE upstream_id = 'resp_1'"):
                        await trio.sleep(0.02)
                cloche.kill()
        assert not any("cancel" in one for one in provider.asked)
        async with open_cloche(stores_with_model, upstream.url) as cloche:
            await cloche.wait_settled()
            assert provider.asked[-2:] == ["POST /responses/resp_1/cancel", "DELETE /responses/resp_1"]
            assert cloche.balance(customer) == (10 - COST, 0)
            assert cloche.query("SELECT outcome, provisional FROM usage") == [("cancelled", False)]
            cloche.check_accounts()


async def test_a_failure_of_the_work_is_told(stores_with_model: Stores) -> None:
    error = {"code": "server_error", "message": "The model gave up"}
    provider = Researcher([say("failed", error=error, output=[])])
    async with (
        open_fake_upstream(provider.respond) as upstream,
        open_cloche(stores_with_model, upstream.url, PROVIDER_RETRY_SECONDS="0.001") as cloche,
    ):
        customer = await cloche.make_customer()
        async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers), timeout=30) as client:
            events = parse_events((await client.post(SHIPPED, json=ask())).content)
        assert events[-1][0] == "error_details"
        assert "gave up" in events[-1][1]["error"]["message"]
        assert cloche.balance(customer) == (10, 0)
