"""Everything that may happen to money, in any order, several at once, and cut at any moment, beside a model of it.

After every step the tables are what the model says: balance = sum of ledger, held = open holds, nothing credited twice,
no request for nothing. Stripe is played in memory; the database is real. Each example is one run of Trio.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from storage.embedded import EmbeddedServers
from tests.conftest import with_database
from tests.storage.accounting import check_accounts
from tests.storage.calls import make_user
from tests.storage.ledger_model import Account, Books
from tests.storage.ledger_runs import Loop, find_order, open_stage, run_at_once, run_cut
from tests.storage.ledger_steps import (
    Adjust,
    Age,
    End,
    Expire,
    Give,
    Hold,
    Lapse,
    Open,
    Refund,
    Settle,
    Stage,
    Step,
    Sync,
    pay_at_stripe,
    read_tables,
)
from tests.storage.people import Query, open_query

Draw = Callable[[st.SearchStrategy[Any]], Any]

PAID = Decimal(5)
"""What every user begins with."""

AMOUNTS = st.sampled_from([Decimal(text) for text in ("0.000001", "0.3", "1", "1.999999", "2.5", "4")])
CHARGES = st.sampled_from([Decimal(text) for text in ("0", "0.000001", "0.25", "1", "2.25", "6")])
KEYS = st.sampled_from([None, "a", "b"])
NUMBERS = st.integers(0, 20)
OUTCOMES = st.sampled_from(["completed", "cancelled", "failed"])
CENTS = st.sampled_from([(800, 200), (1080, 120), (333, 67)])


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self, database_url: str, query: Query) -> None:
        super().__init__()
        self.query = query
        self.loop = Loop(partial(open_stage, database_url, query))
        self.stage: Stage = self.loop.stage
        self.users = [self.loop.run(make_user, self.stage.database, str(PAID)) for _ in range(2)]
        self.books = Books({user_id: Account(balance=PAID) for user_id in self.users})
        self.references: dict[UUID, str] = {}
        """Stripe's sessions and invoices, of orders that somebody has paid."""

    # What a step may be about

    def user(self, number: int) -> UUID:
        return self.users[number % len(self.users)]

    def call(self, number: int) -> UUID:
        """One of the last, or one that nobody knows."""
        calls = list(self.books.calls)[-6:]
        return calls[number % len(calls)] if calls else uuid4()

    def build_settle(self, number: int, charge: Decimal, outcome: Any, how: str, is_provisional: bool) -> Settle:
        call_id = self.call(number)
        call = self.books.calls.get(call_id)
        return Settle(call_id, call.user_id if call else self.user(number), charge, outcome, how, is_provisional)

    def build_hold(self, number: int, amount: Decimal, key: str | None, is_lost: bool) -> Hold:
        return Hold(uuid4(), self.user(number), amount, key, -1 if is_lost else 60)

    def key(self, number: int) -> str:
        """Different users have different keys; the same few come again."""
        return f"{number % 8}:{self.user(number)}"

    def build_sync(self, number: int, by_session: bool) -> Step:
        """Of an order that somebody has paid."""
        paid = [order_id for order_id, order in self.books.orders.items() if order.payment_id is not None]
        if not paid:
            return Expire()
        order_id = paid[number % len(paid)]
        payment_id = self.books.orders[order_id].payment_id
        assert payment_id is not None
        return Sync(order_id, payment_id, self.references[order_id] if by_session else None)

    def build(self, draw: Draw, kind: int) -> Step:
        """Any step, of a kind that may be any number."""
        number = draw(NUMBERS)
        key = self.key(number)
        builders: list[Callable[[], Step]] = [
            lambda: self.build_hold(number, draw(AMOUNTS), draw(KEYS), draw(st.booleans())),
            lambda: self.build_settle(number, draw(CHARGES), draw(OUTCOMES), "settled", draw(st.booleans())),
            lambda: self.build_settle(number, draw(CHARGES), "cancelled", "expired", True),
            lambda: self.build_settle(number, draw(CHARGES), "cancelled", "trued up", False),
            lambda: Refund(self.call(number)),
            lambda: Give(self.user(number), draw(AMOUNTS), f"give {key}", draw(st.booleans())),
            lambda: Adjust(self.user(number), draw(AMOUNTS) * draw(st.sampled_from([1, -1])), f"adjust {key}"),
            lambda: self.build_sync(number, draw(st.booleans())),
            lambda: Open(uuid4(), self.user(number), draw(st.sampled_from(["checkout", "top_off"])), *draw(CENTS)),
            Expire,
        ]
        return builders[kind % len(builders)]()

    def do(self, step: Step) -> None:
        note(f"{step}")
        result = self.loop.run(step.run, self.stage)
        assert step.apply(self.books) == result

    # One thing at a time

    @rule(number=NUMBERS, amount=AMOUNTS, key=KEYS, is_lost=st.booleans())
    def hold(self, number: int, amount: Decimal, key: str | None, is_lost: bool) -> None:
        self.do(self.build_hold(number, amount, key, is_lost))

    @rule(number=NUMBERS, charge=CHARGES, outcome=OUTCOMES, is_provisional=st.booleans())
    def settle(self, number: int, charge: Decimal, outcome: str, is_provisional: bool) -> None:
        self.do(self.build_settle(number, charge, outcome, "settled", is_provisional))

    @rule(number=NUMBERS, charge=CHARGES)
    def true_up(self, number: int, charge: Decimal) -> None:
        self.do(self.build_settle(number, charge, "cancelled", "trued up", False))

    @rule(number=NUMBERS)
    def lapse(self, number: int) -> None:
        self.do(Lapse(self.call(number)))

    @rule(charge=CHARGES)
    def sweep(self, charge: Decimal) -> None:
        """All that processes have left behind which are gone."""
        found = {hold.id: hold.user_id for hold in self.loop.run(self.stage.credits.find_expired)}
        left = {key for key, call in self.books.calls.items() if call.state == "held" and call.has_lapsed}
        assert found.keys() == left
        for call_id, user_id in found.items():
            self.do(Settle(call_id, user_id, charge, "cancelled", "expired", True))

    @rule(number=NUMBERS, amount=AMOUNTS, is_endless=st.booleans(), is_late=st.booleans())
    def give(self, number: int, amount: Decimal, is_endless: bool, is_late: bool) -> None:
        """Late: those that were given before have expired."""
        if is_late:
            self.do(Age(self.user(number)))
        self.do(Give(self.user(number), amount, f"give {uuid4()}", is_endless))

    @rule(number=NUMBERS, day_comes=st.booleans())
    def expire(self, number: int, day_comes: bool) -> None:
        self.do(Age(self.user(number)) if day_comes else Expire())

    @rule(number=NUMBERS, net_and_fee=CENTS, kind=st.sampled_from(["checkout", "top_off"]))
    def buy(self, number: int, net_and_fee: tuple[int, int], kind: Any) -> None:
        """The payment comes; that we are told of it, is another step."""
        step = Open(uuid4(), self.user(number), kind, *net_and_fee)
        self.do(step)
        if (order := self.books.orders.get(step.order_id)) is not None:
            order.payment_id, reference = self.loop.run(pay_at_stripe, self.stage, step.order_id)
            self.references[step.order_id] = reference

    @precondition(lambda self: any(order.payment_id for order in self.books.orders.values()))
    @rule(number=NUMBERS, refunded=st.sampled_from([0, 1, 500, 5000]), disputed=st.sampled_from([0, 700]))
    def return_money(self, number: int, refunded: int, disputed: int) -> None:
        paid = [order for order in self.books.orders.values() if order.payment_id is not None]
        order = paid[number % len(paid)]
        order.returned = (min(refunded, order.total_cents), disputed)
        assert order.payment_id is not None
        self.stage.stripe.change_payment(
            order.payment_id, refunded_cents=order.returned[0], disputed_cents=order.returned[1]
        )

    @precondition(lambda self: self.books.orders)
    @rule(number=NUMBERS)
    def give_up(self, number: int) -> None:
        orders = list(self.books.orders)
        self.do(End(orders[number % len(orders)]))

    @rule(data=st.data(), kind=NUMBERS)
    def anything(self, data: st.DataObject, kind: int) -> None:
        self.do(self.build(data.draw, kind))

    # Several at once, and cut

    @rule(data=st.data(), kinds=st.lists(NUMBERS, min_size=2, max_size=4), is_race=st.booleans())
    def storm(self, data: st.DataObject, kinds: list[int], is_race: bool) -> None:
        """It looks as if they had come one after the other, in some order. In a race all are of one kind."""
        steps = [self.build(data.draw, kinds[0] if is_race else kind) for kind in kinds]
        self.do_at_once(steps if isinstance(steps[0], Hold | Open) else [*steps, steps[0]])

    @rule(number=NUMBERS, amounts=st.lists(AMOUNTS, min_size=3, max_size=4))
    def rush(self, number: int, amounts: list[Decimal]) -> None:
        """For the last credits of one user."""
        self.do_at_once([self.build_hold(number, amount, None, False) for amount in amounts])

    @rule(number=NUMBERS, charges=st.lists(CHARGES, min_size=3, max_size=4))
    def end_together(self, number: int, charges: list[Decimal]) -> None:
        """The calls of one user."""
        user_id = self.user(number)
        running = [key for key, call in self.books.calls.items() if (call.user_id, call.state) == (user_id, "held")]
        ends = zip(running, charges, strict=False)
        self.do_at_once([Settle(key, user_id, charge, "completed", "settled", True) for key, charge in ends])

    def do_at_once(self, steps: Sequence[Step]) -> None:
        note(f"at once: {steps}")
        results = self.loop.run(run_at_once, steps, self.stage)
        told = read_tables(self.query, self.users)
        found = find_order(self.books, list(zip(steps, results, strict=True)), told)
        assert found is not None, (results, told)
        self.books = found

    @rule(data=st.data(), kind=NUMBERS, number=st.integers(1, 12), is_killed=st.booleans())
    def cut(self, data: st.DataObject, kind: int, number: int, is_killed: bool) -> None:
        """Cancelled, or its connections gone, between any two statements: it has happened, or it has not."""
        step = self.build(data.draw, kind)
        note(f"cut at {number}, {is_killed=}: {step}")
        is_done = self.loop.run(run_cut, step, self.stage, number, self.kill_connections if is_killed else None)
        self.wait_quiet()
        told = read_tables(self.query, self.users)
        ways = step.ways(self.books)
        found = next((way for way in ways[-1 if is_done else 0 :] if way.tell() == told), None)
        assert found is not None, told
        self.books = found

    def kill_connections(self) -> None:
        self.query(f"SELECT pg_terminate_backend(pid, 5000) {SERVERS_CONNECTIONS}")

    def wait_quiet(self) -> None:
        """Nobody finishes later what was cut."""
        while self.query(f"SELECT 1 {SERVERS_CONNECTIONS} AND state <> 'idle'"):
            pass

    # What always holds

    @invariant()
    def check_tables(self) -> None:
        assert read_tables(self.query, self.users) == self.books.tell()
        check_accounts(self.query)

    def teardown(self) -> None:
        self.loop.close()
        self.query("DELETE FROM users WHERE id = ANY(%s)", self.users)


SERVERS_CONNECTIONS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'cloche'"


def run_machine(servers: EmbeddedServers, name: str, examples: int, steps: int) -> None:
    with open_query(with_database(servers.owner_database_url, name)) as query:
        url = with_database(servers.database_url, name)

        class Machine(LedgerMachine):
            def __init__(self) -> None:
                super().__init__(url, query)

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )


def test_whatever_happens_the_accounts_are_right(servers: EmbeddedServers, accounts_name: str) -> None:
    run_machine(servers, accounts_name, examples=16, steps=30)


@pytest.mark.soak
def test_whatever_happens_for_long_the_accounts_are_right(servers: EmbeddedServers, accounts_name: str) -> None:
    run_machine(servers, accounts_name, examples=200, steps=60)
