"""Purchases: our own orders, made before Stripe is asked, and what was booked for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Literal, LiteralString
from uuid import UUID

from psycopg import errors

from storage.audit import AuditEntry, AuditLog
from storage.credits import UserUnknown
from storage.errors import StorageError
from storage.postgres import Database
from storage.psycopg_trio import TrioConnection

PurchaseKind = Literal["checkout", "top_off"]
PurchaseState = Literal["open", "paid", "failed", "expired"]

MICRO_USD = Decimal("0.000001")


class TopOffUnderWay(StorageError):
    """The user has an open top-off: there is one at a time."""


class PurchaseChanged(StorageError):
    """Somebody has booked for the purchase since it was read: what Stripe said then may be out of date. Ask again."""


class PaymentUsedTwice(StorageError):
    """The payment, or its charge, was booked for another purchase."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """Cents of `currency`. `total_cents` is what was paid, tax included; None before. `bookings` grows by one with
    everything that is booked.
    """

    id: UUID
    user_id: UUID
    kind: PurchaseKind
    state: PurchaseState
    currency: str
    gross_cents: int
    fee_cents: int
    net_cents: int
    total_cents: int | None
    stripe_customer_id: str | None
    stripe_session_id: str | None
    stripe_invoice_id: str | None
    stripe_payment_intent_id: str | None
    stripe_charge_id: str | None
    refunded_cents: int
    disputed_cents: int
    taken_back_usd: Decimal
    failure: str | None
    created_at: datetime
    paid_at: datetime | None
    bookings: int = 0


@dataclass(frozen=True, slots=True)
class Paid:
    """What Stripe says that came in."""

    total_cents: int
    payment_intent_id: str | None
    charge_id: str | None


@dataclass(frozen=True, slots=True)
class SetupSession:
    """Where a user leaves a card. `has_ended`: the card is in use since, or was refused."""

    user_id: UUID
    has_ended: bool


def compute_taken_back_usd(net_cents: int, total_cents: int, returned_cents: int) -> Decimal:
    """Of the credits of a purchase, those that go when so much of what was paid has gone back: in proportion, half-even
    to six places, never more than all.
    """
    share = Decimal(net_cents * min(total_cents, returned_cents)) / Decimal(total_cents * 100)
    return share.quantize(MICRO_USD, ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Purchases:
    """Every method may be repeated."""

    database: Database
    audit: AuditLog

    async def open(self, purchase_id: UUID, user_id: UUID, kind: PurchaseKind, cents: tuple[int, int, int]) -> Purchase:
        """A new order; `cents` are gross, fee and net. One that is there already is returned as it is. Raises
        TopOffUnderWay and UserUnknown.
        """
        gross_cents, fee_cents, net_cents = cents
        parameters = {
            "id": purchase_id,
            "user_id": user_id,
            "kind": kind,
            "gross": gross_cents,
            "fee": fee_cents,
            "net": net_cents,
        }
        rights = self.database.as_operator("open an order")
        try:
            rows = await rights.fetch(_OPEN + _FIND_OWN, parameters)
        except errors.UniqueViolation as error:
            raise TopOffUnderWay("an automatic top-off of this account is under way") from error
        except errors.ForeignKeyViolation as error:
            raise UserUnknown(f"there is no user {user_id}, or no more: nothing was ordered") from error
        return Purchase(*rows[0])

    async def note_session(self, purchase_id: UUID, session_id: str, customer_id: str) -> None:
        """Where it is paid, and by whom. The first one stays."""
        parameters = {"id": purchase_id, "session_id": session_id, "invoice_id": None, "customer_id": customer_id}
        await self.database.as_operator("note a checkout session").fetch(_NOTE, parameters)

    async def note_invoice(self, purchase_id: UUID, invoice_id: str, customer_id: str) -> None:
        """What asks for the money, and of whom. The first one stays."""
        parameters = {"id": purchase_id, "session_id": None, "invoice_id": invoice_id, "customer_id": customer_id}
        await self.database.as_operator("note an invoice").fetch(_NOTE, parameters)

    async def find(self, purchase_id: UUID) -> Purchase | None:
        return _read(await self.database.as_operator("find an order").fetch(_FIND, {"id": purchase_id}))

    async def find_of_user(self, user_id: UUID, session_id: str) -> Purchase | None:
        """With the user's own rights: None for somebody else's session."""
        return _read(await self.database.as_user(user_id).fetch(_FIND_BY_SESSION, {"session_id": session_id}))

    async def find_by_reference(self, reference: str) -> Purchase | None:
        """By the id of Stripe's session, invoice, payment intent or charge."""
        parameters = {"reference": reference}
        return _read(await self.database.as_operator("find an order").fetch(_FIND_BY_REFERENCE, parameters))

    async def find_open(self, kind: PurchaseKind, created_before: datetime, limit: int) -> list[Purchase]:
        """Orders that came to nothing yet, the oldest first."""
        parameters = {"kind": kind, "before": created_before, "limit": limit}
        rows = await self.database.as_operator("find open orders").fetch(_FIND_OPEN, parameters)
        return [Purchase(*row) for row in rows]

    async def find_open_sessions(self, user_id: UUID) -> list[str]:
        """Stripe's ids of the pages on which the user may still pay."""
        rows = await self.database.as_user(user_id).fetch(_FIND_OPEN_SESSIONS)
        return [session_id for (session_id,) in rows]

    async def book(self, purchase_id: UUID, paid: Paid, build_entry: Callable[[Purchase], AuditEntry]) -> bool:
        """Book the credits, once, whatever the order's state was, for the money is there; one transaction with the row
        in the audit log. False if they were booked before, or there is no such order. Raises PaymentUsedTwice.
        """
        parameters = {
            "id": purchase_id,
            "total": paid.total_cents,
            "payment": paid.payment_intent_id,
            "charge": paid.charge_id,
        }
        try:
            async with self.database.as_operator("book a purchase").transaction() as connection:
                purchase = await _lock(connection, purchase_id)
                if purchase is None or purchase.state == "paid":
                    return False
                await self.audit.append(connection, build_entry(await _change(connection, _BOOK, parameters)))
        except errors.UniqueViolation as error:
            raise PaymentUsedTwice("a payment was to be booked for two purchases: nothing was booked") from error
        return True

    async def set_returned(
        self,
        purchase_id: UUID,
        refunded_cents: int,
        disputed_cents: int,
        build_entry: Callable[[Purchase], AuditEntry],
        *,
        seen_bookings: int | None = None,
    ) -> Decimal:
        """What of the payment has gone back by now, as Stripe says: credits follow in proportion (net by total), both
        ways, and a balance may become a debt. Returns the difference that was booked, negative if credits were taken.
        Nothing happens to an order that was not paid.

        Raises PurchaseChanged if the purchase's `bookings` are not those that were seen before Stripe was asked, and
        there is something to change: an older word must not undo a newer one.
        """
        async with self.database.as_operator("take back a purchase").transaction() as connection:
            purchase = await _lock(connection, purchase_id)
            if purchase is None or purchase.total_cents is None:
                return Decimal(0)
            if (purchase.refunded_cents, purchase.disputed_cents) == (refunded_cents, disputed_cents):
                return Decimal(0)
            if seen_bookings not in {None, purchase.bookings}:
                raise PurchaseChanged("a purchase was booked for by somebody else meanwhile: it has to be read again")
            changed = await _return(connection, purchase, refunded_cents, disputed_cents)
            await self.audit.append(connection, build_entry(changed))
        return purchase.taken_back_usd - changed.taken_back_usd

    async def end(self, purchase_id: UUID, state: Literal["failed", "expired"], failure: str) -> bool:
        """An open order that comes to nothing; what failed before stays its reason. False if it was open no more."""
        parameters = {"id": purchase_id, "state": state, "failure": failure}
        return bool(await self.database.as_operator("end an order").fetch(_END, parameters))

    async def refuse(self, purchase_id: UUID, refusal: str, entry: AuditEntry) -> bool:
        """Something of Stripe's contradicts the order: noted once for each `refusal`, in one transaction with its row
        in the audit log. False if it was noted before, or there is no such order.
        """
        parameters = {"id": purchase_id, "refusal": refusal}
        async with self.database.as_operator("refuse a payment").transaction() as connection:
            if not await connection.send(connection.bind(_REFUSE, parameters)):
                return False
            await self.audit.append(connection, entry)
        return True

    async def note_setup_session(self, user_id: UUID, session_id: str) -> None:
        """Where the user leaves a card. Raises UserUnknown."""
        parameters = {"user_id": user_id, "session_id": session_id}
        try:
            await self.database.as_operator("note a setup session").fetch(_NOTE_SETUP, parameters)
        except errors.ForeignKeyViolation as error:
            raise UserUnknown(f"there is no user {user_id}, or no more: no session was noted") from error

    async def owns_setup_session(self, user_id: UUID, session_id: str) -> bool:
        """With the user's own rights."""
        return bool(await self.database.as_user(user_id).fetch(_OWNS_SETUP, {"session_id": session_id}))

    async def find_setup_session(self, session_id: str) -> SetupSession | None:
        row = await self.database.as_operator("find a setup session").fetch_one(_FIND_SETUP, {"session_id": session_id})
        return SetupSession(*row) if row else None

    async def end_setup_session(self, user_id: UUID, session_id: str, entry: AuditEntry) -> bool:
        """The card that was left there is in use, or never will be; told in the audit log once. False if that was done
        before, or it is no session of this user.
        """
        parameters = {"user_id": user_id, "session_id": session_id}
        async with self.database.as_operator("end a setup session").transaction() as connection:
            if not await connection.send(connection.bind(_END_SETUP, parameters)):
                return False
            await self.audit.append(connection, entry)
        return True


async def _lock(connection: TrioConnection, purchase_id: UUID) -> Purchase | None:
    """As it is now. The balance first, then the user, as whoever deletes an account does it: its rows go after them."""
    bind, purchase = connection.bind, {"id": purchase_id}
    message = bind(_LOCK_BALANCE, purchase) + bind(_LOCK_USER, purchase) + bind(_LOCK, purchase)
    return _read(await connection.send(message))


async def _return(
    connection: TrioConnection, purchase: Purchase, refunded_cents: int, disputed_cents: int
) -> Purchase:
    assert purchase.total_cents is not None  # noqa: S101 - narrows the type; the caller has looked
    returned_cents = refunded_cents + disputed_cents
    taken_back_usd = compute_taken_back_usd(purchase.net_cents, purchase.total_cents, returned_cents)
    parameters = {
        "id": purchase.id,
        "refunded": refunded_cents,
        "disputed": disputed_cents,
        "taken_back": taken_back_usd,
        "amount": purchase.taken_back_usd - taken_back_usd,
        "kind": "dispute" if refunded_cents == purchase.refunded_cents else "purchase_refund",
    }
    return await _change(connection, _RETURN, parameters)


async def _change(connection: TrioConnection, statement: LiteralString, parameters: dict[str, object]) -> Purchase:
    """The purchase as it is afterwards."""
    bind = connection.bind
    (row,) = await connection.send(bind(statement, parameters) + bind(_FIND, parameters))
    return Purchase(*row)


def _read(rows: Sequence[tuple[Any, ...]]) -> Purchase | None:
    return Purchase(*rows[0]) if rows else None


_SELECT: LiteralString = """
    SELECT id, user_id, kind, state, currency, gross_cents, fee_cents, net_cents, total_cents, stripe_customer_id,
           stripe_session_id, stripe_invoice_id, stripe_payment_intent_id, stripe_charge_id, refunded_cents,
           disputed_cents, taken_back_usd, failure, created_at, paid_at, bookings
    FROM purchases
"""
_FIND: LiteralString = _SELECT + "WHERE id = %(id)s"
_FIND_BY_SESSION: LiteralString = _SELECT + "WHERE stripe_session_id = %(session_id)s"
_FIND_BY_REFERENCE: LiteralString = _SELECT + """
    WHERE stripe_payment_intent_id = %(reference)s OR stripe_charge_id = %(reference)s
       OR stripe_session_id = %(reference)s OR stripe_invoice_id = %(reference)s
"""
_FIND_OPEN: LiteralString = _SELECT + """
    WHERE state = 'open' AND kind = %(kind)s AND created_at < %(before)s ORDER BY created_at, id LIMIT %(limit)s
"""

_FIND_OPEN_SESSIONS: LiteralString = """
    SELECT stripe_session_id FROM purchases
    WHERE kind = 'checkout' AND state = 'open' AND stripe_session_id IS NOT NULL ORDER BY created_at, id
"""

_OPEN: LiteralString = """
    INSERT INTO purchases (id, user_id, kind, gross_cents, fee_cents, net_cents)
    VALUES (%(id)s, %(user_id)s, %(kind)s, %(gross)s, %(fee)s, %(net)s)
    ON CONFLICT (id) DO NOTHING;
"""
_FIND_OWN: LiteralString = _FIND + " AND user_id = %(user_id)s"

_NOTE: LiteralString = """
    UPDATE purchases SET
        stripe_session_id = coalesce(stripe_session_id, %(session_id)s),
        stripe_invoice_id = coalesce(stripe_invoice_id, %(invoice_id)s),
        stripe_customer_id = coalesce(stripe_customer_id, %(customer_id)s)
    WHERE id = %(id)s
"""

_LOCK_BALANCE: LiteralString = """
    SELECT FROM credit_balances WHERE user_id = (SELECT user_id FROM purchases WHERE id = %(id)s) FOR NO KEY UPDATE;
"""
_LOCK_USER: LiteralString = """
    SELECT FROM users WHERE id = (SELECT user_id FROM purchases WHERE id = %(id)s) FOR KEY SHARE;
"""
_LOCK: LiteralString = _FIND + " FOR NO KEY UPDATE"

_BOOK: LiteralString = """
    WITH booked AS (
        INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key, purchase_id, description)
        SELECT user_id, 'purchase', net_cents / 100.0, 'purchase:' || id, id, 'credit purchase'
        FROM purchases WHERE id = %(id)s
    )
    UPDATE purchases SET
        state = 'paid', total_cents = %(total)s, paid_at = now(), ended_at = now(), failure = NULL,
        stripe_payment_intent_id = %(payment)s, stripe_charge_id = %(charge)s, bookings = bookings + 1
    WHERE id = %(id)s;
"""

_RETURN: LiteralString = """
    WITH booked AS (
        INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key, purchase_id, description)
        SELECT user_id, %(kind)s, %(amount)s, 'purchase:' || id || ':' || bookings, id,
               CASE %(kind)s WHEN 'dispute' THEN 'disputed payment' ELSE 'refunded payment' END
        FROM purchases WHERE id = %(id)s AND %(amount)s <> 0
    )
    UPDATE purchases SET
        refunded_cents = %(refunded)s, disputed_cents = %(disputed)s, taken_back_usd = %(taken_back)s,
        bookings = bookings + 1
    WHERE id = %(id)s;
"""

_END: LiteralString = """
    UPDATE purchases SET state = %(state)s, failure = coalesce(failure, %(failure)s), ended_at = now()
    WHERE id = %(id)s AND state = 'open'
    RETURNING id
"""

_REFUSE: LiteralString = """
    UPDATE purchases SET refusals = refusals || %(refusal)s::text
    WHERE id = %(id)s AND %(refusal)s <> ALL (refusals)
    RETURNING id
"""

_NOTE_SETUP: LiteralString = """
    INSERT INTO setup_sessions (stripe_session_id, user_id) VALUES (%(session_id)s, %(user_id)s)
    ON CONFLICT (stripe_session_id) DO NOTHING
"""
_OWNS_SETUP: LiteralString = "SELECT 1 FROM setup_sessions WHERE stripe_session_id = %(session_id)s"
_FIND_SETUP: LiteralString = """
    SELECT user_id, ended_at IS NOT NULL FROM setup_sessions WHERE stripe_session_id = %(session_id)s
"""
_END_SETUP: LiteralString = """
    UPDATE setup_sessions SET ended_at = now()
    WHERE stripe_session_id = %(session_id)s AND user_id = %(user_id)s AND ended_at IS NULL
    RETURNING 1
"""
