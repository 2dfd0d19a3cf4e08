"""Leaving for good while money of the account is on its way."""

import pytest

from tests.end_to_end.caller import OPENAI, SHIPPED, build_chat, open_caller
from tests.end_to_end.cloche import Stores, open_cloche
from tests.end_to_end.test_api_keys import ask
from tests.end_to_end.test_buying import open_shop
from tests.end_to_end.test_leaving import price_of_deltas, says_and_waits, wait_closed
from tests.fakes import open_fake_upstream
from tests.stripe_stand_in import open_stripe_stand_in

ACCOUNT = "/api/auth/account"


@pytest.mark.parametrize("path", [SHIPPED, OPENAI])
async def test_an_account_is_deleted_once_its_stream_has_ended(stores: Stores, path: str) -> None:
    async with open_fake_upstream(says_and_waits(5)) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(path, customer, build_chat())
            await caller.read_until(b'"content":" epsilon"')
            refused = await ask(cloche, "DELETE", ACCOUNT, customer.headers)
            assert (refused.status_code, refused.json()["error_type"]) == (409, "customer_billing_conflict")
            assert "an answer is still being made" in refused.json()["message"]
            assert (await ask(cloche, "GET", "/api/auth/userinfo", customer.headers)).status_code == 200
            caller.leave()
            await wait_closed(upstream)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10 - price_of_deltas(5), 0)
        cloche.check_accounts()
        assert (await ask(cloche, "DELETE", ACCOUNT, customer.headers)).status_code == 200
        assert cloche.query("SELECT 1 FROM users") == []


async def test_nobody_pays_for_an_account_that_is_gone(stores: Stores) -> None:
    """localstripe: customer and card. The front: both pages."""
    async with open_stripe_stand_in() as stripe, open_shop(stores, stripe) as shop:
        buyer = await shop.cloche.make_customer("0")
        await stripe.complete_setup((await shop.post(buyer, "/checkout/setup-session")).json["sessionId"])
        await stripe.events.wait_answered("checkout.session.completed", "front")
        await shop.wait_worked_off()
        session_id = await shop.check_out(buyer)
        assert (await ask(shop.cloche, "DELETE", ACCOUNT, buyer.headers)).status_code == 200
        assert len(stripe.find_requests("POST", f"/v1/checkout/sessions/{session_id}/expire")) == 1
