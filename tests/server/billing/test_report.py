"""A reconciliation as lines and as figures."""

import json
from dataclasses import replace
from decimal import Decimal

from server.billing.report import PaymentProblem, Report, StripeFindings, build_figures, write_lines
from storage.reconciliation import Drift, Findings, State, Total

STATE = State(7, 1, Decimal("0.5"), 2, Decimal("1.25"), 3, 4, {"failed": 1, "pending": 2})
CLEAN = Report(Findings([], {"balance": Total(0, Decimal(0)), "held": Total(0, Decimal(0))}, STATE))
DRIFT = Drift("balance", "u1", Decimal("1.000000"), Decimal("1.000001"))
DRIFTED = Report(Findings([DRIFT], {**CLEAN.books.totals, "balance": Total(3, Decimal("0.000003"))}, STATE))
OPEN, REPAIRED = PaymentProblem("pi_1", "it is missing"), PaymentProblem("pi_2", "it differs", is_repaired=True)


def test_what_adds_up_is_clean_and_says_what_was_looked_at() -> None:
    assert CLEAN.is_clean
    assert write_lines(CLEAN) == [
        "balance: ok",
        "held: ok",
        "accounts: 7, of them in debt: 1 with 0.5 USD",
        "running calls: 2 with 1.25 USD held; provisional charges: 3",
        "open purchases: 4; events of Stripe that are not done: 1 failed, 2 pending",
        "stripe: not asked",
        "clean",
    ]


def test_a_difference_is_told_with_its_id_and_both_amounts() -> None:
    assert not DRIFTED.is_clean
    lines = write_lines(DRIFTED)
    assert lines[:4] == [
        "balance: DRIFT: 3 differ by 0.000003 USD together",
        "  u1: 1.000001 USD, and it should be 1.000000 USD",
        "  and 2 more",
        "held: ok",
    ]
    assert lines[-1] == "DRIFT: 3 in the books, 0 with Stripe"


def test_what_stripe_says_otherwise_is_drift_until_it_is_repaired() -> None:
    found = StripeFindings(9, 1, [OPEN, REPAIRED])
    report = replace(CLEAN, stripe=found, ended_orders=2)
    assert (report.is_clean, report.open_problems) == (False, 1)
    assert write_lines(report)[-5:] == [
        "stripe: DRIFT: 1 differ; 9 payments of ours, and 1 of users who are gone",
        "  pi_1: it is missing",
        "  pi_2: it differs; repaired",
        "purchases that nobody paid, and that were ended: 2",
        "DRIFT: 0 in the books, 1 with Stripe",
    ]
    assert replace(report, stripe=replace(found, problems=[REPAIRED])).is_clean


def test_a_stripe_that_did_not_answer_is_told() -> None:
    lines = write_lines(replace(CLEAN, stripe_failure="it is away"))
    assert lines[-2:] == ["stripe: NOT ASKED: it is away", "clean as far as could be seen"]


def test_the_figures_are_json_with_money_as_text() -> None:
    report = replace(DRIFTED, stripe=StripeFindings(9, 1, [OPEN, REPAIRED]))
    figures = build_figures(report)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["drifts"] == {"balance": 3, "held": 0}
    assert figures["drift_usd"] == {"balance": "0.000003", "held": "0"}
    assert (figures["debts"], figures["debts_usd"], figures["provisional"]) == (1, "0.5", 3)
    assert figures["stripe"] == {"payments": 9, "of_gone_users": 1, "problems": 1, "repaired": 1}
    assert build_figures(CLEAN)["stripe"] is None
