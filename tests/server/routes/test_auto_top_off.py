"""Auto top-off as clients set it: exact shapes, bounds, who may. Stripe is played in memory."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from server.billing.customers import Customers
from server.billing.terms import PurchaseRefused, Terms
from server.errors import ArgumentInvalid, RequestInvalid
from server.operations import decode_body
from server.routes.auto_top_off import TopOffWish, read_settings
from server.services import use_services
from storage.accounts import User
from storage.billing_customers import BillingCustomers, TopOffSettings
from tests.server.billing.fake_stripe_api import FakeStripeApi
from tests.server.served import Answer, Served, open_served, token_headers

PATH = "/api/billing/auto-top-off-settings"
ON = b'{"enabled": true, "threshold": "5.0000", "amount": "10.0000"}'
OFF = {"enabled": False, "threshold": None, "amount": None}


def read(body: bytes) -> TopOffSettings:
    return read_settings(decode_body(body, TopOffWish), Terms())


@pytest.mark.parametrize(
    ("threshold", "amount"),
    [("5", "10"), ('"5"', '"10"'), ("5.0", "1e1"), ('" 5.0000 "', "10.00"), ('"5.00004"', '"10.00000"')],
)
def test_amounts_are_numbers_or_strings(threshold: str, amount: str) -> None:
    body = f'{{"enabled": true, "threshold": {threshold}, "amount": {amount}, "note": "is passed over"}}'
    assert read(body.encode()) == TopOffSettings(True, Decimal("5.0000"), Decimal("10.0000"))


@pytest.mark.parametrize("name", ["threshold", "amount"])
@pytest.mark.parametrize("value", ["null", "0", "-1", '"0.00004"', "1000.01", '"1e2"', '"NaN"', '"ten"', '""', "1e99"])
def test_who_turns_it_on_gives_both_amounts_within_bounds(name: str, value: str) -> None:
    wish = {"threshold": "5", "amount": "10"} | {name: "?"}
    body = json.dumps({"enabled": True, **wish}).replace('"?"', value).encode()
    with pytest.raises(ArgumentInvalid, match=name):
        read(body)


@pytest.mark.parametrize("amount", ["2.99", "10.001"])
def test_only_what_is_sold_can_be_bought_by_itself(amount: str) -> None:
    with pytest.raises(PurchaseRefused):
        read(f'{{"enabled": true, "threshold": 5, "amount": {amount}}}'.encode())


@pytest.mark.parametrize(
    ("values", "threshold", "amount"),
    [
        ('"threshold": "5.25", "amount": "2"', Decimal("5.25"), Decimal(2)),
        ('"threshold": "5000", "amount": 0', Decimal(5000), None),
        ('"threshold": "rubbish", "amount": null', None, None),
        ('"threshold": -1, "amount": "1e999"', None, None),
    ],
)
def test_what_is_off_keeps_what_could_be(values: str, threshold: Decimal | None, amount: Decimal | None) -> None:
    assert read(f'{{"enabled": false, {values}}}'.encode()) == TopOffSettings(False, threshold, amount)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"enabled": "yes"}', b'{"enabled": true, "threshold": true}', b"\xff", b"[" * 9999]
)
def test_what_is_not_of_the_form_is_refused(body: bytes) -> None:
    with pytest.raises(RequestInvalid):
        decode_body(body, TopOffWish)


@pytest.fixture
def stripe() -> FakeStripeApi:
    return FakeStripeApi()


@pytest.fixture
async def served(
    database_url: str, redis_url: str, tmp_path: Path, stripe: FakeStripeApi
) -> AsyncIterator[Served]:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        billing = served.services.billing
        billing = replace(billing, stripe=stripe, customers=Customers(stripe, billing.billing_customers))
        use_services(replace(served.services, billing=billing), served.app.extensions)
        yield served


async def make_buyer(served: Served, stripe: FakeStripeApi) -> User:
    user, table = await served.make_user(), BillingCustomers(served.services.database)
    await table.get_or_make(user.id)
    await table.note_customer(user.id, stripe.add_customer().id, 0)
    return user


def refusal(answer: Answer) -> tuple[int, Any]:
    return answer.status, answer.json["error_type"]


async def test_what_was_saved_is_shown_with_four_places(served: Served, stripe: FakeStripeApi) -> None:
    headers = token_headers(await make_buyer(served, stripe))
    before = await served.ask("GET", PATH, headers)
    assert (before.status, before.json) == (200, OFF)
    saved = await served.ask("POST", PATH, headers, b'{"enabled": true, "threshold": 5.5, "amount": "10"}')
    shown = {"enabled": True, "threshold": "5.5000", "amount": "10.0000"}
    assert (saved.status, saved.json) == (200, shown)
    assert (await served.ask("GET", PATH, headers)).json == shown
    off = await served.ask("POST", PATH, headers, b'{"enabled": false, "threshold": "5.5000"}')
    assert off.json == {"enabled": False, "threshold": "5.5000", "amount": None}
    entries = await served.services.auditor.log.find_latest(None, "auto_top_off_changed", 9)
    assert [dict(row.entry.details) for row in entries] == [shown, off.json]


async def test_who_was_never_asked_about_it_has_it_off(served: Served) -> None:
    answer = await served.ask("GET", PATH, token_headers(await served.make_user()))
    assert (answer.status, answer.json) == (200, OFF)


async def test_without_a_card_or_an_address_it_cannot_be_turned_on(served: Served, stripe: FakeStripeApi) -> None:
    ann = await make_buyer(served, stripe)
    stripe.customers["cus_1"] = replace(stripe.customers["cus_1"], billing_address=None)
    assert refusal(await served.ask("POST", PATH, token_headers(ann), ON)) == (402, "billing_address_required")
    bob = token_headers(await served.make_user("bob@example.com"))
    assert refusal(await served.ask("POST", PATH, bob, ON)) == (402, "payment_method_required")
    assert (await served.ask("GET", PATH, bob)).json == OFF
    assert (await served.ask("POST", PATH, bob, b'{"enabled": false}')).status == 200


async def test_out_of_bounds_is_a_400_and_nothing_is_saved(served: Served, stripe: FakeStripeApi) -> None:
    headers = token_headers(await make_buyer(served, stripe))
    for values in (b'"threshold": 5', b'"threshold": 5, "amount": 2.99', b'"threshold": 0, "amount": 10'):
        answer = await served.ask("POST", PATH, headers, b'{"enabled": true, %s}' % values)
        assert refusal(answer) == (400, "invalid_argument")
    assert (await served.ask("GET", PATH, headers)).json == OFF
    assert stripe.calls == []


async def test_an_api_key_may_look_and_not_change(served: Served, stripe: FakeStripeApi) -> None:
    user = await make_buyer(served, stripe)
    made = await served.ask("POST", "/api/auth/api-keys", token_headers(user), b'{"label": "laptop"}')
    headers = {"X-API-Key": made.json["key"]}
    assert refusal(await served.ask("POST", PATH, headers, ON)) == (403, "forbidden")
    assert (await served.ask("GET", PATH, headers)).json == OFF


async def test_a_server_that_sells_nothing_says_so(database_url: str, redis_url: str, tmp_path: Path) -> None:
    async with open_served({"DATABASE_URL": database_url, "REDIS_URL": redis_url}, tmp_path) as served:
        headers = token_headers(await served.make_user())
        assert refusal(await served.ask("POST", PATH, headers, ON)) == (503, "configuration_error")
        assert (await served.ask("POST", PATH, headers, b'{"enabled": false}')).status == 200


async def test_saving_wakes_whoever_tops_off(served: Served, stripe: FakeStripeApi) -> None:
    headers = token_headers(await make_buyer(served, stripe))
    sleeper = served.services.billing.top_offs._woken
    assert (await served.ask("POST", PATH, headers, ON)).status == 200
    assert sleeper.is_set()
