"""Calls that are cancelled by another request, on whichever process they run: the provider and the client hear of it at
once, and the books are exact.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
import trio

from tests.end_to_end.asking import Reply, ask
from tests.end_to_end.caller import OPENAI, SHIPPED, Caller, build_chat, open_caller, read_events
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.test_background import USAGE, Researcher, say, stores_with_model
from tests.end_to_end.test_background import ask as build_research
from tests.end_to_end.test_leaving import PROMPT_TOKENS, price, price_of_deltas, says_and_waits, wait_closed
from tests.fake_upstream import Respond
from tests.fakes import FakeUpstream, Step, WaitForClose, open_fake_upstream, openai_stream, stream_head

__all__ = ["stores_with_model"]

CANCEL = "/api/llm/cancel"
STATUS = "/api/llm/status/"
COUNTS = pytest.mark.parametrize("count", [1, 2])
"""Of servers: the call runs on the first, and its end is asked of the last."""


@dataclass(frozen=True, slots=True)
class Scene:
    upstream: FakeUpstream
    servers: list[Cloche]
    customer: Customer

    @property
    def first(self) -> Cloche:
        return self.servers[0]

    @property
    def last(self) -> Cloche:
        return self.servers[-1]

    async def cancel(self, request_id: str, customer: Customer | None = None) -> Reply:
        return await ask(self.last, CANCEL, (customer or self.customer).headers, {"requestId": request_id})

    async def show(self, request_id: str, customer: Customer | None = None) -> Reply:
        return await ask(self.last, STATUS + request_id, (customer or self.customer).headers)

    def check_charged(self, cost_usd: Decimal) -> None:
        assert self.first.balance(self.customer) == (10 - cost_usd, 0)
        assert self.first.query("SELECT 1 FROM holds WHERE state = 'held'") == []
        self.first.check_accounts()


@asynccontextmanager
async def open_scene(
    stores: Stores, script: Respond | Iterable[Step], count: int = 2, **settings: str
) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(open_fake_upstream(script))
        opening = [open_cloche(stores, upstream.url, settings=settings) for _ in range(count)]
        servers = [await stack.enter_async_context(one) for one in opening]
        yield Scene(upstream, servers, await servers[0].make_customer())


def read_request_id(caller: Caller) -> str:
    request_id: str = next(data for name, data in parse_so_far(caller) if name == "stream_started")["requestId"]
    return request_id


def parse_so_far(caller: Caller) -> list[tuple[str, Any]]:
    """Of an answer that may go on."""
    return read_events(caller.text[: caller.text.rindex(b"\n\n\r\n") + 4])


def cost_of(reply: Reply) -> Decimal:
    assert reply.status == 200, reply.body
    assert (reply.json["success"], reply.json["status"]) == (True, "cancelled")
    return Decimal(str(reply.json["cost"]))


@COUNTS
async def test_in_mid_stream(stores: Stores, count: int) -> None:
    async with open_scene(stores, says_and_waits(5), count) as scene, open_caller(scene.first) as caller:
        await caller.send(SHIPPED, scene.customer, build_chat())
        await caller.read_until(b'"content":" epsilon"')
        request_id = read_request_id(caller)
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.read_until, b"stream_cancelled")
            cost = cost_of(reply := await scene.cancel(request_id))
            await wait_closed(scene.upstream)
        print(f"over after {trio.current_time() - started:.3f} s")
        assert trio.current_time() - started < 1
        await caller.read_until(b"0\r\n\r\n")
        *_, (name, update), (last, told) = read_events(caller.text)
        assert (name, update["isFinal"], last) == ("usage_update", True, "stream_cancelled")
        assert (told["requestId"], Decimal(str(told["finalCost"]))) == (request_id, cost)
        assert cost == price_of_deltas(5)
        assert reply.json["usage"]["promptTokens"] == PROMPT_TOKENS
        scene.check_charged(cost)
        assert scene.first.query("SELECT outcome, provisional FROM usage") == [("cancelled", True)]
        assert (await scene.cancel(request_id)).status == 404
        scene.check_charged(cost)


@COUNTS
async def test_openais_dialect_ends_with_an_error_and_is_not_done(stores: Stores, count: int) -> None:
    """Its stream tells no id of ours: the call is named by the key that it was sent with."""
    async with open_scene(stores, says_and_waits(5), count) as scene, open_caller(scene.first) as caller:
        keyed = replace(scene.customer, headers={**scene.customer.headers, "Idempotency-Key": "mine"})
        await caller.send(OPENAI, keyed, build_chat())
        await caller.read_until(b'"content":" epsilon"')
        cost = cost_of(await scene.cancel("mine"))
        await caller.read_until(b"0\r\n\r\n")
        last = read_events(caller.text)[-1][1]
        assert last["error"]["code"] == "request_cancelled"
        scene.check_charged(cost)
        assert (await scene.cancel("mine")).status == 404


@COUNTS
@pytest.mark.parametrize(("path", "stream"), [(OPENAI, False), (SHIPPED, False), (OPENAI, True)])
async def test_what_has_not_been_answered_is_refused_and_no_library_asks_again(
    stores: Stores, path: str, stream: bool, count: int
) -> None:
    async with open_scene(stores, [stream_head(), WaitForClose()], count) as scene:
        replies: list[httpx2.Response] = []
        key = str(uuid4())

        async def call() -> None:
            headers = {**scene.customer.headers, "Idempotency-Key": key}
            async with httpx2.AsyncClient(base_url=scene.first.url, timeout=20, trust_env=False) as client:
                replies.append(await client.post(path, headers=headers, json=build_chat(stream=stream)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await wait_accepted(scene)
            cost = cost_of(await scene.cancel(key))
            await wait_closed(scene.upstream)
        (reply,) = replies
        assert (reply.status_code, reply.headers["x-should-retry"]) == (409, "false")
        assert "request_cancelled" in reply.text
        assert cost == price(PROMPT_TOKENS, 0)
        scene.check_charged(cost)


async def wait_accepted(scene: Scene) -> None:
    """Until the head of the provider's answer has come, as the server's renewed lease would say, too."""
    with trio.fail_after(10):
        await scene.upstream.requested.wait()
        await trio.sleep(0.2)


@COUNTS
async def test_an_answer_in_the_background_is_called_off(stores_with_model: Stores, count: int) -> None:
    provider = Researcher([say("in_progress")])
    async with open_scene(stores_with_model, provider.respond, count, KEEP_ALIVE_SECONDS="0.2") as scene:
        async with open_caller(scene.first) as caller:
            await caller.send(SHIPPED, scene.customer, build_research())
            await caller.read_until(b": keep-alive")
            request_id = read_request_id(caller)
            stands = (await scene.show(request_id)).json
            assert (stands["status"], stands["openaiResponseId"]) == ("active", "resp_1")
            reply = await scene.cancel(request_id)
            assert provider.asked[-2:] == ["POST /responses/resp_1/cancel", "DELETE /responses/resp_1"]
            assert reply.json["usage"]["totalTokens"] == USAGE["total_tokens"]
            await caller.read_until(b"stream_cancelled")
        scene.check_charged(cost_of(reply))


async def test_only_its_own_user_cancels_a_call_or_sees_how_it_stands(stores: Stores) -> None:
    async with open_scene(stores, says_and_waits(2)) as scene, open_caller(scene.first) as caller:
        stranger = await scene.first.make_customer()
        keyed = replace(scene.customer, headers={**scene.customer.headers, "Idempotency-Key": "mine"})
        await caller.send(SHIPPED, keyed, build_chat())
        await caller.read_until(b'"content":" beta"')
        request_id = read_request_id(caller)
        for server in scene.servers:
            asking = replace(scene, servers=[server])
            assert (await asking.cancel(request_id, stranger)).status == 403
            assert (await asking.cancel("mine", stranger)).status == 404
            assert (await asking.show(request_id, stranger)).status == 403
            assert (await asking.show(request_id)).json["status"] == "active"
        assert not scene.upstream.connections[0].closed_by_client.is_set()
        cost_of(await scene.cancel(request_id))


@pytest.mark.parametrize("name", [str(UUID(int=7)), "nothing of mine", "{" + str(UUID(int=7)) + "}"])
async def test_what_nobody_has_is_not_found(stores: Stores, name: str) -> None:
    async with open_scene(stores, []) as scene:
        for server in scene.servers:
            assert (await replace(scene, servers=[server]).cancel(name)).status == 404
        for path in (UUID(int=7), "nothing"):
            assert (await scene.show(str(path))).status == 404


@pytest.mark.parametrize(
    "body", [{}, *({"requestId": name} for name in ("", None, 7, "x" * 201, "\0"))]
)
async def test_what_names_no_call_is_refused(stores: Stores, body: dict[str, Any]) -> None:
    async with open_scene(stores, [], 1) as scene:
        assert (await ask(scene.last, CANCEL, scene.customer.headers, body)).status == 400


@COUNTS
async def test_how_a_call_stands_until_and_after_its_end(stores: Stores, count: int) -> None:
    async with open_scene(stores, openai_stream(["Hello"], usage=(100, 50)), count) as scene:
        async with open_caller(scene.first) as caller:
            await caller.send(SHIPPED, scene.customer, build_chat())
            await caller.read_until(b"stream_completed")
            request_id = read_request_id(caller)
        stands = (await scene.show(request_id)).json
        assert (stands["requestId"], stands["provider"], stands["status"]) == (request_id, "openai", "completed")
        assert (Decimal(str(stands["cost"])), stands["provisional"]) == (price(100, 50), False)
        assert stands["usage"]["totalTokens"] == 150
        assert stands["openaiResponseId"] is None
        assert stands["createdAt"] < stands["endedAt"]
        assert (await scene.cancel(request_id)).status == 404


async def test_a_running_call_tells_what_it_has_used_so_far_on_its_own_process(stores: Stores) -> None:
    async with open_scene(stores, says_and_waits(3)) as scene, open_caller(scene.first) as caller:
        await caller.send(SHIPPED, scene.customer, build_chat())
        await caller.read_until(b'"content":" gamma"')
        request_id = read_request_id(caller)
        own = (await replace(scene, servers=[scene.first]).show(request_id)).json
        assert own["usage"]["promptTokens"] == PROMPT_TOKENS
        others = (await scene.show(request_id)).json
        assert "usage" not in others
        assert others == {name: value for name, value in own.items() if name != "usage"}


async def test_a_call_whose_process_was_killed_is_over_and_charged_by_the_next(stores: Stores) -> None:
    async with open_scene(stores, says_and_waits(5), HOLD_LEASE_SECONDS="600") as scene:
        async with open_caller(scene.first) as caller:
            await caller.send(SHIPPED, scene.customer, build_chat())
            await caller.read_until(b'"content":" epsilon"')
            request_id = read_request_id(caller)
            await trio.sleep(0.3)
            scene.first.kill()
        reply = await scene.cancel(request_id)
        assert (reply.status, reply.json["success"], reply.json["status"]) == (200, True, "active")
        assert reply.seconds < 7
        assert (await scene.show(request_id)).json["status"] == "active"
        async with open_cloche(stores, scene.upstream.url):
            await scene.last.wait_settled()
        stands = (await scene.show(request_id)).json
        assert (stands["status"], Decimal(str(stands["cost"]))) == ("cancelled", price_of_deltas(5))
        assert (await scene.cancel(request_id)).status == 404
        scene.check_charged(price_of_deltas(5))
