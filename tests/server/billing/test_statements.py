"""The ledger in the words of clients."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from server.billing.statements import (
    build_entry_id,
    describe_details,
    describe_history,
    describe_stats,
    describe_transactions,
)
from server.operations import encode_answer
from storage.history import Entry, Page, Totals

USER = UUID(int=1)
REQUEST = UUID(int=2)
CHARGE = Entry(
    id=7,
    kind="charge",
    amount_usd=Decimal("-0.012300"),
    free_usd=Decimal("-0.010000"),
    balance_usd=Decimal("1.230000"),
    description="openai/gpt-5-mini",
    created_at=datetime(2025, 1, 31, 10, 20, 30, 123456, UTC),
    hold_id=REQUEST,
    model_id="openai/gpt-5-mini",
    input_tokens=12,
    output_tokens=3,
    cache_write_tokens=0,
    cache_read_tokens=4,
    gross_usd=None,
    fee_usd=None,
    stripe_charge_id=None,
)
PURCHASE = replace(
    CHARGE,
    id=6,
    kind="purchase",
    amount_usd=Decimal("8.000000"),
    free_usd=Decimal("0.000000"),
    description="credit purchase",
    hold_id=None,
    model_id=None,
    input_tokens=None,
    output_tokens=None,
    cache_write_tokens=None,
    cache_read_tokens=None,
    gross_usd=Decimal("10.00"),
    fee_usd=Decimal("2.00"),
    stripe_charge_id="ch_1",
)
TOTALS = Totals(9, *map(Decimal, ("6.5", "8", "-1", "0.5", "-2", "2", "-1")))


def show(described: object) -> Any:
    """As it goes out, with money exactly as it is written."""
    return json.loads(encode_answer(described), parse_float=Decimal)


def test_a_charge_in_the_history_is_what_the_desktop_decodes() -> None:
    assert show(describe_history(Page([CHARGE], 3), 0)) == {
        "entries": [
            {
                "id": str(build_entry_id(CHARGE)),
                "price": Decimal("-0.0123"),
                "date": "2025-01-31T10:20:30.123Z",
                "model": "openai/gpt-5-mini",
                "inputTokens": 12,
                "outputTokens": 3,
                "cacheWriteTokens": 0,
                "cacheReadTokens": 4,
                "balanceAfter": Decimal("1.23"),
                "description": "openai/gpt-5-mini",
                "transactionType": "usage",
            }
        ],
        "totalCount": 3,
        "hasMore": True,
    }


def test_a_purchase_in_the_history_has_a_name_for_its_model_and_no_tokens() -> None:
    (entry,) = show(describe_history(Page([PURCHASE], 1), 0))["entries"]
    assert (entry["model"], entry["transactionType"], entry["price"]) == ("Credit Purchase", "purchase", Decimal(8))
    assert {entry[name] for name in ("inputTokens", "outputTokens", "cacheWriteTokens", "cacheReadTokens")} == {None}


@pytest.mark.parametrize(
    ("kind", "unified", "transaction", "model"),
    [
        ("charge", "usage", "consumption", "openai/gpt-5-mini"),
        ("correction", "correction", "consumption_adjustment", "openai/gpt-5-mini"),
        ("refund", "refund", "refund", "openai/gpt-5-mini"),
        ("expiry", "expiry", "expiry", "Expired Credits"),
        ("grant", "adjustment", "adjustment", "Adjustment"),
        ("adjustment", "adjustment", "adjustment", "Adjustment"),
        ("signup_bonus", "signup_bonus", "signup_bonus", "Free Credits"),
        ("purchase", "purchase", "purchase", "Credit Purchase"),
        ("purchase_refund", "purchase_refund", "refund_adjustment", "Refunded Payment"),
        ("dispute", "dispute", "refund_adjustment", "Disputed Payment"),
    ],
)
def test_every_kind_of_row_has_its_words(kind: str, unified: str, transaction: str, model: str) -> None:
    is_of_call = kind in {"charge", "correction", "refund", "expiry"}
    entry = replace(CHARGE if is_of_call else PURCHASE, kind=kind)
    page = Page([entry], 1)
    (line,) = show(describe_history(page, 0))["entries"]
    assert (line["transactionType"], line["model"]) == (unified, model)
    assert show(describe_transactions(page, 0))["transactions"][0]["transactionType"] == transaction
    assert show(describe_details(USER, TOTALS, page, 0))["transactions"][0]["transactionType"] == transaction


def test_a_row_has_the_same_id_everywhere_and_each_its_own() -> None:
    page = Page([CHARGE, PURCHASE], 2)
    ids = [entry["id"] for entry in show(describe_history(page, 0))["entries"]]
    assert len({UUID(id_) for id_ in ids}) == 2
    assert [entry["id"] for entry in show(describe_transactions(page, 0))["transactions"]] == ids
    assert [entry["id"] for entry in show(describe_details(USER, TOTALS, page, 0))["transactions"]] == ids
    assert build_entry_id(CHARGE) == UUID("bd837507-6148-5c61-bf10-be5339b91f8e")


def test_plain_transactions_have_money_in_strings() -> None:
    assert show(describe_transactions(Page([CHARGE], 1), 0)) == {
        "transactions": [
            {
                "id": str(build_entry_id(CHARGE)),
                "amount": "-0.012300",
                "currency": "USD",
                "transactionType": "consumption",
                "description": "openai/gpt-5-mini",
                "createdAt": "2025-01-31T10:20:30.123Z",
                "balanceAfter": "1.230000",
            }
        ],
        "totalCount": 1,
        "hasMore": False,
    }


def test_a_purchase_in_detail_has_what_was_paid_and_what_was_credited() -> None:
    details = show(describe_details(USER, TOTALS, Page([PURCHASE], 4), 3))
    assert details["transactions"] == [
        {
            "id": str(build_entry_id(PURCHASE)),
            "userId": str(USER),
            "transactionType": "purchase",
            "netAmount": "8.000000",
            "grossAmount": "10.000000",
            "feeAmount": "2.000000",
            "price": Decimal(8),
            "currency": "USD",
            "description": "credit purchase",
            "stripeChargeId": "ch_1",
            "relatedApiUsageId": None,
            "metadata": {"freeAmount": "0.000000"},
            "createdAt": "2025-01-31T10:20:30.123Z",
            "balanceAfter": Decimal("1.23"),
            "model": None,
            "inputTokens": None,
            "outputTokens": None,
        }
    ]
    assert (details["totalTransactionCount"], details["hasMore"]) == (4, False)


def test_a_charge_in_detail_names_its_request_and_has_no_fee() -> None:
    (charge,) = show(describe_details(USER, TOTALS, Page([CHARGE], 1), 0))["transactions"]
    assert (charge["relatedApiUsageId"], charge["model"]) == (str(REQUEST), "openai/gpt-5-mini")
    assert (charge["grossAmount"], charge["feeAmount"], charge["netAmount"]) == ("-0.012300", "0.000000", "-0.012300")
    assert charge["metadata"] == {"freeAmount": "-0.010000"}


def test_a_payment_that_went_back_is_its_own_gross() -> None:
    taken = replace(PURCHASE, kind="dispute", amount_usd=Decimal(-8))
    (dispute,) = show(describe_details(USER, TOTALS, Page([taken], 1), 0))["transactions"]
    assert (dispute["grossAmount"], dispute["feeAmount"]) == ("-8.000000", "0.000000")


def test_stats_are_numbers_that_add_up() -> None:
    stats = show(describe_stats(USER, TOTALS))
    assert stats == {
        "userId": str(USER),
        "currentBalance": Decimal("6.5"),
        "totalPurchased": 8,
        "totalConsumed": -1,
        "totalRefunded": Decimal("0.5"),
        "totalReturned": -2,
        "totalGiven": 2,
        "totalExpired": -1,
        "netBalance": Decimal("6.5"),
        "transactionCount": 9,
        "currency": "USD",
    }


@pytest.mark.parametrize(("offset", "has_more"), [(0, True), (7, True), (8, False)])
def test_there_is_more_until_the_last_page(offset: int, has_more: bool) -> None:
    assert show(describe_history(Page([CHARGE, PURCHASE], 10), offset))["hasMore"] is has_more
