"""Auto top-off: our server in its own process, localstripe in Stripe's place. tests/stripe_stand_in says which parts of
Stripe are localstripe's own (customers, cards, payments, declines) and which the front before it plays (an invoice
without a subscription, its finalizing and its tax, and the events that say it was paid).
"""

from decimal import Decimal
from typing import Any

import trio

from tests.end_to_end.asking import ask
from tests.end_to_end.caller import SHIPPED, build_chat
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.fakes import open_fake_upstream, openai_stream
from tests.stripe_stand_in import DECLINED_CARD, GOOD_CARD, StripeStandIn, open_stripe_stand_in

SETTINGS = "/api/billing/auto-top-off-settings"
NOTICES = "/api/billing/notices"
ON = {"enabled": True, "threshold": "5.0000", "amount": "10.0000"}
SECONDS = 20


async def make_buyer(cloche: Cloche, stripe: StripeStandIn, credits_usd: str, card: str = GOOD_CARD) -> Customer:
    buyer = await cloche.make_customer(credits_usd)
    assert (await ask(cloche, "/api/billing/create-portal-session", buyer.headers, {})).status == 200
    await stripe.leave_card(await stripe.find_customer(buyer.user_id), card)
    return buyer


async def turn_on(cloche: Cloche, buyer: Customer) -> None:
    reply = await ask(cloche, SETTINGS, buyer.headers, ON)
    assert (reply.status, reply.json) == (200, ON)


async def wait_notice(cloche: Cloche, buyer: Customer) -> Any:
    with trio.fail_after(SECONDS):
        while not cloche.query("SELECT 1 FROM billing_notices WHERE user_id = %s", buyer.user_id):
            await trio.sleep(0.05)
    (notice,) = (await ask(cloche, NOTICES, buyer.headers)).json["notices"]
    return notice


def find_orders(cloche: Cloche, buyer: Customer) -> list[tuple[Any, ...]]:
    return cloche.query("SELECT state, failure FROM purchases WHERE user_id = %s", buyer.user_id)


async def test_a_chat_spends_below_the_threshold_and_credits_are_bought_once_unless_the_bank_declines(
    stores: Stores,
) -> None:
    """localstripe: customer, card, charge, decline. The front: the invoice, the tax, the events, which come as well."""
    async with (
        open_stripe_stand_in() as stripe,
        open_fake_upstream(openai_stream(["Hello"])) as upstream,
        open_cloche(stores, upstream.url, settings=stripe.settings) as cloche,
    ):
        stripe.send_events_to(cloche.url)
        stripe.tax(19)
        buyer = await make_buyer(cloche, stripe, "5")
        await turn_on(cloche, buyer)
        assert find_orders(cloche, buyer) == []
        assert (await ask(cloche, SHIPPED, buyer.headers, build_chat())).status == 200
        notice = await wait_notice(cloche, buyer)
        assert notice["kind"] == "top_off_succeeded"
        assert notice["details"] == {"amountUsd": "10.00", "creditsUsd": "8.00"}
        await stripe.events.wait_answered("invoice.paid", "front")
        with trio.fail_after(SECONDS):
            while cloche.query("SELECT 1 FROM stripe_events WHERE state = 'pending' LIMIT 1"):
                await trio.sleep(0.05)
        assert find_orders(cloche, buyer) == [("paid", None)]
        ((spent,),) = cloche.query("SELECT sum(cost_usd) FROM usage")
        assert spent > 0
        assert cloche.balance(buyer) == (5 - spent + 8, 0)
        assert cloche.query("SELECT gross_cents, total_cents FROM purchases") == [(1000, 1190)]
        await check_declined(cloche, stripe)
        cloche.check_accounts()


async def check_declined(cloche: Cloche, stripe: StripeStandIn) -> None:
    poor = await make_buyer(cloche, stripe, "1", DECLINED_CARD)
    await turn_on(cloche, poor)
    notice = await wait_notice(cloche, poor)
    assert (notice["kind"], notice["details"]["reason"]) == ("top_off_failed", "card_declined")
    with trio.fail_after(SECONDS):
        while find_orders(cloche, poor)[0][0] == "open":
            await trio.sleep(0.05)
    assert [state for state, _ in find_orders(cloche, poor)] == ["failed"]
    assert cloche.balance(poor) == (Decimal(1), 0)


async def test_a_server_that_is_killed_while_it_pays_is_succeeded_by_one_that_books_once(stores: Stores) -> None:
    """localstripe: customer, card, charge. The front: the invoice. No event says anything."""
    async with open_stripe_stand_in() as stripe:
        async with open_cloche(stores, settings=stripe.settings) as cloche:
            buyer = await make_buyer(cloche, stripe, "0")
            await turn_on(cloche, buyer)
            with trio.fail_after(SECONDS):
                while not any(request.path.endswith("/pay") for request in stripe.requests):
                    await trio.sleep(0.001)
            cloche.kill()
            cloche.query("UPDATE purchases SET leased_until = '-infinity' RETURNING 1")
        async with open_cloche(stores, settings=stripe.settings) as cloche:
            await wait_notice(cloche, buyer)
            assert find_orders(cloche, buyer) == [("paid", None)]
            assert cloche.balance(buyer) == (Decimal(8), 0)
            charges = await stripe.local.get("/v1/charges")
            assert [charge["amount"] for charge in charges["data"] if charge["paid"]] == [1000]
