"""The dashboard: what a user has to spend, and what is missing before it can buy more."""

from datetime import UTC, datetime
from decimal import Decimal

import msgspec
from quart import Blueprint

from server.billing.customers import Standing
from server.guard import caller
from server.operations import operation
from server.routes.payment_methods import CustomerInfo, describe_customer
from server.services import services
from server.times import show_time_if_any
from storage.credits import Balance

blueprint = Blueprint("billing_dashboard", __name__, url_prefix="/api/billing")


class Dashboard(msgspec.Struct, rename="camel"):
    """Numbers of US dollars. Paid credits are negative where they are a debt; free ones are those that still count."""

    credit_balance_usd: Decimal
    free_credit_balance_usd: Decimal
    free_credits_granted_at: str | None
    free_credits_expires_at: str | None
    free_credits_expired: bool
    services_blocked: bool
    is_payment_method_required: bool
    is_billing_info_required: bool
    customer_billing_info: CustomerInfo | None
    usage_limit_usd: Decimal
    current_usage: Decimal
    debt_usd: Decimal
    held_usd: Decimal
    unread_notices: int


@blueprint.get("/dashboard")
@operation("Show your dashboard")
async def show() -> Dashboard:
    """What you have to spend, and what is missing before you can buy more; without sales nothing is required.
    Who is behind an account is told to people, not to its API keys.
    """
    who, billing = caller(), services().billing
    balance = await billing.credits.balance(who.user_id)
    dates = await billing.history.find_dates(who.user_id)
    free_usd = (await billing.terms.read()).free_credits_usd
    unread = await billing.notices.count_unread(who.user_id)
    standing = await billing.customers.try_standing(who.user_id)
    dashboard = build_dashboard(balance, free_usd, standing, datetime.now(UTC))
    dashboard.free_credits_granted_at = None if dates is None else show_time_if_any(dates.free_granted_at)
    dashboard.unread_notices = unread
    if who.key_id is not None:
        dashboard.customer_billing_info = None
    return dashboard


def build_dashboard(balance: Balance, free_credits_usd: Decimal, standing: Standing, now: datetime) -> Dashboard:
    """`free_credits_usd` is what signing up brings. What running calls hold is the user's still: most of it comes back,
    so it blocks nothing.
    """
    free = balance.free_usd - balance.expired_usd
    expires_at = balance.free_expires_at
    return Dashboard(
        credit_balance_usd=balance.paid_usd,
        free_credit_balance_usd=free,
        free_credits_granted_at=None,
        free_credits_expires_at=show_time_if_any(expires_at),
        free_credits_expired=expires_at is not None and expires_at <= now,
        services_blocked=balance.paid_usd + free <= 0,
        is_payment_method_required=standing.readiness.needs_payment_method,
        is_billing_info_required=standing.readiness.needs_billing_info,
        customer_billing_info=None if standing.customer is None else describe_customer(standing.customer),
        usage_limit_usd=free_credits_usd,
        current_usage=max(free_credits_usd - free, Decimal(0)),
        debt_usd=max(-balance.paid_usd, Decimal(0)),
        held_usd=balance.held_usd,
        unread_notices=0,
    )
