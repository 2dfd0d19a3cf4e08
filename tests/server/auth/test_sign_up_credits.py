"""What a new account is given: free credits, once."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from storage.bookings import Bookings
from storage.configuration import write_configuration
from storage.postgres import open_database
from tests.server.auth.sign_in_stage import Stage, open_stage


@pytest.fixture
async def stage(database_url: str, owner_database_url: str, redis_url: str) -> AsyncIterator[Stage]:
    async with open_stage(database_url, owner_database_url, redis_url) as stage:
        yield stage


async def test_credits_that_could_not_be_granted_are_granted_at_the_next_sign_in(
    stage: Stage, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_database(database_url, size=1) as closed:
        pass
    healthy = stage.sign_in
    stage.sign_in = replace(healthy, bookings=Bookings(closed))
    caller, _ = await stage.enter()
    assert "sign-up credits were not granted" in caplog.text
    stage.sign_in = healthy
    await stage.enter()
    await stage.enter()
    assert stage.query("SELECT user_id, amount_usd FROM credit_ledger") == [(caller.user_id, Decimal("2.000000"))]


async def test_credits_for_a_new_account_are_free_ones_that_expire(stage: Stage) -> None:
    caller, _ = await stage.enter()
    free = """
        SELECT user_id, kind, amount_usd, free_usd, free_expires_at - created_at BETWEEN '179.9 days' AND '180.1 days'
        FROM credit_ledger
    """
    two = Decimal("2.000000")
    assert stage.query(free) == [(caller.user_id, "signup_bonus", two, two, True)]


async def test_the_configuration_says_how_much_and_for_how_long(stage: Stage) -> None:
    values = {"billing_free_credits_amount": "3.50", "billing_free_credits_expiry_days": "7"}
    async with stage.database.as_operator("test").transaction() as connection:
        await write_configuration(connection, values, "test")
    await stage.enter()
    free = "SELECT free_usd, free_expires_at - created_at BETWEEN '6.9 days' AND '7.1 days' FROM credit_ledger"
    assert stage.query(free) == [(Decimal("3.500000"), True)]


async def test_a_deployment_may_grant_nothing(database_url: str, owner_database_url: str, redis_url: str) -> None:
    amount = {"signup_credits_usd": Decimal(0)}
    async with open_stage(database_url, owner_database_url, redis_url, **amount) as stage:
        await stage.enter()
        assert stage.query("SELECT 1 FROM credit_ledger") == []


async def test_credits_for_an_account_that_was_deleted_meanwhile_are_granted_to_nobody(stage: Stage) -> None:
    """Another device deletes it between its sign-in and the credits."""

    class DeletesFirst(Bookings):
        async def grant_free(self, user_id: UUID, *rest: Any, **more: Any) -> bool:
            stage.query("DELETE FROM users WHERE id = %s RETURNING 1", user_id)
            return await super().grant_free(user_id, *rest, **more)

    stage.sign_in = replace(stage.sign_in, bookings=DeletesFirst(stage.database))
    await stage.enter()
    assert stage.query("SELECT 1 FROM credit_ledger") == []


async def test_who_deletes_an_account_and_comes_back_gets_no_second_gift(stage: Stage) -> None:
    caller, token = await stage.enter()
    await stage.sign_in.delete_account(caller, token)
    for _ in range(2):
        await stage.enter(iat=int(time.time()) + 2)
    assert stage.query("SELECT count(*) FROM users") == [(1,)]
    assert stage.query("SELECT 1 FROM credit_ledger") == []
