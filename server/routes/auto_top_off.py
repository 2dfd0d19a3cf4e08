"""Auto top-off as its user sets it: below which threshold of paid credits how much is bought."""

import re
from decimal import ROUND_HALF_EVEN, Decimal

import msgspec
from quart import Blueprint

from server.auth.callers import Caller
from server.billing.terms import Terms
from server.errors import ArgumentInvalid, StripeNotConfigured
from server.guard import access, caller
from server.operations import operation
from server.services import services
from storage.billing_customers import TopOffSettings, write_top_off

MAX_USD = Decimal(1000)
PLACES = Decimal("0.0001")
"""As amounts are shown to clients."""
NUMBER = re.compile(r"\d{1,9}(\.\d{1,12})?", re.ASCII)

blueprint = Blueprint("auto_top_off", __name__, url_prefix="/api/billing/auto-top-off-settings")


class TopOffWish(msgspec.Struct):
    """US dollars, as numbers or in strings. Other members are passed over."""

    enabled: bool
    threshold: str | int | float | None = None
    amount: str | int | float | None = None


class TopOffAnswer(msgspec.Struct):
    """US dollars in strings, with four places."""

    enabled: bool
    threshold: str | None
    amount: str | None


@blueprint.get("")
@operation("Show your auto top-off")
async def show() -> TopOffAnswer:
    settings = await services().billing.billing_customers.read_top_off(caller().user_id)
    return _describe(settings or TopOffSettings(False, None, None))


@blueprint.post("")
@access(is_for_people=True)
@operation("Set your auto top-off")
async def save(body: TopOffWish) -> TopOffAnswer:
    """Turning it on needs a card and a billing address, a threshold, and an amount that is sold. Credits that are low
    are then topped off at once, and what failed before is forgotten. Safe to repeat.
    """
    who, billing = caller(), services().billing
    settings = read_settings(body, await billing.terms.read())
    if settings.enabled:
        if not billing.stripe.settings.sells:
            raise StripeNotConfigured("this server sells no credits")
        await billing.customers.require_ready(who.user_id)
    await _save(who, settings)
    billing.top_offs.wake()
    return _describe(settings)


def read_settings(wish: TopOffWish, terms: Terms) -> TopOffSettings:
    """Raises ArgumentInvalid, for an amount that is not sold too. Of top-offs that are off, values that could not be
    are dropped: clients send what stands in their fields.
    """
    threshold, amount = _read_usd(wish.threshold), _read_usd(wish.amount)
    if not wish.enabled:
        return TopOffSettings(False, threshold, amount)
    if threshold is None or not 0 < threshold <= MAX_USD:
        raise ArgumentInvalid(f"threshold: more than 0 and at most {MAX_USD} US dollars")
    if amount is None or not 0 < amount <= MAX_USD:
        raise ArgumentInvalid(f"amount: more than 0 and at most {MAX_USD} US dollars")
    terms.quote(amount)
    return TopOffSettings(True, threshold, amount)


def _read_usd(value: str | int | float | None) -> Decimal | None:
    """Exact for what is shorter than a double. None for what is no number above zero."""
    text = str(value).strip()
    if NUMBER.fullmatch(text) is None:
        return None
    rounded = Decimal(text).quantize(PLACES, ROUND_HALF_EVEN)
    return rounded if rounded > 0 else None


async def _save(who: Caller, settings: TopOffSettings) -> None:
    auditor = services().auditor
    shown = _describe(settings)
    entry = auditor.build_entry(
        "auto_top_off_changed",
        "success",
        actor=who.actor,
        subject_id=who.user_id,
        entity=("user", str(who.user_id)),
        enabled=shown.enabled,
        threshold=shown.threshold,
        amount=shown.amount,
    )
    async with services().database.as_operator("change auto top-off").transaction() as connection:
        await write_top_off(connection, who.user_id, settings)
        await auditor.log.append(connection, entry)


def _describe(settings: TopOffSettings) -> TopOffAnswer:
    amounts = (settings.threshold_usd, settings.amount_usd)
    threshold, amount = (None if usd is None else f"{usd:.4f}" for usd in amounts)
    return TopOffAnswer(settings.enabled, threshold, amount)
