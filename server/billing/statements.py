"""The ledger in the words of clients: the history that they show, transactions, sums. Pure."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from uuid import UUID, uuid5

import msgspec

from server.billing.wire import show_usd
from server.times import show_time
from storage.history import Entry, Page, Totals

CURRENCY = "USD"
ENTRY_IDS = UUID("9a2f7d0e-6c1b-5b0e-8f43-2d1c7e5a9b64")
"""Clients want UUIDs, where the ledger counts: each follows from the row's number."""


class HistoryEntry(msgspec.Struct, rename="camel"):
    """A line of the history that people look at. Money is a number, `price` what the balance has changed by."""

    id: UUID
    price: Decimal
    date: str
    model: str
    input_tokens: int | None
    output_tokens: int | None
    cache_write_tokens: int | None
    cache_read_tokens: int | None
    balance_after: Decimal
    description: str
    transaction_type: str


class UnifiedHistory(msgspec.Struct, rename="camel"):
    entries: Sequence[HistoryEntry]
    total_count: int
    has_more: bool


class CreditTransaction(msgspec.Struct, rename="camel"):
    """`net_amount` and its parts are strings, `price` is the same as a number, which clients decode."""

    id: UUID
    user_id: UUID
    transaction_type: str
    net_amount: str
    gross_amount: str
    fee_amount: str
    price: Decimal
    currency: str
    description: str
    stripe_charge_id: str | None
    related_api_usage_id: UUID | None
    metadata: Mapping[str, str]
    created_at: str
    balance_after: Decimal
    model: str | None
    input_tokens: int | None
    output_tokens: int | None


class PlainTransaction(msgspec.Struct, rename="camel"):
    """With money in strings."""

    id: UUID
    amount: str
    currency: str
    transaction_type: str
    description: str
    created_at: str
    balance_after: str


class PlainTransactions(msgspec.Struct, rename="camel"):
    transactions: Sequence[PlainTransaction]
    total_count: int
    has_more: bool


class CreditStats(msgspec.Struct, rename="camel"):
    """Numbers. What was taken is negative; `net_balance` is the sum of the six totals, and of the whole ledger."""

    user_id: UUID
    current_balance: Decimal
    total_purchased: Decimal
    total_consumed: Decimal
    total_refunded: Decimal
    total_returned: Decimal
    total_given: Decimal
    total_expired: Decimal
    net_balance: Decimal
    transaction_count: int
    currency: str


class CreditDetails(msgspec.Struct, rename="camel"):
    stats: CreditStats
    transactions: Sequence[CreditTransaction]
    total_transaction_count: int
    has_more: bool


_TYPES: Mapping[str, str] = {
    "purchase": "purchase",
    "charge": "consumption",
    "correction": "consumption_adjustment",
    "refund": "refund",
    "purchase_refund": "refund_adjustment",
    "dispute": "refund_adjustment",
    "grant": "adjustment",
    "adjustment": "adjustment",
    "expiry": "expiry",
    "signup_bonus": "signup_bonus",
}
"""The words that clients know for transactions."""

_UNIFIED_TYPES: Mapping[str, str] = {"charge": "usage", "grant": "adjustment"}
"""In the history a charge is usage; other kinds go by their own names."""

_MODELS: Mapping[str, str] = {
    "purchase": "Credit Purchase",
    "purchase_refund": "Refunded Payment",
    "dispute": "Disputed Payment",
    "signup_bonus": "Free Credits",
    "expiry": "Expired Credits",
}
"""What stands where a call has its model."""
_OTHER_MODEL = "Adjustment"


def describe_history(page: Page, offset: int) -> UnifiedHistory:
    return UnifiedHistory([_describe_entry(entry) for entry in page.entries], page.total, _has_more(page, offset))


def describe_transactions(page: Page, offset: int) -> PlainTransactions:
    shown = [
        PlainTransaction(
            id=build_entry_id(entry),
            amount=show_usd(entry.amount_usd),
            currency=CURRENCY,
            transaction_type=_TYPES[entry.kind],
            description=entry.description,
            created_at=show_time(entry.created_at),
            balance_after=show_usd(entry.balance_usd),
        )
        for entry in page.entries
    ]
    return PlainTransactions(shown, page.total, _has_more(page, offset))


def describe_details(user_id: UUID, totals: Totals, page: Page, offset: int) -> CreditDetails:
    shown = [_describe_transaction(user_id, entry) for entry in page.entries]
    return CreditDetails(describe_stats(user_id, totals), shown, page.total, _has_more(page, offset))


def describe_stats(user_id: UUID, totals: Totals) -> CreditStats:
    return CreditStats(
        user_id=user_id,
        current_balance=totals.balance_usd,
        total_purchased=totals.purchased_usd,
        total_consumed=totals.consumed_usd,
        total_refunded=totals.refunded_usd,
        total_returned=totals.returned_usd,
        total_given=totals.given_usd,
        total_expired=totals.expired_usd,
        net_balance=totals.balance_usd,
        transaction_count=totals.rows,
        currency=CURRENCY,
    )


def build_entry_id(entry: Entry) -> UUID:
    """Always the same for a row."""
    return uuid5(ENTRY_IDS, str(entry.id))


def _describe_entry(entry: Entry) -> HistoryEntry:
    return HistoryEntry(
        id=build_entry_id(entry),
        price=entry.amount_usd,
        date=show_time(entry.created_at),
        model=_find_model(entry) or _MODELS.get(entry.kind, _OTHER_MODEL),
        input_tokens=entry.input_tokens,
        output_tokens=entry.output_tokens,
        cache_write_tokens=entry.cache_write_tokens,
        cache_read_tokens=entry.cache_read_tokens,
        balance_after=entry.balance_usd,
        description=entry.description,
        transaction_type=_UNIFIED_TYPES.get(entry.kind, entry.kind),
    )


def _describe_transaction(user_id: UUID, entry: Entry) -> CreditTransaction:
    """Of a purchase the net amount is what was credited: gross and fee are those of its order."""
    is_purchase = entry.kind == "purchase" and entry.gross_usd is not None
    gross, fee = (entry.gross_usd, entry.fee_usd) if is_purchase else (entry.amount_usd, Decimal(0))
    return CreditTransaction(
        id=build_entry_id(entry),
        user_id=user_id,
        transaction_type=_TYPES[entry.kind],
        net_amount=show_usd(entry.amount_usd),
        gross_amount=show_usd(gross or Decimal(0)),
        fee_amount=show_usd(fee or Decimal(0)),
        price=entry.amount_usd,
        currency=CURRENCY,
        description=entry.description,
        stripe_charge_id=entry.stripe_charge_id,
        related_api_usage_id=entry.hold_id,
        metadata={"freeAmount": show_usd(entry.free_usd)},
        created_at=show_time(entry.created_at),
        balance_after=entry.balance_usd,
        model=_find_model(entry),
        input_tokens=entry.input_tokens,
        output_tokens=entry.output_tokens,
    )


def _find_model(entry: Entry) -> str | None:
    """Free credits that expired at the end of a call are no use of its model."""
    return None if entry.kind == "expiry" else entry.model_id


def _has_more(page: Page, offset: int) -> bool:
    return offset + len(page.entries) < page.total
