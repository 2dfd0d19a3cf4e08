"""A shop whose accounts are real and whose Stripe is in memory."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import trio

from tests.server.billing.payments_stage import Shop, open_shop


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    with trio.fail_after(60):
        async with open_shop(database_url) as shop:
            yield shop


@pytest.fixture
async def buyer(shop: Shop) -> UUID:
    return await shop.make_buyer()
