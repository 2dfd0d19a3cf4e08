"""Whether the accounts add up: true accounts do, and whatever is tampered with is found."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
import trio

from proxy.ledger import Hold
from storage.bookings import Bookings
from storage.credits import Credits
from storage.embedded import EmbeddedServers
from storage.postgres import Database
from storage.reconciliation import KINDS, MAX_TOLD, Drift, Findings, Reconciliations, Total
from tests.conftest import with_database
from tests.storage.calls import build_hold, build_settlement, make_user

LEASE_SECONDS = 60
NONE = Total(0, Decimal(0))
CLEAR = b"""
    DELETE FROM users; DELETE FROM stripe_events; DELETE FROM reconciliations;
    SET session_replication_role = replica; -- what was tampered with may belong to nobody
    DELETE FROM credit_ledger; DELETE FROM credit_balances;
"""


@dataclass(frozen=True, slots=True)
class Money:
    """Of one user: a call that has ended, one that was corrected, one that runs, a limit, and a purchase."""

    database: Database
    books: Reconciliations
    owner_url: str
    user_id: UUID
    ended: Hold
    running: Hold
    limit_id: UUID
    purchase_id: UUID

    async def examine(self) -> Findings:
        return await self.books.examine(LEASE_SECONDS)

    def tamper(self, statement: str, *parameters: object) -> None:
        """Behind the back of all triggers."""
        with psycopg.connect(self.owner_url) as owner:
            owner.execute("SET session_replication_role = replica")
            owner.execute(statement.encode(), parameters)


@pytest.fixture
async def money(accounts: Database, servers: EmbeddedServers, accounts_name: str) -> AsyncIterator[Money]:
    """Alone in the database: at the end all users go."""
    owner_url = with_database(servers.owner_database_url, accounts_name)
    yield await make_money(accounts, owner_url)
    with psycopg.connect(owner_url) as owner:
        owner.execute(CLEAR)


async def make_money(database: Database, owner_url: str) -> Money:
    credits_, user_id = Credits(database), await make_user(database, "10")
    expires_at = datetime.now(UTC) + timedelta(days=1)
    await Bookings(database).grant_free(
        user_id, Decimal(1), expires_at, idempotency_key=f"bonus:{user_id}", description="bonus"
    )
    ended, corrected, running = [build_hold(user_id, amount) for amount in ("2", "1", "3")]
    for hold in (ended, corrected):
        await credits_.hold(hold)
        await credits_.settle(build_settlement(hold, "1.25", provisional=hold is corrected))
    await credits_.true_up(build_settlement(corrected, "0.75"))
    await credits_.hold(running)
    limit_id, purchase_id = uuid4(), uuid4()
    with psycopg.connect(owner_url) as owner:
        owner.execute(
            "INSERT INTO spending_limits (id, user_id, period, limit_usd, period_start)"
            " VALUES (%s, %s, 'day', 9, date_trunc('day', now()))",
            [limit_id, user_id],
        )
        owner.execute(
            "INSERT INTO purchases (id, user_id, kind, state, gross_cents, fee_cents, net_cents, total_cents, paid_at,"
            " stripe_payment_intent_id, taken_back_usd) VALUES (%s, %s, 'checkout', 'paid', 1000, 200, 800, 1100,"
            " now(), 'pi_1', 2)",
            [purchase_id, user_id],
        )
        for kind, amount in (("purchase", 8), ("purchase_refund", -3), ("dispute", 1)):
            owner.execute(
                "INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key, purchase_id)"
                " VALUES (%s, %s, %s, %s, %s)",
                [user_id, kind, amount, f"{kind}:{purchase_id}", purchase_id],
            )
    return Money(database, Reconciliations(database), owner_url, user_id, ended, running, limit_id, purchase_id)


async def test_true_accounts_add_up(money: Money) -> None:
    found = await money.examine()
    assert found.drifts == []
    assert found.totals == dict.fromkeys(KINDS, NONE)


async def test_what_is_no_drift_is_told_as_it_is(money: Money) -> None:
    debtor = await make_user(money.database, "1")
    hold = build_hold(debtor, "0.5")
    await Credits(money.database).hold(hold)
    await Credits(money.database).settle(build_settlement(hold, "3", provisional=True))
    money.tamper("INSERT INTO stripe_events (id, type, state) VALUES ('e1', 'x', 'failed'), ('e2', 'x', 'pending'),"
                    " ('e3', 'x', 'pending'), ('e4', 'x', 'done')")  # fmt: skip
    state = (await money.examine()).state
    assert (state.accounts, state.debts, state.debts_usd) == (2, 1, Decimal(2))
    assert (state.open_holds, state.held_usd, state.provisional) == (1, Decimal(3), 1)
    assert state.stripe_events == {"failed": 1, "pending": 2}


TAMPERED = {
    "balance": ("UPDATE credit_balances SET balance_usd = balance_usd + 0.000001", "user_id", "0.000001"),
    "free_balance": ("UPDATE credit_balances SET free_usd = free_usd + 1", "user_id", "1"),
    "held": ("UPDATE credit_balances SET held_usd = held_usd + 2", "user_id", "2"),
    "held_free": ("UPDATE holds SET free_usd = free_usd + 0.5 WHERE state = 'held'", "user_id", "0.5"),
    "hold": ("UPDATE holds SET charged_usd = 1 WHERE id = %s", "ended", "0.25"),
    "hold_free": ("UPDATE holds SET charged_free_usd = charged_free_usd - 0.5 WHERE id = %s", "ended", "0.5"),
    "usage": ("UPDATE usage SET cost_usd = 1.250001 WHERE request_id = %s", "ended", "0.000001"),
    "refund": ("UPDATE holds SET refunded_usd = 1 WHERE id = %s", "ended", "1"),
    "spending_limit": ("UPDATE spending_limits SET held_usd = 4", "limit_id", "1"),
    "overdue_hold": ("UPDATE holds SET expires_at = now() - interval '61 s' WHERE state = 'held'", "running", "3"),
    "purchase": ("UPDATE purchases SET net_cents = 801, fee_cents = 199", "purchase_id", "0.01"),
    "purchase_returned": ("UPDATE purchases SET taken_back_usd = 2.5", "purchase_id", "0.5"),
}


def test_every_kind_is_tampered_with_here() -> None:
    assert TAMPERED.keys() == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_does_not_add_up_is_found(money: Money, kind: str) -> None:
    statement, subject, drift_usd = TAMPERED[kind]
    whose = getattr(money, subject)
    subject_id = whose.id if isinstance(whose, Hold) else whose
    money.tamper(statement, *([subject_id] if "%s" in statement else []))
    found = await money.examine()
    assert found.totals[kind] == Total(1, Decimal(drift_usd))
    [drift] = [drift for drift in found.drifts if drift.kind == kind]
    assert drift.subject_id == str(subject_id)
    assert abs(drift.found_usd - drift.expected_usd) == Decimal(drift_usd)


@pytest.mark.parametrize("kind", ["purchase", "charge"])
async def test_bookings_for_what_is_not_there_are_found(money: Money, kind: str) -> None:
    column = "purchase_id" if kind == "purchase" else "hold_id"
    unknown = uuid4()
    with psycopg.connect(money.owner_url) as owner:
        owner.execute(
            f"INSERT INTO credit_ledger (user_id, kind, amount_usd, idempotency_key, {column})"  # noqa: S608 - ours
            " VALUES (%s, %s, -1, 'unknown', %s)",
            [money.user_id, kind, unknown],
        )
    found = await money.examine()
    told = "purchase" if kind == "purchase" else "hold"
    assert [(drift.kind, drift.subject_id) for drift in found.drifts] == [(told, str(unknown))]


async def test_of_many_differences_the_first_are_told_and_all_are_counted(money: Money) -> None:
    money.tamper("INSERT INTO users (email) SELECT 'u' || n || '@example.com' FROM generate_series(1, 70) AS n")
    money.tamper(
        "INSERT INTO credit_balances (user_id, balance_usd) SELECT id, -2 FROM users WHERE email LIKE 'u%%'"
    )
    found = await money.examine()
    assert found.totals["balance"] == Total(70, Decimal(140))
    assert len(found.drifts) == MAX_TOLD
    assert all(drift == Drift("balance", drift.subject_id, Decimal(0), Decimal(-2)) for drift in found.drifts)


async def test_accounts_that_move_add_up_all_the_same(money: Money) -> None:
    """Every examination sees one moment, in which all statements are either done or not begun."""
    credits_, seen = Credits(money.database), 0

    async def trade() -> None:
        while True:
            hold = build_hold(money.user_id, "0.01")
            await credits_.hold(hold)
            await credits_.settle(build_settlement(hold, "0.000001"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trade)
        nursery.start_soon(trade)
        while seen < 12:
            assert (await money.examine()).drifts == []
            seen += 1
        nursery.cancel_scope.cancel()


# Whose turn it is, and what is kept


async def test_one_process_reconciles_in_a_period(money: Money) -> None:
    claimed: list[int | None] = []

    async def claim() -> None:
        claimed.append(await money.books.claim(3600))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(claim)
    assert len([number for number in claimed if number is not None]) == 1
    money.tamper("UPDATE reconciliations SET at = at - interval '1 hour'")
    assert await money.books.claim(3600) is not None


async def test_whoever_comes_while_another_begins_waits_and_sees_that_it_has_begun(money: Money) -> None:
    claimed: list[int | None] = []

    async def claim() -> None:
        claimed.append(await money.books.claim(3600))

    waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with trio.open_nursery() as nursery:
        with psycopg.connect(money.owner_url) as other, psycopg.connect(money.owner_url, autocommit=True) as watch:
            other.execute("SELECT pg_advisory_xact_lock(hashtext('cloche reconciliation'))")
            other.execute("INSERT INTO reconciliations (figures) VALUES ('{}')")
            nursery.start_soon(claim)
            with trio.fail_after(10):
                while not watch.execute(waiting).fetchall() and not claimed:
                    await trio.sleep(0.01)
    assert claimed == [None]


async def test_what_was_found_is_kept_and_shown_with_its_age(money: Money) -> None:
    assert await money.books.find_latest() is None
    number = await money.books.claim(3600)
    assert number is not None
    assert await money.books.find_latest() is None, "it has only begun"
    await money.books.keep(number, {"debts": 3, "drift_usd": {"balance": "0.5"}})
    money.tamper("UPDATE reconciliations SET at = at - interval '90 s'")
    latest = await money.books.find_latest()
    assert latest is not None
    assert 90 <= latest[0] < 120
    assert latest[1] == {"debts": 3, "drift_usd": {"balance": "0.5"}}


async def test_old_ones_are_dropped(money: Money) -> None:
    money.tamper("INSERT INTO reconciliations (at, figures) VALUES (now() - interval '91 days', '{}')")
    await money.books.claim(3600)
    with psycopg.connect(money.owner_url) as owner:
        assert owner.execute("SELECT count(*) FROM reconciliations").fetchone() == (1,)


# What Stripe is compared with


async def test_paid_purchases_are_found_by_their_day(money: Money) -> None:
    now = datetime.now(UTC)
    [order] = await money.books.find_paid(now - timedelta(hours=1))
    assert (order.id, order.payment_intent_id, order.total_cents) == (money.purchase_id, "pi_1", 1100)
    assert await money.books.find_paid(now + timedelta(hours=1)) == []


async def test_users_that_are_gone_are_told_apart(money: Money) -> None:
    assert await money.books.find_users([money.user_id, uuid4()]) == {money.user_id}
