"""Balances as their watchers hear of them: at first, and whenever they change, whatever has changed them."""

from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from server.relay.balance_watch import ROUND_SECONDS, BalanceWatch
from server.relay.watchers import Watchers
from storage.credits import Balance, Credits
from storage.errors import DatabaseUnavailable
from storage.postgres import Database, open_database
from tests.server.relay.audience import ANN, build_watcher, take_events
from tests.storage.calls import build_hold, build_settlement, grant, grant_free, make_user

TEN = "10.000000"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, size=2) as database:
        yield database


def build_payload(paid: str, free: str = "0.000000") -> dict[str, str]:
    return {"balanceDecimal": paid, "freeCreditBalance": free, "currency": "USD"}


async def test_the_balance_is_told_at_first_and_when_it_has_changed(database: Database) -> None:
    credits_, watchers = Credits(database), Watchers()
    user_id = await make_user(database, "10")
    watch, watcher = BalanceWatch(credits_, watchers), build_watcher(user_id)
    with watchers.admit(watcher):
        await watch.tell()
        await watch.tell()
        assert await take_events(watcher) == [("balance-changed", build_payload(TEN))]
        await grant_free(database, user_id, "2")
        hold = build_hold(user_id)
        await credits_.hold(hold)
        await watch.tell()
        assert await take_events(watcher) == [("balance-changed", build_payload(TEN, "2.000000"))]
        await credits_.settle(build_settlement(hold, "0.25"))
        await grant(database, user_id, "1")
        await watch.tell()
        assert await take_events(watcher) == [("balance-changed", build_payload("11.000000", "1.750000"))]


async def test_who_comes_later_is_told_at_first_and_the_others_are_not_told_again(database: Database) -> None:
    watchers, user_id = Watchers(), await make_user(database, "10")
    watch, first, later = BalanceWatch(Credits(database), watchers), build_watcher(user_id), build_watcher(user_id)
    with watchers.admit(first):
        await watch.tell()
        with watchers.admit(later):
            await watch.tell()
            assert await take_events(later) == await take_events(first) == [("balance-changed", build_payload(TEN))]


async def test_nobody_is_asked_for_who_wants_other_events() -> None:
    asked: list[list[UUID]] = []
    watchers, watcher = Watchers(), build_watcher(ANN, "device-status")
    watch = BalanceWatch(build_credits(asked.append), watchers)
    with watchers.admit(watcher):
        await watch.tell()
    assert asked == []
    assert await take_events(watcher) == []


async def test_nothing_is_read_while_nobody_watches_and_an_outage_is_outwaited(autojump_clock: MockClock) -> None:
    asked: list[list[UUID]] = []

    def ask(users: list[UUID]) -> None:
        asked.append(users)
        if len(asked) == 1:
            raise DatabaseUnavailable("away")

    watchers, watcher = Watchers(), build_watcher()
    watch = BalanceWatch(build_credits(ask), watchers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.keep_telling)
        await trio.sleep(10 * ROUND_SECONDS)
        assert asked == []
        with watchers.admit(watcher):
            await trio.sleep(2.5 * ROUND_SECONDS)
        asked_by_then = len(asked)
        await trio.sleep(10 * ROUND_SECONDS)
        nursery.cancel_scope.cancel()
    assert asked_by_then == 3 == len(asked)
    assert [name for name, _ in await take_events(watcher)] == ["balance-changed"]


def build_credits(ask: Callable[[list[UUID]], object]) -> Credits:
    class Asked:
        async def balances(self, users: list[UUID]) -> dict[UUID, Balance]:
            ask(users)
            return dict.fromkeys(users, Balance(1, 0))  # type: ignore[arg-type] # whole dollars will do

    return Asked()  # type: ignore[return-value] # it stands where PostgreSQL would be asked
