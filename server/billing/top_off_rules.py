"""What a top-off does when something is in its way: when it tries again, when it gives up, what users hear. Pure."""

from collections.abc import Mapping
from typing import Any

from server.errors import CardDeclined, StripeRefused
from storage.top_offs import Failure

HOUR = 3600.0
PAUSES_SECONDS = (1 * HOUR, 6 * HOUR, 24 * HOUR)
"""After the first failure in a row and the second. The third turns top-offs off."""
AT_ONCE = (HOUR,)
"""One failure turns them off: another attempt would be the same."""
GIVE_UP_SECONDS = 1 * HOUR
"""The age at which an order is not tried any more."""
POLL_SECONDS = 2.0
LOOKING_SHARE = 0.02
"""Of the time, at most, goes into looking who needs credits: with 100,000 users to look through it takes 0.15 s."""
MIN_PAUSE_SECONDS = 15.0
MAX_PAUSE_SECONDS = 600.0

MAX_PER_DAY_KEY = "billing_max_top_offs_per_day"
MAX_PER_DAY = 5

NO_PAYMENT_METHOD = Failure("payment_method_required", PAUSES_SECONDS)
NO_ADDRESS = Failure("billing_address_required", PAUSES_SECONDS)
AMOUNT_REFUSED = Failure("amount_refused", AT_ONCE)
RETURNED = Failure("payment_returned", AT_ONCE)
"""Who gets money back, of us or of its bank, is not to be charged the same again by itself."""
OUT_OF_TIME = Failure("unavailable", PAUSES_SECONDS, counts=False)
NOT_WANTED = Failure("not_wanted", (0.0,), counts=False, is_told=False)
REDUCED = Failure("credit_at_stripe", PAUSES_SECONDS, counts=False, is_told=False)
"""A credit of the customer at Stripe would pay first, and less come in than was ordered, which is refused. Only people
can have given it: https://docs.stripe.com/billing/customer/balance
"""
VOIDED = Failure("invoice_voided", PAUSES_SECONDS)
"""Somebody of ours did that in Stripe's dashboard, or the user is to settle it by hand."""

TOLD_CODES = ("authentication_required", "insufficient_funds", "expired_card")
"""Of a decline; all others are `card_declined` to users: https://docs.stripe.com/declines/codes"""
CONFIRM_CODES = frozenset({"invoice_payment_intent_requires_action", "payment_intent_authentication_failure"})
ADDRESS_CODES = frozenset({"customer_tax_location_invalid"})
"""Of refusals that users can see to: https://docs.stripe.com/error-codes"""


def read_refusal(error: StripeRefused) -> Failure:
    """What is the user's to put right counts; the rest is a fault of ours, which the log tells and users do not hear
    of.
    """
    if isinstance(error, CardDeclined):
        return Failure(_read_decline({error.code, error.decline_code}), PAUSES_SECONDS)
    if error.code in ADDRESS_CODES:
        return NO_ADDRESS
    return Failure("refused", PAUSES_SECONDS, counts=False, is_told=False)


def _read_decline(codes: set[str]) -> str:
    if codes & CONFIRM_CODES:
        return "authentication_required"
    return next((code for code in TOLD_CODES if code in codes), "card_declined")


def find_poll_seconds(looked_seconds: float) -> float:
    """Until somebody looks again for users to top off, after a look that took so long and found none."""
    return max(POLL_SECONDS, looked_seconds / LOOKING_SHARE)


def find_pause_seconds(age_seconds: float) -> float:
    """Until the next try of an order: as long as it is old, so that the pauses double."""
    return min(max(age_seconds, MIN_PAUSE_SECONDS), MAX_PAUSE_SECONDS)


def is_out_of_time(age_seconds: float) -> bool:
    return age_seconds > GIVE_UP_SECONDS


def read_max_per_day(configuration: Mapping[str, Any]) -> int:
    """Orders of one user in 24 hours, failed ones among them. What is no whole number from 1 to 100 does not count."""
    most = configuration.get(MAX_PER_DAY_KEY)
    if isinstance(most, int) and not isinstance(most, bool) and 1 <= most <= 100:
        return most
    return MAX_PER_DAY
