"""A chat as the shipped clients and OpenAI's have it: over real sockets, with a fake provider and exact charges."""

from decimal import Decimal
from typing import Any

import httpx2
import pytest
import trio

from proxy.tokens import count_tokens
from tests.end_to_end.caller import MODEL, OPENAI, SHIPPED, build_chat, join_text, parse_events
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.fakes import Reset, open_fake_upstream, openai_error, openai_stream, openai_whole

DELTAS = ["Hel", "lo", " wörld", " 🙂"]
PRICE_IN, PRICE_OUT = Decimal("0.40"), Decimal("1.60")


def cost(prompt: int, completion: int) -> Decimal:
    return ((prompt * PRICE_IN + completion * PRICE_OUT) / 1_000_000).quantize(Decimal("0.000001"))


async def call(cloche: Cloche, customer: Customer, path: str, body: Any, **options: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=cloche.url, timeout=20) as client:
        return await client.post(path, json=body, headers=dict(customer.headers), **options)


async def test_a_shipped_client_gets_the_events_it_knows_and_the_exact_charge(stores: Stores) -> None:
    async with (
        open_fake_upstream(openai_stream(DELTAS, usage=(1200, 340))) as upstream,
        open_cloche(stores, upstream.url) as cloche,
    ):
        customer = await cloche.make_customer()
        response = await call(cloche, customer, SHIPPED, build_chat())
        events = parse_events(response.content)
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
        assert [name for name, _ in events] == ["stream_started", *[""] * 5, "usage_update", "stream_completed"]
        assert join_text(events) == "".join(DELTAS)
        final = events[-1][1]
        assert final == {
            "requestId": events[0][1]["requestId"],
            "finalCost": float(cost(1200, 340)),
            "tokensInput": 1200,
            "tokensOutput": 340,
            "cacheReadTokens": 0,
            "cacheWriteTokens": 0,
        }
        assert cloche.balance(customer) == (10 - cost(1200, 340), 0)
        cloche.check_accounts()
        sent = upstream.requests[0]
        assert sent.headers["authorization"] == "Bearer sk-upstream"
        assert sent.headers["x-request-id"] == final["requestId"]
        assert (sent.path, sent.json["model"], sent.json["max_completion_tokens"]) == (
            "/chat/completions",
            "gpt-4.1-mini",
            1000,
        )


async def test_the_whole_answer_is_the_stream_collected(stores: Stores) -> None:
    async with (
        open_fake_upstream(openai_stream(DELTAS, usage=(1200, 340))) as upstream,
        open_cloche(stores, upstream.url) as cloche,
    ):
        customer = await cloche.make_customer()
        body = (await call(cloche, customer, SHIPPED, build_chat(stream=False))).json()
        assert body["choices"][0]["message"] == {"role": "assistant", "content": "".join(DELTAS)}
        assert body["usage"] == {
            "promptTokens": 1200,
            "completionTokens": 340,
            "totalTokens": 1540,
            "cost": float(cost(1200, 340)),
            "cachedInputTokens": 0,
            "cacheWriteTokens": 0,
            "cacheReadTokens": 0,
        }
        assert cloche.balance(customer) == (10 - cost(1200, 340), 0)


async def test_a_provider_that_does_not_stream_is_understood(stores: Stores) -> None:
    async with (
        open_fake_upstream(openai_whole("All at once", usage=(7, 3))) as upstream,
        open_cloche(stores, upstream.url) as cloche,
    ):
        customer = await cloche.make_customer()
        events = parse_events((await call(cloche, customer, SHIPPED, build_chat())).content)
        assert join_text(events) == "All at once"
        assert cloche.balance(customer) == (10 - cost(7, 3), 0)


@pytest.mark.parametrize(
    ("status", "expected", "error_type"),
    [(429, 429, "rate_limit_error"), (401, 502, "external_service_error"), (500, 502, "external_service_error")],
)
async def test_a_refusal_is_a_status_before_the_answer_and_an_event_after_it(
    stores: Stores, status: int, expected: int, error_type: str
) -> None:
    refusal = openai_error(status, "some_error", "some_code", "Not today", headers={"retry-after": "7"})
    async with open_fake_upstream(refusal) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        whole = await call(cloche, customer, SHIPPED, build_chat(stream=False))
        assert (whole.status_code, whole.json()["error_type"], whole.json()["errorType"]) == (
            expected,
            error_type,
            error_type,
        )
        assert whole.headers["retry-after"] == "7"
        sdk = await call(cloche, customer, OPENAI, build_chat())
        code = "rate_limit_exceeded" if status == 429 else error_type
        assert (sdk.status_code, sdk.json()["error"]["code"]) == (expected, code)
        events = parse_events((await call(cloche, customer, SHIPPED, build_chat())).content)
        assert [name for name, _ in events] == ["stream_started", "error_details"]
        details = events[-1][1]["error"]
        assert details["fallbackAttempted"] is False
        assert details["providerError"]["statusCode"] == status
        assert ("Not today" in details["message"]) == (status != 401), "what a provider says of our key is ours alone"
        assert cloche.balance(customer) == (10, 0)


async def test_a_whole_answer_that_breaks_off_costs_nothing_for_nothing_was_delivered(stores: Stores) -> None:
    script = [*openai_stream(DELTAS)[:4], Reset()]
    async with open_fake_upstream(script) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        response = await call(cloche, customer, SHIPPED, build_chat(stream=False))
        assert (response.status_code, response.json()["error_type"]) == (502, "network_error")
        assert cloche.balance(customer) == (10, 0)
        assert cloche.query("SELECT outcome FROM usage") == [("failed",)]


async def test_a_stream_that_breaks_off_costs_what_was_delivered(stores: Stores) -> None:
    script = [*openai_stream(DELTAS)[:4], Reset()]
    async with open_fake_upstream(script) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        events = parse_events((await call(cloche, customer, SHIPPED, build_chat())).content)
        assert [name for name, _ in events] == ["stream_started", "", "", "error_details"]
        delivered = count_tokens(DELTAS[0]) + count_tokens(DELTAS[1])
        assert cloche.balance(customer) == (10 - cost(4 + 1 + 3, delivered), 0)
        cloche.check_accounts()


async def test_bad_requests_hold_nothing_and_call_nobody(stores: Stores) -> None:
    async with open_fake_upstream() as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
        for body, status, phrase in [
            (build_chat(model="openai/none"), 404, "openai/none"),
            (build_chat(messages=[]), 400, "messages"),
            (build_chat(messages=[{"role": "user", "content": [image]}]), 400, "messages[0].content[0]"),
            (build_chat(text="word " * 1_000_010), 400, "context window exceeded"),
            (build_chat(n=2), 400, "n:"),
        ]:
            for path in (SHIPPED, OPENAI):
                response = await call(cloche, customer, path, body)
                assert (response.status_code, phrase in response.text) == (status, True), response.text
        assert not upstream.connections
        assert cloche.query("SELECT count(*) FROM holds") == [(0,)]


async def test_somebody_without_credit_gets_402_in_both_dialects(stores: Stores) -> None:
    async with open_fake_upstream() as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer("0.0001")
        shipped = await call(cloche, customer, SHIPPED, build_chat())
        assert (shipped.status_code, shipped.json()["error_type"]) == (402, "credit_insufficient")
        sdk = await call(cloche, customer, OPENAI, build_chat())
        assert (sdk.status_code, sdk.json()["error"]["type"]) == (402, "insufficient_quota")
        assert not upstream.connections


async def test_a_request_that_comes_twice_with_one_key_runs_once(stores: Stores) -> None:
    async with (
        open_fake_upstream(openai_stream(DELTAS, usage=(10, 4))) as upstream,
        open_cloche(stores, upstream.url) as cloche,
    ):
        customer = await cloche.make_customer()
        first = await call(cloche, customer, SHIPPED, build_chat(request_id="job-1"))
        second = await call(cloche, customer, SHIPPED, build_chat(request_id="job-1"))
        assert (first.status_code, second.status_code) == (200, 409)
        assert second.json()["error_type"] == "already_exists"
        assert cloche.balance(customer) == (10 - cost(10, 4), 0)


async def test_silence_is_filled_with_comments(stores: Stores) -> None:
    script = openai_stream(DELTAS, usage=(10, 4), pause_seconds=0.7)
    async with (
        open_fake_upstream(script) as upstream,
        open_cloche(stores, upstream.url, KEEP_ALIVE_SECONDS="0.2") as cloche,
    ):
        customer = await cloche.make_customer()
        async with trio.open_nursery() as nursery:
            for path in (SHIPPED, OPENAI):
                nursery.start_soon(check_comments, cloche, customer, path)


async def check_comments(cloche: Cloche, customer: Customer, path: str) -> None:
    response = await call(cloche, customer, path, build_chat())
    assert response.content.count(b": keep-alive\n\n") >= 4
    assert join_text(parse_events(response.content)) == "".join(DELTAS)


async def test_models_are_listed_in_openais_shape(stores: Stores) -> None:
    async with open_cloche(stores) as cloche:
        customer = await cloche.make_customer()
        async with httpx2.AsyncClient(base_url=cloche.url, headers=dict(customer.headers)) as client:
            listed = (await client.get("/v1/models")).json()
            shown = (await client.get(f"/v1/models/{MODEL}")).json()
        states = [{"provider": "openai", "state": "closed"}]
        assert shown["providers"] == states
        assert (shown["id"], shown["object"], shown["owned_by"]) == (MODEL, "model", "openai")
        assert shown in listed["data"]
        assert not [model for model in listed["data"] if model["id"].startswith("sandbox/")]
