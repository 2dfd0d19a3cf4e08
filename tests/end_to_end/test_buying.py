"""Buying credits: our server in its own process, localstripe in Stripe's place. tests/stripe_stand_in says which parts
of Stripe are localstripe's own (customers, cards, payments, refunds, and the events that each test names as its) and
which are played by the front before it (Stripe's pages, disputes, the other events).
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
import trio
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.end_to_end.asking import Reply, ask
from tests.end_to_end.cloche import Cloche, Customer, Stores, open_cloche
from tests.stripe_stand_in import Fault, StripeStandIn, open_stripe_stand_in

BILLING = "/api/billing"
BOOKED_SECONDS = 15
SIGNED = ("payment_intent.succeeded", "checkout.session.completed")


@dataclass(slots=True)
class Shop:
    """A running server and the Stripe that it sells by."""

    cloche: Cloche
    stripe: StripeStandIn

    async def make_buyer(self) -> Customer:
        """Known to Stripe by asking for its portal, where a card, a name and an address were left."""
        buyer = await self.cloche.make_customer("0")
        assert (await self.post(buyer, "/create-portal-session")).status == 200
        await self.stripe.leave_card(await self.stripe.find_customer(buyer.user_id))
        return buyer

    async def check_out(self, buyer: Customer, amount: float = 10) -> str:
        """The id of the session where it can be paid."""
        reply = await self.post(buyer, "/checkout/custom-credit-session", {"amount": amount})
        assert reply.status == 200, reply.body
        assert reply.json["url"].startswith("https://")
        return str(reply.json["sessionId"])

    async def buy(self, buyer: Customer) -> str:
        """Paid on Stripe's page; the payment's id."""
        payment_id = await self.stripe.complete_checkout(await self.check_out(buyer))
        assert payment_id is not None
        return payment_id

    async def post(self, buyer: Customer, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        return await ask(self.cloche, f"{BILLING}{path}", buyer.headers, body or {})

    async def read_status(self, buyer: Customer, session_id: str) -> tuple[int, str, str]:
        reply = await ask(self.cloche, f"{BILLING}/checkout/session-status/{session_id}", buyer.headers)
        return reply.status, reply.json.get("status", ""), reply.json.get("paymentStatus", "")

    def read_balance(self, buyer: Customer) -> Decimal:
        rows = self.cloche.query("SELECT balance_usd FROM credit_balances WHERE user_id = %s", buyer.user_id)
        return Decimal(rows[0][0]) if rows else Decimal(0)

    async def wait_balance(self, buyer: Customer, usd: str) -> None:
        with trio.fail_after(BOOKED_SECONDS):
            while self.read_balance(buyer) != Decimal(usd):
                await trio.sleep(0.02)

    async def wait_worked_off(self) -> None:
        """Until no event waits to be worked on."""
        with trio.fail_after(BOOKED_SECONDS):
            while self.cloche.query("SELECT 1 FROM stripe_events WHERE state = 'pending' LIMIT 1"):
                await trio.sleep(0.02)

    def count_bookings(self, buyer: Customer) -> int:
        query = "SELECT count(*) FROM credit_ledger WHERE user_id = %s AND kind = 'purchase'"
        return int(self.cloche.query(query, buyer.user_id)[0][0])


@asynccontextmanager
async def open_shop(stores: Stores, stripe: StripeStandIn) -> AsyncIterator[Shop]:
    async with open_cloche(stores, settings=stripe.settings) as cloche:
        stripe.send_events_to(cloche.url)
        yield Shop(cloche, stripe)


@contextmanager
def turned_away(stores: Stores) -> Iterator[None]:
    """PostgreSQL breaks all connections to the server's database, and lets nobody in."""
    name = str(conninfo_to_dict(stores.owner_database_url)["dbname"])
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    owner_url = make_conninfo(stores.owner_database_url, dbname="postgres")
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(allow.format(sql.Identifier(name), sql.Literal(False)))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            connection.execute(allow.format(sql.Identifier(name), sql.Literal(True)))


async def test_a_card_is_left_credits_are_bought_and_every_event_that_comes_twice_books_once(stores: Stores) -> None:
    """localstripe: customer, card, setup, charge. The front: both pages, and the events that book."""
    async with open_stripe_stand_in() as stripe, open_shop(stores, stripe) as shop:
        buyer = await shop.cloche.make_customer("0")
        refused = await shop.post(buyer, "/checkout/custom-credit-session", {"amount": 10})
        assert (refused.status, refused.json["error_type"]) == (402, "payment_method_required")
        setup_id = (await shop.post(buyer, "/checkout/setup-session")).json["sessionId"]
        method = await stripe.complete_setup(setup_id)
        customer_id = await stripe.find_customer(buyer.user_id)
        await stripe.events.wait_answered("checkout.session.completed", "front")
        await shop.wait_worked_off()
        customer = await stripe.local.get(f"/v1/customers/{customer_id}")
        assert customer["invoice_settings"]["default_payment_method"] == method
        assert await shop.read_status(buyer, setup_id) == (200, "complete", "no_payment_required")

        assert customer["address"]["city"] == "Springfield"  # it came with the card
        stripe.tax(19)
        session_id = await shop.check_out(buyer)
        assert await shop.read_status(buyer, session_id) == (200, "open", "unpaid")
        stranger = await shop.cloche.make_customer()
        assert (await shop.read_status(stranger, session_id))[0] == 404
        await stripe.complete_checkout(session_id)
        await shop.wait_balance(buyer, "8.00")  # what was paid is 11.90: taxes are no credits
        assert await shop.read_status(buyer, session_id) == (200, "complete", "paid")

        for type_ in SIGNED:
            assert await stripe.events.send(await stripe.events.wait_answered(type_, "front")) == 200
        twins = [await stripe.events.wait_answered(type_, "front") for type_ in SIGNED]
        for twin in twins:  # the same thing told by events with other ids
            stripe.make_event(twin.type, twin.event["data"]["object"])
        await shop.wait_worked_off()
        assert shop.count_bookings(buyer) == 1
        assert shop.read_balance(buyer) == 8
        shop.cloche.check_accounts()


async def test_events_that_localstripe_makes_and_signs_itself_book_credits_and_forged_ones_do_not(
    stores: Stores,
) -> None:
    """localstripe: customer, card, charge, refund, and the only event that is let through, `invoice.payment_succeeded`.
    The front: the page, the dispute, and the events of what is returned.
    """
    async with open_stripe_stand_in() as stripe, open_shop(stores, stripe) as shop:
        stripe.events.makers = ["localstripe"]
        buyer = await shop.make_buyer()
        payment_id = await shop.buy(buyer)
        invoice_id = (await stripe.local.get(f"/v1/payment_intents/{payment_id}"))["invoice"]
        told = await stripe.events.wait_answered("invoice.payment_succeeded", "localstripe", invoice_id)
        assert told.statuses == [200]
        await shop.wait_balance(buyer, "8.00")

        other = told.payload.replace(b"1000", b"9000")
        assert other != told.payload
        forged = [
            await stripe.events.post(other, told.signature),
            await stripe.events.post(told.payload, told.signature.replace("v1=", "v1=0")),
            await stripe.events.post(told.payload, None),
        ]
        assert forged == [400, 400, 400]

        stripe.events.makers = ["front"]
        await stripe.refund(payment_id, 250)
        await shop.wait_balance(buyer, "6.00")
        dispute_id = await stripe.open_dispute(payment_id, 750)
        await shop.wait_balance(buyer, "0.00")
        stripe.close_dispute(dispute_id, is_won=True)
        await shop.wait_balance(buyer, "6.00")
        await shop.wait_worked_off()
        assert shop.count_bookings(buyer) == 1
        shop.cloche.check_accounts()


async def test_whoever_polls_is_told_of_a_payment_when_its_credits_are_there_without_any_event(stores: Stores) -> None:
    """localstripe: customer, card, charge. No event is sent, of nobody."""
    async with open_stripe_stand_in() as stripe, open_shop(stores, stripe) as shop:
        stripe.events.makers = []
        buyer = await shop.make_buyer()
        session_id = await shop.check_out(buyer, 12)
        await stripe.complete_checkout(session_id)
        with trio.fail_after(BOOKED_SECONDS):
            while (status := await shop.read_status(buyer, session_id)) != (200, "complete", "paid"):
                assert status == (200, "complete", "processing")
        assert shop.read_balance(buyer) == Decimal("10.80")


async def test_while_postgresql_is_away_events_are_refused_and_the_next_delivery_books_once(stores: Stores) -> None:
    """localstripe: customer, card, charge. The front sends its events twice, as Stripe does after an error."""
    async with open_stripe_stand_in() as stripe, open_shop(stores, stripe) as shop:
        stripe.events.makers = []
        buyer = await shop.make_buyer()
        await shop.buy(buyer)
        deliveries = [each for each in stripe.events.all if each.type in SIGNED]
        with turned_away(stores):
            assert [await stripe.events.send(each) for each in deliveries] == [503, 503]
        assert [await stripe.events.send(each) for each in deliveries] == [200, 200]
        await shop.wait_balance(buyer, "8.00")
        await shop.wait_worked_off()
        assert shop.count_bookings(buyer) == 1


async def test_a_server_that_is_killed_at_work_leaves_its_events_to_the_next(stores: Stores) -> None:
    """localstripe: customer, card, charge. Stripe's answer hangs when the server dies: the event was stored and
    claimed, and nothing booked. The end of the lease is brought forward, not waited for.
    """
    async with open_stripe_stand_in() as stripe:
        async with open_shop(stores, stripe) as shop:
            stripe.events.types = ["payment_intent.succeeded"]
            buyer = await shop.make_buyer()
            session_id = await shop.check_out(buyer)
            stripe.fail_next(Fault("/v1/payment_intents/", "hangs"))
            await stripe.complete_checkout(session_id)
            assert (await stripe.events.wait_answered("payment_intent.succeeded", "front")).statuses == [200]
            with trio.fail_after(BOOKED_SECONDS):
                while not any(each.path.startswith("/v1/payment_intents/") for each in stripe.requests):
                    await trio.sleep(0.01)
            shop.cloche.kill()
            assert shop.cloche.query("SELECT state, attempts FROM stripe_events") == [("pending", 1)]
            assert shop.count_bookings(buyer) == 0
            shop.cloche.query("UPDATE stripe_events SET next_attempt_at = now() RETURNING id")
        async with open_shop(stores, stripe) as shop:
            await shop.wait_balance(buyer, "8.00")
            await shop.wait_worked_off()
            assert shop.count_bookings(buyer) == 1
            shop.cloche.check_accounts()
