"""Notices in words for people. Pure: what is stored is a kind and its details."""

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

Details = Mapping[str, Any]

REASONS: Mapping[str, str] = {
    "card_declined": "your bank declined the payment",
    "insufficient_funds": "there are not enough funds on your card",
    "expired_card": "your card has expired",
    "authentication_required": "your bank wants you to confirm the payment yourself",
    "payment_method_required": "you have no payment method that can be charged",
    "billing_address_required": "your name or your billing address is not complete",
    "amount_refused": "its amount is outside of what is sold",
    "payment_returned": "a payment of yours was refunded or disputed",
    "unavailable": "the payment provider could not be reached",
}
"""Why a top-off failed. Banks want their other reasons kept from those who pay:
https://docs.stripe.com/declines/codes
"""
OTHER_REASON = "the payment did not go through"
SECONDS_PER_HOUR = 3600


def write_notice(kind: str, details: Details) -> str | None:
    """None for a kind that nobody here knows."""
    write = _TEXTS.get(kind)
    return write(details) if write else None


def _write_spending_threshold(details: Details) -> str:
    who, whose = ("An API key of yours has", "its") if details.get("apiKeyId") else ("You have", "your")
    limit = f"{_write_usd(details.get('limitUsd'))} a {details.get('period', 'period')}"
    return f"{who} spent {details.get('percent', 100)}% of {whose} limit of {limit}."


def _write_failed(details: Details) -> str:
    return f"Auto top-off of {_write_amount(details)} failed: {_write_reason(details)}. {_write_retry(details)}"


def _write_disabled(details: Details) -> str:
    return (
        f"Auto top-off was turned off: {_write_reason(details)}. See to it, then turn auto top-off on again; until then"
        " credits have to be bought by hand."
    )


def _write_succeeded(details: Details) -> str:
    credits_ = _write_usd(details.get("creditsUsd"))
    return f"Auto top-off: {_write_amount(details)} were paid, taxes apart, and {credits_} of credits were added."


def _write_paused(details: Details) -> str:
    return (
        f"Auto top-off has tried {details.get('attempts', 'several')} times within a day, and waits. Raise its amount,"
        " or buy credits by hand."
    )


def _write_debt(details: Details) -> str:
    owed = f" by {_write_usd(details['debtUsd'])}" if "debtUsd" in details else ""
    return f"Your balance is below zero{owed}. Credits that you buy make up for it first."


def _write_amount(details: Details) -> str:
    return _write_usd(details.get("amountUsd"))


def _write_reason(details: Details) -> str:
    return REASONS.get(str(details.get("reason")), OTHER_REASON)


def _write_retry(details: Details) -> str:
    hours = round(int(details.get("retryAfterSeconds") or 0) / SECONDS_PER_HOUR)
    return "It will be tried again." if hours < 1 else f"It will be tried again in {hours} hour{'s' * (hours > 1)}."


def _write_usd(amount: object) -> str:
    """Amounts stand as text in the details, with up to six places; two of them are enough to read."""
    try:
        return f"{Decimal(str(amount)):.2f} USD"
    except InvalidOperation:
        return "an amount in USD"


_TEXTS: Mapping[str, Callable[[Details], str]] = {
    "spending_threshold": _write_spending_threshold,
    "top_off_failed": _write_failed,
    "top_off_disabled": _write_disabled,
    "top_off_succeeded": _write_succeeded,
    "top_off_paused": _write_paused,
    "debt": _write_debt,
}
