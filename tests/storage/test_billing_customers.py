"""Who a user is to Stripe: a row before Stripe is asked, one customer whoever asks at once, a new one for one that is
gone; and when credits are topped off.
"""

from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
import trio
from psycopg import errors

from storage.billing_customers import BillingCustomer, BillingCustomers, TopOffSettings, write_top_off
from storage.credits import UserUnknown
from storage.postgres import Database, open_database
from tests.storage.calls import make_user

SETTINGS = TopOffSettings(enabled=True, threshold_usd=Decimal("5.000001"), amount_usd=Decimal(20))


@pytest.fixture
async def customers(database_url: str) -> AsyncIterator[BillingCustomers]:
    async with open_database(database_url, size=8) as database:
        yield BillingCustomers(database)


@pytest.fixture
async def user_id(customers: BillingCustomers) -> UUID:
    return await make_user(customers.database)


async def write(database: Database, user_id: UUID, settings: TopOffSettings) -> None:
    async with database.as_operator("test").transaction() as connection:
        await write_top_off(connection, user_id, settings)


async def test_a_user_has_a_row_before_it_has_a_customer(customers: BillingCustomers, user_id: UUID) -> None:
    assert await customers.find(user_id) is None
    made = await customers.get_or_make(user_id)
    assert made == BillingCustomer(user_id, None, 0)
    assert await customers.find(user_id) == made


async def test_a_user_that_is_not_there_has_no_row(customers: BillingCustomers) -> None:
    with pytest.raises(UserUnknown):
        await customers.get_or_make(uuid4())


async def test_a_customer_is_noted_once_and_found_both_ways(customers: BillingCustomers, user_id: UUID) -> None:
    await customers.get_or_make(user_id)
    assert await customers.note_customer(user_id, "cus_1", 0)
    assert await customers.note_customer(user_id, "cus_1", 0)
    assert not await customers.note_customer(user_id, "cus_2", 0)
    assert await customers.get_or_make(user_id) == BillingCustomer(user_id, "cus_1", 0)
    assert await customers.find_user("cus_1") == user_id
    assert await customers.find_user("cus_2") is None


async def test_of_many_who_note_a_customer_at_once_one_does(customers: BillingCustomers, user_id: UUID) -> None:
    noted: list[str] = []

    async def note(customer_id: str) -> None:
        await customers.get_or_make(user_id)
        if await customers.note_customer(user_id, customer_id, 0):
            noted.append(customer_id)

    async with trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(note, f"cus_{number}")
    row = await customers.find(user_id)
    assert row is not None
    assert noted == [row.customer_id]


async def test_a_customer_that_stripe_has_no_more_makes_room_for_the_next(
    customers: BillingCustomers, user_id: UUID
) -> None:
    await customers.get_or_make(user_id)
    await customers.note_customer(user_id, "cus_1", 0)
    assert await customers.forget("cus_1")
    assert not await customers.forget("cus_1")
    assert await customers.find(user_id) == BillingCustomer(user_id, None, 1)
    assert not await customers.note_customer(user_id, "cus_1", 0), "an answer that came too late"
    assert await customers.note_customer(user_id, "cus_2", 1)


async def test_a_customer_belongs_to_one_user(customers: BillingCustomers, user_id: UUID) -> None:
    other = await make_user(customers.database)
    for one in (user_id, other):
        await customers.get_or_make(one)
    await customers.note_customer(user_id, "cus_1", 0)
    with pytest.raises(errors.UniqueViolation):
        await customers.note_customer(other, "cus_1", 0)
    assert await customers.find_user("cus_1") == user_id


async def test_settings_of_a_top_off_are_read_as_they_were_written(customers: BillingCustomers, user_id: UUID) -> None:
    assert await customers.read_top_off(user_id) is None
    await write(customers.database, user_id, SETTINGS)
    assert await customers.read_top_off(user_id) == SETTINGS
    off = TopOffSettings(enabled=False, threshold_usd=None, amount_usd=Decimal(7))
    await write(customers.database, user_id, off)
    assert await customers.read_top_off(user_id) == off


async def test_settings_of_a_top_off_leave_the_customer_as_it_is(customers: BillingCustomers, user_id: UUID) -> None:
    await customers.get_or_make(user_id)
    await customers.note_customer(user_id, "cus_1", 0)
    await write(customers.database, user_id, SETTINGS)
    assert await customers.find(user_id) == BillingCustomer(user_id, "cus_1", 0)


async def test_who_saves_settings_begins_anew_after_failures(customers: BillingCustomers, user_id: UUID) -> None:
    await write(customers.database, user_id, SETTINGS)
    rights = customers.database.as_operator("test")
    await rights.fetch("UPDATE billing_customers SET top_off_failures = 3, next_top_off_at = now() + interval '1 day'")
    await write(customers.database, user_id, SETTINGS)
    rows = await rights.fetch("SELECT top_off_failures, next_top_off_at < now() FROM billing_customers")
    assert rows == [(0, True)]


async def test_nothing_is_set_for_a_user_who_is_no_more(customers: BillingCustomers) -> None:
    with pytest.raises(UserUnknown):
        await write(customers.database, uuid4(), SETTINGS)


async def test_a_top_off_is_not_enabled_without_its_amounts(customers: BillingCustomers, user_id: UUID) -> None:
    halfway = TopOffSettings(enabled=True, threshold_usd=Decimal(1), amount_usd=None)
    with pytest.raises(errors.CheckViolation):
        await write(customers.database, user_id, halfway)


async def test_a_user_sees_its_own_settings_alone(customers: BillingCustomers, user_id: UUID) -> None:
    other = await make_user(customers.database)
    await write(customers.database, user_id, SETTINGS)
    assert await customers.read_top_off(other) is None
    assert await customers.find(other) is None
