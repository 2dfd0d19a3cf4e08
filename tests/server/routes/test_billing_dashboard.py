"""The dashboard: what there is to spend, and what it says of Stripe's customer, or does without."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from server.billing.customers import UNKNOWN, Readiness, Standing
from server.routes.billing_dashboard import Dashboard, build_dashboard
from storage.accounts import User
from storage.credits import Balance
from tests.server.billing.stripe_objects import build_customer
from tests.server.billing.stripe_server import StripeServer, open_stripe_server, refuse, tell
from tests.server.served import Served, open_served, token_headers
from tests.storage.calls import build_hold

PATH = "/api/billing/dashboard"
NOW = datetime(2025, 1, 31, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FIND = "GET /v1/customers/cus_1"
CUSTOMER: dict[str, Any] = {
    "id": "cus_1",
    "object": "customer",
    "name": "Ann Example",
    "email": "ann@example.com",
    "phone": None,
    "tax_exempt": "none",
    "address": {"line1": "1 Main Street", "city": "Springfield", "postal_code": "12345", "country": "US"},
    "invoice_settings": {"default_payment_method": None},
    "tax_ids": {"data": [{"type": "us_ein", "value": "12-3456789", "country": "US", "verification": None}]},
}
CLIENT_KEYS = {
    *("creditBalanceUsd", "freeCreditBalanceUsd", "freeCreditsExpiresAt", "servicesBlocked", "usageLimitUsd"),
    *("isPaymentMethodRequired", "isBillingInfoRequired", "customerBillingInfo", "currentUsage"),
}


def build(
    balance: str, *, free: str = "0", expired: str = "0", held: str = "0", ends: datetime | None = None
) -> Dashboard:
    usd = Balance(
        Decimal(balance), Decimal(held), free_usd=Decimal(free), free_expires_at=ends, expired_usd=Decimal(expired)
    )
    return build_dashboard(usd, Decimal(2), UNKNOWN, NOW)


@pytest.fixture
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    """Stripe is not set up."""
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        yield served


async def show(served: Served, user: User) -> Any:
    answer = await served.ask("GET", PATH, token_headers(user))
    assert answer.status == 200, answer.body
    return answer.json


def test_a_balance_has_a_paid_and_a_free_part() -> None:
    shown = build("3.5", free="1.5", ends=NOW + DAY)
    assert (shown.credit_balance_usd, shown.free_credit_balance_usd) == (Decimal(2), Decimal("1.5"))
    assert (shown.usage_limit_usd, shown.current_usage) == (Decimal(2), Decimal("0.5"))
    assert (shown.services_blocked, shown.free_credits_expired) == (False, False)
    assert shown.free_credits_expires_at == "2025-02-01T12:00:00.000Z"


def test_free_credits_whose_time_is_over_count_as_nothing_before_that_is_booked() -> None:
    shown = build("1.5", free="1.5", expired="1.5", ends=NOW)
    assert (shown.free_credit_balance_usd, shown.current_usage) == (Decimal(0), Decimal(2))
    assert (shown.services_blocked, shown.free_credits_expired) == (True, True)


def test_a_debt_is_a_negative_balance_which_free_credits_may_cover() -> None:
    shown = build("0.5", free="2", ends=NOW + DAY)
    assert (shown.credit_balance_usd, shown.debt_usd) == (Decimal("-1.5"), Decimal("1.5"))
    assert not shown.services_blocked
    assert build("-0.000001").services_blocked
    assert build("0").services_blocked


def test_what_running_calls_hold_blocks_nobody() -> None:
    shown = build("1", held="1")
    assert (shown.services_blocked, shown.held_usd, shown.credit_balance_usd) == (False, Decimal(1), Decimal(1))


def test_more_free_credits_than_signing_up_brings_are_no_negative_usage() -> None:
    assert build("9", free="9").current_usage == 0


def test_what_stripe_knows_of_the_customer_is_told() -> None:
    standing = Standing(build_customer("cus_1", None), Readiness(needs_payment_method=True, needs_billing_info=False))
    shown = build_dashboard(Balance(Decimal(1), Decimal(0)), Decimal(2), standing, NOW)
    assert (shown.is_payment_method_required, shown.is_billing_info_required) == (True, False)
    assert shown.customer_billing_info is not None
    assert shown.customer_billing_info.has_billing_info


async def test_without_stripe_nothing_is_required_and_every_key_is_there(served: Served) -> None:
    user = await served.make_user()
    shown = await show(served, user)
    assert shown == {
        "creditBalanceUsd": 0,
        "freeCreditBalanceUsd": 0,
        "freeCreditsGrantedAt": None,
        "freeCreditsExpiresAt": None,
        "freeCreditsExpired": False,
        "servicesBlocked": True,
        "isPaymentMethodRequired": False,
        "isBillingInfoRequired": False,
        "customerBillingInfo": None,
        "usageLimitUsd": 2.0,
        "currentUsage": 2.0,
        "debtUsd": 0,
        "heldUsd": 0,
        "unreadNotices": 0,
    }
    assert set(shown) > CLIENT_KEYS


async def test_the_dashboard_is_the_callers_own(served: Served) -> None:
    user, billing = await served.make_user(), served.services.billing
    ends = datetime.now(UTC) + DAY
    await billing.bookings.grant_free(user.id, Decimal(2), ends, idempotency_key="bonus", description="welcome")
    await billing.credits.grant(user.id, Decimal(5), idempotency_key="grant", description="test")
    await billing.credits.hold(build_hold(user.id, "3"))
    await billing.notices.add(user.id, "test", "once", {})
    shown = await show(served, user)
    assert (shown["creditBalanceUsd"], shown["freeCreditBalanceUsd"], shown["heldUsd"]) == (5, 2, 3)
    assert (shown["currentUsage"], shown["servicesBlocked"], shown["unreadNotices"]) == (0, False, 1)
    granted_at = datetime.fromisoformat(shown["freeCreditsGrantedAt"])
    assert datetime.now(UTC) - DAY < granted_at <= datetime.now(UTC)
    assert shown["freeCreditsExpiresAt"] == f"{ends.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"
    others = await show(served, await served.make_user("bob@example.com"))
    assert (others["creditBalanceUsd"], others["freeCreditsGrantedAt"], others["unreadNotices"]) == (0, None, 0)


@asynccontextmanager
async def open_shop(stores: dict[str, str], journal_folder: Path) -> AsyncIterator[tuple[Served, StripeServer, User]]:
    """Where Stripe is set up, and a user is its customer `cus_1`."""
    async with open_stripe_server() as stripe:
        settings = {
            "STRIPE_SECRET_KEY": "sk_test_0123456789",
            "STRIPE_WEBHOOK_SECRET": "whsec_0123456789",
            "STRIPE_API_BASE": stripe.url,
        }
        async with open_served(stores, journal_folder, **settings) as served:
            user, customers = await served.make_user(), served.services.billing.billing_customers
            number = (await customers.get_or_make(user.id)).customer_number
            assert await customers.note_customer(user.id, "cus_1", number)
            yield served, stripe, user


async def test_a_stripe_that_fails_leaves_the_rest_of_the_dashboard(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """What is required is unknown then, and nothing is asked of the user."""
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with open_shop(stores, tmp_path) as (served, stripe, user):
        stripe.on(FIND, refuse(401, "api_key_expired"))
        shown = await show(served, user)
    assert stripe.questions == [FIND]
    assert (shown["isPaymentMethodRequired"], shown["isBillingInfoRequired"]) == (False, False)
    assert (shown["customerBillingInfo"], shown["usageLimitUsd"]) == (None, 2)


async def test_who_is_behind_an_account_is_told_to_people_and_not_to_its_api_keys(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with open_shop(stores, tmp_path) as (served, stripe, user):
        stripe.on(FIND, tell(CUSTOMER))
        shown = await show(served, user)
        body = b'{"label": "laptop", "scopes": ["read"]}'
        made = await served.ask("POST", "/api/auth/api-keys", token_headers(user), body)
        by_key = (await served.ask("GET", PATH, {"X-API-Key": made.json["key"]})).json
    assert (shown["isPaymentMethodRequired"], shown["isBillingInfoRequired"]) == (True, False)
    assert shown["customerBillingInfo"] == {
        "customerName": "Ann Example",
        "customerEmail": "ann@example.com",
        "phone": None,
        "taxExempt": "none",
        "taxIds": [{"type_": "us_ein", "value": "12-3456789", "country": "US", "verificationStatus": None}],
        "addressLine1": "1 Main Street",
        "addressLine2": None,
        "addressCity": "Springfield",
        "addressState": None,
        "addressPostalCode": "12345",
        "addressCountry": "US",
        "hasBillingInfo": True,
    }
    assert by_key == {**shown, "customerBillingInfo": None}
