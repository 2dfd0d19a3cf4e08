"""The terms as they are now: a change counts with the next reading."""

from decimal import Decimal

import pytest

from server.billing.terms import Terms
from server.billing.terms_reader import TermsReader
from storage.configuration import Configuration, write_configuration
from storage.postgres import open_database


async def test_a_change_counts_at_once_and_the_rest_is_the_default(database_url: str) -> None:
    default = Terms(free_credits_usd=Decimal("0.25"))
    async with open_database(database_url, size=1) as database:
        reader = TermsReader(Configuration(database), default)
        assert await reader.read() == default
        async with database.as_operator("test").transaction() as connection:
            await write_configuration(connection, {"billing_max_credit_purchase": "50", "another": 1}, "test")
        assert await reader.read() == Terms(free_credits_usd=Decimal("0.25"), max_purchase_usd=Decimal(50))


async def test_a_value_of_no_use_is_told_once_and_again_when_it_is_another(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_database(database_url, size=1) as database:
        reader = TermsReader(Configuration(database), Terms())
        for value in ("much", 0):
            async with database.as_operator("test").transaction() as connection:
                await write_configuration(connection, {"billing_max_credit_purchase": value}, "test")
            assert [await reader.read() for _ in range(2)] == [Terms()] * 2
    assert [vars(record)["key"] for record in caplog.records] == ["billing_max_credit_purchase"] * 2
