"""Reconciling: once a period, Stripe first, and what was found is kept and told."""

from dataclasses import replace

import psycopg
import pytest
import trio

from server.billing.payment_check import PaymentCheck
from server.billing.reconciliation import PERIOD_SECONDS, Reconciliation
from server.billing.stripe_api import StripeUnavailable
from storage.errors import DatabaseUnavailable
from storage.reconciliation import Reconciliations
from tests.server.billing.payments_stage import Shop
from tests.server.billing.test_payment_check import buy


@pytest.fixture
def swept() -> list[int]:
    return []


@pytest.fixture
def reconciliation(shop: Shop, swept: list[int]) -> Reconciliation:
    async def sweep(limit: int) -> int:
        await trio.lowlevel.checkpoint()
        swept.append(limit)
        return 2

    books = Reconciliations(shop.database)
    check = PaymentCheck(shop.stripe, shop.purchases, shop.payments, books)
    return Reconciliation(books, check, sweep, sells=True, lease_seconds=60)


def break_books(owner_url: str) -> None:
    with psycopg.connect(owner_url) as owner:
        owner.execute("UPDATE credit_balances SET balance_usd = balance_usd + 1")


async def test_the_books_are_read_after_stripe_was_asked_and_repaired_from(
    shop: Shop, reconciliation: Reconciliation, swept: list[int]
) -> None:
    await buy(shop, books=False)
    report = await reconciliation.run(30, repair=True)
    assert report.is_clean
    assert report.stripe is not None
    assert [problem.is_repaired for problem in report.stripe.problems] == [True]
    assert report.books.state.accounts == 1, "the account that the repair made"
    assert (report.ended_orders, len(swept)) == (2, 1)


async def test_without_repair_nothing_is_changed(
    shop: Shop, reconciliation: Reconciliation, swept: list[int]
) -> None:
    user_id, _, _ = await buy(shop, books=False)
    report = await reconciliation.run(30)
    assert (report.is_clean, report.open_problems, report.drifts) == (False, 1, 0)
    assert await shop.read_balance(user_id) == 0
    assert swept == []


@pytest.mark.parametrize("sells", [True, False])
async def test_stripe_is_not_asked_where_nothing_is_sold_or_nobody_wants_it(
    shop: Shop, reconciliation: Reconciliation, sells: bool
) -> None:
    report = await replace(reconciliation, sells=sells).run(30, asks_stripe=not sells, repair=True)
    assert (report.stripe, report.stripe_failure, report.is_clean) == (None, "", True)
    assert shop.stripe.calls == []


async def test_a_stripe_that_is_away_keeps_nobody_from_looking_at_the_books(
    shop: Shop, reconciliation: Reconciliation, owner_database_url: str
) -> None:
    await buy(shop)
    shop.stripe.fail_next(StripeUnavailable("Stripe is away"))
    break_books(owner_database_url)
    report = await reconciliation.run(30)
    assert (report.stripe, report.stripe_failure) == (None, "Stripe is away")
    assert report.drifts == 1


async def test_drift_is_an_error_in_the_log_with_its_figures_and_is_kept(
    shop: Shop, reconciliation: Reconciliation, owner_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await buy(shop)
    break_books(owner_database_url)
    report = await reconciliation.run_if_due()
    assert report is not None
    assert await reconciliation.run_if_due() is None
    [told] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert told.message == "the accounts do not add up: run python -m scripts.reconcile"
    assert vars(told)["figures"]["drift_usd"]["balance"] == "1.000000"
    latest = await reconciliation.books.find_latest()
    assert latest is not None
    assert latest[1]["drifts"]["balance"] == 1
    assert latest[1]["stripe"]["payments"] == 1


async def test_the_loop_goes_on_after_a_store_was_away_and_looks_again_in_the_next_period(
    shop: Shop, reconciliation: Reconciliation, owner_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.billing.reconciliation.LOOK_SECONDS", 0.01)
    ran: list[bool] = []

    async def sweep(_limit: int) -> int:
        await trio.lowlevel.checkpoint()
        ran.append(True)
        with psycopg.connect(owner_database_url) as owner:
            owner.execute("UPDATE reconciliations SET at = at - %s * interval '1 s'", [PERIOD_SECONDS])
        if len(ran) == 1:
            raise DatabaseUnavailable("away")
        return 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(replace(reconciliation, sweep_open=sweep).keep_reconciled)
        with trio.fail_after(10):
            while len(ran) < 3:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
