"""Limits of what the caller, or one of its API keys, may spend in a day or month. Set by people."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal
from uuid import UUID

import msgspec
from quart import Blueprint

from server.auth.callers import Caller
from server.billing.wire import read_usd, show_usd
from server.errors import ArgumentInvalid, NotFound
from server.guard import access, caller
from server.operations import operation
from server.services import services
from server.times import show_time
from storage.audit import AuditEntry
from storage.spending_limits import NewLimit, SpendingLimit, remove_spending_limit, set_spending_limit

MAX_LIMIT_USD = Decimal(1_000_000)
MAX_ALERTS = 10
MAX_PERCENT = 100

blueprint = Blueprint("spending_limits", __name__, url_prefix="/api/billing/spending-limits")


class SpendingLimitWish(msgspec.Struct, rename="camel"):
    """Without a key, or with null, it is for all that the user spends. The limit is a number, or one in a string."""

    period: Literal["day", "month"]
    limit_usd: Decimal
    api_key_id: UUID | None = None
    alert_percents: list[int] | None = None


class SpendingLimitAnswer(msgspec.Struct, rename="camel"):
    """Numbers of US dollars. `percent` is how much of the limit was spent; times are UTC."""

    id: UUID
    api_key_id: UUID | None
    period: str
    limit_usd: Decimal
    spent_usd: Decimal
    held_usd: Decimal
    left_usd: Decimal
    percent: Decimal
    alert_percents: Sequence[int]
    period_start: str
    resets_at: str
    created_at: str
    updated_at: str


class SpendingLimitsAnswer(msgspec.Struct):
    limits: Sequence[SpendingLimitAnswer]


@blueprint.get("")
@operation("List your spending limits")
async def show() -> SpendingLimitsAnswer:
    limits = await services().billing.spending_limits.list(caller().user_id)
    return SpendingLimitsAnswer([_describe(limit) for limit in limits])


@blueprint.put("")
@access(is_for_people=True)
@operation("Limit your spending")
async def save(body: SpendingLimitWish) -> SpendingLimitAnswer:
    """Sets or replaces the limit of that key and period. It may be below what was spent: then nothing more is until
    the period ends. Safe to repeat.
    """
    who = caller()
    wish = check_wish(body)
    async with services().database.as_operator("set a spending limit").transaction() as connection:
        limit = await set_spending_limit(connection, who.user_id, wish)
        await services().auditor.log.append(connection, _build_entry(who, "spending_limit_updated", limit))
    return _describe(limit)


@blueprint.delete("/<uuid:limit_id>")
@access(is_for_people=True)
@operation("Remove a spending limit")
async def remove(limit_id: UUID) -> None:
    who = caller()
    async with services().database.as_operator("remove a spending limit").transaction() as connection:
        limit = await remove_spending_limit(connection, who.user_id, limit_id)
        if limit is None:
            raise NotFound("you have no such spending limit; GET /api/billing/spending-limits lists yours")
        await services().auditor.log.append(connection, _build_entry(who, "spending_limit_removed", limit))


def check_wish(wish: SpendingLimitWish) -> NewLimit:
    """Raises ArgumentInvalid."""
    limit = read_usd("limitUsd", wish.limit_usd, Decimal(0), MAX_LIMIT_USD)
    percents = wish.alert_percents
    if percents is not None:
        percents = sorted(set(percents))
        if len(percents) > MAX_ALERTS or not all(1 <= percent <= MAX_PERCENT for percent in percents):
            raise ArgumentInvalid(f"alertPercents: at most {MAX_ALERTS} whole numbers from 1 to {MAX_PERCENT}")
    return NewLimit(wish.api_key_id, wish.period, limit, percents)


def _build_entry(who: Caller, action: str, limit: SpendingLimit) -> AuditEntry:
    return services().auditor.build_entry(
        action,
        "success",
        actor=who.actor,
        subject_id=who.user_id,
        entity=("spending_limit", str(limit.id)),
        apiKeyId=None if limit.api_key_id is None else str(limit.api_key_id),
        period=limit.period,
        limitUsd=show_usd(limit.limit_usd),
    )


def _describe(limit: SpendingLimit) -> SpendingLimitAnswer:
    return SpendingLimitAnswer(
        id=limit.id,
        api_key_id=limit.api_key_id,
        period=limit.period,
        limit_usd=limit.limit_usd,
        spent_usd=limit.spent_usd,
        held_usd=limit.held_usd,
        left_usd=limit.left_usd,
        percent=limit.percent,
        alert_percents=limit.alert_percents,
        period_start=show_time(limit.period_start),
        resets_at=show_time(limit.resets_at),
        created_at=show_time(limit.created_at),
        updated_at=show_time(limit.updated_at),
    )
