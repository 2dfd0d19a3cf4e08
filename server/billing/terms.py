"""What credits cost and what is given for nothing: fee tiers, bounds, the sign-up bonus. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import msgspec

from server.errors import ArgumentInvalid

FEE_TIERS = "credit_purchase_fee_tiers"
MAX_PURCHASE = "billing_max_credit_purchase"
FREE_AMOUNT = "billing_free_credits_amount"
FREE_DAYS = "billing_free_credits_expiry_days"
KEYS = (FEE_TIERS, MAX_PURCHASE, FREE_AMOUNT, FREE_DAYS)
"""Of the configuration."""

CENT = Decimal("0.01")
RATE_STEP = Decimal("0.000001")
LEAST_USD, MOST_USD = Decimal("0.50"), Decimal("999999.99")
"""What Stripe takes at once: https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts"""
MAX_FREE_USD = Decimal(1000)
"""Of one sign-up. More is a slip of somebody's finger."""
MAX_FREE_DAYS = 365

Value = TypeVar("Value")


class PurchaseRefused(ArgumentInvalid):
    """The amount is outside of what is sold. The message says the bounds."""


@dataclass(frozen=True, slots=True)
class FeeTier:
    """Of amounts `min_usd <= amount < max_usd`; None: without an end."""

    min_usd: Decimal
    max_usd: Decimal | None
    fee_rate: Decimal
    label: str


@dataclass(frozen=True, slots=True)
class Quote:
    """What is paid before tax, what of it is the fee, and the credits."""

    gross_cents: int
    fee_cents: int
    net_cents: int


DEFAULT_TIERS = (
    FeeTier(Decimal(3), Decimal(12), Decimal("0.20"), "STARTER"),
    FeeTier(Decimal(12), Decimal(99), Decimal("0.10"), "SAVER"),
    FeeTier(Decimal(99), None, Decimal("0.05"), "BULK"),
)


@dataclass(frozen=True, slots=True)
class Terms:
    """Amounts in US dollars. The tiers ascend, each from where the one before it ends."""

    tiers: Sequence[FeeTier] = DEFAULT_TIERS
    max_purchase_usd: Decimal = Decimal(1000)
    free_credits_usd: Decimal = Decimal(2)
    free_credits_days: int = 180

    @property
    def min_purchase_usd(self) -> Decimal:
        return self.tiers[0].min_usd

    def quote(self, amount_usd: Decimal) -> Quote:
        """Raises PurchaseRefused. Gross and fee are cut to whole cents, and the rest are credits."""
        tier = self._find_tier(amount_usd)
        if amount_usd != amount_usd.quantize(CENT):
            raise PurchaseRefused("amount: at most two decimal places")
        gross = int(amount_usd * 100)
        fee = int(gross * tier.fee_rate)
        return Quote(gross, fee, gross - fee)

    def _find_tier(self, amount_usd: Decimal) -> FeeTier:
        if amount_usd.is_finite() and amount_usd <= self.max_purchase_usd:
            for tier in self.tiers:
                if tier.min_usd <= amount_usd and (tier.max_usd is None or amount_usd < tier.max_usd):
                    return tier
        raise PurchaseRefused(f"amount: {self._tell_bounds()}")

    def _tell_bounds(self) -> str:
        end = self.tiers[-1].max_usd
        if end is not None and end <= self.max_purchase_usd:
            return f"credits are sold for {self.min_purchase_usd:.2f} to less than {end:.2f} US dollars"
        return f"credits are sold for {self.min_purchase_usd:.2f} to {self.max_purchase_usd:.2f} US dollars"


def read_terms(configuration: Mapping[str, Any], default: Terms, tell: Callable[[str, str], None]) -> Terms:
    """From the rows of the configuration; what is missing or cannot be is the default's. Of what cannot be, `tell` gets
    the key and the reason.
    """

    def pick(key: str, read: Callable[[Any], Value], otherwise: Value) -> Value:
        if key not in configuration:
            return otherwise
        try:
            return read(configuration[key])
        except ValueError as error:  # what msgspec raises is one, too
            tell(key, str(error))
            return otherwise

    return Terms(
        tiers=pick(FEE_TIERS, read_tiers, default.tiers),
        max_purchase_usd=pick(MAX_PURCHASE, read_max_purchase, default.max_purchase_usd),
        free_credits_usd=pick(FREE_AMOUNT, read_free_amount, default.free_credits_usd),
        free_credits_days=pick(FREE_DAYS, read_free_days, default.free_credits_days),
    )


def read_tiers(value: Any) -> tuple[FeeTier, ...]:
    """Raises ValueError. Whatever amount they fit, a cent of it at least are credits, for no rate reaches 1."""
    wire = msgspec.convert(value, _Tiers)
    tiers = tuple(FeeTier(tier.min, tier.max, tier.fee_rate, tier.label) for tier in wire.tiers)
    for tier, following in zip(tiers, [*tiers[1:], None], strict=True):
        _check_tier(tier)
        if following is not None and tier.max_usd != following.min_usd:
            raise ValueError("each tier must end where the next one begins, and only the last may have no end")
    return tiers


def read_max_purchase(value: Any) -> Decimal:
    """Raises ValueError."""
    return _check_amount(msgspec.convert(value, Decimal), LEAST_USD, MOST_USD, CENT)


def read_free_amount(value: Any) -> Decimal:
    """In US dollars, to six places, as the ledger counts. Raises ValueError."""
    return _check_amount(msgspec.convert(value, Decimal), Decimal(0), MAX_FREE_USD, RATE_STEP)


def read_free_days(value: Any) -> int:
    """A whole number, or one in a string. Raises ValueError."""
    days = msgspec.convert(value, int, strict=not isinstance(value, str))
    if not 1 <= days <= MAX_FREE_DAYS:
        raise ValueError(f"it must be a whole number from 1 to {MAX_FREE_DAYS}")
    return days


class _Tier(msgspec.Struct):
    min: Decimal
    max: Decimal | None
    fee_rate: Decimal
    label: str = ""


class _Tiers(msgspec.Struct):
    tiers: Annotated[list[_Tier], msgspec.Meta(min_length=1, max_length=100)]


def _check_tier(tier: FeeTier) -> None:
    _check_amount(tier.min_usd, LEAST_USD, MOST_USD, CENT)
    if tier.max_usd is not None:
        _check_amount(tier.max_usd, tier.min_usd + CENT, MOST_USD, CENT)
    _check_amount(tier.fee_rate, Decimal(0), 1 - RATE_STEP, RATE_STEP)


def _check_amount(amount: Decimal, least: Decimal, most: Decimal, step: Decimal) -> Decimal:
    """A multiple of `step` within the bounds, without a sign of its own if it is zero."""
    if not amount.is_finite() or not least <= amount <= most or amount != amount.quantize(step):
        raise ValueError(f"it must be from {least} to {most}, in steps of {step}")
    return amount + 0
