"""Credits: the balance, where it came from, and what administrators change."""

import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID, uuid4

import msgspec
from quart import Blueprint, request

from server.billing.statements import (
    CURRENCY,
    CreditDetails,
    CreditStats,
    PlainTransactions,
    UnifiedHistory,
    describe_details,
    describe_history,
    describe_stats,
    describe_transactions,
)
from server.billing.wire import PageQuery, PageWish, read_page, read_usd, show_usd
from server.errors import NotFound, RequestInvalid
from server.guard import access, caller
from server.operations import IDEMPOTENCY, operation
from server.services import services
from server.times import show_time, show_time_if_any
from storage.audit import AuditEntry
from storage.bookings import Refunded, adjust, refund_call
from storage.credits import RequestRepeated
from storage.history import Booked, find_booked

MAX_ADJUSTMENT_USD = Decimal(1_000_000)
MAX_DESCRIPTION = 500
MAX_KEY = 200

TransactionType = Literal[
    "adjustment",
    "purchase",
    "consumption",
    "refund",
    "expiry",
    "consumption_adjustment",
    "refund_adjustment",
    "signup_bonus",
]
"""As clients know them."""

blueprint = Blueprint("credits", __name__, url_prefix="/api/billing/credits")


class CreditBalance(msgspec.Struct, rename="camel"):
    """Paid credits as a number, negative if they are a debt; in strings with all six places."""

    user_id: UUID
    balance: Decimal
    balance_decimal: str
    currency: str
    free_credit_balance: str
    free_credits_granted_at: str | None
    free_credits_expires_at: str | None
    free_credits_expired: bool
    created_at: str
    updated_at: str
    last_updated: str


class AdjustmentWish(msgspec.Struct):
    """What an administrator asks for; a negative amount takes. It is booked as an adjustment, whatever it is called."""

    user_id: UUID
    amount: Decimal
    description: str
    transaction_type: TransactionType = "adjustment"
    idempotency_key: str | None = None


class RefundWish(msgspec.Struct):
    """`request_id` is ours: the one that the history tells as `relatedApiUsageId`."""

    request_id: UUID
    description: str


class BookedAdjustment(msgspec.Struct, rename="camel"):
    """The amount in a string, with six places."""

    user_id: UUID
    amount: str
    transaction_type: Literal["adjustment"]
    description: str
    adjusted_at: str


class AdjustmentAnswer(msgspec.Struct, rename="camel"):
    success: bool
    adjustment: BookedAdjustment
    new_balance: str
    currency: str


class RefundedCall(msgspec.Struct, rename="camel"):
    """Amounts in strings, with six places; `free_amount` is how much of it went back to free credits."""

    request_id: UUID
    user_id: UUID
    amount: str
    free_amount: str
    description: str


class RefundAnswer(msgspec.Struct, rename="camel"):
    success: bool
    refund: RefundedCall
    currency: str


@blueprint.get("/balance")
@operation("Show your credits")
async def show_balance() -> CreditBalance:
    user_id = caller().user_id
    balance = await services().billing.credits.balance(user_id)
    dates = await services().billing.history.find_dates(user_id)
    if dates is None:
        raise NotFound("this account is no more")
    expires_at = balance.free_expires_at
    return CreditBalance(
        user_id=user_id,
        balance=balance.paid_usd,
        balance_decimal=show_usd(balance.paid_usd),
        currency=CURRENCY,
        free_credit_balance=show_usd(balance.free_usd - balance.expired_usd),
        free_credits_granted_at=show_time_if_any(dates.free_granted_at),
        free_credits_expires_at=show_time_if_any(expires_at),
        free_credits_expired=expires_at is not None and expires_at <= datetime.now(UTC),
        created_at=show_time(dates.created_at),
        updated_at=show_time(dates.updated_at),
        last_updated=show_time(dates.updated_at),
    )


@blueprint.get("/details")
@operation("Show your credits in sum, and one by one", query=PageQuery)
async def show_details() -> CreditDetails:
    """The newest transactions come first."""
    user_id, wish, history = caller().user_id, read_page(request.args), services().billing.history
    page = await history.list(user_id, limit=wish.limit, offset=wish.offset)
    return describe_details(user_id, await history.sum_up(user_id), page, wish.offset)


@blueprint.get("/stats")
@operation("Sum up your credits")
async def show_stats() -> CreditStats:
    user_id = caller().user_id
    return describe_stats(user_id, await services().billing.history.sum_up(user_id))


@blueprint.get("/unified-history")
@operation("List the history of your credits", query=PageWish)
async def show_history() -> UnifiedHistory:
    """The newest entries come first."""
    wish = read_page(request.args)
    page = await services().billing.history.list(
        caller().user_id, limit=wish.limit, offset=wish.offset, search=wish.search
    )
    return describe_history(page, wish.offset)


@blueprint.get("/transaction-history")
@operation("List your transactions", query=PageWish)
async def show_transactions() -> PlainTransactions:
    """The newest come first."""
    wish = read_page(request.args)
    page = await services().billing.history.list(
        caller().user_id, limit=wish.limit, offset=wish.offset, search=wish.search
    )
    return describe_transactions(page, wish.offset)


@blueprint.post("/admin/adjust")
@access(is_admin=True)
@operation("Give or take paid credits", headers=IDEMPOTENCY)
async def adjust_credits(body: AdjustmentWish) -> AdjustmentAnswer:
    """For administrators. Safe to repeat with an idempotency key, in the body or its header. More than is there is not
    taken (402), and a key that another amount was booked with is refused (409).
    """
    wish = check_adjustment(body, request.headers.get("Idempotency-Key"))
    booked, balance = await _adjust(wish)
    amount, adjusted_at = show_usd(wish.amount), show_time(booked.created_at)
    shown = BookedAdjustment(wish.user_id, amount, "adjustment", wish.description, adjusted_at)
    return AdjustmentAnswer(True, shown, show_usd(balance), CURRENCY)


@blueprint.post("/admin/refund")
@access(is_admin=True)
@operation("Give back what a call cost")
async def refund(body: RefundWish) -> RefundAnswer:
    """For administrators. Gives back all that a call was charged, once: a repetition finds nothing (404)."""
    wish = check_refund(body)
    refunded = await _refund(wish)
    amount, free_amount = show_usd(refunded.amount_usd), show_usd(refunded.free_usd)
    shown = RefundedCall(wish.request_id, refunded.user_id, amount, free_amount, wish.description)
    return RefundAnswer(True, shown, CURRENCY)


def check_adjustment(wish: AdjustmentWish, header_key: str | None) -> AdjustmentWish:
    """With a key, a new one where none is given. Raises RequestInvalid and ArgumentInvalid."""
    amount = read_usd("amount", wish.amount, -MAX_ADJUSTMENT_USD, MAX_ADJUSTMENT_USD)
    if not amount:
        raise RequestInvalid("amount: not 0")
    if wish.idempotency_key and header_key and wish.idempotency_key != header_key:
        raise RequestInvalid("idempotency_key: another one than in the header Idempotency-Key")
    key = wish.idempotency_key or header_key or str(uuid4())
    if len(key) > MAX_KEY or not (key.isascii() and key.isprintable()):
        raise RequestInvalid(f"idempotency_key: at most {MAX_KEY} printable characters of ASCII")
    description = _check_description(wish.description)
    return AdjustmentWish(wish.user_id, amount, description, wish.transaction_type, key)


def check_refund(wish: RefundWish) -> RefundWish:
    """Raises RequestInvalid."""
    return RefundWish(wish.request_id, _check_description(wish.description))


def _check_description(text: str) -> str:
    """The user reads it in its history."""
    stripped = text.strip()
    if not 0 < len(stripped) <= MAX_DESCRIPTION or any(unicodedata.category(each) == "Cc" for each in stripped):
        raise RequestInvalid(f"description: 1 to {MAX_DESCRIPTION} characters, and no control characters")
    return stripped


async def _adjust(wish: AdjustmentWish) -> tuple[Booked, Decimal]:
    """What was booked, now or before, and the balance."""
    key = f"adjustment:{wish.user_id}:{wish.idempotency_key}"
    async with services().database.as_operator("adjust credits").transaction() as connection:
        balance = await adjust(
            connection,
            wish.user_id,
            wish.amount,
            actor=caller().actor,
            reason=wish.description,
            idempotency_key=key,
        )
        booked = await find_booked(connection, key)
        if booked is None or booked.amount_usd != wish.amount:
            raise RequestRepeated("another amount was booked with this idempotency key: nothing was booked now")
        if booked.is_new:
            entity, amount = ("user", str(wish.user_id)), show_usd(wish.amount)
            await services().auditor.log.append(
                connection, _build_entry("credits_adjusted", wish.user_id, entity, amountUsd=amount)
            )
    return booked, balance


async def _refund(wish: RefundWish) -> Refunded:
    async with services().database.as_operator("refund a call").transaction() as connection:
        refunded = await refund_call(connection, wish.request_id, actor=caller().actor, reason=wish.description)
        if refunded is None:
            raise NotFound("no such call that was charged and has ended; or it was given back before")
        entity, amount = ("request", str(wish.request_id)), show_usd(refunded.amount_usd)
        entry = _build_entry("call_refunded", refunded.user_id, entity, amountUsd=amount)
        await services().auditor.log.append(connection, entry)
    return refunded


def _build_entry(action: str, user_id: UUID, entity: tuple[str, str], **details: object) -> AuditEntry:
    """The reason stands in the ledger; it may name people."""
    return services().auditor.build_entry(
        action, "success", actor=caller().actor, subject_id=user_id, entity=entity, **details
    )
