"""Everything that locks rows of money, by many tasks of two servers at once: nobody waits in a circle."""

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
import trio

from storage.audit import AuditEntry, AuditLog
from storage.credits import SpendingLimitReached, UserUnknown
from storage.embedded import EmbeddedServers
from storage.journal import Progress
from storage.purchases import Paid
from storage.sign_ins import AccountInUse, SignIns
from storage.spending_limits import NewLimit, Period, remove_spending_limit, set_spending_limit
from storage.top_offs import TopOffTable
from storage.unchecked_usage import UncheckedUsages
from tests.conftest import with_database
from tests.storage.calls import make_user
from tests.storage.ledger_runs import open_stage
from tests.storage.ledger_steps import Adjust, End, Expire, Hold, Lapse, Open, Refund, Settle, Stage, Step
from tests.storage.people import Query
from tests.storage.top_offs import CENTS, DECLINED, build_entry, set_top_off

TASKS = 20
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
ENTRY = AuditEntry("test", "success", "system")


@dataclass(frozen=True, slots=True)
class Storm:
    """What happens next is drawn; to whom, too. The last of the users is deleted again and again."""

    stages: Sequence[Stage]
    chance: random.Random
    users: list[UUID] = field(default_factory=list)
    calls: list[tuple[UUID, UUID]] = field(default_factory=list)
    orders: list[UUID] = field(default_factory=list)
    limits: list[tuple[UUID, UUID]] = field(default_factory=list)

    async def live(self, until: float) -> None:
        doings: Sequence[Callable[[Stage], Awaitable[object]]] = [
            *[self.take_step] * 14, self.give, self.renew, self.set_limit, self.remove_limit, self.book, self.take_back,
            self.top_off, self.carry_out, self.check_usage, self.delete,
        ]  # fmt: skip
        while trio.current_time() < until:
            stage = self.chance.choice(self.stages)
            with suppress(UserUnknown, SpendingLimitReached):
                await self.chance.choice(doings)(stage)

    async def take_step(self, stage: Stage) -> None:
        await self.draw_step().run(stage)

    def draw_step(self) -> Step:
        user_id, choice = self.chance.choice(self.users), self.chance.choice
        amount = Decimal(choice(["0.000001", "0.5", "2"]))
        call = choice(self.calls[-20:]) if self.calls else (uuid4(), user_id)
        new = (uuid4(), user_id)
        builders: Sequence[Callable[[], Step]] = [
            *[lambda: Hold(*new, amount, None, choice([-1, 60]))] * 3,
            *[lambda: Settle(*call, amount, "completed", choice(["settled", "expired", "trued up"]), True)] * 4,
            lambda: Lapse(call[0]),
            lambda: Refund(call[0]),
            Expire,
            lambda: Adjust(user_id, choice([amount, -amount]), str(uuid4())),
            lambda: Open(*new, "checkout", 800, 200),
            lambda: End(choice(self.orders[-5:] or [uuid4()])),
        ]
        step = choice(builders)()
        if isinstance(step, Hold):
            self.calls.append(new)
        if isinstance(step, Open):
            self.orders.append(new[0])
        return step

    async def give(self, stage: Stage) -> None:
        """For a moment."""
        expires_at = datetime.now(UTC) + timedelta(seconds=self.chance.random())
        user_id, key = self.chance.choice(self.users), str(uuid4())
        await stage.bookings.grant_free(user_id, Decimal(2), expires_at, idempotency_key=key, description="")

    async def renew(self, stage: Stage) -> None:
        ids = [call_id for call_id, _ in self.calls[-10:]]
        await stage.credits.renew([Progress(call_id) for call_id in self.chance.sample(ids, len(ids))])

    async def set_limit(self, stage: Stage) -> None:
        user_id = self.chance.choice(self.users)
        period: Period = self.chance.choice(["day", "month"])
        async with stage.database.as_operator("test").transaction() as connection:
            limit = await set_spending_limit(connection, user_id, NewLimit(None, period, Decimal(1000)))
            await stage.purchases.audit.append(connection, ENTRY)
        self.limits.append((user_id, limit.id))

    async def remove_limit(self, stage: Stage) -> None:
        if self.limits:
            async with stage.database.as_operator("test").transaction() as connection:
                await remove_spending_limit(connection, *self.chance.choice(self.limits[-4:]))
                await stage.purchases.audit.append(connection, ENTRY)

    async def book(self, stage: Stage) -> None:
        order_id = self.chance.choice(self.orders[-5:] or [uuid4()])
        await stage.purchases.book(order_id, Paid(1190, f"pi_{order_id}", None), lambda _: ENTRY)

    async def take_back(self, stage: Stage) -> None:
        order_id = self.chance.choice(self.orders[-5:] or [uuid4()])
        await stage.purchases.set_returned(order_id, self.chance.choice([0, 500]), 0, lambda _: ENTRY)

    async def top_off(self, stage: Stage) -> None:
        await set_top_off(stage.database, self.chance.choice(self.users), threshold_usd="100000")
        table = build_top_offs(stage)
        if (due := await table.claim_due()) is not None:
            await table.open(uuid4(), due, CENTS)

    async def carry_out(self, stage: Stage) -> None:
        table = build_top_offs(stage)
        order = await table.lease_open()
        if order is not None and self.chance.random() < 0.5:
            await stage.purchases.book(order.id, Paid(1190, f"pi_{order.id}", None), lambda _: ENTRY)
        elif order is not None:
            await table.fail(order, DECLINED, build_entry)
            await table.end(order.id, order.invoice_id)

    async def check_usage(self, stage: Stage) -> None:
        await UncheckedUsages(stage.database).find_due(["openai"])

    async def delete(self, stage: Stage) -> None:
        user_id = self.users[-1]
        for call_id, owner_id in self.calls:
            if owner_id == user_id:
                await Settle(call_id, user_id, Decimal(0), "completed", "settled", False).run(stage)
        with suppress(AccountInUse):
            await SignIns(stage.database, stage.purchases.audit).delete_account(user_id, ENTRY)
            if self.users[-1] == user_id:
                self.users[-1] = await make_user(stage.database)


def build_top_offs(stage: Stage) -> TopOffTable:
    return TopOffTable(stage.database, AuditLog(stage.database, "test", "a" * 32), claim_seconds=0, lease_seconds=1)


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.soak)])
async def test_in_a_storm_nobody_waits_in_a_circle_and_the_accounts_add_up(
    servers: EmbeddedServers, accounts_name: str, ask: Query, seconds: float
) -> None:
    """A deadlock would come out of here as DatabaseUnavailable."""
    url = with_database(servers.database_url, accounts_name)
    (before,) = ask(DEADLOCKS)
    async with open_stage(url, ask) as one, open_stage(url, ask) as other:
        storm = Storm([one, other], random.Random(seconds))  # noqa: S311 - a test that can be repeated
        storm.users.extend([await make_user(one.database, credits_usd) for credits_usd in ("20", "20", "0")])
        with trio.fail_after(seconds + 30):
            async with trio.open_nursery() as nursery:
                for _ in range(TASKS):
                    nursery.start_soon(storm.live, trio.current_time() + seconds)
    assert ask(DEADLOCKS) == [before]
    assert len(storm.calls) > TASKS


async def test_two_who_renew_the_same_calls_in_opposite_order_both_do(
    servers: EmbeddedServers, accounts_name: str, ask: Query
) -> None:
    """A server, and the one that has found its journal."""
    async with open_stage(with_database(servers.database_url, accounts_name), ask) as stage:
        user_id = await make_user(stage.database, "100")
        ids = [uuid4() for _ in range(100)]
        for id_ in ids:
            await Hold(id_, user_id, Decimal("0.1"), None, 60).run(stage)
        progress = [Progress(id_, output_tokens=7) for id_ in ids]
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stage.credits.renew, progress)
                nursery.start_soon(stage.credits.expire, progress[::-1])
        tokens = "SELECT DISTINCT progress->>'output_tokens' FROM holds WHERE user_id = %s"
        assert ask(tokens, user_id) == [("7",)]
        for id_ in ids:
            await Settle(id_, user_id, Decimal(0), "completed", "settled", False).run(stage)
