"""What clients show of money agrees with what was charged; and a limit of a key stops that key alone."""

from decimal import Decimal
from typing import Any

import openai
import pytest
import trio

from tests.end_to_end.asking import ask
from tests.end_to_end.caller import MODEL, OPENAI, SHIPPED, build_chat
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.end_to_end.test_api_keys import ask as request
from tests.end_to_end.test_api_keys import make, with_key
from tests.end_to_end.test_leaving import price
from tests.fakes import open_fake_upstream, openai_stream

PERIOD = "start_date=2000-01-01T00:00:00+00:00&end_date=2100-01-01T00:00:00+00:00"
LIMITS = "/api/billing/spending-limits"
TOKENS = (1200, 340)


async def show(cloche: Cloche, customer: Customer, path: str) -> Any:
    reply = await ask(cloche, f"/api/billing/{path}", customer.headers)
    assert reply.status == 200, reply.body
    return reply.json


async def test_dashboard_history_and_summaries_agree_with_the_charge(stores: Stores) -> None:
    charge = price(*TOKENS)
    async with (
        open_fake_upstream(openai_stream(["Hello"], usage=TOKENS)) as upstream,
        open_cloche(stores, upstream.url) as cloche,
    ):
        customer = await cloche.make_customer("5")
        key = await make(cloche, customer)
        for headers in (customer.headers, with_key(key["key"])):
            assert (await request(cloche, "POST", OPENAI, headers, build_chat(stream=False))).status_code == 200
        balance = float(5 - 2 * charge)
        assert (await show(cloche, customer, "dashboard"))["creditBalanceUsd"] == balance
        assert (await show(cloche, customer, "credits/balance"))["balance"] == balance
        history = await show(cloche, customer, "credits/unified-history?search=GPT")
        assert history["totalCount"] == 2
        for entry in history["entries"]:
            assert (entry["price"], entry["model"], entry["transactionType"]) == (-float(charge), MODEL, "usage")
            assert (entry["inputTokens"], entry["outputTokens"]) == TOKENS
        assert history["entries"][0]["balanceAfter"] == balance
        stats = await show(cloche, customer, "credits/stats")
        assert (stats["totalConsumed"], stats["currentBalance"]) == (-float(2 * charge), balance)
        summary = await show(cloche, customer, f"usage-summary?{PERIOD}")
        (of_model,) = summary["detailedUsage"]
        assert (of_model["serviceName"], of_model["providerCode"]) == (MODEL, "openai")
        assert (of_model["totalCost"], of_model["totalRequests"]) == (float(2 * charge), 2)
        assert summary["summary"]["totalInputTokens"] == 2 * TOKENS[0]
        of_keys = await show(cloche, customer, f"usage/breakdown?{PERIOD}&group_by=key")
        costs = {group["key"]: group["totalCost"] for group in of_keys["groups"]}
        assert costs == {key["id"]: float(charge), None: float(charge)}
        cloche.check_accounts()


async def test_a_limit_of_a_key_stops_that_key_alone_in_both_dialects(stores: Stores) -> None:
    async with (
        open_fake_upstream(openai_stream(["Hello"], usage=TOKENS)) as upstream,
        open_cloche(stores, upstream.url) as cloche,
    ):
        customer = await cloche.make_customer("5")
        key = await make(cloche, customer)
        wish = {"apiKeyId": key["id"], "period": "month", "limitUsd": 0.002}
        assert (await request(cloche, "PUT", LIMITS, customer.headers, wish)).status_code == 200
        first = await request(cloche, "POST", OPENAI, with_key(key["key"]), build_chat(max_tokens=100))
        assert first.status_code == 200
        (limit,) = (await request(cloche, "GET", LIMITS, customer.headers)).json()["limits"]
        assert (Decimal(str(limit["spentUsd"])), limit["heldUsd"]) == (price(*TOKENS), 0)

        refused = await request(cloche, "POST", SHIPPED, with_key(key["key"]), build_chat(stream=False))
        assert (refused.status_code, refused.json()["error_type"]) == (402, "spending_limit_exceeded")

        def use_sdk() -> None:
            messages: Any = [{"role": "user", "content": "Hi"}]
            with (
                openai.OpenAI(api_key=key["key"], base_url=f"{cloche.url}/v1", max_retries=0, timeout=20) as client,
                pytest.raises(openai.APIStatusError) as caught,
            ):
                client.chat.completions.create(model=MODEL, messages=messages, max_tokens=1000)
            assert (caught.value.status_code, caught.value.code) == (402, "spending_limit_exceeded")
            assert "this API key's spending limit" in caught.value.message

        await trio.to_thread.run_sync(use_sdk)
        own = await request(cloche, "POST", OPENAI, customer.headers, build_chat())
        assert own.status_code == 200
        assert cloche.balance(customer) == (5 - 2 * price(*TOKENS), 0)
        assert (await request(cloche, "GET", LIMITS, customer.headers)).json()["limits"] == [limit]
        told = cloche.query("SELECT details ->> 'percent' FROM billing_notices WHERE kind = 'spending_threshold'")
        assert told == [("50",)]
        cloche.check_accounts()
