"""What credits cost, and what is given to who signs up: shown to everybody who is signed in, set by administrators."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
from quart import Blueprint, Response, request

from server.auth.callers import Caller
from server.billing.terms import FREE_AMOUNT, FREE_DAYS, FeeTier, Terms, read_free_amount, read_free_days
from server.errors import ArgumentInvalid, RequestInvalid
from server.guard import access, caller
from server.services import services
from storage.configuration import write_configuration

CENT = Decimal("0.01")

blueprint = Blueprint("purchase_terms", __name__)


class _Tier(msgspec.Struct, rename="camel"):
    """Decimals in strings; `max` null: without an end."""

    min: str
    max: str | None
    fee_rate: str
    label: str


class _FreeCredits(msgspec.Struct, rename="camel"):
    free_credits_amount: str
    free_credits_expiry_days: int


class _Wish(msgspec.Struct, rename="camel"):
    """What is to change. Null counts as absent; the amount is a number, or one in a string."""

    free_credits_amount: Decimal | None = None
    free_credits_expiry_days: int | None = None


@blueprint.get("/api/billing/credits/purchase-fee-tiers")
async def show_tiers() -> Response:
    terms = await services().billing.terms.read()
    return _as_json({"tiers": [_describe_tier(tier) for tier in terms.tiers]})


@blueprint.get("/api/config/billing")
async def show_free_credits() -> Response:
    return _as_json(_describe_free_credits(await services().billing.terms.read()))


@blueprint.put("/api/config/billing")
@access(is_admin=True)
async def change_free_credits() -> Response:
    """For sign-ups from now on. Safe to repeat; each change is a row in the audit log."""
    changes = read_changes(await request.get_data(cache=False, as_text=False, parse_form_data=False))
    if changes:
        await _write(caller(), changes)
    return _as_json(_describe_free_credits(await services().billing.terms.read()))


def read_changes(body: bytes) -> dict[str, str]:
    """Rows of the configuration, all checked before any is written. Raises RequestInvalid or ArgumentInvalid."""
    try:
        wish = msgspec.json.decode(body, type=_Wish)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid(f"the body: {error}") from error
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
        await write_configuration(connection, changes)
        entity = ("configuration", "billing")
        entry = auditor.build_entry(
            "billing_configuration_changed", "success", actor=who.actor, entity=entity, values=changes
        )
        await auditor.log.append(connection, entry)


def _describe_tier(tier: FeeTier) -> _Tier:
    end = None if tier.max_usd is None else f"{tier.max_usd:f}"
    return _Tier(f"{tier.min_usd:f}", end, f"{tier.fee_rate:f}", tier.label)


def _describe_free_credits(terms: Terms) -> _FreeCredits:
    return _FreeCredits(_show_usd(terms.free_credits_usd), terms.free_credits_days)


def _show_usd(amount: Decimal) -> str:
    """With cents, and with more places only where it has them."""
    return f"{amount:.2f}" if amount == amount.quantize(CENT) else f"{amount.normalize():f}"


def _as_json(body: Any) -> Response:
    return Response(msgspec.json.encode(body), content_type="application/json")
