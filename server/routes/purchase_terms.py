"""What credits cost, and what is given to who signs up: shown to everybody who is signed in, set by administrators."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec
from quart import Blueprint

from server.auth.callers import Caller
from server.billing.terms import FREE_AMOUNT, FREE_DAYS, FeeTier, Terms, read_free_amount, read_free_days
from server.errors import ArgumentInvalid, RequestInvalid
from server.guard import access, caller
from server.live_configuration import CONFIGURATION
from server.operations import operation
from server.services import services
from storage.configuration import write_configuration

CENT = Decimal("0.01")

blueprint = Blueprint("purchase_terms", __name__)


class FeeTierAnswer(msgspec.Struct, rename="camel"):
    """For amounts from `min` up to, but not including, `max`; null: without an end. Decimals in strings."""

    min: str
    max: str | None
    fee_rate: str
    label: str


class FeeTiersAnswer(msgspec.Struct):
    tiers: Sequence[FeeTierAnswer]


class FreeCreditsAnswer(msgspec.Struct, rename="camel"):
    """The amount is in US dollars."""

    free_credits_amount: str
    free_credits_expiry_days: int


class FreeCreditsWish(msgspec.Struct, rename="camel"):
    """What is to change. Null counts as absent; the amount is a number, or one in a string."""

    free_credits_amount: Decimal | None = None
    free_credits_expiry_days: int | None = None


@blueprint.get("/api/billing/credits/purchase-fee-tiers")
@operation("Show the fees of a purchase")
async def show_tiers() -> FeeTiersAnswer:
    terms = await services().billing.terms.read()
    return FeeTiersAnswer([_describe_tier(tier) for tier in terms.tiers])


@blueprint.get("/api/config/billing")
@operation("Show the free credits of a new account")
async def show_free_credits() -> FreeCreditsAnswer:
    return _describe_free_credits(await services().billing.terms.read())


@blueprint.put("/api/config/billing")
@access(is_admin=True)
@operation("Change the free credits of new accounts")
async def change_free_credits(body: FreeCreditsWish) -> FreeCreditsAnswer:
    """For sign-ups from now on. Safe to repeat; each change is recorded in the audit log."""
    changes = read_changes(body)
    if changes:
        await _write(caller(), changes)
        await services().live.follow({CONFIGURATION})
    return _describe_free_credits(await services().billing.terms.read())


def read_changes(wish: FreeCreditsWish) -> dict[str, str]:
    """Rows of the configuration, all checked before any is written. Raises RequestInvalid or ArgumentInvalid."""
    changes = {}
    if wish.free_credits_amount is not None:
        changes[FREE_AMOUNT] = _show_usd(_check_amount(wish.free_credits_amount))
    if wish.free_credits_expiry_days is not None:
        changes[FREE_DAYS] = str(_check_days(wish.free_credits_expiry_days))
    return changes


def _check_amount(amount: Decimal) -> Decimal:
    try:
        return read_free_amount(amount)
    except ValueError as error:
        raise RequestInvalid(f"freeCreditsAmount: {error}") from error


def _check_days(days: int) -> int:
    try:
        return read_free_days(days)
    except ValueError as error:
        raise ArgumentInvalid(f"freeCreditsExpiryDays: {error}") from error


async def _write(who: Caller, changes: Mapping[str, str]) -> None:
    auditor = services().auditor
    async with services().database.as_operator("change the configuration").transaction() as connection:
        if not await write_configuration(connection, changes, who.actor):
            return
        entity = ("configuration", "billing")
        entry = auditor.build_entry(
            "billing_configuration_changed", "success", actor=who.actor, entity=entity, values=changes
        )
        await auditor.log.append(connection, entry)


def _describe_tier(tier: FeeTier) -> FeeTierAnswer:
    end = None if tier.max_usd is None else f"{tier.max_usd:f}"
    return FeeTierAnswer(f"{tier.min_usd:f}", end, f"{tier.fee_rate:f}", tier.label)


def _describe_free_credits(terms: Terms) -> FreeCreditsAnswer:
    return FreeCreditsAnswer(_show_usd(terms.free_credits_usd), terms.free_credits_days)


def _show_usd(amount: Decimal) -> str:
    """With cents, and with more places only where it has them."""
    return f"{amount:.2f}" if amount == amount.quantize(CENT) else f"{amount.normalize():f}"
