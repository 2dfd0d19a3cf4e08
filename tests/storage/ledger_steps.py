"""What may happen to the accounts: each step as the server takes it, and as the model does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from proxy.ledger import Outcome
from server.billing.payments import Payments
from server.billing.stripe_api import CheckoutOrder
from storage.bookings import AdjustmentRefused, Bookings, adjust, refund_call
from storage.credits import BalanceTooLow, Credits, RequestRepeated
from storage.journal import Progress
from storage.postgres import Database
from storage.purchases import PurchaseChanged, PurchaseKind, Purchases, TopOffUnderWay
from tests.server.billing.fake_stripe_api import FakeStripeApi
from tests.storage.calls import build_hold, build_settlement
from tests.storage.ledger_model import Books, Order
from tests.storage.people import Query

CUSTOMER = "cus_1"


@dataclass(frozen=True, slots=True)
class Stage:
    database: Database
    stripe: FakeStripeApi
    purchases: Purchases
    payments: Payments
    query: Query

    @property
    def credits(self) -> Credits:
        return Credits(self.database)

    @property
    def bookings(self) -> Bookings:
        return Bookings(self.database)


class Step(Protocol):
    async def run(self, stage: Stage) -> object:
        """As the server does it. What it says is compared with what the model says, if there is anything to say."""
        ...

    def apply(self, books: Books) -> object: ...

    def ways(self, books: Books) -> Sequence[Books]:
        """How the accounts may be left if it is cut in the middle."""
        ...


class Whole:
    """A step that happens or does not."""

    def apply(self, books: Books) -> object:
        raise NotImplementedError

    def ways(self, books: Books) -> Sequence[Books]:
        after = books.copy()
        self.apply(after)
        return [books, after]


@dataclass(frozen=True, slots=True)
class Hold(Whole):
    """`lease_seconds` -1: its process is gone as soon as it stands."""

    call_id: UUID
    user_id: UUID
    amount: Decimal
    key: str | None
    lease_seconds: int

    async def run(self, stage: Stage) -> object:
        hold = build_hold(self.user_id, str(self.amount), self.key, hold_id=self.call_id)
        try:
            await Credits(stage.database, self.lease_seconds).hold(hold)
        except BalanceTooLow:
            return "too low"
        except RequestRepeated:
            return "repeated"
        return "held"

    def apply(self, books: Books) -> object:
        has_lapsed = self.lease_seconds < 0
        return books.hold(self.call_id, self.user_id, self.amount, self.key, has_lapsed=has_lapsed)


@dataclass(frozen=True, slots=True)
class Settle(Whole):
    """`how`: by its owner ("settled"), by a sweep ("expired"), or after asking the provider ("trued up")."""

    call_id: UUID
    user_id: UUID
    charge: Decimal
    outcome: Outcome
    how: str
    is_provisional: bool

    async def run(self, stage: Stage) -> object:
        hold = build_hold(self.user_id, hold_id=self.call_id)
        settlement = build_settlement(hold, str(self.charge), self.outcome, provisional=self.is_provisional)
        ways = {
            "settled": stage.credits.settle,
            "expired": stage.credits.settle_expired,
            "trued up": stage.credits.true_up,
        }
        return await ways[self.how](settlement)

    def apply(self, books: Books) -> object:
        return books.settle(
            self.call_id, self.charge, self.outcome, how=self.how, is_provisional=self.is_provisional
        )


@dataclass(frozen=True, slots=True)
class Lapse(Whole):
    """Its process is gone, and nobody renews it."""

    call_id: UUID

    async def run(self, stage: Stage) -> object:
        await stage.credits.expire([Progress(self.call_id)])
        return None

    def apply(self, books: Books) -> object:
        if self.call_id in books.calls and books.calls[self.call_id].state == "held":
            books.calls[self.call_id].has_lapsed = True
        return None


@dataclass(frozen=True, slots=True)
class Refund(Whole):
    call_id: UUID

    async def run(self, stage: Stage) -> object:
        async with stage.database.as_operator("test").transaction() as connection:
            return await refund_call(connection, self.call_id, actor="system", reason="") is not None

    def apply(self, books: Books) -> object:
        return books.refund(self.call_id)


@dataclass(frozen=True, slots=True)
class Give(Whole):
    user_id: UUID
    amount: Decimal
    key: str
    is_endless: bool

    async def run(self, stage: Stage) -> object:
        expires_at = None if self.is_endless else datetime.now(UTC) + timedelta(days=30)
        return await stage.bookings.grant_free(
            self.user_id, self.amount, expires_at, idempotency_key=self.key, description=""
        )

    def apply(self, books: Books) -> object:
        return books.give(self.user_id, self.amount, self.key)


@dataclass(frozen=True, slots=True)
class Adjust(Whole):
    user_id: UUID
    amount: Decimal
    key: str

    async def run(self, stage: Stage) -> object:
        try:
            async with stage.database.as_operator("test").transaction() as connection:
                await adjust(
                    connection, self.user_id, self.amount, actor="system", reason="", idempotency_key=self.key
                )
        except AdjustmentRefused:
            return False
        return True

    def apply(self, books: Books) -> object:
        return books.adjust(self.user_id, self.amount, self.key)


@dataclass(frozen=True, slots=True)
class Age(Whole):
    """The day comes on which the user's free credits expire."""

    user_id: UUID

    async def run(self, stage: Stage) -> object:
        expires_at = "UPDATE credit_balances SET free_expires_at = now() - interval '1 hour'"
        stage.query(f"{expires_at} WHERE user_id = %s AND free_lot > 0", self.user_id)
        return None

    def apply(self, books: Books) -> object:
        account = books.accounts[self.user_id]
        account.is_over = account.lot > 0
        return None


@dataclass(frozen=True, slots=True)
class Expire:
    """The loop that books the end of free credits. It passes by those whose account is being changed."""

    async def run(self, stage: Stage) -> object:
        await stage.bookings.expire_free()
        return None

    def apply(self, books: Books) -> object:
        for account in books.accounts.values():
            account.expire()
        return None

    def ways(self, books: Books) -> Sequence[Books]:
        ways = [books]
        for user_id in books.accounts:
            others = [way.copy() for way in ways]
            for other in others:
                other.accounts[user_id].expire()
            ways += others
        return ways


@dataclass(frozen=True, slots=True)
class Open(Whole):
    order_id: UUID
    user_id: UUID
    kind: PurchaseKind
    net_cents: int
    fee_cents: int

    async def run(self, stage: Stage) -> object:
        cents = (self.net_cents + self.fee_cents, self.fee_cents, self.net_cents)
        try:
            await stage.purchases.open(self.order_id, self.user_id, self.kind, cents)
        except TopOffUnderWay:
            return False
        return True

    def apply(self, books: Books) -> object:
        total_cents = (self.net_cents + self.fee_cents) * 119 // 100  # with tax
        return books.open(self.order_id, Order(self.user_id, self.kind, self.net_cents, total_cents))


@dataclass(frozen=True, slots=True)
class Sync:
    """An event of Stripe says to look. `by_session`: the session's event, else the payment's."""

    order_id: UUID
    payment_id: str
    reference: str | None

    async def run(self, stage: Stage) -> object:
        try:
            if self.reference is None:
                await stage.payments.sync_payment(self.payment_id)
            elif self.reference.startswith("cs_"):
                await stage.payments.sync_session(self.reference)
            else:
                await stage.payments.sync_invoice(self.reference)
        except PurchaseChanged:
            await self.run(stage)
        return None

    def apply(self, books: Books) -> object:
        books.book(self.order_id)
        books.take_back(self.order_id)
        return None

    def ways(self, books: Books) -> Sequence[Books]:
        booked, after = books.copy(), books.copy()
        booked.book(self.order_id)
        self.apply(after)
        return [books, booked, after]


@dataclass(frozen=True, slots=True)
class End(Whole):
    order_id: UUID

    async def run(self, stage: Stage) -> object:
        return await stage.purchases.end(self.order_id, "failed", "a test")

    def apply(self, books: Books) -> object:
        return books.end(self.order_id)


async def pay_at_stripe(stage: Stage, order_id: UUID) -> tuple[str, str]:
    """The ids of the payment and of its session or invoice."""
    order = await stage.purchases.find(order_id)
    assert order is not None
    asked = CheckoutOrder(
        order.id, order.user_id, CUSTOMER, order.gross_cents, order.fee_cents, order.net_cents
    )
    if order.kind == "checkout":
        session = await stage.stripe.create_checkout_session(asked)
        await stage.purchases.note_session(order.id, session.id, CUSTOMER)
        return stage.stripe.complete_session(session.id).id, session.id
    invoice = await stage.stripe.create_invoice(asked)
    await stage.purchases.note_invoice(order.id, invoice.id, CUSTOMER)
    await stage.stripe.finalize_invoice(invoice.id)
    paid = await stage.stripe.pay_invoice(invoice.id, f"{order.id}:pay")
    assert paid.payment_intent_id is not None
    return paid.payment_intent_id, invoice.id


TELL = """
    SELECT json_build_object(
        'accounts', (SELECT json_agg(json_build_array(user_id, balance_usd::text, free_usd::text, held_usd::text,
                                                      held_free_usd::text, free_lot))
                     FROM credit_balances WHERE user_id = ANY(%s)),
        'calls', (SELECT json_agg(json_build_array(id, state, free_usd::text, charged_usd::text,
                                                   charged_free_usd::text, refunded_usd::text))
                  FROM holds WHERE user_id = ANY(%s)),
        'orders', (SELECT json_agg(json_build_array(id, state, refunded_cents, disputed_cents, taken_back_usd::text))
                   FROM purchases WHERE user_id = ANY(%s)))
"""


def read_tables(query: Any, users: list[UUID]) -> dict[str, Any]:
    """As `Books.tell` tells it."""
    ((told,),) = query(TELL, users, users, users)
    return {
        "accounts": {UUID(key): (*map(Decimal, parts), lot) for key, *parts, lot in told["accounts"] or ()},
        "calls": {UUID(key): (state, *map(Decimal, parts)) for key, state, *parts in told["calls"] or ()},
        "orders": {
            UUID(key): (state, refunded, disputed, Decimal(taken))
            for key, state, refunded, disputed, taken in told["orders"] or ()
        },
    }
