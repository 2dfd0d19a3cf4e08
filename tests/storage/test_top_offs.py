"""Top-offs in PostgreSQL: who is due, one order at a time, leases, failures in a row."""

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

import psycopg
import pytest
import trio

from storage.billing_customers import BillingCustomers, TopOffSettings
from storage.billing_notices import BillingNotices
from storage.credits import Credits
from storage.postgres import Database, open_database
from storage.purchases import Paid, Purchases
from storage.sign_ins import SignIns
from storage.top_offs import DueTopOff, Failure, OpenTopOff, TopOffTable
from tests.storage.calls import build_hold, build_settlement
from tests.storage.people import ENTRY, Query, wait_until_somebody_waits
from tests.storage.top_offs import (
    CENTS,
    DECLINED,
    build_entry,
    build_table,
    claim,
    make_poor_user,
    open_order,
    set_top_off,
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(120):
        async with open_database(database_url, size=8) as database:
            yield database


@pytest.fixture
def table(database: Database) -> TopOffTable:
    return build_table(database)


def forget_claims(query: Query) -> None:
    query("UPDATE billing_customers SET next_top_off_at = '-infinity'")


def forget_leases(query: Query) -> None:
    query("UPDATE purchases SET leased_until = '-infinity'")


async def pay(table: TopOffTable, order: OpenTopOff) -> None:
    purchases = Purchases(table.database, table.audit)
    assert await purchases.book(order.id, Paid(1000, f"pi_{order.id}", None), lambda _: ENTRY)


async def test_a_user_below_the_threshold_is_claimed_once(database: Database, table: TopOffTable) -> None:
    user_id = await make_poor_user(database, "4.999999")
    assert await table.claim_due() == DueTopOff(user_id, Decimal(10), attempts_today=0)
    assert await table.claim_due() is None


async def test_at_the_threshold_nothing_is_due(database: Database, table: TopOffTable) -> None:
    await make_poor_user(database, "5")
    assert await table.claim_due() is None


async def test_free_credits_do_not_count(database: Database, table: TopOffTable, query: Query) -> None:
    user_id = await make_poor_user(database, "5")
    assert await table.claim_due() is None
    query(
        "INSERT INTO credit_ledger (user_id, kind, amount_usd, free_usd, idempotency_key)"
        " VALUES (%s, 'signup_bonus', 2, 2, 'bonus'), (%s, 'adjustment', -1, 0, 'less')",
        user_id,
        user_id,
    )
    assert (await Credits(database).balance(user_id)).balance_usd == 6
    assert (await claim(table)).user_id == user_id


async def test_what_a_call_charges_makes_its_user_due(database: Database, table: TopOffTable) -> None:
    user_id = await make_poor_user(database, "6")
    assert await table.claim_due() is None
    hold = build_hold(user_id, "2")
    await Credits(database).hold(hold)
    assert await table.claim_due() is None
    await Credits(database).settle(build_settlement(hold, "1.5"))
    assert (await claim(table)).user_id == user_id


async def test_who_turned_it_off_is_not_due(database: Database, table: TopOffTable) -> None:
    user_id = await make_poor_user(database)
    await set_top_off(database, user_id, enabled=False)
    assert await table.claim_due() is None


async def test_a_claim_ends_and_a_change_of_settings_ends_it_at_once(
    database: Database, table: TopOffTable, query: Query
) -> None:
    user_id = await make_poor_user(database)
    await claim(table)
    ((seconds,),) = query("SELECT extract(epoch FROM next_top_off_at - now())::float8 FROM billing_customers")
    assert 50 < seconds <= 60
    await set_top_off(database, user_id, amount_usd="20")
    assert (await claim(table)).amount_usd == 20


async def test_of_many_who_look_at_once_each_gets_another_user(database: Database, table: TopOffTable) -> None:
    users = [await make_poor_user(database) for _ in range(3)]
    claimed: list[DueTopOff | None] = []

    async def look() -> None:
        claimed.append(await table.claim_due())

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(look)
    found = [due.user_id for due in claimed if due is not None]
    assert sorted(found) == sorted(set(found))
    assert set(found) <= set(users)
    assert found


async def test_an_order_is_leased_to_one_and_to_another_when_the_lease_is_over(
    database: Database, table: TopOffTable, query: Query
) -> None:
    user_id = await make_poor_user(database, customer_id="cus_ann")
    order = await open_order(table)
    assert replace(order, age_seconds=0) == OpenTopOff(
        order.id, user_id, *CENTS, "cus_ann", None, None, is_wanted=True, age_seconds=0
    )
    assert 0 <= order.age_seconds < 30
    assert await table.lease_open() is None
    forget_leases(query)
    again = await table.lease_open()
    assert again is not None
    assert again.id == order.id
    assert await table.lease_open() is None


async def test_an_order_knows_its_invoice(database: Database, table: TopOffTable, query: Query) -> None:
    await make_poor_user(database, customer_id="cus_ann")
    order = await open_order(table)
    await Purchases(database, table.audit).note_invoice(order.id, "in_1", "cus_older")
    forget_leases(query)
    again = await table.lease_open()
    assert again is not None
    assert (again.invoice_id, again.customer_id) == ("in_1", "cus_older")


async def test_a_postponed_order_waits(database: Database, table: TopOffTable, query: Query) -> None:
    await make_poor_user(database)
    order = await open_order(table)
    await table.postpone(order.id, 600)
    assert await table.lease_open() is None
    ((seconds,),) = query("SELECT extract(epoch FROM leased_until - now())::float8 FROM purchases")
    assert 590 < seconds <= 600
    await table.postpone(order.id, 0)
    assert await table.lease_open() is not None


@pytest.mark.parametrize(("enabled", "amount_usd"), [(False, "10"), (True, "11")])
async def test_an_order_is_not_wanted_once_the_settings_differ(
    database: Database, table: TopOffTable, query: Query, enabled: bool, amount_usd: str
) -> None:
    user_id = await make_poor_user(database)
    order = await open_order(table)
    assert order.is_wanted
    await set_top_off(database, user_id, enabled=enabled, amount_usd=amount_usd)
    forget_leases(query)
    again = await table.lease_open()
    assert again is not None
    assert not again.is_wanted


async def test_while_an_order_is_open_its_user_is_not_due(
    database: Database, table: TopOffTable, query: Query
) -> None:
    await make_poor_user(database)
    await open_order(table)
    forget_claims(query)
    assert await table.claim_due() is None


async def test_who_was_asleep_after_its_claim_opens_nothing_beside_an_open_order(
    database: Database, table: TopOffTable, query: Query
) -> None:
    await make_poor_user(database)
    slow = await claim(table)
    forget_claims(query)
    await open_order(table)
    assert not await table.open(uuid4(), slow, CENTS)


async def test_who_was_asleep_after_its_claim_opens_nothing_once_the_credits_are_there(
    database: Database, table: TopOffTable, query: Query
) -> None:
    await make_poor_user(database)
    slow = await claim(table)
    forget_claims(query)
    await pay(table, await open_order(table))
    assert not await table.open(uuid4(), slow, CENTS)
    assert query("SELECT count(*) FROM purchases") == [(1,)]


async def test_who_was_asleep_after_its_claim_opens_nothing_that_is_not_wanted_any_more(
    database: Database, table: TopOffTable
) -> None:
    user_id = await make_poor_user(database)
    slow = await claim(table)
    await set_top_off(database, user_id, amount_usd="11")
    assert not await table.open(uuid4(), slow, CENTS)
    await set_top_off(database, user_id, enabled=False)
    assert not await table.open(uuid4(), slow, CENTS)


async def test_what_changes_while_an_order_waits_for_its_turn_counts(
    database: Database, table: TopOffTable, query: Query, owner_database_url: str
) -> None:
    user_id = await make_poor_user(database)
    due = await claim(table)
    opened: list[bool] = []

    async def open_one() -> None:
        opened.append(await table.open(uuid4(), due, CENTS))

    async with trio.open_nursery() as nursery:
        with psycopg.connect(owner_database_url) as connection:
            connection.execute("SELECT FROM billing_customers FOR UPDATE")
            nursery.start_soon(open_one)
            await wait_until_somebody_waits(query)
            connection.execute(
                "INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key) VALUES (%s, 'grant', 9, 'x')",
                [user_id],
            )
    assert opened == [False]


async def test_twenty_who_open_at_once_open_one_order(database: Database, table: TopOffTable, query: Query) -> None:
    await make_poor_user(database)
    due = await claim(table)
    opened: list[bool] = []

    async def open_one() -> None:
        opened.append(await table.open(uuid4(), due, CENTS))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(open_one)
    assert sorted(opened) == [False] * 19 + [True]
    rows = query("SELECT kind, state, gross_cents, fee_cents, net_cents FROM purchases")
    assert rows == [("top_off", "open", *CENTS)]


async def test_a_user_who_was_deleted_meanwhile_gets_no_order(
    database: Database, table: TopOffTable, query: Query
) -> None:
    user_id = await make_poor_user(database, "0")
    due = await claim(table)
    await SignIns(database, table.audit).delete_account(user_id, ENTRY)
    assert not await table.open(uuid4(), due, CENTS)
    assert not await table.fail_before(due, uuid4(), DECLINED, build_entry)


async def test_failures_in_a_row_pause_longer_and_the_third_turns_it_off(
    database: Database, table: TopOffTable, query: Query
) -> None:
    user_id = await make_poor_user(database)
    for hours, kind in [(1, "top_off_failed"), (6, "top_off_failed"), (24, "top_off_disabled")]:
        order = await open_order(table)
        assert await table.fail(order, DECLINED, build_entry)
        assert await table.end(order.id, None)
        ((enabled, seconds),) = query(
            "SELECT top_off_enabled, extract(epoch FROM next_top_off_at - now())::float8 FROM billing_customers"
        )
        assert (enabled, round(seconds / 3600)) == (kind == "top_off_failed", hours)
        newest = (await BillingNotices(database).list(user_id, limit=1))[0]
        assert newest.kind == kind
        assert newest.details["reason"] == "card_declined"
        assert newest.details["amountUsd"] == "10.00"
        forget_claims(query)
    assert await table.claim_due() is None
    assert query("SELECT count(*) FROM audit_log WHERE action = 'auto_top_off_failed'") == [(3,)]


async def test_a_failure_is_counted_and_told_once(database: Database, table: TopOffTable, query: Query) -> None:
    await make_poor_user(database)
    order = await open_order(table)
    assert await table.fail(order, DECLINED, build_entry)
    assert not await table.fail(order, DECLINED, build_entry)
    assert query("SELECT top_off_failures FROM billing_customers") == [(1,)]
    assert query("SELECT count(*) FROM billing_notices") == [(1,)]
    assert query("SELECT count(*) FROM audit_log") == [(1,)]


async def test_twenty_who_fail_one_order_count_once(database: Database, table: TopOffTable, query: Query) -> None:
    await make_poor_user(database)
    order = await open_order(table)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(table.fail, order, DECLINED, build_entry)
    assert query("SELECT top_off_failures FROM billing_customers") == [(1,)]


async def test_a_failed_order_stays_open_until_its_invoice_is_void(
    database: Database, table: TopOffTable, query: Query
) -> None:
    await make_poor_user(database)
    order = await open_order(table)
    assert not await table.end(order.id, None), "it has not failed"
    await table.fail(order, DECLINED, build_entry)
    forget_leases(query)
    again = await table.lease_open()
    assert again is not None
    assert again.failure == "card_declined"
    await Purchases(database, table.audit).note_invoice(order.id, "in_1", "cus_1")
    assert not await table.end(order.id, None), "somebody noted an invoice: that has to be void first"
    assert await table.end(order.id, "in_1")
    assert query("SELECT state, failure FROM purchases") == [("failed", "card_declined")]
    assert not await table.end(order.id, "in_1")


async def test_an_order_that_was_paid_does_not_fail(database: Database, table: TopOffTable, query: Query) -> None:
    await make_poor_user(database)
    order = await open_order(table)
    await pay(table, order)
    assert not await table.fail(order, DECLINED, build_entry)
    assert query("SELECT top_off_failures, top_off_enabled FROM billing_customers") == [(0, True)]


async def test_a_top_off_that_was_paid_ends_the_row_of_failures(
    database: Database, table: TopOffTable, query: Query
) -> None:
    user_id = await make_poor_user(database)
    for _ in range(2):
        order = await open_order(table)
        await table.fail(order, DECLINED, build_entry)
        await table.end(order.id, None)
        forget_claims(query)
    await pay(table, await open_order(table))
    query(
        "INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key) VALUES (%s, 'charge', -8, 'x')", user_id
    )
    forget_claims(query)
    order = await open_order(table)
    assert query("SELECT top_off_failures FROM billing_customers") == [(0,)]
    await table.fail(order, DECLINED, build_entry)
    assert query("SELECT top_off_failures, top_off_enabled FROM billing_customers") == [(1, True)]


async def test_what_is_nobodys_fault_is_no_step_towards_the_end(
    database: Database, table: TopOffTable, query: Query
) -> None:
    user_id = await make_poor_user(database)
    away = Failure("unavailable", (3600.0, 21600.0), counts=False, is_told=False)
    for _ in range(4):
        order = await open_order(table)
        await table.fail(order, away, build_entry)
        await table.end(order.id, None)
        forget_claims(query)
    assert query("SELECT top_off_failures, top_off_enabled FROM billing_customers") == [(0, True)]
    assert await BillingNotices(database).list(user_id, limit=9) == []


async def test_without_an_order_a_failure_counts_too(database: Database, table: TopOffTable, query: Query) -> None:
    user_id = await make_poor_user(database)
    at_once = Failure("amount_refused", (3600.0,))
    assert await table.fail_before(await claim(table), uuid4(), at_once, build_entry)
    settings = await BillingCustomers(database).read_top_off(user_id)
    assert settings == TopOffSettings(False, Decimal(5), Decimal(10))
    (notice,) = await BillingNotices(database).list(user_id, limit=9)
    assert (notice.kind, notice.details["reason"]) == ("top_off_disabled", "amount_refused")
    forget_claims(query)
    due = DueTopOff(user_id, Decimal(10), 0)
    assert not await table.fail_before(due, uuid4(), at_once, build_entry), "it is off"


async def test_the_orders_of_a_day_are_counted(database: Database, table: TopOffTable, query: Query) -> None:
    user_id = await make_poor_user(database)
    for _ in range(2):
        order = await open_order(table)
        await table.fail(order, Failure("unavailable", (0.0,), counts=False), build_entry)
        await table.end(order.id, None)
    assert (await claim(table)).attempts_today == 2
    query("UPDATE purchases SET created_at = now() - interval '25 hours'")
    await table.pause(user_id, 0)
    assert (await claim(table)).attempts_today == 0
    await table.pause(user_id, 3600)
    assert await table.claim_due() is None
