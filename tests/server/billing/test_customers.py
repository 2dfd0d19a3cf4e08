"""Our users as Stripe's customers: one for each, whoever asks at once, and what is missing before they can buy."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import pytest
import trio

from server.billing.customers import QUIET_SECONDS, UNKNOWN, Customers, Readiness, read_readiness
from server.billing.stripe_objects import Address
from server.errors import (
    BillingAddressRequired,
    PaymentMethodRequired,
    ServerError,
    StripeKeySpent,
    StripeNotConfigured,
    StripeRefused,
    StripeUnavailable,
    describe,
)
from storage.accounts import Accounts
from storage.billing_customers import BillingCustomers
from storage.credits import UserUnknown
from storage.postgres import open_database
from tests.server.billing.fake_stripe_api import FakeStripeApi
from tests.server.billing.stripe_objects import ADDRESS, build_card, build_customer, build_settings

EMAIL = "ann@example.com"
READY = Readiness(needs_payment_method=False, needs_billing_info=False)


@dataclass(frozen=True, slots=True)
class Stage:
    user_id: UUID
    stripe: FakeStripeApi
    table: BillingCustomers
    customers: Customers

    async def ensure(self, name: str | None = None) -> str:
        return await self.customers.ensure(self.user_id, EMAIL, name)

    async def note(self, customer_id: str = "cus_1", *, has_card: bool = True) -> None:
        self.stripe.add_customer(customer_id, has_card=has_card)
        await self.table.get_or_make(self.user_id)
        await self.table.note_customer(self.user_id, customer_id, 0)


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with open_database(database_url, size=3) as database:
        user = await Accounts(database).make_user(EMAIL)
        stripe, table = FakeStripeApi(), BillingCustomers(database)
        yield Stage(user.id, stripe, table, Customers(stripe, table))


async def test_a_customer_is_made_when_it_is_first_needed_and_kept(stage: Stage) -> None:
    assert await stage.customers.find_id(stage.user_id) is None
    customer_id = await stage.ensure("Ann")
    assert await stage.customers.find_id(stage.user_id) == customer_id
    assert await stage.ensure() == customer_id
    assert stage.stripe.count("create_customer") == 1
    assert stage.stripe.customers[customer_id].name == "Ann"


async def test_two_who_ask_at_once_get_one_customer(stage: Stage) -> None:
    found = []

    async def ask() -> None:
        found.append(await stage.ensure())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert len(set(found)) == 1
    assert len(stage.stripe.customers) == 1


async def test_a_customer_whose_making_was_not_heard_of_is_found_again(stage: Stage) -> None:
    stage.stripe.fail_next(StripeUnavailable("the answer is lost"), after_effect=True)
    with pytest.raises(StripeUnavailable):
        await stage.ensure()
    assert await stage.ensure() in stage.stripe.customers
    assert len(stage.stripe.customers) == 1


async def test_a_customer_that_was_deleted_at_stripe_is_made_anew(stage: Stage) -> None:
    first = await stage.ensure()
    del stage.stripe.customers[first]
    second = await stage.ensure()
    assert second != first
    assert await stage.customers.find_id(stage.user_id) == second


async def test_a_stripe_that_is_away_deletes_nobody(stage: Stage) -> None:
    customer_id = await stage.ensure()
    stage.stripe.fail_next(StripeUnavailable("away"))
    with pytest.raises(StripeUnavailable):
        await stage.ensure()
    assert await stage.customers.find_id(stage.user_id) == customer_id


async def test_another_address_under_the_same_key_makes_a_customer_of_its_own(stage: Stage) -> None:
    stage.stripe.fail_next(StripeRefused("other words", "idempotency_error"))
    assert await stage.ensure() in stage.stripe.customers
    assert stage.stripe.count("create_customer") == 2


async def test_a_fault_that_stripe_repeats_for_a_day_keeps_nobody_from_becoming_a_customer(stage: Stage) -> None:
    stage.stripe.fail_next(StripeKeySpent("status 500, as before"))
    assert await stage.ensure() in stage.stripe.customers


async def test_an_address_that_stripe_refuses_makes_no_customer(stage: Stage) -> None:
    stage.stripe.fail_next(StripeRefused("no", "email_invalid"))
    with pytest.raises(StripeRefused, match="no"):
        await stage.ensure()
    assert stage.stripe.customers == {}


async def test_somebody_whose_account_is_gone_gets_none(stage: Stage) -> None:
    with pytest.raises(UserUnknown):
        await stage.customers.ensure(uuid4(), EMAIL, None)
    assert stage.stripe.calls == []


async def test_who_has_no_customer_is_not_asked_after(stage: Stage) -> None:
    assert await stage.customers.describe(stage.user_id) is None
    assert await stage.customers.readiness(stage.user_id) == Readiness(True, True)
    assert stage.stripe.calls == []


async def test_who_has_a_card_and_an_address_is_ready(stage: Stage) -> None:
    await stage.note()
    await stage.customers.require_ready(stage.user_id)
    standing = await stage.customers.find_standing(stage.user_id)
    assert (standing.customer, standing.readiness) == (stage.stripe.customers["cus_1"], READY)


async def test_what_is_missing_is_a_402_that_says_what(stage: Stage) -> None:
    await stage.note(has_card=False)
    with pytest.raises(PaymentMethodRequired) as caught:
        await stage.customers.require_ready(stage.user_id)
    assert tell(caught.value) == (402, "payment_method_required")
    stage.stripe.customers["cus_1"] = replace(build_customer(), name=None)
    stage.stripe.payment_methods["cus_1"] = [build_card()]
    with pytest.raises(BillingAddressRequired) as missing:
        await stage.customers.require_ready(stage.user_id)
    assert tell(missing.value) == (402, "billing_address_required")


def tell(error: ServerError) -> tuple[int, str]:
    problem = describe(error)
    assert problem is not None
    return problem.status, problem.error_type


def test_nobody_is_ready_without_a_default_that_is_among_the_cards() -> None:
    assert read_readiness(build_customer(default_payment_method=None), [build_card()]).needs_payment_method
    assert read_readiness(build_customer(), []).needs_payment_method
    assert read_readiness(build_customer(), [build_card()]) == READY


@pytest.mark.parametrize("member", ["line1", "city", "postal_code", "country"])
def test_an_address_needs_what_taxes_depend_on(member: str) -> None:
    missing = replace(ADDRESS, **{member: None})
    customer = replace(build_customer(), billing_address=missing)
    assert read_readiness(customer, [build_card()]).needs_billing_info
    shipped = replace(customer, shipping_address=ADDRESS)
    assert not read_readiness(shipped, [build_card()]).needs_billing_info


def test_an_address_needs_no_state_nor_second_line() -> None:
    customer = replace(build_customer(), billing_address=Address("1 Main Street", None, "Paris", None, "75001", "FR"))
    assert not read_readiness(customer, [build_card()]).needs_billing_info


async def test_a_page_that_does_without_stripe_gets_what_is_known(stage: Stage) -> None:
    await stage.note()
    assert (await stage.customers.try_standing(stage.user_id)).readiness == READY
    for error in (StripeUnavailable("away"), StripeRefused("no"), StripeNotConfigured("none")):
        stage.stripe.fail_next(error)
        assert await stage.customers.try_standing(stage.user_id) == UNKNOWN


async def test_a_page_asks_nobody_where_nothing_is_sold(stage: Stage) -> None:
    await stage.note()
    stage.stripe.settings = replace(build_settings(), secret_key=None)
    assert await stage.customers.try_standing(stage.user_id) == UNKNOWN
    assert stage.stripe.calls == []


async def test_a_stripe_that_is_away_is_told_once_a_minute(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.note()
    now = trio.current_time()
    for seconds in (0, 1, QUIET_SECONDS - 1, QUIET_SECONDS + 1):
        monkeypatch.setattr("server.billing.customers.trio.current_time", lambda later=now + seconds: later)
        stage.stripe.fail_next(StripeUnavailable("away"))
        await stage.customers.try_standing(stage.user_id)
    monkeypatch.undo()
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 2


async def test_a_page_does_not_wait_for_a_slow_stripe(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: str) -> None:
        await trio.sleep_forever()

    await stage.note()
    monkeypatch.setattr("server.billing.customers.GLANCE_SECONDS", 0.05)
    stage.stripe.before_call = hang
    assert await stage.customers.try_standing(stage.user_id) == UNKNOWN
