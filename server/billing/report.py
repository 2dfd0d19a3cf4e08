"""What a reconciliation found: as lines for an operator, and as figures that are kept and measured. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from storage.reconciliation import Drift, Findings, Total


@dataclass(frozen=True, slots=True)
class PaymentProblem:
    """A payment or an order about which Stripe and our books say different things; `reference` is Stripe's id."""

    reference: str
    text: str
    is_repaired: bool = False


@dataclass(frozen=True, slots=True)
class StripeFindings:
    """`payments` are those of ours that were compared; `of_gone_users` those whose user was deleted since: nobody is
    left to book for, and nothing is wrong.
    """

    payments: int
    of_gone_users: int
    problems: Sequence[PaymentProblem]


@dataclass(frozen=True, slots=True)
class Report:
    """`stripe` is None if it was not asked, and `stripe_failure` says so if it did not answer."""

    books: Findings
    stripe: StripeFindings | None = None
    stripe_failure: str = ""
    ended_orders: int = 0
    """Purchases that nobody paid, and that were ended."""

    @property
    def drifts(self) -> int:
        return sum(total.count for total in self.books.totals.values())

    @property
    def open_problems(self) -> int:
        """What Stripe and the books still differ in."""
        return sum(not problem.is_repaired for problem in self.stripe.problems) if self.stripe else 0

    @property
    def is_clean(self) -> bool:
        return not self.drifts and not self.open_problems


def build_figures(report: Report) -> dict[str, Any]:
    """JSON. Money is decimal text. What a metric is made of keeps its name: server/routes/metrics.py reads it."""
    state = report.books.state
    return {
        "drifts": {kind: total.count for kind, total in report.books.totals.items()},
        "drift_usd": {kind: str(total.drift_usd) for kind, total in report.books.totals.items()},
        "accounts": state.accounts,
        "debts": state.debts,
        "debts_usd": str(state.debts_usd),
        "open_holds": state.open_holds,
        "held_usd": str(state.held_usd),
        "provisional": state.provisional,
        "open_purchases": state.open_purchases,
        "stripe_events": dict(state.stripe_events),
        "stripe": _build_stripe_figures(report),
    }


def write_lines(report: Report) -> list[str]:
    """The last line is the verdict."""
    return [*_write_books(report.books), *_write_stripe(report), _write_verdict(report)]


def _build_stripe_figures(report: Report) -> dict[str, int] | None:
    if report.stripe is None:
        return None
    return {
        "payments": report.stripe.payments,
        "of_gone_users": report.stripe.of_gone_users,
        "problems": report.open_problems,
        "repaired": len(report.stripe.problems) - report.open_problems,
    }


def _write_books(books: Findings) -> Iterator[str]:
    for kind, total in books.totals.items():
        yield f"{kind}: {_count(total)}"
        told = [drift for drift in books.drifts if drift.kind == kind]
        yield from (_write_drift(drift) for drift in told)
        if total.count > len(told):
            yield f"  and {total.count - len(told)} more"
    state = books.state
    yield f"accounts: {state.accounts}, of them in debt: {state.debts} with {state.debts_usd} USD"
    yield f"running calls: {state.open_holds} with {state.held_usd} USD held; provisional charges: {state.provisional}"
    events = ", ".join(f"{number} {name}" for name, number in sorted(state.stripe_events.items())) or "none"
    yield f"open purchases: {state.open_purchases}; events of Stripe that are not done: {events}"


def _count(total: Total) -> str:
    return f"DRIFT: {total.count} differ by {total.drift_usd} USD together" if total.count else "ok"


def _write_drift(drift: Drift) -> str:
    return f"  {drift.subject_id}: {drift.found_usd} USD, and it should be {drift.expected_usd} USD"


def _write_stripe(report: Report) -> Iterator[str]:
    found = report.stripe
    if found is None:
        yield f"stripe: NOT ASKED: {report.stripe_failure}" if report.stripe_failure else "stripe: not asked"
        return
    verdict = f"DRIFT: {report.open_problems} differ" if report.open_problems else "ok"
    yield f"stripe: {verdict}; {found.payments} payments of ours, and {found.of_gone_users} of users who are gone"
    for problem in found.problems:
        yield f"  {problem.reference}: {problem.text}{'; repaired' if problem.is_repaired else ''}"
    if report.ended_orders:
        yield f"purchases that nobody paid, and that were ended: {report.ended_orders}"


def _write_verdict(report: Report) -> str:
    if report.is_clean:
        return "clean" if not report.stripe_failure else "clean as far as could be seen"
    return f"DRIFT: {report.drifts} in the books, {report.open_problems} with Stripe"
