"""The accounts as they ought to be: a model that knows no SQL, and that can be copied."""

from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Literal
from uuid import UUID

ZERO = Decimal(0)
MICRO_USD = Decimal("0.000001")


@dataclass(slots=True)
class Account:
    """`is_over`: the day of its lot of free credits has come."""

    balance: Decimal = ZERO
    free: Decimal = ZERO
    held: Decimal = ZERO
    held_free: Decimal = ZERO
    lot: int = 0
    is_over: bool = False

    @property
    def spare(self) -> Decimal:
        return ZERO if self.is_over else self.free - self.held_free

    @property
    def paid_available(self) -> Decimal:
        return self.balance - self.free - (self.held - self.held_free)

    def book(self, amount: Decimal, free: Decimal = ZERO) -> None:
        self.balance += amount
        self.free += free

    def expire(self) -> None:
        if self.is_over:
            spare = self.free - self.held_free
            self.book(-spare, -spare)


@dataclass(slots=True)
class Call:
    user_id: UUID
    amount: Decimal
    free: Decimal
    lot: int
    key: str | None
    has_lapsed: bool
    state: str = "held"
    charged: Decimal = ZERO
    charged_free: Decimal = ZERO
    refunded: Decimal = ZERO
    is_provisional: bool = True


@dataclass(slots=True)
class Order:
    """`returned` is what Stripe says by now: refunded and disputed cents. `payment_id` None: nobody has paid."""

    user_id: UUID
    kind: str
    net_cents: int
    total_cents: int
    payment_id: str | None = None
    returned: tuple[int, int] = (0, 0)
    state: str = "open"
    booked_returned: tuple[int, int] = (0, 0)
    taken_back: Decimal = ZERO


@dataclass(slots=True)
class Books:
    accounts: dict[UUID, Account]
    calls: dict[UUID, Call] = field(default_factory=dict)
    orders: dict[UUID, Order] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)

    def copy(self) -> "Books":
        return Books(
            {key: replace(one) for key, one in self.accounts.items()},
            {key: replace(one) for key, one in self.calls.items()},
            {key: replace(one) for key, one in self.orders.items()},
            set(self.keys),
        )

    def tell(self) -> dict[str, Any]:
        """What can be compared with the tables."""
        return {
            "accounts": {
                key: (one.balance, one.free, one.held, one.held_free, one.lot) for key, one in self.accounts.items()
            },
            "calls": {
                key: (one.state, one.free, one.charged, one.charged_free, one.refunded)
                for key, one in self.calls.items()
            },
            "orders": {key: (one.state, *one.booked_returned, one.taken_back) for key, one in self.orders.items()},
        }

    # Calls

    def hold(
        self, call_id: UUID, user_id: UUID, amount: Decimal, key: str | None, *, has_lapsed: bool
    ) -> Literal["held", "too low", "repeated"]:
        account = self.accounts[user_id]
        if account.paid_available + account.spare < amount:
            return "too low"
        if key is not None and any(one.key == key and one.user_id == user_id for one in self.calls.values()):
            return "repeated"
        free = min(amount, account.spare)
        account.held += amount
        account.held_free += free
        self.calls[call_id] = Call(user_id, amount, free, account.lot, key, has_lapsed)
        return "held"

    def settle(
        self, call_id: UUID, charge: Decimal, outcome: str, *, how: str, is_provisional: bool
    ) -> bool:
        call = self.calls.get(call_id)
        from_states = {"settled": ["held", "expired"], "expired": ["held"], "trued up": ["settled", "expired"]}[how]
        if call is None or call.state not in from_states or call.refunded:
            return False
        if (how == "expired" and not call.has_lapsed) or (how == "trued up" and not call.is_provisional):
            return False
        account = self.accounts[call.user_id]
        more_free = self._split(call, account, charge)
        back_free = max((call.free if call.state == "held" else ZERO) - more_free, ZERO)
        account.book(-(charge - call.charged), -more_free)
        if call.state == "held":
            account.held -= call.amount
            account.held_free -= call.free
        if call.lot != account.lot:
            account.book(-back_free, -back_free)
        call.charged, call.charged_free = charge, call.charged_free + more_free
        call.state = "expired" if how == "expired" else "settled"
        call.is_provisional = is_provisional
        call.key = call.key if outcome == "completed" else None
        return True

    def _split(self, call: Call, account: Account, charge: Decimal) -> Decimal:
        """What of the difference is free credits."""
        spare = account.spare if call.lot == account.lot else ZERO
        if call.state == "held":
            return min(charge, call.free) + min(max(charge - call.amount, ZERO), spare)
        if charge >= call.charged:
            return min(charge - call.charged, spare)
        return min(ZERO, charge - call.charged_free)

    def refund(self, call_id: UUID) -> bool:
        call = self.calls.get(call_id)
        if call is None or call.state == "held" or not call.charged or call.refunded:
            return False
        account = self.accounts[call.user_id]
        account.book(call.charged, call.charged_free)
        if call.lot != account.lot:
            account.book(-call.charged_free, -call.charged_free)
        call.refunded = call.charged
        return True

    # Credits

    def give(self, user_id: UUID, amount: Decimal, key: str) -> bool:
        account = self.accounts[user_id]
        account.expire()
        if key in self.keys:
            return False
        self.keys.add(key)
        if account.is_over or not account.lot:
            account.lot += 1
            account.is_over = False
        account.book(amount, amount)
        return True

    def adjust(self, user_id: UUID, amount: Decimal, key: str) -> bool:
        account = self.accounts[user_id]
        if key in self.keys:
            return True
        if amount < 0 and account.paid_available + account.spare + amount < 0:
            return False
        self.keys.add(key)
        free = max(amount + max(account.paid_available, ZERO), -account.spare) if amount < 0 else ZERO
        account.book(amount, min(free, ZERO))
        return True

    # Orders

    def open(self, order_id: UUID, order: Order) -> bool:
        is_under_way = order.kind == "top_off" and any(
            one.user_id == order.user_id and one.kind == "top_off" and one.state == "open"
            for one in self.orders.values()
        )
        if not is_under_way:
            self.orders[order_id] = order
        return not is_under_way

    def book(self, order_id: UUID) -> None:
        order = self.orders[order_id]
        if order.payment_id is not None and order.state != "paid":
            order.state = "paid"
            self.accounts[order.user_id].book(Decimal(order.net_cents) / 100)

    def take_back(self, order_id: UUID) -> None:
        order = self.orders[order_id]
        if order.state == "paid":
            share = Decimal(min(sum(order.returned), order.total_cents)) / order.total_cents
            taken_back = (share * order.net_cents / 100).quantize(MICRO_USD, ROUND_HALF_EVEN)
            self.accounts[order.user_id].book(order.taken_back - taken_back)
            order.taken_back, order.booked_returned = taken_back, order.returned

    def end(self, order_id: UUID) -> bool:
        order = self.orders[order_id]
        if order.state != "open":
            return False
        order.state = "failed"
        return True
