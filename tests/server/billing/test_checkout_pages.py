"""Pages at Stripe of a user who leaves for good."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from server.errors import StripeUnavailable
from tests.server.billing.checkout_stage import Shop, open_shop

TEN = Decimal(10)


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


async def test_open_pages_are_closed(shop: Shop) -> None:
    who, other = await shop.make_user(), await shop.make_user()
    pages = [await shop.checkout.start_purchase(who, TEN) for _ in range(2)]
    kept = await shop.checkout.start_purchase(other, TEN)
    await shop.checkout.close_pages(who.user_id)
    assert [shop.stripe.sessions[page.id].status for page in [*pages, kept]] == ["expired", "expired", "open"]


async def test_a_page_that_was_paid_keeps_no_other_open(shop: Shop) -> None:
    who = await shop.make_user()
    pages = [await shop.checkout.start_purchase(who, TEN) for _ in range(2)]
    shop.stripe.complete_session(pages[0].id)
    await shop.checkout.close_pages(who.user_id)
    assert [shop.stripe.sessions[page.id].status for page in pages] == ["complete", "expired"]


async def test_a_stripe_that_is_away_keeps_nobody_from_leaving(shop: Shop) -> None:
    who = await shop.make_user()
    page = await shop.checkout.start_purchase(who, TEN)
    shop.stripe.fail_next(StripeUnavailable("away"))
    await shop.checkout.close_pages(who.user_id)
    assert shop.stripe.sessions[page.id].status == "open"
