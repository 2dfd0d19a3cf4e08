"""What an error of Stripe's means for us, and what may be told of it. Pure.

Stripe's own messages name customers, addresses and keys: none of them leaves this module.
https://docs.stripe.com/api/errors and https://docs.stripe.com/error-codes
"""

from collections.abc import Mapping

from server.errors import CardDeclined, ServerError, StripeKeySpent, StripeRefused, StripeUnavailable

PASSING_STATUSES = frozenset({401, 403, 408, 409, 429})
"""As good as no answer. Keys that are revoked or may too little are our fault, and somebody mends that; until then
nothing is lost if it is tried again.
"""
PASSING_CODES = frozenset({"idempotency_key_in_use", "lock_timeout", "rate_limit", "api_key_expired"})
BANK_CODES = frozenset(
    {"authentication_required", "invoice_payment_intent_requires_action", "payment_intent_authentication_failure"}
)
"""Not always of the type card_error."""

DECLINED = "the bank declined the card; try another card, or ask the bank"
DECLINES: Mapping[str, str] = {
    "insufficient_funds": "the card has insufficient funds",
    "expired_card": "the card has expired",
    "authentication_required": "the bank wants its customer to confirm the payment: buy credits by hand",
    "invoice_payment_intent_requires_action": "the bank wants its customer to confirm the payment: buy credits by hand",
}
"""Others, `lost_card` for one, are not to be told to whoever holds the card: https://docs.stripe.com/declines/codes"""

REFUSED = "the payment service refused the request"
REFUSALS: Mapping[str, str] = {
    "resource_missing": "the payment service knows no such object",
    "customer_tax_location_invalid": "the billing address is not one that taxes can be computed for; correct it",
    "idempotency_error": "this was asked before in other words; begin anew",
}


def read_failure(status: int | None, error: Mapping[str, object], *, is_replayed: bool = False) -> ServerError:
    """`error` is the object of that name in the answer; without one it is not Stripe who answered, if anybody did.
    `is_replayed`: it is what the same idempotency key got before, which may be a fault of Stripe's, too.
    """
    if is_replayed and status is not None and status >= 500:
        return StripeKeySpent(f"Stripe repeats an answer with status {status}")
    type_, code, decline_code = (_read(error, name) for name in ("type", "code", "decline_code"))
    if not error or status is None or status >= 500 or status in PASSING_STATUSES or code in PASSING_CODES:
        return StripeUnavailable(f"Stripe answered with status {status}" if status else "Stripe cannot be reached")
    if status == 402 or type_ == "card_error" or code in BANK_CODES:
        return CardDeclined(DECLINES.get(decline_code) or DECLINES.get(code, DECLINED), code, decline_code)
    code = code or (type_ if type_ == "idempotency_error" else "")
    return StripeRefused(REFUSALS.get(code, REFUSED), code)


def _read(error: Mapping[str, object], name: str) -> str:
    value = error.get(name)
    return value if isinstance(value, str) else ""
